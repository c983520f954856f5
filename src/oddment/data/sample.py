"""The embedded sample: a few thousand digits and articles of clothing, so that nothing needs a network.

MNIST (CC BY-SA 3.0) and Fashion-MNIST (MIT); `files/LICENSES.md` names authors and licences.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Literal, NamedTuple

from PIL import Image

from oddment.data.idx import parse_idx

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Sample", "load_sample", "write_demo"]

SampleName = Literal["mnist-train", "mnist-test", "fashion-test"]
_DEMO_NORMAL, _DEMO_DIGITS, _DEMO_ARTICLES = 3000, 950, 50


class Sample(NamedTuple):
    """Images uint8 (N, 28, 28) and labels uint8 (N,), classes 0..9."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def load_sample(name: SampleName) -> Sample:
    """Return one part of the embedded sample.

    Args:
        name: "mnist-train" (4,000 digits), "mnist-test" (1,000 digits) or "fashion-test" (1,000 articles).

    Example:
        >>> load_sample("mnist-test").images.shape
        (1000, 28, 28)
    """
    folder = files("oddment.data") / "files"
    images, labels = (
        parse_idx((folder / f"{name}-{part}.gz").read_bytes(), name) for part in ("images-idx3", "labels-idx1")
    )
    return Sample(images, labels)


def write_demo(folder: Path) -> tuple[Path, Path]:
    """Write the demonstration's images as PNG files and return the folders of normal and of new ones.

    The new images are 950 digits that the training never sees and, among them, 50 articles of clothing.
    """
    normal, new = folder / "normal", folder / "new"
    train = load_sample("mnist-train").images[:_DEMO_NORMAL]
    digits, articles = load_sample("mnist-test").images, load_sample("fashion-test").images
    _write(normal, "digit", train)
    _write(new, "digit", digits[:_DEMO_DIGITS])
    _write(new, "article", articles[:_DEMO_ARTICLES])
    return normal, new


def _write(folder: Path, name: str, images: NDArray[np.uint8]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{name}-{index:04d}.png")
