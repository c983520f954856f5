"""How results show themselves in a notebook: a small table, made of text alone."""

from __future__ import annotations

from html import escape

from oddment.results import Detection, Result

__all__ = ["Results"]

_MOST = 20


class Results(list[Result]):
    """A list of results that a notebook shows as a table, the highest scores first, rejected files last.

    Example:
        >>> from oddment.results import Rejection
        >>> "1 rejected" in Results([Rejection(path="a.png", reason="empty file")])._repr_html_()
        True
    """

    def _repr_html_(self) -> str:
        scored = sorted((item for item in self if isinstance(item, Detection)), key=lambda item: -item.anomaly_score)
        rejected = [item for item in self if not isinstance(item, Detection)]
        rows = [
            (item.path, f"{item.anomaly_score:.4g}", f"{item.p_value:.2g}", "anomaly" if item.is_anomaly else "normal")
            for item in scored
        ]
        rows += [(item.path, "", "", f"rejected: {item.reason}") for item in rejected]
        anomalies = sum(item.is_anomaly for item in scored)
        what = "anomaly" if anomalies == 1 else "anomalies"
        counts = f"{len(scored):,} scored, {anomalies:,} {what}, {len(rejected):,} rejected"
        more = f"<p>… and {len(rows) - _MOST:,} more.</p>" if len(rows) > _MOST else ""
        head = "".join(f"<th>{name}</th>" for name in ("image", "anomaly score", "p-value", "verdict"))
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows[:_MOST])
        return f"<p>{counts}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"
