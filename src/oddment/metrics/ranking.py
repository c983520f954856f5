"""What a score is worth before any threshold is chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oddment.errors import ParameterError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["auroc", "average_precision", "best_f1", "checked"]


def auroc(scores: ArrayLike, is_anomaly: ArrayLike) -> float:
    """Return the area under the ROC curve: how often an anomaly scores above a normal image, ties counted half.

    Args:
        scores: (N,) anomaly scores, finite.
        is_anomaly: bool (N,), the truth; at least one of each kind.

    Raises:
        ParameterError: if the lengths differ, a score is not finite, or one kind is missing.

    Example:
        >>> auroc([0.1, 0.4, 0.3, 0.9], [False, False, True, True])
        0.75
    """
    values, truth = checked(scores, is_anomaly)
    # Not scikit-learn's, which takes a second to import: every fit asks for this, and for nothing else of it.
    normal, odd = np.sort(values[~truth]), values[truth]
    below, not_above = (np.searchsorted(normal, odd, side) for side in ("left", "right"))
    return float((below + not_above).mean() / (2 * len(normal)))


def average_precision(scores: ArrayLike, is_anomaly: ArrayLike) -> float:
    """Return the average precision: the mean over the anomalies of the precision at each one's score.

    It depends on the share of anomalies; a random score gives that share.

    Args:
        scores: (N,) anomaly scores, finite.
        is_anomaly: bool (N,), the truth; at least one of each kind.

    Raises:
        ParameterError: as `auroc`.
    """
    from sklearn.metrics import average_precision_score

    values, truth = checked(scores, is_anomaly)
    return float(average_precision_score(truth, values))


def best_f1(scores: ArrayLike, is_anomaly: ArrayLike) -> tuple[float, float]:
    """Return the largest F1 that any threshold gives, and that threshold.

    The threshold is chosen with the labels of the very images it is judged on: an upper bound, not a promise.

    Args:
        scores: (N,) anomaly scores, finite.
        is_anomaly: bool (N,), the truth; at least one of each kind.

    Returns:
        F1 in [0, 1], and a threshold half-way between two scores; above it lies what is flagged.

    Raises:
        ParameterError: as `auroc`.

    Example:
        >>> best_f1([1.0, 2.0, 3.0, 4.0], [False, False, True, True])
        (1.0, 2.5)
    """
    values, truth = checked(scores, is_anomaly)
    order = np.argsort(-values, kind="stable")
    values, truth = values[order], truth[order]
    flagged = np.arange(1, len(values) + 1)
    f1 = 2 * np.cumsum(truth) / (flagged + truth.sum())
    # Equal scores are flagged together: only the last of them is a place to cut.
    is_cut = np.append(values[1:] < values[:-1], True)
    best = int(np.argmax(np.where(is_cut, f1, -1.0)))
    below = values[best + 1] if best + 1 < len(values) else np.nextafter(values[best], -np.inf)
    threshold = (values[best] + below) / 2
    return float(f1[best]), float(threshold if threshold < values[best] else below)


def checked(scores: ArrayLike, is_anomaly: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return scores float64 (N,) and truth bool (N,) after checking them.

    Raises:
        ParameterError: if the lengths differ, a score is not finite, or one kind is missing.
    """
    values = np.asarray(scores, dtype=np.float64).ravel()
    truth = np.asarray(is_anomaly, dtype=bool).ravel()
    if len(values) != len(truth):
        msg = f"scores has {len(values):,} entries and is_anomaly {len(truth):,}; give one each."
        raise ParameterError(msg)
    if not np.isfinite(values).all():
        msg = f"{int((~np.isfinite(values)).sum()):,} scores are not finite; leave out the images that have none."
        raise ParameterError(msg)
    if truth.all() or not truth.any():
        missing = "normal" if truth.all() else "anomalous"
        msg = f"there is no {missing} image among {len(truth):,}; a ranking needs both kinds."
        raise ParameterError(msg)
    return values, truth
