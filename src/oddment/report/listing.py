"""What a report lists of a search, collected while its rows pass by on their way into the tables."""

from __future__ import annotations

from array import array
from operator import itemgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oddment.report.pictures import Pictures

__all__ = ["Listing"]

_MOST_ROWS, _MOST_REJECTIONS = 10_000, 2_000
_SHOWN = ("path", "status", "anomaly_score", "p_value", "is_anomaly", "rank", "size", "regions")


class Listing:
    """What a report lists of the rows that the tables get: the highest ranks, some rejected files, other scores.

    Args:
        pictures: of the report, by path.

    Attributes:
        rejected: rows of rejected files, the first so many.
        others: the scores of images below the ranks that are listed.
    """

    def __init__(self, pictures: Mapping[str, Pictures]) -> None:
        self.pictures = pictures
        self.rejected: list[dict[str, Any]] = []
        self.others = array("f")
        self._shown: list[dict[str, Any]] = []
        self._shared: dict[Any, Any] = {}  # what rows have in common, held once

    def add(self, row: dict[str, Any]) -> None:
        """Take what is shown of a row."""
        if not row["rank"]:
            if len(self.rejected) < _MOST_REJECTIONS:
                self.rejected.append(row)
        # What is listed are the highest ranks, all of them or the first so many.
        elif row["rank"] <= _MOST_ROWS:
            self._shown.append(self._slim(row))
        else:
            self.others.append(row["anomaly_score"])

    def ranked(self) -> list[dict[str, Any]]:
        """Return the rows that are shown, the highest first."""
        return sorted(self._shown, key=itemgetter("rank"))

    def _slim(self, row: dict[str, Any]) -> dict[str, Any]:
        """What is shown of a scored row, boxes only where there is a picture to draw them on: thousands are held."""
        slim = {name: row[name] for name in _SHOWN}
        for name, value in (("status", row["status"]), ("size", tuple(row["size"] or ()))):
            slim[name] = self._shared.setdefault(value, value)
        if row["path"] not in self.pictures:
            slim["regions"] = ()
        if row["is_anomaly"] and row.get("parts"):
            slim["parts"] = row["parts"]
        return slim
