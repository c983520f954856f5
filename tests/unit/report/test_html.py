"""The file of a report: one piece, escaped, bounded."""

import base64
import dataclasses
import hashlib
import json
import math
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oddment.report import Explanations, Pictures, ReportData, write_report
from oddment.results import Detection, Region, Rejection

NASTY = "</script><script>alert(1)</script><!--<script>&amp;'\".png"


def _detection(rank: int, path: str) -> dict[str, Any]:
    return Detection(
        path=path,
        anomaly_score=1.0 / rank,
        threshold=0.5,
        p_value=0.1,
        is_anomaly=rank < 2,
        size=(640, 480),
        regions=(Region(1, 2, 30, 40, float("nan")),),
        rank=rank,
    ).as_row()


def _data(names: list[str], **changes: Any) -> ReportData:
    rows = [_detection(rank, name) for rank, name in enumerate(names, 1)]
    data = ReportData(
        title="A search",
        model_name="tiles",
        created=datetime(2026, 3, 4, 5, 6, tzinfo=UTC),
        version="1.2.3",
        rows=[*rows, Rejection(path="broken.png", reason=NASTY).as_row()],
        pictures={},
        n_scored=len(names),
        n_rejected=1,
        n_anomalies=1,
        other_scores=np.zeros(0, np.float32),
        calibration_scores=np.linspace(0, 1, 100, dtype=np.float32),
        threshold=0.5,
        rule="a fixed rule",
        target_fpr=0.01,
        card={"Model": {"Family": "dense"}},
    )
    return dataclasses.replace(data, **changes)


def _written(path: Path, data: ReportData) -> str:
    write_report(path, data)
    return path.read_text(encoding="utf-8")


def _payload(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    payload: dict[str, Any] = json.loads(found[1])
    return payload


def test_names_cannot_leave_their_place(tmp_path: Path) -> None:
    """Markup in names, reasons, titles, notes and cards stays text, and comes back unchanged from the data."""
    nasty = {"title": NASTY, "model_name": NASTY, "rule": NASTY, "notes": [NASTY], "card": {NASTY: {NASTY: NASTY}}}
    text = _written(tmp_path / "r.html", _data([NASTY, "\udcff.png", "🧱.png"], **nasty))
    assert text.count("<script") == 3
    assert text.count("</script>") == 3
    assert "<!--" not in text
    payload = _payload(text)
    assert payload["scored"]["names"] == [NASTY, "\udcff.png", "🧱.png"]
    assert payload["rejected"] == [["broken.png", NASTY, None]]


def test_policy_allows_only_the_style_and_script_of_the_page(tmp_path: Path) -> None:
    """The policy names the very hashes of the inlined style and script, and nothing from elsewhere."""
    text = _written(tmp_path / "r.html", _data(["a.png"]))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    for pattern in (r"<style>(.*?)</style>", r"<script>(.*?)</script>"):
        found = re.search(pattern, text, re.DOTALL)
        assert found is not None
        assert base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode() in policy[1]
    assert not re.search(r'(src|href)="(?!#|data:)', text)


def test_numbers_survive_exactly(tmp_path: Path) -> None:
    """Scores and the threshold are the same float64 on the page."""
    payload = _payload(
        _written(
            tmp_path / "r.html",
            _data(["a", "b", "c"], threshold=1 / 3, pictures={"a": Pictures(b"1", None, None, 1, 1)}),
        )
    )
    scores = np.frombuffer(base64.b64decode(payload["scored"]["scores"]), "<f8")
    assert scores.tolist() == [1.0, 1 / 2, 1 / 3]
    assert np.frombuffer(base64.b64decode(payload["threshold"]), "<f8")[0] == 1 / 3
    assert payload["scored"]["regions"]["0"] == [[1, 2, 30, 40, None]]


def test_explanations_are_data_and_take_their_room_from_the_pictures(tmp_path: Path) -> None:
    """Examples and parts of scores stand in the data block, whatever their names, and count as pictures do."""
    shown = Explanations(
        examples=((NASTY, b"x" * 4_000_000),), similar={"b": (0,)}, parts={"b": {"mse": 1.5}, "a": {"mse": math.inf}}
    )
    pictures = dict.fromkeys(["a", "b"], Pictures(b"1" * 3_000_000, None, None, 1, 1))
    text = _written(tmp_path / "r.html", _data(["a", "b"], explanations=shown, pictures=pictures))
    payload = _payload(text)
    assert payload["explained"]["examples"][0][0] == NASTY
    assert payload["explained"]["similar"] == {"1": [0]}
    assert payload["explained"]["parts"] == {"1": [["mse", 1.5]]}
    assert [entry[0] for entry in payload["pictures"]] == [0]
    assert text.count("<script") == 3


def test_file_stays_below_15_mb_whatever_comes(tmp_path: Path) -> None:
    """Ten thousand rows, far too many pictures and a million scores: the highest ranks keep their pictures."""
    names = [f"some/folder/of/usual/length/image_{index:06d}.png" for index in range(10_000)]
    picture = Pictures(b"x" * 7_000, b"y" * 6_000, b"z" * 5_000, 224, 168)
    scores = np.random.default_rng(0).random(1_000_000).astype(np.float32)
    data = _data(names, pictures=dict.fromkeys(names, picture), other_scores=scores, calibration_scores=scores)
    text = _written(tmp_path / "r.html", data)
    assert (tmp_path / "r.html").stat().st_size < 15_000_000
    payload = _payload(text)
    assert [entry[0] for entry in payload["pictures"]] == list(range(9_500_000 // 18_000))
    calibration = np.frombuffer(base64.b64decode(payload["calibration"]), "<f4")
    assert len(calibration) == 5_000
    assert (calibration[0], calibration[-1]) == (scores.min(), scores.max())


def test_pictures_can_be_cut_out_again(tmp_path: Path) -> None:
    """The lengths in the data cut the one long text into the pictures it was made of."""
    pictures = {"a": Pictures(b"12345", None, b"heat", 5, 4), "b": Pictures(b"1", b"re", b"", 5, 4)}
    text = _written(tmp_path / "r.html", _data(["a", "c", "b"], pictures=pictures))
    found = re.search(r'id="pictures">(.*?)</script>', text)
    assert found is not None
    start, blobs = 0, []
    for _, _, _, *lengths in _payload(text)["pictures"]:
        for length in lengths:
            blobs.append(base64.b64decode(found[1][start : start + length]))
            start += length
    assert blobs == [b"12345", b"", b"heat", b"1", b"re", b""]
    assert start == len(found[1])


def test_failed_write_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the file cannot be put in place, the old one stays and no temporary file remains."""
    path = tmp_path / "r.html"
    path.write_text("old")

    def fail(self: Path, target: Path) -> None:
        raise OSError(f"no room to move {self} to {target}")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no room"):
        write_report(path, _data(["a"]))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("threshold", [float("inf"), float("-inf"), 0.0])
def test_any_threshold_is_valid_json(tmp_path: Path, threshold: float) -> None:
    """An infinite threshold is no JSON number; it is packed instead."""
    payload = _payload(_written(tmp_path / "r.html", _data(["a"], threshold=threshold)))
    assert np.frombuffer(base64.b64decode(payload["threshold"]), "<f8")[0] == threshold
