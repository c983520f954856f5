"""The journal and the tables made from it."""

from __future__ import annotations

import csv
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from oddment.errors import DataError, MissingExtraError
from oddment.results import COLUMNS, Detection, Region, Rejection
from oddment.tables import Journal, Line, Totals, csv_row, ranked_rows, require_parquet, write_tables

if TYPE_CHECKING:
    from pathlib import Path

ABOUT = {"model": "m", "threshold": 0.5}


def detection(path: str, score: float, **more: Any) -> Detection:
    """A detection of that score."""
    known = {"threshold": 0.5, "p_value": 0.25, "is_anomaly": score > 0.5, "size": (632, 312)}
    return Detection(path=path, anomaly_score=score, **(known | more))


RESULTS = [
    detection("a.png", 0.25),
    Rejection(path="b.png", reason="empty file (0 bytes)"),
    detection('with "quotes", commas\nand lines.png', 0.75, regions=(Region(1, 2, 3, 4, 0.9),)),
    detection("\N{SLICE OF PIZZA}.png", 0.75),
    detection("bad-\udcff.png", 0.1),
]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """A journal of five rows, closed."""
    made = Journal(tmp_path / "j.jsonl", ABOUT)
    for result in RESULTS:
        made.add(Line.of(result))
    made.close()
    return made


def test_ranks_give_equal_scores_to_the_earlier(journal: Journal) -> None:
    """The highest score has rank 1, of equals the earlier comes first, a rejected row has none."""
    assert [row["rank"] for row, _ in ranked_rows(journal, lambda _: True)] == [3, None, 1, 2, 4]
    assert [row["rank"] for row, _ in ranked_rows(journal, lambda row: row["rank"] == 2)] == [2]


def test_rows_come_with_their_json(tmp_path: Path) -> None:
    """The text of a row is what writing it anew would give, whatever its name looks like, and judged or not."""
    journal = Journal(tmp_path / "j.jsonl", ABOUT)
    for name in ('"rank": null,', '\\"rank\\": null,.png', "\\", "\u2028.png", "bad-\udcff.png"):
        journal.add(Line.of(detection(name, 0.5)))
        journal.add(Line.of(Rejection(path=name, reason='no "rank": null, here')))
    journal.close()
    for judge in (None, lambda row: row.update(is_anomaly=True, rule="fdr=0.1")):
        found = list(ranked_rows(journal, lambda _: True, judge=judge))
        assert [text for _, text in found] == [json.dumps(row) for row, _ in found]
        assert [row["rank"] for row, _ in found if row["status"] == "scored"] == [1, 2, 3, 4, 5]


def test_totals() -> None:
    """Totals count scored, anomalous and rejected rows; without any there are no ranks."""
    totals = Totals()
    assert totals.ranks().tolist() == []
    totals.add(0.5, is_anomaly=False)
    totals.add(2.5, is_anomaly=True)
    totals.add(None, is_anomaly=False)
    assert (totals.scored, totals.anomalies, totals.rejected) == (2, 1, 1)
    assert totals.ranks().tolist() == [2, 1]


def test_tables_agree_and_keep_every_bit(journal: Journal, tmp_path: Path) -> None:
    """CSV, JSON lines and Parquet hold the same rows; scores come back exactly, names whatever they are."""
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    score = float(np.nextafter(np.float32(0.1), np.float32(1)))
    again = Journal(journal.path, ABOUT, resume=True)
    again.add(Line.of(detection("last.png", score)))
    again.close()
    written = write_tables(tmp_path, lambda: ranked_rows(again, lambda _: True), parquet=True)
    assert [path.name for path in written] == ["results.csv", "results.jsonl", "results.parquet"]
    lines = [json.loads(line) for line in written[1].read_text(encoding="utf-8").splitlines()]
    with written[0].open(newline="", encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    packed = pq.read_table(written[2]).to_pylist()
    assert len(lines) == len(cells) == len(packed) == 6
    assert lines[-1]["anomaly_score"] == float(cells[-1]["anomaly_score"]) == packed[-1]["anomaly_score"] == score
    for line, row in zip(lines[:4], packed[:4], strict=True):
        assert tuple(line) == COLUMNS
        assert row == line
    assert cells[2]["path"] == lines[2]["path"] == 'with "quotes", commas\nand lines.png'
    assert cells[4]["path"] == packed[4]["path"] == "bad-\\udcff.png"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "j.jsonl", "results.csv", "results.jsonl", "results.parquet",
    ]  # fmt: skip


def test_csv_cells() -> None:
    """Nothing is an empty cell, a size reads 632x312, a verdict true or false, regions are JSON."""
    row = dict(zip(COLUMNS, csv_row(RESULTS[2].as_row()), strict=True))
    assert row["is_anomaly"] == "true"
    assert row["size"] == "632x312"
    assert json.loads(row["regions"]) == [{"box": [1, 2, 3, 4], "peak": 0.9}]
    rejected = dict(zip(COLUMNS, csv_row(RESULTS[1].as_row()), strict=True))
    assert rejected == dict.fromkeys(COLUMNS, "") | {
        "path": "b.png", "status": "rejected", "reason": "empty file (0 bytes)",
    }  # fmt: skip


def test_a_failed_table_leaves_the_old_one(journal: Journal, tmp_path: Path) -> None:
    """A table is replaced whole or not at all, and no temporary file stays."""
    write_tables(tmp_path, lambda: ranked_rows(journal, lambda _: True))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def broken() -> Any:
        yield from list(ranked_rows(journal, lambda _: True))[:1]
        msg = "disk trouble"
        raise OSError(msg)

    with pytest.raises(OSError, match="disk trouble"):
        write_tables(tmp_path, broken, parquet=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


class TestJournal:
    """The one file that must survive a kill."""

    @pytest.mark.parametrize("torn", [b"", b"{", b'{"path": "x"', b"\xff" * 100_000])
    def test_a_torn_line_is_cut_off(self, journal: Journal, torn: bytes) -> None:
        """Whatever follows the last line break goes; all whole rows stay and count."""
        whole = journal.path.read_bytes()
        journal.path.write_bytes(whole + torn)
        again = Journal(journal.path, ABOUT, resume=True)
        again.close()
        assert journal.path.read_bytes() == whole
        assert again.resumed == 5
        assert (again.totals.scored, again.totals.anomalies, again.totals.rejected) == (4, 2, 1)

    def test_a_row_answers_once(self, journal: Journal) -> None:
        """A path that has a row is taken once for each row that it has; others never."""
        again = Journal(journal.path, ABOUT, resume=True)
        assert [again.take("a.png"), again.take("a.png"), again.take("c.png")] == [True, False, False]
        assert again.take("bad-\udcff.png")
        again.close()
        new = Journal(journal.path, ABOUT)
        assert not new.take("a.png")
        new.close()

    def test_of_another_run(self, journal: Journal) -> None:
        """A journal of another model or threshold is refused and left as it is."""
        before = journal.path.read_bytes()
        with pytest.raises(DataError, match="another model or threshold"):
            Journal(journal.path, ABOUT | {"threshold": math.pi}, resume=True)
        assert journal.path.read_bytes() == before

    def test_rows_are_on_disk_before_the_end(self, tmp_path: Path) -> None:
        """Rows are handed to the operating system every sixty-four at most."""
        journal = Journal(tmp_path / "j.jsonl", ABOUT)
        for index in range(130):
            journal.add(Line.of(detection(f"{index}.png", 0.5)))
        assert journal.path.read_bytes().count(b"\n") >= 1 + 128
        journal.close()
        assert len(list(journal.rows())) == 130


def test_parquet_without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pyarrow the message says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'oddment\[parquet\]'"):
        require_parquet()
