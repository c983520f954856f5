"""The data block of the page: columns instead of rows, numbers as base64, pictures as one long text."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from oddment.report.html import ReportData
    from oddment.report.pictures import Pictures

__all__ = ["build_payload", "choose_pictures", "picture_texts", "to_script_json"]

_MAX_CALIBRATION = 5_000
# A search over millions leaves millions of other scores: beyond this many the page works with their quantiles.
_MAX_OTHERS = 100_000
# 9.5 MB of pictures are 12.7 MB of base64: with the rows the page stays below 15 MB, whatever the caller passed.
_MAX_PICTURE_BYTES = 9_500_000
_KEYED_AT_ONCE = 500
# Boxes are drawn on pictures only, and more than this many hide what they mark.
_MAX_BOXES = 24


def build_payload(
    data: ReportData, scored: Sequence[Mapping[str, Any]], kept: list[tuple[int, Pictures]]
) -> dict[str, Any]:
    """Everything the page's script needs but the pictures, JSON-ready.

    Args:
        data: the report.
        scored: its scored rows, ranked.
        kept: index into `scored` and pictures, as `picture_texts` lays them out.
    """
    calibration = np.sort(np.asarray(data.calibration_scores, dtype=np.float64))
    others = np.sort(np.asarray(data.other_scores, dtype=np.float64))
    return {
        "key": _key(data, scored),
        "scored": _scored_columns(scored, [index for index, _ in kept]),
        "rejected": [
            [str(row["path"]), str(row["reason"] or ""), row["size"]]
            for row in data.rows
            if row["status"] == "rejected"
        ],
        "pictures": [
            [index, item.width, item.height, *(4 * ((len(blob) + 2) // 3) for blob in _blobs(item))]
            for index, item in kept
        ],
        "calibration": _pack(_quantiles(calibration, _MAX_CALIBRATION), "<f4"),
        "nCalibration": len(calibration),
        "others": _pack(_quantiles(others, _MAX_OTHERS), "<f4"),
        "nOthers": len(others),
        "nScored": data.n_scored,
        "nRejected": data.n_rejected,
        "nAnomalies": data.n_anomalies,
        # Packed like the scores: the page compares the very same float64, and infinity is no JSON.
        "threshold": _pack([data.threshold], "<f8"),
        "targetFpr": data.target_fpr,
        "fdr": data.fdr,
        "audit": data.audit,
        "recompute": data.recompute,
        "explained": data.explanations.payload(scored),
    }


def choose_pictures(
    scored: Sequence[Mapping[str, Any]], pictures: Mapping[str, Pictures], *, beside: int = 0
) -> list[tuple[int, Pictures]]:
    """The pictures that go into the page with their row's index, highest rank first.

    Args:
        scored: the scored rows, ranked.
        pictures: by path.
        beside: bytes of other pictures that go into the page.
    """
    kept: list[tuple[int, Pictures]] = []
    nbytes = beside
    for index, row in enumerate(scored):
        item = pictures.get(row["path"])
        if item is not None and nbytes + item.nbytes <= _MAX_PICTURE_BYTES:
            nbytes += item.nbytes
            kept.append((index, item))
    return kept


def picture_texts(kept: Sequence[tuple[int, Pictures]]) -> Iterator[str]:
    """The base64 of the pictures, to stand end to end."""
    return (base64.b64encode(blob).decode("ascii") for _, item in kept for blob in _blobs(item))


def to_script_json(payload: Mapping[str, Any]) -> Iterator[str]:
    """Compact JSON that cannot end or open anything when it stands inside a script element, a part an entry.

    Columns of ten thousand rows are megabytes, which the whole text would hold several times.
    """
    before = "{"
    for name, value in payload.items():
        text = json.dumps({name: value}, separators=(",", ":"), allow_nan=False)[1:-1]
        yield before + text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
        before = ","
    yield "}"


def _key(data: ReportData, scored: Sequence[Mapping[str, Any]]) -> str:
    """What the browser keeps the reader's marks under: the same for the same results, whenever the page was made."""
    digest = hashlib.sha256(json.dumps([data.model_name, repr(data.threshold), data.n_scored]).encode()[:-1])
    # The text of one list of all rows, never held whole.
    digest.update(b", [")
    for start in range(0, len(scored), _KEYED_AT_ONCE):
        some = [[str(row["path"]), row["anomaly_score"]] for row in scored[start : start + _KEYED_AT_ONCE]]
        digest.update((", " * bool(start) + json.dumps(some)[1:-1]).encode())
    digest.update(b"]]")
    return f"oddment.review.{digest.hexdigest()[:32]}"


def _scored_columns(scored: Sequence[Mapping[str, Any]], pictured: Sequence[int]) -> dict[str, Any]:
    return {
        "names": [str(row["path"]) for row in scored],
        "scores": _pack([row["anomaly_score"] for row in scored], "<f8"),
        "pValues": _pack([_number(row["p_value"]) for row in scored], "<f8"),
        "ranks": _pack([row["rank"] or place for place, row in enumerate(scored, 1)], "<u4"),
        "sizes": _pack([side for row in scored for side in (row["size"] or (0, 0))], "<u4"),
        # The report's own selection, whatever threshold is tried on the page.
        "selected": _pack([bool(row["is_anomaly"]) for row in scored], "|u1"),
        "hashes": [str(row.get("sha256") or "") for row in scored]
        if any(row.get("sha256") for row in scored)
        else None,
        "nRegions": _pack([len(row["regions"]) for row in scored], "<u4"),
        "regions": {
            str(index): [[*region["box"], _json_number(region["peak"])] for region in regions[:_MAX_BOXES]]
            for index in pictured
            if (regions := scored[index]["regions"])
        },
    }


def _blobs(pictures: Pictures) -> tuple[bytes, bytes, bytes]:
    return pictures.original, pictures.reconstruction or b"", pictures.heat_map or b""


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _json_number(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _quantiles(ordered: NDArray[np.float64], at_most: int) -> NDArray[np.float64]:
    """The values themselves, or this many of them evenly spread over the ranks, both ends included."""
    if len(ordered) <= at_most:
        return ordered
    return ordered[np.rint(np.linspace(0, len(ordered) - 1, at_most)).astype(np.intp)]


def _pack(values: Sequence[float] | NDArray[np.float64], dtype: str) -> str:
    return base64.b64encode(np.asarray(values, dtype=dtype).tobytes()).decode("ascii")
