"""The digits and articles that recipes run on: the full sets, or for a quick run the embedded sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from oddment.data.catalog import FASHION_CLASSES, load_arrays
from oddment.data.sample import Sample, load_sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FASHION_CLASSES", "digits", "fashion", "first_of_each", "only"]

Part = Literal["train", "test"]


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
