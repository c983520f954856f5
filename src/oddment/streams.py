"""Scores in the order in which the images came: from searches that were made before, or from images just scored."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from oddment.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from oddment.calibration import Calibration
    from oddment.results import Result

__all__ = ["Stream", "read_results"]

_NEEDED = ("path", "status", "anomaly_score", "p_value", "is_anomaly")


@dataclass(frozen=True, slots=True)
class Stream:
    """Scores in the order in which the images came.

    Args:
        paths: name of each scored image.
        scores: float32 (m,).
        rejected: files without a score.
        caveats: what may be wrong with these results, in sentences.
    """

    paths: tuple[str, ...]
    scores: NDArray[np.float32]
    rejected: int = 0
    caveats: tuple[str, ...] = ()

    @classmethod
    def of(cls, results: Iterable[Result]) -> Stream:
        """Return the stream of results that were just made."""
        return cls.of_rows([result.as_row() for result in results])

    @classmethod
    def of_rows(cls, rows: Sequence[Mapping[str, Any]], caveats: tuple[str, ...] = ()) -> Stream:
        """Return the stream of rows of results, those of rejected files left out."""
        scored = [row for row in rows if row["status"] == "scored"]
        scores = np.array([row["anomaly_score"] for row in scored], dtype=np.float32)
        return cls(tuple(str(row["path"]) for row in scored), scores, len(rows) - len(scored), caveats)

    def __add__(self, other: Stream) -> Stream:
        """This stream and, after it, the other."""
        scores = np.concatenate([self.scores, other.scores])
        caveats = tuple(dict.fromkeys((*self.caveats, *other.caveats)))
        return Stream(self.paths + other.paths, scores, self.rejected + other.rejected, caveats)


def read_results(path: Path, calibration: Calibration) -> Stream:
    """Return the stream in a results.csv or results.jsonl that `oddment find` wrote.

    Args:
        path: the file.
        calibration: of the model that scored; where its p-values are others, the stream says so.

    Raises:
        DataError: if it is no such file.
    """
    try:
        rows = list(_csv_rows(path) if path.suffix.lower() == ".csv" else _json_rows(path))
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        msg = f"{path}: not the results of a search ({error}). Give results.csv or results.jsonl of `oddment find`."
        raise DataError(msg) from error
    return Stream.of_rows(rows, _doubts(path, rows, calibration))


def _csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        lacking = [name for name in _NEEDED if name not in (table.fieldnames or ())]
        if lacking:
            msg = f"no column {', '.join(lacking)}"
            raise ValueError(msg)
        for row in table:
            yield _checked(row, is_anomaly=row["is_anomaly"] == "true")


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            yield _checked(row, is_anomaly=bool(row["is_anomaly"]))


def _checked(row: Mapping[str, Any], *, is_anomaly: bool) -> dict[str, Any]:
    kept: dict[str, Any] = {"path": row["path"], "status": row["status"], "is_anomaly": is_anomaly}
    if row["status"] == "scored":
        kept |= {name: float(row[name]) for name in ("anomaly_score", "p_value")}
        if not math.isfinite(kept["anomaly_score"]):
            msg = f"a score of {kept['anomaly_score']}"
            raise ValueError(msg)
    elif row["status"] != "rejected":
        msg = f"status {row['status']!r:.40}"
        raise ValueError(msg)
    return kept


def _doubts(path: Path, rows: list[dict[str, Any]], calibration: Calibration) -> tuple[str, ...]:
    """What looks as if these were not all results of this model."""
    scored = [row for row in rows if row["status"] == "scored"]
    expected = calibration.p_values([row["anomaly_score"] for row in scored])
    doubts = []
    if not np.allclose(expected, [row["p_value"] for row in scored], rtol=0, atol=1e-9):
        doubts.append(
            f"{path} has other p-values than this model gives: it was made with another model, or before a "
            "recalibration. Scores of another model do not compare."
        )
    if len(scored) > 1 and all(row["is_anomaly"] for row in scored):
        doubts.append(
            f"{path} lists anomalies only (--only-anomalies, --top?): a part that was chosen by its scores looks like "
            "drift."
        )
    return tuple(doubts)
