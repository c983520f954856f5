"""From an anomaly map to boxes in the pixels of the original image. NumPy only."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from oddment.results import Region

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["MOST_REGIONS", "find_each_regions", "find_regions", "map_peak", "map_peaks"]

MOST_REGIONS = 12
# Boxes are found on a grid at most this fine: specks that nearly touch are one region to a reader.
_GRID = 64
# Values of the maps that are smoothed together: more would leave the cache.
_VALUES_AT_ONCE = 2**17


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
    [found] = find_each_regions([anomaly_map], [size], level, [insist])
    return found


def find_each_regions(
    maps: Sequence[NDArray[np.float32]], sizes: Sequence[tuple[int, int]], level: float, insist: Sequence[bool]
) -> list[tuple[Region, ...]]:
    """Return `find_regions` of each map; maps of one shape are smoothed together."""
    found: list[tuple[Region, ...]] = [()] * len(maps)
    # Smoothing only lowers the peak: many normal images are done here.
    likely = [at for at, item in enumerate(maps) if insist[at] or item.max(initial=0.0) > level]
    for indices, together in _by_shape([maps[at] for at in likely]):
        smoothed, step = _smooth(together)
        peaks = smoothed.max(axis=(1, 2), initial=0.0).tolist()
        for place, coarse, peak in zip(indices, smoothed, peaks, strict=True):
            index = likely[place]
            least = level if peak > level or not insist[index] else peak / 2
            if peak > least:
                found[index] = _boxes(coarse, least, step, together.shape[1:], sizes[index])
    return found


def map_peak(anomaly_map: NDArray[np.float32]) -> float:
    """Return the largest value of the map (h, w) as regions see it, smoothed; what a region level is chosen from."""
    return float(map_peaks([anomaly_map])[0])


def map_peaks(maps: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return `map_peak` of each map, float32 (N,)."""
    peaks = np.empty(len(maps), np.float32)
    for indices, together in _by_shape(maps):
        peaks[indices] = _smooth(together)[0].max(axis=(1, 2), initial=0.0)
    return peaks


def _by_shape(maps: Sequence[NDArray[np.float32]]) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
    """The indices and the stack of the maps of each shape, some thousand values a map and not many more at a time."""
    alike: dict[tuple[int, ...], list[int]] = {}
    for index, item in enumerate(maps):
        alike.setdefault(item.shape, []).append(index)
    for shape, indices in alike.items():
        count = max(1, _VALUES_AT_ONCE // max(1, math.prod(shape)))
        for start in range(0, len(indices), count):
            some = indices[start : start + count]
            yield some, np.stack([maps[index] for index in some])


def _smooth(maps: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
    """Of maps (N, h, w), the mean of each step×step block, then of each 3×3 blocks; and the step.

    There are at most `_GRID` blocks a side. A single bright pixel is noise to a reader; a ninth is left of it.
    """
    height, width = maps.shape[1:]
    step = max(1, math.ceil(max(height, width) / _GRID))
    if step > 1:
        rows, columns = np.arange(0, height, step), np.arange(0, width, step)
        sums = np.add.reduceat(np.add.reduceat(maps, rows, axis=1), columns, axis=2)
        counts = np.diff(rows, append=height)[:, None] * np.diff(columns, append=width)
        maps = (sums / counts).astype(np.float32)
    # Not numpy.pad, which takes ten times as long as all the rest.
    framed = np.empty((len(maps), maps.shape[1] + 2, maps.shape[2] + 2), np.float32)
    framed[:, 1:-1, 1:-1] = maps
    framed[:, 0], framed[:, -1] = framed[:, 1], framed[:, -2]
    framed[:, :, 0], framed[:, :, -1] = framed[:, :, 1], framed[:, :, -2]
    sums = framed[:, :-2] + framed[:, 1:-1]
    sums += framed[:, 2:]
    means = sums[:, :, :-2] + sums[:, :, 1:-1]
    means += sums[:, :, 2:]
    means /= np.float32(9)
    return means, step


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
    numbers: NDArray[np.int64] = np.cumsum(np.bincount(inside[mask]) > 0)
    return numbers[inside] if numbers.size else inside


def _boxes(
    coarse: NDArray[np.float32], level: float, step: int, shape: tuple[int, ...], size: tuple[int, int]
) -> tuple[Region, ...]:
    """The boxes around the connected parts above `level` with the highest peaks, highest first."""
    above = coarse > level
    # Little of most maps is: what lies around it need not be looked at.
    spans = [np.flatnonzero(above.any(axis=axis)) for axis in (1, 0)]
    first_row, first_column = (int(span[0]) for span in spans)
    inside = np.s_[first_row : spans[0][-1] + 1, first_column : spans[1][-1] + 1]
    coarse, labels = coarse[inside], _label(above[inside])
    cells = np.flatnonzero(labels)
    order = cells[np.argsort(labels.ravel()[cells], kind="stable")]
    starts = np.flatnonzero(np.diff(labels.ravel()[order], prepend=0))
    peaks = np.maximum.reduceat(coarse.ravel()[order], starts)
    rows, columns = np.divmod(order, labels.shape[1])
    rows, columns = rows + first_row, columns + first_column
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
