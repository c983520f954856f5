"""From an anomaly map to boxes in the pixels of the original image. NumPy only."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from oddment.results import Region

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MOST_REGIONS", "find_regions", "map_peak"]

MOST_REGIONS = 12
# Boxes are found on a grid at most this fine: specks that nearly touch are one region to a reader.
_GRID = 64


def find_regions(
    anomaly_map: NDArray[np.float32], size: tuple[int, int], level: float, *, insist: bool = False
) -> tuple[Region, ...]:
    """Return boxes around the connected parts of the map above `level`, highest peak first, at most 12.

    Args:
        anomaly_map: float32 (h, w) that covers the whole image at any resolution.
        size: width and height of the original image.
        level: map value above which a pixel belongs to a region.
        insist: when nothing lies above `level`, box what lies above half of the map's own peak instead; for an image
            that is an anomaly by its mean, where the highest part still is the place to look.
    """
    # Smoothing only lowers the peak: most normal images are done here.
    if not insist and float(anomaly_map.max(initial=0.0)) <= level:
        return ()
    coarse, step = _smooth(anomaly_map)
    peak = float(coarse.max(initial=0.0))
    if peak <= level:
        if not insist or peak <= 0:
            return ()
        level = peak / 2
    labels = _label(coarse > level)
    boxes = [
        _box(coarse, labels == number, step, anomaly_map.shape, size) for number in range(1, int(labels.max()) + 1)
    ]
    return tuple(sorted(boxes, key=lambda region: -region.peak)[:MOST_REGIONS])


def map_peak(anomaly_map: NDArray[np.float32]) -> float:
    """Return the largest value of the map (h, w) as regions see it, smoothed; what a region level is chosen from."""
    return float(_smooth(anomaly_map)[0].max(initial=0.0))


def _smooth(anomaly_map: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
    """The mean of each step×step block, at most `_GRID` blocks a side, then of each 3×3 blocks; and the step.

    A single bright pixel is noise to a reader; what is left of it here is a ninth.
    """
    step = max(1, math.ceil(max(anomaly_map.shape) / _GRID))
    if step > 1:
        edges = [np.arange(0, length, step) for length in anomaly_map.shape]
        sums = np.add.reduceat(np.add.reduceat(anomaly_map, edges[0], axis=0), edges[1], axis=1)
        counts = [np.diff(np.append(edge, length)) for edge, length in zip(edges, anomaly_map.shape, strict=True)]
        anomaly_map = (sums / (counts[0][:, None] * counts[1][None])).astype(np.float32)
    framed = np.pad(anomaly_map, 1, mode="edge")
    rows = framed[:-2] + framed[1:-1] + framed[2:]
    return (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / np.float32(9), step


def _label(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Number the 8-connected parts of a mask from 1; 0 is outside.

    Every cell takes the largest number of its neighbourhood until none changes; a grid of 64×64 settles in a few dozen
    rounds of nine array operations, which needs no image library.
    """
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        framed = np.pad(labels, 1)
        rows = np.maximum(np.maximum(framed[:-2], framed[2:]), framed[1:-1])
        spread = np.maximum(np.maximum(rows[:, :-2], rows[:, 2:]), rows[:, 1:-1]) * mask
        if np.array_equal(spread, labels):
            break
        labels = spread
    # Not numpy.unique, which imports all of numpy.ma: 15 ms of a cold start.
    numbers = np.flatnonzero(np.bincount(labels[mask]))
    return np.searchsorted(numbers, labels) * mask + mask if numbers.size else labels


def _box(
    coarse: NDArray[np.float32], inside: NDArray[np.bool_], step: int, shape: tuple[int, ...], size: tuple[int, int]
) -> Region:
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    scale_x, scale_y = size[0] / shape[1], size[1] / shape[0]
    return Region(
        left=int(columns[0] * step * scale_x),
        top=int(rows[0] * step * scale_y),
        right=min(size[0], math.ceil((columns[-1] + 1) * step * scale_x)),
        bottom=min(size[1], math.ceil((rows[-1] + 1) * step * scale_y)),
        peak=float(coarse[inside].max()),
    )
