"""Results in a notebook."""

from __future__ import annotations

from oddment.notebook import Results
from oddment.results import Detection, Rejection


def _detection(number: int) -> Detection:
    return Detection(
        path=f"<i>{number}",
        anomaly_score=float(number),
        threshold=28.5,
        p_value=0.1,
        is_anomaly=number > 28,
        size=(8, 8),
    )


def test_a_table_with_the_highest_scores_first() -> None:
    """The table counts all, shows the highest scores, escapes names, and says how many are left out."""
    shown = Results([*map(_detection, range(30)), Rejection(path="b.png", reason="empty file")])._repr_html_()
    assert "30 scored, 1 anomaly, 1 rejected" in shown
    assert shown.index("&lt;i&gt;29") < shown.index("&lt;i&gt;28")
    assert "<i>" not in shown
    assert "11 more" in shown


def test_it_is_a_list() -> None:
    """Whatever took a list takes it: it equals one, and an empty one is shown too."""
    assert Results() == []
    assert "0 scored" in Results()._repr_html_()
