"""The data sets that Oddment knows by name: their files, checksums and mirrors, and where they lie on this machine.

A data set is looked for, in this order, in `$ODDMENT_DATA/NAME`, in `NAME` of the user's cache folder, and where Debian
installs it. The checksums are of the *content*: the gzip containers of the same IDX file differ from mirror to mirror.

Source: the sums of the IDX files are those of the originals. Those of DeepWeeds are TensorFlow Datasets' records of the
authors' `labels.csv` and of the two `images.zip` they published (the second is also the one on Zenodo, record 7939060).
"""

from __future__ import annotations

import difflib
import os
import sys
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from oddment.data.idx import parse_idx
from oddment.data.sample import Sample
from oddment.errors import DataError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "CATALOG",
    "FASHION_CLASSES",
    "DataFile",
    "DataSet",
    "cache_folder",
    "data_folders",
    "data_set",
    "file_in",
    "find_folder",
    "folder_of",
    "load_arrays",
    "missing_files",
    "places",
]

Kind = Literal["idx", "deepweeds"]


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file of a data set.

    Args:
        name: as it is stored; an IDX file may also lie there uncompressed, without its `.gz`.
        sha256: of the content (uncompressed); any of these is right.
        n_bytes: of the content; the largest of them.
        urls: the same content, to be tried in turn.
        shape: of the array in an IDX file; empty for others.
    """

    name: str
    sha256: tuple[str, ...]
    n_bytes: int
    urls: tuple[str, ...]
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class DataSet:
    """One data set; `licence` and `source` are what a user should know before downloading `download_mb`."""

    name: str
    title: str
    kind: Kind
    n_images: int
    download_mb: int
    licence: str
    source: str
    files: tuple[DataFile, ...]
    classes: tuple[str, ...]
    elsewhere: tuple[Path, ...] = ()


FASHION_CLASSES: Final = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

# The four files of MNIST, which Fashion-MNIST imitates: name and shape.
_IDX: Final = (
    ("train-images-idx3-ubyte", (60000, 28, 28)),
    ("train-labels-idx1-ubyte", (60000,)),
    ("t10k-images-idx3-ubyte", (10000, 28, 28)),
    ("t10k-labels-idx1-ubyte", (10000,)),
)
_MNIST_SUMS: Final = (
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
)
_FASHION_SUMS: Final = (
    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
)
_MNIST_MIRRORS: Final = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://github.com/fgnt/mnist/raw/master/",
)
_FASHION_MIRRORS: Final = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)


def _idx_files(sums: tuple[str, ...], mirrors: tuple[str, ...]) -> tuple[DataFile, ...]:
    return tuple(
        DataFile(
            f"{name}.gz",
            (digest,),
            4 + 4 * len(shape) + prod(shape),
            tuple(f"{url}{name}.gz" for url in mirrors),
            shape,
        )
        for (name, shape), digest in zip(_IDX, sums, strict=True)
    )


_DEEPWEEDS_FILES: Final = (
    DataFile(
        "labels.csv",
        ("6fb95b89fd9d384f94e185a5cab6c5da7c987649399c90618ecc60acfb0112eb",),
        598_898,
        (
            "https://raw.githubusercontent.com/AlexOlsen/DeepWeeds/master/labels/labels.csv",
            "https://cdn.jsdelivr.net/gh/AlexOlsen/DeepWeeds@master/labels/labels.csv",
        ),
    ),
    DataFile(
        "images.zip",
        (
            "0961f63c01b997bfab1559ad09e99c0e8130617fd96a8b92fdc09940e01b0ce8",  # 491,516,047 bytes
            "d616b33efe097909bdac9623abc5705b59ad11f6796a26a956c1aa5de652f1ba",  # the first edition
        ),
        935_276_050,
        (
            "https://zenodo.org/records/7939060/files/images.zip?download=1",
            "https://drive.usercontent.google.com/download?id=1xnK3B6K6KekDI55vwJ0vnc2IGoDga9cj&export=download&confirm=t",
            "https://nextcloud.qriscloud.org.au/index.php/s/a3KxPawpqkiorST/download",
        ),
    ),
)
_SPECIES: Final = (
    "Chinee apple",
    "Lantana",
    "Parkinsonia",
    "Parthenium",
    "Prickly acacia",
    "Rubber vine",
    "Siam weed",
    "Snake weed",
    "Negative",
)

CATALOG: Final[dict[str, DataSet]] = {
    item.name: item
    for item in (
        DataSet(
            name="mnist",
            title="MNIST: handwritten digits, 28×28",
            kind="idx",
            n_images=70_000,
            download_mb=12,
            licence="CC BY-SA 3.0",
            source="LeCun, Cortes, Burges: The MNIST database of handwritten digits",
            files=_idx_files(_MNIST_SUMS, _MNIST_MIRRORS),
            classes=tuple("0123456789"),
        ),
        DataSet(
            name="fashion-mnist",
            title="Fashion-MNIST: articles of clothing, 28×28",
            kind="idx",
            n_images=70_000,
            download_mb=31,
            licence="MIT",
            source="Xiao, Rasul, Vollgraf: Fashion-MNIST, arXiv:1708.07747",
            files=_idx_files(_FASHION_SUMS, _FASHION_MIRRORS),
            classes=FASHION_CLASSES,
            elsewhere=(Path("/usr/share/datasets/fashion-mnist"),),
        ),
        DataSet(
            name="deepweeds",
            title="DeepWeeds: photographs of Australian weeds, 256×256",
            kind="deepweeds",
            n_images=17_509,
            download_mb=492,
            licence="CC BY 4.0",
            source="Olsen et al.: DeepWeeds, Scientific Reports 9, 2058 (2019)",
            files=_DEEPWEEDS_FILES,
            classes=_SPECIES,
        ),
    )
}


def data_set(name: str) -> DataSet:
    """Return the data set of this name, in any case.

    Raises:
        ParameterError: if there is none.

    Example:
        >>> data_set("MNIST").n_images
        70000
    """
    found = CATALOG.get(name.lower())
    if found is None:
        close = difflib.get_close_matches(name.lower(), CATALOG, n=1)
        guess = f" Did you mean {close[0]}?" if close else ""
        msg = f"{name!r} is no data set that Oddment knows: {', '.join(CATALOG)}.{guess}"
        raise ParameterError(msg)
    return found


def cache_folder() -> Path:
    """Return where downloads go: `$XDG_CACHE_HOME/oddment`, else the platform's own cache folder."""
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path there is to be ignored.
    if chosen and Path(chosen).is_absolute():
        return Path(chosen) / "oddment"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "oddment"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "oddment" / "Cache"
    return Path.home() / ".cache" / "oddment"


def data_folders() -> tuple[Path, ...]:
    """Return the folders that hold data sets, each in a folder of its name: `$ODDMENT_DATA` if set, then the cache."""
    chosen = os.environ.get("ODDMENT_DATA", "")
    return (Path(chosen).absolute(), cache_folder()) if chosen else (cache_folder(),)


def places(wanted: DataSet) -> tuple[Path, ...]:
    """Return every folder in which the data set is looked for, the first first."""
    return (*(folder / wanted.name for folder in data_folders()), *wanted.elsewhere)


def file_in(folder: Path, file: DataFile) -> Path | None:
    """Return where the file lies in the folder, compressed or not; None if it does not."""
    names = (file.name, file.name.removesuffix(".gz"))
    return next((folder / name for name in names if (folder / name).is_file()), None)


def missing_files(wanted: DataSet, folder: Path) -> tuple[str, ...]:
    """Return the names of the files that the folder lacks; a folder `images/` stands for `images.zip`."""
    return tuple(file.name for file in wanted.files if file_in(folder, file) is None and not _unpacked(folder, file))


def _unpacked(folder: Path, file: DataFile) -> bool:
    return file.name.endswith(".zip") and (folder / file.name.removesuffix(".zip")).is_dir()


def find_folder(wanted: DataSet) -> Path | None:
    """Return the first place that holds every file of the data set; None if none does."""
    return next((place for place in places(wanted) if not missing_files(wanted, place)), None)


def folder_of(wanted: DataSet) -> Path:
    """Return the first place that holds every file of the data set.

    Raises:
        DataError: if none does; says where was looked, what lacks there and how to get it.
    """
    found = find_folder(wanted)
    if found is None:
        lines = "".join(f"\n  {line}" for line in _looked_in(wanted))
        msg = (
            f"{wanted.name} is not on this machine. Download it with `oddment data get {wanted.name}` "
            f"({wanted.download_mb} MB), or put its files into one of these folders:{lines}"
        )
        raise DataError(msg)
    return found


def _looked_in(wanted: DataSet) -> Iterator[str]:
    for place in places(wanted):
        state = f"lacks {', '.join(missing_files(wanted, place))}" if place.is_dir() else "does not exist"
        yield f"{place} ({state})"


def load_arrays(name: str, part: Literal["train", "test"], *, folder: Path | None = None) -> Sample:
    """Return one half of an IDX data set: images uint8 (N, 28, 28) and labels uint8 (N,).

    Args:
        name: "mnist" or "fashion-mnist".
        part: "train" (60,000) or "test" (10,000).
        folder: where its files lie; found if not given.

    Raises:
        ParameterError: if `name` is no IDX data set.
        DataError: if it is not on this machine, or its files are damaged or do not belong together.
    """
    wanted = data_set(name)
    if wanted.kind != "idx":
        msg = f"{wanted.name} consists of photographs, not of IDX files; use oddment.data.deepweeds."
        raise ParameterError(msg)
    folder = folder or folder_of(wanted)
    images, labels = (_array(folder, file) for file in (wanted.files[:2] if part == "train" else wanted.files[2:]))
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        msg = f"{folder}: images {images.shape} and labels {labels.shape} of the {part} half do not belong together."
        raise DataError(msg)
    return Sample(images, labels)


def _array(folder: Path, file: DataFile) -> NDArray[np.uint8]:
    path = file_in(folder, file)
    if path is None:
        msg = f"{folder / file.name} does not exist. Download it with `oddment data get`."
        raise DataError(msg)
    return parse_idx(path.read_bytes(), str(path))
