"""Boxes around what stands out, in the pixels of the original image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oddment.regions import MOST_REGIONS, find_regions, map_peak


def blank(height: int, width: int) -> np.ndarray:
    return np.full((height, width), 0.1, np.float32)


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    shape=st.tuples(st.integers(4, 300), st.integers(4, 300)),
    scale=st.sampled_from([0.5, 1.0, 2.5, 7.0]),
)
def test_box_contains_the_blob(data: st.DataObject, shape: tuple[int, int], scale: float) -> None:
    """A planted rectangle gets one box that contains it and is not much larger, at any resolution of the map."""
    height, width = shape
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom, right = data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width))
    anomaly_map = blank(height, width)
    # So bright that one of its pixels lifts the mean of every block around it above the level.
    anomaly_map[top:bottom, left:right] = 1000.0
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    (box,) = find_regions(anomaly_map, size, 1.0)
    x, y = size[0] / width, size[1] / height
    assert box.left <= left * x < right * x <= box.right + 1e-9
    assert box.top <= top * y < bottom * y <= box.bottom + 1e-9
    assert 0 <= box.left < box.right <= size[0]
    assert 0 <= box.top < box.bottom <= size[1]
    step = -(-max(shape) // 64)  # the grid's own width in map pixels; a blob reaches one block further when smoothed
    assert box.left >= (left - 2 * step) * x - 1
    assert box.right <= (right + 2 * step) * x + 1
    assert box.top >= (top - 2 * step) * y - 1
    assert box.bottom <= (bottom + 2 * step) * y + 1
    assert box.peak == pytest.approx(map_peak(anomaly_map))


def test_parts_that_touch_are_one() -> None:
    """Parts that touch at a corner are one region; parts apart are two, highest peak first."""
    anomaly_map = blank(20, 20)
    anomaly_map[1:4, 1:4] = anomaly_map[4:7, 4:7] = 2.0
    anomaly_map[12:17, 12:17] = 3.0
    first, second = find_regions(anomaly_map, (20, 20), 1.1)
    assert (first.left, first.top, first.right, first.bottom, first.peak) == (12, 12, 17, 17, 3.0)
    assert (second.left, second.top, second.right, second.bottom) == (1, 1, 7, 7)


def test_a_single_pixel_is_noise() -> None:
    """Of a single bright pixel a ninth counts; of a 3×3 block everything does."""
    anomaly_map = np.zeros((20, 20), np.float32)
    anomaly_map[5, 5] = 9.0
    assert map_peak(anomaly_map) == pytest.approx(1.0)
    assert find_regions(anomaly_map, (20, 20), 1.01) == ()
    anomaly_map[4:7, 4:7] = 9.0
    assert map_peak(anomaly_map) == 9.0


@pytest.mark.parametrize("shape", [(5, 7), (64, 64), (65, 200), (333, 128)])
def test_a_constant_map_keeps_its_value(shape: tuple[int, int]) -> None:
    """Smoothing is a mean everywhere, at the edges and in last blocks that are cut short too."""
    assert map_peak(np.full(shape, 3.0, np.float32)) == pytest.approx(3.0)


def test_the_peak_decides() -> None:
    """A map has a region without insistence exactly if its smoothed peak is above the level."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        anomaly_map = rng.random((30, 40)).astype(np.float32)
        peak = map_peak(anomaly_map)
        assert find_regions(anomaly_map, (40, 30), peak) == ()
        assert find_regions(anomaly_map, (40, 30), np.nextafter(np.float32(peak), np.float32(0)))


def test_winding_region_is_one() -> None:
    """A spiral, whose ends are far apart along the path, is one region."""
    anomaly_map = np.zeros((60, 60), np.float32)
    x, y, dx, dy, length = 30, 30, 1, 0, 6
    while length < 56:
        for _ in range(2):
            for _ in range(length):
                anomaly_map[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2] = 2.0
                x, y = x + dx, y + dy
            dx, dy = -dy, dx
            length += 3
    assert len(find_regions(anomaly_map, (60, 60), 1.5)) == 1


def test_most_regions() -> None:
    """At most twelve boxes come back, those of the highest peaks."""
    anomaly_map = blank(50, 50)
    for number in range(20):
        row, column = 10 * (number // 5), 10 * (number % 5)
        anomaly_map[row + 2 : row + 5, column + 2 : column + 5] = 2 + number
    boxes = find_regions(anomaly_map, (50, 50), 1.0)
    assert [box.peak for box in boxes] == [float(21 - rank) for rank in range(MOST_REGIONS)]


def test_insist() -> None:
    """An anomaly without a pixel above the level is boxed above half of its own peak; a blank map never is."""
    anomaly_map = blank(12, 12)
    anomaly_map[2:5, 5:9] = 0.9
    assert find_regions(anomaly_map, (24, 24), 1.0) == ()
    (box,) = find_regions(anomaly_map, (24, 24), 1.0, insist=True)
    assert (box.left, box.top, box.right, box.bottom) == (10, 4, 18, 10)
    assert find_regions(np.zeros((10, 10), np.float32), (10, 10), 1.0, insist=True) == ()


def test_insist_changes_nothing_above_the_level() -> None:
    """Where the map lies above the level, insisting finds the same boxes."""
    anomaly_map = blank(20, 20)
    anomaly_map[1:4, 1:4], anomaly_map[12:15, 12:15] = 5.0, 3.0
    found = find_regions(anomaly_map, (20, 20), 1.0)
    assert len(found) == 2
    assert find_regions(anomaly_map, (20, 20), 1.0, insist=True) == found


@pytest.mark.parametrize("level", [np.inf, 1e9])
def test_unreachable_level(level: float) -> None:
    """A level that nothing reaches, as of a model without calibration, gives no region."""
    assert find_regions(blank(5, 5), (5, 5), level) == ()
