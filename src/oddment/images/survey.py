"""A look at a sample of the images before any is prepared: how large, gray or colour, how deep."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from oddment.errors import ImageError
from oddment.images.decode import decode
from oddment.images.stream import in_order

if TYPE_CHECKING:
    from collections.abc import Iterable

    from oddment.images.decode import Decoded
    from oddment.images.files import ImageRef

__all__ = ["Survey", "survey"]

_SAMPLE = 128
# A colour photograph's channels differ by more than JPEG's chroma noise on a gray one (about 2 of 255).
_COLOURED = 4 / 255
_COLOURED_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Survey:
    """What a sample of the images looks like.

    Args:
        n_usable: images of the sample that could be decoded.
        width: median width in pixels.
        height: median height.
        same_aspect: whether nine in ten have the median aspect ratio, to 3 %.
        is_colour: whether at least one in twenty has visible colour.
        ranges: values that become 0 and 1, for each pixel type.
        reasons: how often each reason for rejection occurred.
    """

    n_usable: int
    width: int
    height: int
    same_aspect: bool
    is_colour: bool
    ranges: dict[str, tuple[float, float]]
    reasons: dict[str, int]


def survey(refs: Iterable[ImageRef], count: int, *, max_pixels: int) -> Survey:
    """Return what an evenly spaced sample of at most 128 images looks like.

    Args:
        refs: all references.
        count: how many there are.
        max_pixels: larger images are rejected before they are decoded.
    """
    step = max(1, count // _SAMPLE)
    sample = (ref for index, ref in enumerate(refs) if index % step == 0)

    def work(ref: ImageRef) -> tuple[tuple[int, int], float, str, float, float] | ImageError:
        try:
            return _measure(decode(ref.payload, max_pixels=max_pixels, at_least=(64, 64)))
        except ImageError as error:
            return error

    seen, reasons = [], Counter[str]()
    for _, item in in_order(sample, work):
        if isinstance(item, ImageError):
            reasons[str(item)] += 1
        else:
            seen.append(item)
    if not seen:
        return Survey(0, 0, 0, False, False, _ranges([]), dict(reasons))
    sizes = np.array([size for size, *_ in seen], dtype=float)
    width, height = np.median(sizes, axis=0)
    aspects = sizes[:, 0] / sizes[:, 1]
    same = float(np.mean(np.abs(np.log(aspects / np.median(aspects))) < math.log(1.03))) >= 0.9
    coloured = float(np.mean([chroma > _COLOURED for _, chroma, *_ in seen])) >= _COLOURED_SHARE
    values = [(kind, low, high) for _, _, kind, low, high in seen]
    return Survey(len(seen), round(width), round(height), same, coloured, _ranges(values), dict(reasons))


def _measure(decoded: Decoded) -> tuple[tuple[int, int], float, str, float, float]:
    pixels = decoded.pixels
    low, high = float(pixels.min()), float(pixels.max())
    if pixels.ndim == 2:
        return decoded.size, 0.0, pixels.dtype.name, low, high
    full = {"uint8": 255.0, "uint16": 65535.0}.get(pixels.dtype.name, max(high - low, 1e-12))
    chroma = float((pixels.max(axis=2).astype(np.float64) - pixels.min(axis=2)).mean()) / full
    return decoded.size, chroma, pixels.dtype.name, low, high


def _ranges(values: list[tuple[str, float, float]]) -> dict[str, tuple[float, float]]:
    """The value range of each pixel type: 8 bits as they are, deep files by their bit depth, floats as found."""
    ranges = {"uint8": (0.0, 255.0), "uint16": (0.0, 65535.0), "float32": (0.0, 1.0)}
    deep = [high for kind, _, high in values if kind == "uint16"]
    if deep:
        # Ten- to fourteen-bit cameras write into 16-bit files; white is then the top of their own bits.
        bits = next(bits for bits in (8, 10, 12, 14, 16) if max(deep) < 2**bits)
        ranges["uint16"] = (0.0, float(2**bits - 1))
    floats = [(low, high) for kind, low, high in values if kind == "float32"]
    if floats:
        low, high = min(low for low, _ in floats), max(high for _, high in floats)
        if low < 0 or high > 1:
            ranges["float32"] = (low, high if high > low else low + 1)
    return ranges
