"""Curves: ROC, precision over recall, loss over epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from oddment.errors import ParameterError
from oddment.plot.style import INK, MUTED, PALETTE, log_scale, new_axes, tidy, title

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

__all__ = ["loss_curves", "precision_recall", "roc"]

Scores = Any
"""(N,) anomaly scores, or a mapping of names to such arrays."""
_STYLES = ("-", "--", "-.", ":")


def roc(
    scores: Scores, is_anomaly: ArrayLike, *, threshold: float | None = None, heading: str | None = "ROC curve"
) -> Figure:
    """Return the share of anomalies found over the share of false alarms.

    Args:
        scores: (N,) anomaly scores, or a mapping of names to such arrays: one curve each.
        is_anomaly: bool (N,), the truth.
        threshold: marked on the curve; for a single one.
        heading: title.

    Raises:
        ParameterError: if lengths differ or one kind of image is missing.
    """
    from sklearn.metrics import roc_auc_score, roc_curve

    figure, axes = new_axes(5.2, 4.8)
    tidy(axes, x="false-positive rate (normal images flagged)", y="true-positive rate (anomalies flagged)")
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=":", label="by chance: 0.500")
    for number, (name, values, truth) in enumerate(_named(scores, is_anomaly)):
        fpr, tpr, _ = roc_curve(truth, values)
        label = f"{name}: {roc_auc_score(truth, values):.3f}"
        axes.plot(fpr, tpr, label=label, **_line(number))
        if threshold is not None:
            at = (np.mean(values[~truth] > threshold), np.mean(values[truth] > threshold))
            _mark(axes, at, f"threshold: {at[1]:.3f} at {at[0]:.3f}")
    _unit_square(axes)
    axes.legend(title="area under the curve", loc="lower right", **_legend())
    title(axes, heading)
    return figure


def precision_recall(
    scores: Scores,
    is_anomaly: ArrayLike,
    *,
    threshold: float | None = None,
    heading: str | None = "Precision and recall",
) -> Figure:
    """Return precision over recall; the dotted line is what chance gives.

    Args:
        scores: (N,) anomaly scores, or a mapping of names to such arrays: one curve each.
        is_anomaly: bool (N,), the truth.
        threshold: marked on the curve; for a single one.
        heading: title.

    Raises:
        ParameterError: if lengths differ or one kind of image is missing.
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve

    figure, axes = new_axes(5.2, 4.8)
    tidy(axes, x="recall (anomalies flagged)", y="precision (flagged images that are anomalies)")
    for number, (name, values, truth) in enumerate(_named(scores, is_anomaly)):
        if not number:
            share = float(truth.mean())
            axes.axhline(share, color=MUTED, linewidth=1, linestyle=":", label=f"by chance: {share:.3f}")
        precision, recall, _ = precision_recall_curve(truth, values)
        label = f"{name}: {average_precision_score(truth, values):.3f}"
        axes.plot(recall, precision, drawstyle="steps-post", label=label, **_line(number))
        flagged = values > (np.inf if threshold is None else threshold)
        if flagged.any():
            at = (float(flagged[truth].mean()), float(truth[flagged].mean()))
            _mark(axes, at, f"threshold: {at[1]:.3f} at {at[0]:.3f}")
    _unit_square(axes)
    axes.legend(title="average precision", loc="best", **_legend())
    title(axes, heading)
    return figure


def loss_curves(
    history: Sequence[Mapping[str, Any]] | Mapping[str, Sequence[float]],
    *,
    log: bool | None = None,
    heading: str | None = "Loss",
) -> Figure:
    """Return losses over epochs.

    Args:
        history: rows with `training_loss` and `validation_loss`, as a model file's info keeps them; or a mapping of
            names to one loss an epoch.
        log: logarithmic axis; when None, where the losses span more than a factor of ten.
        heading: title.

    Raises:
        ParameterError: if there is no epoch.
    """
    curves = dict(history) if isinstance(history, Mapping) else _by_name(history)
    if not any(len(values) for values in curves.values()):
        msg = "history holds no epoch; there is nothing to draw."
        raise ParameterError(msg)
    figure, axes = new_axes()
    tidy(axes, x="epoch", y="loss")
    marker = "o" if max(len(values) for values in curves.values()) <= 40 else ""
    for number, (name, values) in enumerate(curves.items()):
        axes.plot(range(1, len(values) + 1), values, marker=marker, markersize=4, label=name, **_line(number))
    positive = [value for values in curves.values() for value in values if value > 0]
    if log or (log is None and positive and max(positive) > 10 * min(positive)):
        log_scale(axes, "y")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.legend(**_legend())
    title(axes, heading)
    return figure


def _by_name(history: Sequence[Mapping[str, Any]]) -> dict[str, Sequence[float]]:
    return {name: [float(epoch[f"{name}_loss"]) for epoch in history] for name in ("training", "validation")}


def _named(scores: Scores, is_anomaly: ArrayLike) -> list[tuple[str, NDArray[np.float64], NDArray[np.bool_]]]:
    from oddment.metrics.ranking import checked

    items = scores.items() if isinstance(scores, Mapping) else [("this model", scores)]
    return [(str(name), *checked(values, is_anomaly)) for name, values in items]


def _line(number: int) -> dict[str, Any]:
    """Colour and dashes of the n-th line: told apart without colour, too."""
    return {
        "color": PALETTE[number % len(PALETTE)],
        "linestyle": _STYLES[number % len(_STYLES)],
        "linewidth": 2,
        "clip_on": False,
    }


def _legend() -> dict[str, Any]:
    return {"frameon": False, "fontsize": 9, "title_fontsize": 9, "labelcolor": INK}


def _mark(axes: Axes, at: tuple[Any, Any], label: str) -> None:
    axes.plot([at[0]], [at[1]], "o", color=INK, markersize=7, markerfacecolor="white", markeredgewidth=2, zorder=5,
              clip_on=False, label=label)  # fmt: skip


def _unit_square(axes: Axes) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.0)
    axes.set_box_aspect(1)
