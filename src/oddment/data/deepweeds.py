"""DeepWeeds as its authors publish it, and images that only look like it, for tests on a machine without the real ones.

The layout: a folder with `labels.csv` (Filename, Label 0..8, Species) and either `images.zip` or a folder `images/`. An
image that the table lists and that is not there becomes a reference with its reason; none is left out in silence.

Source: Olsen et al., DeepWeeds: A Multiclass Weed Species Image Dataset for Deep Learning, Scientific Reports 9, 2058
(2019); images and labels CC BY 4.0. The lookalikes are drawn, not derived from them.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from oddment.data.catalog import CATALOG, folder_of
from oddment.errors import DataError, ImageError, ParameterError
from oddment.images.references import MAX_MEMBER_BYTES, ImageRef, damaged, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["COUNTS", "SPECIES", "DeepWeeds", "Weed", "class_id", "make_lookalike", "open_deepweeds", "read_labels"]

SPECIES: Final = CATALOG["deepweeds"].classes
"""The names of the classes 0..8, as labels.csv writes them."""

COUNTS: Final = (1125, 1064, 1031, 1022, 1062, 1009, 1074, 1016, 9106)
"""How many images of each class the published labels.csv lists."""

_COLUMNS: Final = ("Filename", "Label", "Species")


@dataclass(frozen=True, slots=True)
class Weed:
    """One row of labels.csv."""

    filename: str
    label: int
    species: str


@dataclass(frozen=True, slots=True)
class DeepWeeds:
    """The data set as it lies on this machine.

    Args:
        folder: holds labels.csv.
        images: the folder or the zip archive with the images.
        rows: labels.csv, in its order.
        missing: the files that it lists and that are not there.
    """

    folder: Path
    images: Path
    rows: tuple[Weed, ...]
    missing: tuple[str, ...]

    def select(self, classes: Iterable[str | int] = SPECIES) -> tuple[Weed, ...]:
        """Return the rows of these classes, given by id or by name in any case, in the table's order.

        Raises:
            ParameterError: if one is no class.
        """
        wanted = {class_id(name) for name in classes}
        return tuple(row for row in self.rows if row.label in wanted)

    def refs(self, rows: Sequence[Weed]) -> tuple[ImageRef, ...]:
        """Return a reference for every row. From an archive the files' bytes are read now, undecoded: 28 kB each."""
        lost = set(self.missing)
        if self.images.is_dir():
            return tuple(
                self._lost(row) if row.filename in lost else ImageRef(printable(str(path)), path)
                for row, path in ((row, self.images / row.filename) for row in rows)
            )
        with zipfile.ZipFile(self.images) as archive:
            members = _members(archive)
            return tuple(
                self._lost(row) if row.filename in lost else self._member(archive, members[row.filename])
                for row in rows
            )

    def _lost(self, row: Weed) -> ImageRef:
        return ImageRef(
            printable(str(self.folder / row.filename)),
            ImageError(f"listed in labels.csv, missing in {self.images.name}"),
        )

    def _member(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> ImageRef:
        name = f"{printable(str(self.images))}!/{printable(member.filename)}"
        if member.file_size > MAX_MEMBER_BYTES:
            return ImageRef(name, ImageError(f"{member.file_size:,} bytes exceed the limit of {MAX_MEMBER_BYTES:,}"))
        try:
            return ImageRef(name, archive.read(member))
        except Exception as error:  # noqa: BLE001 - zipfile raises whatever its parser stumbles over
            return ImageRef(name, damaged("member of the archive", error))


def open_deepweeds(folder: Path | None = None) -> DeepWeeds:
    """Return the data set in a folder, or where `oddment data path deepweeds` finds it.

    Raises:
        DataError: if labels.csv is missing or wrong, or there are no images at all.
    """
    folder = folder or folder_of(CATALOG["deepweeds"])
    rows = read_labels(folder / "labels.csv")
    unpacked, archive = folder / "images", folder / "images.zip"
    if unpacked.is_dir():
        images, names = unpacked, {path.name for path in unpacked.iterdir()}
    elif archive.is_file():
        images, names = archive, _names(archive)
    else:
        msg = (
            f"{folder} holds labels.csv and neither images.zip nor images/. Download the images with "
            f"`oddment data get deepweeds --to {folder.parent}` ({CATALOG['deepweeds'].download_mb} MB)."
        )
        raise DataError(msg)
    missing = tuple(row.filename for row in rows if row.filename not in names)
    if len(missing) == len(rows):
        msg = f"{images} holds none of the {len(rows):,} images that labels.csv lists, such as {rows[0].filename}."
        raise DataError(msg)
    return DeepWeeds(folder, images, rows, missing)


def _names(archive: Path) -> set[str]:
    try:
        with zipfile.ZipFile(archive) as opened:
            return set(_members(opened))
    except Exception as error:
        msg = f"{archive}: not a zip archive, or damaged ({error}). Download it again."
        raise DataError(msg) from error


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files in the archive by their last name: the published one is flat, others have a folder inside."""
    return {PurePosixPath(info.filename).name: info for info in archive.infolist() if not info.is_dir()}


def read_labels(path: Path) -> tuple[Weed, ...]:
    """Return the rows of a labels.csv.

    Raises:
        DataError: if it cannot be read, lacks a column or holds a row that breaks the format; names the line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            lacking = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if lacking:
                msg = f"{path}: lacks the column {' and '.join(lacking)}; its header must be Filename,Label,Species."
                raise DataError(msg)
            rows = tuple(_row(path, reader.line_num, row) for row in reader)
            _refuse_twice(path, rows)
    except FileNotFoundError as error:
        msg = f"{path} does not exist. Download it with `oddment data get deepweeds`, or put it there."
        raise DataError(msg) from error
    except (csv.Error, UnicodeDecodeError) as error:
        msg = f"{path}: not a CSV file in UTF-8 ({error})."
        raise DataError(msg) from error
    if not rows:
        msg = f"{path}: lists no image."
        raise DataError(msg)
    return rows


def _refuse_twice(path: Path, rows: Sequence[Weed]) -> None:
    twice = [name for name, count in Counter(row.filename for row in rows).items() if count > 1]
    if twice:
        msg = f"{path}: lists {len(twice):,} images more than once, such as {twice[0]}. Each may have one class only."
        raise DataError(msg)


def _row(path: Path, line: int, row: Mapping[str, str | None]) -> Weed:
    filename, label, species = (row[name] or "" for name in _COLUMNS)
    # A name and nothing else: the table may not lead out of its folder.
    if not filename or PurePosixPath(filename.replace("\\", "/")).name != filename:
        msg = f"{path}, line {line}: Filename must be the name of a file; got {filename!r}."
        raise DataError(msg)
    if not label.isdecimal() or int(label) >= len(SPECIES):
        msg = f"{path}, line {line}: Label must be 0..{len(SPECIES) - 1}; got {label!r}."
        raise DataError(msg)
    return Weed(filename, int(label), species or SPECIES[int(label)])


def class_id(name: str | int) -> int:
    """Return the number of a class given by number or by name, in any case.

    Raises:
        ParameterError: if there is no such class.

    Example:
        >>> class_id("rubber VINE"), class_id("5")
        (5, 5)
    """
    text = str(name).strip()
    if text.isdecimal() and int(text) < len(SPECIES):
        return int(text)
    ids = {species.lower(): index for index, species in enumerate(SPECIES)}
    if text.lower() not in ids:
        known = ", ".join(f"{index} {species}" for index, species in enumerate(SPECIES))
        msg = f"{text!r} is no class of DeepWeeds: {known}."
        raise ParameterError(msg)
    return ids[text.lower()]


def make_lookalike(folder: Path, n: int | Mapping[str | int, int] = 6, *, seed: int = 0, archive: bool = False) -> Path:
    """Draw synthetic images in DeepWeeds' layout and return the folder.

    They are 256×256 JPEGs of leaves and flowers on soil, each class with its own colours and shapes. Equal arguments
    give equal files on one version of Pillow. They say nothing about how well anything works on the real photographs.

    Args:
        folder: to write labels.csv and images/ into; made if it does not exist.
        n: images of each class, or how many of which class (id or name).
        seed: of everything drawn.
        archive: write images.zip, flat as the published one, instead of images/.

    Raises:
        ParameterError: if a class does not exist or a number is negative.
    """
    counts = (
        {class_id(name): count for name, count in n.items()} if isinstance(n, Mapping) else dict.fromkeys(range(9), n)
    )
    if any(count < 0 for count in counts.values()) or not any(counts.values()):
        msg = f"n must be at least one image in all and never negative; got {n}."
        raise ParameterError(msg)
    rows = [(label, index) for label in sorted(counts) for index in range(counts[label])]
    folder.mkdir(parents=True, exist_ok=True)
    if archive:
        with zipfile.ZipFile(folder / "images.zip", "w") as target:
            for label, index in rows:
                # A fixed time: equal arguments give equal files.
                info = zipfile.ZipInfo(_filename(label, index), (2018, 1, 1, 0, 0, 0))
                target.writestr(info, _jpeg(label, index, seed))
    else:
        (folder / "images").mkdir(exist_ok=True)
        for label, index in rows:
            (folder / "images" / _filename(label, index)).write_bytes(_jpeg(label, index, seed))
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows([_COLUMNS, *((_filename(label, index), label, SPECIES[label]) for label, index in rows)])
    return folder


def _filename(label: int, index: int) -> str:
    """Date, time and camera, as the published names: unique, and in the table's order within a class."""
    seconds = 10 * index
    day, clock = divmod(seconds, 86_400)
    hour, rest = divmod(clock, 3600)
    return f"2018{label + 1:02d}{day + 1:02d}-{hour:02d}{rest // 60:02d}{rest % 60:02d}-0.jpg"


def _jpeg(label: int, index: int, seed: int) -> bytes:
    # Drawing brings NumPy and Pillow, which reading the table does not need.
    from oddment.data.plants import draw_plant

    stream = io.BytesIO()
    draw_plant(label, index, seed).save(stream, "JPEG", quality=88)
    return stream.getvalue()
