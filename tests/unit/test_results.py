"""Rows of results: the same columns for every image, JSON-ready."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from oddment.results import COLUMNS, Detection, Region, Rejection

DETECTION = Detection(
    path="a.png",
    anomaly_score=0.5,
    threshold=0.25,
    p_value=0.01,
    is_anomaly=True,
    size=(640, 480),
    regions=(Region(1, 2, 30, 40, 0.75),),
    rank=3,
    rule="target_fpr=0.01",
)


def test_detection_row() -> None:
    """A detection's row has every column, in order, and can be written as JSON without losing anything."""
    row = DETECTION.as_row()
    assert tuple(row) == COLUMNS
    assert json.loads(json.dumps(row, allow_nan=False)) == {
        "path": "a.png",
        "status": "scored",
        "anomaly_score": 0.5,
        "threshold": 0.25,
        "p_value": 0.01,
        "is_anomaly": True,
        "rank": 3,
        "size": [640, 480],
        "regions": [{"box": [1, 2, 30, 40], "peak": 0.75}],
        "reason": None,
        "rule": "target_fpr=0.01",
    }


@pytest.mark.parametrize("size", [None, (3, 4)])
def test_rejection_row(size: tuple[int, int] | None) -> None:
    """A rejection's row has the same columns in the same order; only path, status, size and reason say something."""
    row = Rejection(path="b.png", reason="empty file (0 bytes)", size=size).as_row()
    assert tuple(row) == COLUMNS
    told = {key: value for key, value in row.items() if value is not None}
    expected = {"path": "b.png", "status": "rejected", "regions": [], "reason": "empty file (0 bytes)"}
    assert told == expected | ({"size": [3, 4]} if size else {})
    json.dumps(row)


def test_rows_are_fresh() -> None:
    """Changing a row changes neither the record nor the next row."""
    DETECTION.as_row()["regions"].clear()
    DETECTION.as_row()["size"].clear()
    rejection = Rejection(path="b", reason="c")
    rejection.as_row()["regions"].append(1)
    assert len(DETECTION.as_row()["regions"]) == 1
    assert DETECTION.as_row()["size"] == [640, 480]
    assert rejection.as_row()["regions"] == []


def test_records_are_frozen() -> None:
    """A record cannot be changed, nor get fields that it has not."""
    with pytest.raises(FrozenInstanceError):
        DETECTION.rank = 1  # type: ignore[misc]
    with pytest.raises((AttributeError, TypeError)):
        DETECTION.colour = "red"  # type: ignore[attr-defined]


def test_maps_do_not_decide_equality() -> None:
    """Two detections are equal whether or not they carry their map, which is not printed either."""
    mapped = replace(DETECTION, anomaly_map=np.zeros((480, 640), np.float32))
    assert mapped == DETECTION
    assert repr(mapped) == repr(DETECTION)
    assert replace(DETECTION, anomaly_score=0.6) != DETECTION
