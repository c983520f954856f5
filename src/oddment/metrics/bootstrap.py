"""How far a figure would move with other test images: the stratified bootstrap, by image or by group.

Images are sorted once; a resample is a vector of weights, and each statistic two cumulative sums over it. All scores
are judged on the same resamples, so that differences between them are paired.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from oddment.errors import ParameterError
from oddment.metrics.ranking import checked
from oddment.metrics.rates import CONFIDENCE, Interval

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

__all__ = ["Resampled", "percentiles", "resample"]


@dataclass(frozen=True, slots=True)
class Resampled:
    """Statistics of M scores over R resamples of the images.

    Args:
        auroc: float64 (R, M).
        average_precision: float64 (R, M).
        f1: float64 (R, M) at the given thresholds; NaN without any.
    """

    auroc: NDArray[np.float64]
    average_precision: NDArray[np.float64]
    f1: NDArray[np.float64]


def resample(
    scores: ArrayLike,
    is_anomaly: ArrayLike,
    *,
    resamples: int = 1000,
    seed: int = 0,
    groups: ArrayLike | None = None,
    thresholds: ArrayLike | None = None,
) -> Resampled:
    """Return what AUROC, average precision and F1 come to on resampled images.

    Normal and anomalous images are drawn apart, with replacement, as many as there are. With groups, whole groups are
    drawn: photographs of one object are no independent evidence.

    Args:
        scores: (N,) or (M, N) anomaly scores, finite: M detectors on the same images.
        is_anomaly: bool (N,), the truth; at least one of each kind.
        resamples: how many; at least 1.
        seed: fixes the draws.
        groups: (N,) which images belong together; each alone when None.
        thresholds: (M,) that F1 is taken at.

    Raises:
        ParameterError: if lengths differ, a score is not finite, or one kind is missing.

    Source:
        Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapters 6 and 8.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> truth = np.arange(400) >= 200
        >>> drawn = resample(rng.normal(truth, 1.0), truth, resamples=200)
        >>> low, high = np.quantile(drawn.auroc, [0.025, 0.975])
        >>> bool(low < 0.76 < high)
        True
    """
    rows = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    truth = [checked(row, is_anomaly)[1] for row in rows][-1]
    if resamples < 1:
        msg = f"resamples must be at least 1; got {resamples}. A usual value is 1000."
        raise ParameterError(msg)
    cuts = np.full(len(rows), np.nan) if thresholds is None else np.asarray(thresholds, dtype=np.float64).ravel()
    rankings = [_Ranking.of(row, truth, cut) for row, cut in zip(rows, cuts, strict=True)]
    values = np.empty((3, resamples, len(rows)))
    for index, weights in enumerate(_weights(truth, groups, resamples, np.random.default_rng(seed))):
        for column, ranking in enumerate(rankings):
            values[:, index, column] = ranking.statistics(weights)
    return Resampled(*values)


def percentiles(value: float, samples: NDArray[np.float64], *, confidence: float = CONFIDENCE) -> Interval:
    """Return a figure with the percentile interval of its resamples; those in which it was undefined are left out."""
    defined = samples[np.isfinite(samples)]
    if not defined.size:
        return Interval(value)
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(low), float(high))


@dataclass(frozen=True, slots=True)
class _Ranking:
    """One detector's images from the highest score down.

    Args:
        order: int (N,), the sort.
        truth: bool (N,), sorted.
        ends: int (U,), the last position of each distinct score.
        flagged: how many lie above the threshold; -1 without one.
    """

    order: NDArray[np.intp]
    truth: NDArray[np.bool_]
    ends: NDArray[np.intp]
    flagged: int

    @classmethod
    def of(cls, scores: NDArray[np.float64], truth: NDArray[np.bool_], threshold: float) -> _Ranking:
        order = np.argsort(-scores, kind="stable")
        ranked = scores[order]
        ends = np.flatnonzero(np.append(ranked[1:] < ranked[:-1], True))
        flagged = -1 if np.isnan(threshold) else int((scores > threshold).sum())
        return cls(order, truth[order], ends, flagged)

    def statistics(self, weights: NDArray[np.float64]) -> tuple[float, float, float]:
        """AUROC, average precision and F1 of images that count `weights` (N,) times each."""
        sorted_weights = weights[self.order]
        anomalous = np.where(self.truth, sorted_weights, 0.0)
        hits, drawn = np.cumsum(anomalous), np.cumsum(sorted_weights)
        n_anomalous, n_normal = hits[-1], drawn[-1] - hits[-1]
        if not n_anomalous or not n_normal:
            return np.nan, np.nan, np.nan
        f1 = np.nan
        if self.flagged >= 0:
            true, flags = (hits[self.flagged - 1], drawn[self.flagged - 1]) if self.flagged else (0.0, 0.0)
            f1 = 2 * true / (flags + n_anomalous)
        hits, drawn = hits[self.ends], drawn[self.ends]
        new_hits = np.diff(hits, prepend=0.0)
        new_alarms = np.diff(drawn, prepend=0.0) - new_hits
        # Above each normal image: the anomalies so far, its equals counted half.
        area = np.dot(new_alarms, hits - new_hits / 2) / (n_anomalous * n_normal)
        precision = np.divide(hits, drawn, out=np.zeros_like(hits), where=drawn > 0)
        return float(area), float(np.dot(new_hits, precision) / n_anomalous), float(f1)


def _weights(
    truth: NDArray[np.bool_], groups: ArrayLike | None, resamples: int, rng: np.random.Generator
) -> Iterator[NDArray[np.float64]]:
    """Yield, for each resample, how often each image was drawn, float64 (N,)."""
    labels = np.arange(len(truth)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1].ravel()
    if len(labels) != len(truth):
        msg = f"groups has {len(labels):,} entries for {len(truth):,} images; give one each."
        raise ParameterError(msg)
    count = int(labels.max()) + 1
    holds_anomaly = np.bincount(labels, weights=truth, minlength=count) > 0
    holds_normal = np.bincount(labels, weights=~truth, minlength=count) > 0
    # Groups of normal images, of anomalies, and of both are drawn apart.
    kinds = [np.flatnonzero(chosen) for chosen in (
        holds_normal & ~holds_anomaly, holds_anomaly & ~holds_normal, holds_anomaly & holds_normal
    )]  # fmt: skip
    for _ in range(resamples):
        drawn = np.zeros(count)
        for members in kinds:
            if members.size:
                picks = rng.integers(0, members.size, members.size)
                drawn[members] = np.bincount(picks, minlength=members.size)
        yield drawn[labels]
