"""What a search gives back: one frozen record an image, scored or rejected.

A record is data, never a tensor: the report, the service and the command line receive these and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["COLUMNS", "Detection", "Region", "Rejection", "Result"]

COLUMNS = (
    "path",
    "status",
    "anomaly_score",
    "threshold",
    "p_value",
    "is_anomaly",
    "rank",
    "size",
    "regions",
    "reason",
    "rule",
)
"""The columns of every table of results, in order."""


@dataclass(frozen=True, slots=True)
class Region:
    """A box around one anomalous region, in pixels of the original image as it is displayed (EXIF rotation applied).

    Args:
        left: first column inside the box.
        top: first row inside the box.
        right: first column past the box.
        bottom: first row past the box.
        peak: the largest value of the anomaly map inside the region.
    """

    left: int
    top: int
    right: int
    bottom: int
    peak: float

    def as_dict(self) -> dict[str, Any]:
        """The region as JSON-ready data: box [left, top, right, bottom] and peak."""
        return {"box": [self.left, self.top, self.right, self.bottom], "peak": self.peak}


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """The verdict on one image.

    Args:
        path: the image's name: a file, `archive.zip!/member.png` or `digits.npy[12]`.
        anomaly_score: higher is more anomalous; raw, in the unit of the anomaly map.
        threshold: the image is an anomaly when its score is strictly above this.
        p_value: conformal p-value, in (0, 1]: (1 + number of calibration scores ≥ score) / (n + 1).
        is_anomaly: the verdict.
        size: width and height of the original image in pixels, EXIF rotation applied.
        regions: where, most anomalous first; empty when nothing stands out.
        rank: 1 for the highest score of the search; None until the search has ended.
        rule: what chose the threshold, such as `target_fpr=0.01`, or `fdr=0.1` for a selection over the whole batch.
        similar: the normal training images that it is most like, the likest first; empty unless asked for, or where the
            model file keeps none. Not a column of the tables.
        parts: of a combined score, what each part adds, by name: standard deviations above the mean of held-out normal
            images. In results.jsonl where there are any, and not a column of the other tables.
        anomaly_map: float32 (H, W) over the original image; None unless it was asked for.
    """

    path: str
    anomaly_score: float
    threshold: float
    p_value: float
    is_anomaly: bool
    size: tuple[int, int]
    regions: tuple[Region, ...] = ()
    rank: int | None = None
    rule: str | None = None
    similar: tuple[str, ...] = ()
    parts: Mapping[str, float] = field(default_factory=dict, hash=False)
    anomaly_map: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)

    @property
    def status(self) -> Literal["scored"]:
        """Always "scored"."""
        return "scored"

    def as_row(self) -> dict[str, Any]:
        """The detection as one JSON-ready row with the keys of `COLUMNS`, and "parts" where the score is combined."""
        row = {
            "path": self.path,
            "status": self.status,
            "anomaly_score": self.anomaly_score,
            "threshold": self.threshold,
            "p_value": self.p_value,
            "is_anomaly": self.is_anomaly,
            "rank": self.rank,
            "size": list(self.size),
            "regions": [region.as_dict() for region in self.regions],
            "reason": None,
            "rule": self.rule,
        }
        return row | {"parts": dict(self.parts)} if self.parts else row


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """An image that could not be used, and why.

    Args:
        path: the image's name.
        reason: one sentence a person can act on.
        size: width and height in pixels where the header could be read.
    """

    path: str
    reason: str
    size: tuple[int, int] | None = None

    @property
    def status(self) -> Literal["rejected"]:
        """Always "rejected"."""
        return "rejected"

    def as_row(self) -> dict[str, Any]:
        """The rejection as one JSON-ready row with the keys of `COLUMNS`."""
        row: dict[str, Any] = dict.fromkeys(COLUMNS)
        row.update(path=self.path, status=self.status, reason=self.reason, regions=[])
        row["size"] = None if self.size is None else list(self.size)
        return row


Result = Detection | Rejection
"""One row of results."""
