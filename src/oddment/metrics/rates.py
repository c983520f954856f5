"""What a verdict is worth: rates at a threshold, each with its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["CONFIDENCE", "Interval", "Outcome", "rate"]

CONFIDENCE = 0.95
"""Of every interval, unless another is asked for."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and the interval that it is believed to lie in.

    Args:
        value: the figure; NaN where it is not defined.
        low: lower end; NaN where there is no interval.
        high: upper end.
    """

    value: float
    low: float = math.nan
    high: float = math.nan

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "–"
        return f"{self.value:.3f}" + ("" if math.isnan(self.low) else f" [{self.low:.3f}, {self.high:.3f}]")

    def as_dict(self) -> dict[str, float | None]:
        """The three numbers, JSON-ready: None for what is not defined."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {name: None if math.isnan(number) else float(number) for name, number in numbers.items()}


def rate(hits: int, total: int, *, confidence: float = CONFIDENCE) -> Interval:
    """Return hits / total with its Clopper–Pearson interval, which covers the true rate at least as often as it says.

    Args:
        hits: how many of them.
        total: of how many; none at all gives an undefined rate.
        confidence: share of repetitions in which the interval holds the true rate.

    Source:
        Clopper and Pearson, "The use of confidence or fiducial limits", Biometrika 26 (1934).

    Example:
        >>> str(rate(0, 100))
        '0.000 [0.000, 0.036]'
    """
    if not total:
        return Interval(math.nan)
    from scipy.stats import binomtest  # half a second, paid only where asked for

    low, high = binomtest(hits, total).proportion_ci(confidence, method="exact")
    return Interval(hits / total, float(low), float(high))


@dataclass(frozen=True, slots=True)
class Outcome:
    """Verdicts against the truth, counted.

    Args:
        true_positives: anomalies that were flagged.
        false_positives: normal images that were flagged.
        false_negatives: anomalies that were not.
        true_negatives: normal images that were not.
    """

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @classmethod
    def at(cls, scores: ArrayLike, is_anomaly: ArrayLike, threshold: float) -> Self:
        """Return the outcome of flagging scores strictly above a threshold."""
        flagged = np.asarray(scores, dtype=np.float64) > threshold
        truth = np.asarray(is_anomaly, dtype=bool)
        pairs = ((flagged & truth), (flagged & ~truth), (~flagged & truth), (~flagged & ~truth))
        return cls(*(int(pair.sum()) for pair in pairs))

    @property
    def total(self) -> int:
        """All images."""
        return self.true_positives + self.false_positives + self.false_negatives + self.true_negatives

    @property
    def tpr(self) -> Interval:
        """The share of anomalies that were flagged (recall)."""
        return rate(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def fpr(self) -> Interval:
        """The share of normal images that were flagged (false-alarm rate)."""
        return rate(self.false_positives, self.false_positives + self.true_negatives)

    @property
    def precision(self) -> Interval:
        """The share of flagged images that are anomalies, at this set's share of anomalies."""
        return rate(self.true_positives, self.true_positives + self.false_positives)

    @property
    def accuracy(self) -> Interval:
        """The share of right verdicts."""
        return rate(self.true_positives + self.true_negatives, self.total)

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall; NaN where there is neither an anomaly nor a flag."""
        wrong = self.false_positives + self.false_negatives
        return 2 * self.true_positives / both if (both := 2 * self.true_positives + wrong) else math.nan
