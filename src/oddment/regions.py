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
    return _boxes(coarse, _label(coarse > level), step, anomaly_map.shape, size)


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
    # Not numpy.pad, which takes ten times as long as all the rest.
    framed = np.empty((anomaly_map.shape[0] + 2, anomaly_map.shape[1] + 2), np.float32)
    framed[1:-1, 1:-1] = anomaly_map
    framed[0], framed[-1] = framed[1], framed[-2]
    framed[:, 0], framed[:, -1] = framed[:, 1], framed[:, -2]
    rows = framed[:-2] + framed[1:-1] + framed[2:]
    return (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / np.float32(9), step


def _label(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Number the 8-connected parts of a mask from 1; 0 is outside.

    Every cell takes the largest number of its neighbourhood, then the number that the cell of that number has by now,
    until none changes: a grid of 64×64 settles in a few rounds of ten array operations, which needs no image library.
    """
    height, width = mask.shape
    framed = np.zeros((height + 2, width + 2), np.int64)
    inside = framed[1:-1, 1:-1]
    np.multiply(np.arange(1, mask.size + 1).reshape(mask.shape), mask, out=inside)
    known = np.zeros(mask.size + 1, np.int64)
    while True:
        rows = np.maximum(np.maximum(framed[:-2], framed[2:]), framed[1:-1])
        known[1:] = (np.maximum(np.maximum(rows[:, :-2], rows[:, 2:]), rows[:, 1:-1]) * mask).ravel()
        spread = known[known[1:]].reshape(mask.shape)
        if np.array_equal(spread, inside):
            break
        inside[:] = spread
    # Not numpy.unique, which imports all of numpy.ma: 15 ms of a cold start.
    numbers = np.flatnonzero(np.bincount(inside[mask]))
    return np.searchsorted(numbers, inside) * mask + mask if numbers.size else inside


def _boxes(
    coarse: NDArray[np.float32], labels: NDArray[np.int64], step: int, shape: tuple[int, ...], size: tuple[int, int]
) -> tuple[Region, ...]:
    """The boxes around the labelled parts with the highest peaks, highest first."""
    cells = np.flatnonzero(labels)
    order = cells[np.argsort(labels.ravel()[cells], kind="stable")]
    starts = np.flatnonzero(np.diff(labels.ravel()[order], prepend=0))
    peaks = np.maximum.reduceat(coarse.ravel()[order], starts)
    rows, columns = np.divmod(order, labels.shape[1])
    ends = [f.reduceat(where, starts) for where in (columns, rows) for f in (np.minimum, np.maximum)]
    scale_x, scale_y = size[0] / shape[1], size[1] / shape[0]
    boxes = []
    for part in np.argsort(-peaks, kind="stable")[:MOST_REGIONS].tolist():
        left, right, top, bottom = (int(end[part]) for end in ends)
        boxes.append(
            Region(
                left=int(left * step * scale_x),
                top=int(top * step * scale_y),
                right=min(size[0], math.ceil((right + 1) * step * scale_x)),
                bottom=min(size[1], math.ceil((bottom + 1) * step * scale_y)),
                peak=float(peaks[part]),
            )
        )
    return tuple(boxes)
