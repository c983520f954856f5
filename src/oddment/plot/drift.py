"""A stream of scores over time, and the bet against its being the old stream."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from oddment.errors import ParameterError
from oddment.plot.style import ANOMALY, CALIBRATION, INK, NORMAL, THRESHOLD, format_number, new_figure, tidy, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

__all__ = ["drift_chart"]

# A point an image up to here; beyond, as many drawn evenly, since more would only blacken the figure.
_MOST_POINTS = 5_000


def drift_chart(
    scores: ArrayLike,
    log10_martingale: ArrayLike,
    *,
    calibration: ArrayLike,
    threshold: float | None = None,
    alpha: float = 0.01,
    alarm_at: int | None = None,
    onset: int | None = None,
    heading: str | None = "Scores in the order in which the images came",
) -> Figure:
    """Return the scores of a stream above the martingale that watches it.

    Args:
        scores: (m,) anomaly scores in order.
        log10_martingale: (m,) from `oddment.drift.log10_capital`.
        calibration: (n,) scores, for a band from their 5 % to their 95 % quantile.
        threshold: dashed line.
        alpha: the alarm line is at log10(1 / alpha).
        alarm_at: index of the image that raised the alarm.
        onset: index of the image at which the change seems to begin.
        heading: title.

    Raises:
        ParameterError: if there is no score or the lengths differ.
    """
    values, path = (np.asarray(item, dtype=np.float64).ravel() for item in (scores, log10_martingale))
    if not values.size or values.size != path.size:
        msg = f"scores and log10_martingale must have one value an image each; got {values.size:,} and {path.size:,}."
        raise ParameterError(msg)
    figure = new_figure(8.4, 5.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    number = np.arange(1, values.size + 1)
    _draw_scores(upper, number, values, np.asarray(calibration, dtype=np.float64).ravel(), threshold)
    title(upper, heading)
    lower.plot(number, path, color=INK, linewidth=1.2)
    lower.axhline(-math.log10(alpha), color=ANOMALY, linestyle="--", linewidth=1.3, label=f"alarm at {1 / alpha:.4g}")
    tidy(lower, x="image", y="martingale, log₁₀")
    for axes in (upper, lower):
        for index, style in ((onset, ":"), (alarm_at, "-")):
            if index is not None:
                axes.axvline(index + 1, color=ANOMALY, linewidth=1.1, linestyle=style)
    lower.legend(frameon=False, fontsize=9, labelcolor=INK, loc="upper left")
    upper.set_xlim(0.5, values.size + 0.5)
    return figure


def _draw_scores(
    axes: Axes,
    number: NDArray[np.int64],
    values: NDArray[np.float64],
    calibration: NDArray[np.float64],
    threshold: float | None,
) -> None:
    tidy(axes, y="anomaly score")
    if calibration.size:
        low, high = np.quantile(calibration, (0.05, 0.95))
        axes.axhspan(low, high, color=CALIBRATION, alpha=0.22, linewidth=0, label="90 % of the calibration scores")
    shown = np.unique(np.linspace(0, values.size - 1, min(values.size, _MOST_POINTS)).astype(np.intp))
    axes.plot(number[shown], values[shown], "o", color=NORMAL, markersize=3, alpha=0.6, markeredgewidth=0)
    if threshold is not None:
        axes.axhline(
            threshold,
            color=THRESHOLD,
            linestyle="--",
            linewidth=1.3,
            label=f"threshold {format_number(threshold)}",
        )
    if calibration.size or threshold is not None:
        axes.legend(frameon=True, framealpha=0.9, edgecolor="none", fontsize=9, labelcolor=INK, loc="upper left")
