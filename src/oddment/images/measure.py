"""Plain facts about one picture: size, colour, depth, brightness, contrast, sharpness. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from oddment.images.decode import thumbnail

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from oddment.images.decode import Decoded

__all__ = ["Measures", "measure"]

_SIDE = 256
_DEEPEST = {"uint8": 255.0, "uint16": 65535.0}
# Of the means of red, green and blue, or JPEG's chroma noise on a gray picture would be colour.
_COLOURED = 4 / 255


@dataclass(frozen=True, slots=True)
class Measures:
    """What can be said of a picture without a model.

    Args:
        width: of the original upright picture, in pixels.
        height: likewise.
        colour: whether it has visible colour.
        kind: "uint8", "uint16" or "float32": the type of its pixels.
        brightness: mean of the pixels; of whole numbers as a share of the type's largest value.
        contrast: standard deviation of the same.
        sharpness: share of the contrast that lies in the finest detail of a copy of at most 256 pixels, as log10 of
            the variance of the Laplacian over the variance; -6 for a picture of one colour. Blur makes it small,
            whatever brightness and contrast are; noise makes it large.
    """

    width: int
    height: int
    colour: bool
    kind: str
    brightness: float
    contrast: float
    sharpness: float


def measure(decoded: Decoded) -> Measures:
    """Return the measures of a picture.

    Source of the Laplacian's variance as a measure of focus: Pech-Pacheco et al., "Diatom autofocusing in brightfield
    microscopy", ICPR (2000). Differs in dividing by the picture's own variance.
    """
    pixels = decoded.pixels
    top = _DEEPEST.get(pixels.dtype.name, 1.0)
    step = max(1, min(pixels.shape[:2]) // _SIDE)
    sample = pixels[::step, ::step].astype(np.float64) / top
    small = thumbnail(decoded, _SIDE).astype(np.float32)
    colour = False
    if small.ndim == 3:
        colour = float((small.max(axis=2) - small.min(axis=2)).mean()) / 255 > _COLOURED
        small = small.mean(axis=2)
    return Measures(
        *decoded.size, colour, pixels.dtype.name, float(sample.mean()), float(sample.std()), _sharpness(small)
    )


def _sharpness(gray: NDArray[np.float32]) -> float:
    variance = float(gray.var())
    if min(gray.shape) < 3 or variance < 1e-6:
        return -6.0
    inner = gray[1:-1, 1:-1]
    laplacian = gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:] - 4 * inner
    return float(np.log10(max(float(laplacian.var()) / variance, 1e-6)))
