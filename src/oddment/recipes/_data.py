"""What recipes run on: digits and articles, the embedded ones for a quick run; DeepWeeds, or what looks like it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from oddment.data.catalog import FASHION_CLASSES, load_arrays
from oddment.data.deepweeds import SPECIES, class_id, make_lookalike, open_deepweeds
from oddment.data.sample import Sample, load_sample
from oddment.errors import DataError, ParameterError
from oddment.images.decode import decode

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from oddment.images.files import ImageRef
    from oddment.recipes._base import Call

__all__ = ["FASHION_CLASSES", "Photographs", "digits", "fashion", "first_of_each", "only", "photographs"]

Part = Literal["train", "test"]

_SIDE = 256  # of the photographs
_LOOKALIKE_SIDE = 96  # generated ones prove nothing that is worth an hour of training


def digits(part: Part, *, quick: bool) -> Sample:
    """Return MNIST's 60,000 training or 10,000 test digits; of the embedded sample 4,000 or 1,000.

    Raises:
        DataError: if MNIST is not on this machine and the run is not quick.
    """
    return load_sample("mnist-train" if part == "train" else "mnist-test") if quick else load_arrays("mnist", part)


def fashion(part: Part, *, quick: bool) -> Sample:
    """Return Fashion-MNIST's 60,000 training or 10,000 test articles; of the embedded sample always its 1,000.

    Raises:
        DataError: if Fashion-MNIST is not on this machine and the run is not quick.
    """
    return load_sample("fashion-test") if quick else load_arrays("fashion-mnist", part)


def only(sample: Sample, label: int) -> NDArray[np.uint8]:
    """Return the images of one class, in order."""
    chosen: NDArray[np.uint8] = sample.images[sample.labels == label]
    return chosen


def first_of_each(sample: Sample) -> NDArray[np.uint8]:
    """Return the first image of each class 0..9."""
    return np.stack([only(sample, label)[0] for label in range(10)])


@dataclass(frozen=True, slots=True)
class Photographs:
    """Images of one class with a few of another among them.

    Args:
        images: uint8 (N, H, W, 3).
        odd: bool (N,), which are of the other class.
        names: (N,) of the files.
        classes: name of the normal and of the anomalous class.
        description: what they are, in a sentence.
        real: whether they are photographs; otherwise they were generated.
    """

    images: NDArray[np.uint8]
    odd: NDArray[np.bool_]
    names: list[str]
    classes: tuple[str, str]
    description: str
    real: bool


def photographs(call: Call) -> Photographs:
    """Return DeepWeeds' images for the recipe of that name, shuffled; look-alikes where the real ones are not here.

    Raises:
        ParameterError: if the two classes are one.
        DataError: if a folder is named and holds no DeepWeeds, or a class has no image.
    """
    options = call.options
    wanted = {class_id(options["normal"]): options["normals"], class_id(options["anomaly"]): options["anomalies"]}
    if len(wanted) < 2:
        msg = f"--normal and --anomaly must be two classes; both are {SPECIES[next(iter(wanted))]}."
        raise ParameterError(msg)
    folder = Path(options["data"]) if options["data"] else None
    if not call.quick or folder:
        try:
            return _read(folder, wanted, call.seed, options["size"] or _SIDE, "DeepWeeds", real=True)
        except DataError as error:
            if folder:
                raise
            call.progress.say(f"{str(error).splitlines()[0]} Going on with generated look-alikes.")
    with tempfile.TemporaryDirectory(prefix="oddment-") as scratch:
        made = make_lookalike(Path(scratch) / "deepweeds", dict(wanted.items()), seed=call.seed)
        why = "left out of a quick run" if call.quick else "not on this machine"
        description = f"generated look-alikes of DeepWeeds, not photographs: the real images are {why}"
        return _read(made, wanted, call.seed, options["size"] or _LOOKALIKE_SIDE, description, real=False)


def _read(
    folder: Path | None, wanted: dict[int, int], seed: int, side: int, description: str, *, real: bool
) -> Photographs:
    """The first images of each class that are there, in one random order."""
    found = open_deepweeds(folder)
    lost = set(found.missing)
    rows = [
        row
        for label, count in wanted.items()
        for row in [row for row in found.select([label]) if row.filename not in lost][:count]
    ]
    for label in wanted:
        if not any(row.label == label for row in rows):
            msg = f"{found.folder} holds no image of class {label}, {SPECIES[label]}."
            raise DataError(msg)
    rows = [rows[index] for index in np.random.default_rng(seed).permutation(len(rows))]
    images = np.stack([_photograph(ref, side) for ref in found.refs(rows)])
    normal, anomaly = wanted
    odd = np.array([row.label == anomaly for row in rows])
    counts = f"{int((~odd).sum()):,} {SPECIES[normal]} and {int(odd.sum())} {SPECIES[anomaly]}"
    names = [row.filename for row in rows]
    return Photographs(images, odd, names, (SPECIES[normal], SPECIES[anomaly]), f"{counts}; {description}", real)


def _photograph(ref: ImageRef, side: int) -> NDArray[np.uint8]:
    """uint8 (side, side, 3); DeepWeeds' own images are 256 pixels wide and high, and come back as they are."""
    picture = Image.fromarray(decode(ref.payload, max_pixels=10**7).pixels)
    return np.asarray(picture if picture.size == (side, side) else picture.resize((side, side)), np.uint8)
