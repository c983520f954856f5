"""What a comparison consists of: an entry for each model and seed, and the standings made of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from oddment.metrics import Interval

__all__ = ["Comparison", "Entry", "Standing", "scores_of"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One model fitted with one seed and scored on the test set.

    Args:
        model: its name.
        seed: of split, start and order.
        scores: one for each test image, in order; None where it was rejected.
        threshold: of the model.
        seconds: to fit.
        images_per_second: scored, reading and preparing included.
        parameters: numbers in the model.
        rejected: training images that could not be used.
        failure: why there is no score; None if all went well.
    """

    model: str
    seed: int
    scores: tuple[float | None, ...] = ()
    threshold: float = 0.0
    seconds: float = 0.0
    images_per_second: float = 0.0
    parameters: int = 0
    rejected: int = 0
    failure: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The entry as JSON-ready data."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {"scores": list(self.scores)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The entry that `as_dict` wrote.

        Raises:
            KeyError: if a field is missing.
        """
        values = {name: data[name] for name in cls.__dataclass_fields__}
        return cls(**{**values, "scores": tuple(data["scores"])})


@dataclass(frozen=True, slots=True)
class Standing:
    """One model over all seeds.

    Args:
        model: its name.
        is_baseline: whether it was named as one.
        seeds: that it was fitted with.
        auroc: mean over the seeds, with an interval over test images and seeds.
        auroc_range: least and largest of the seeds.
        average_precision: likewise, mean and interval.
        tpr: mean share of anomalies above the model's threshold.
        fpr: mean share of normal images above it.
        behind: AUROC of the best minus this one's, paired; None for the best.
        seconds: mean time to fit.
        images_per_second: mean.
        parameters: numbers in the model.
    """

    model: str
    is_baseline: bool
    seeds: tuple[int, ...]
    auroc: Interval
    auroc_range: tuple[float, float]
    average_precision: Interval
    tpr: float
    fpr: float
    behind: Interval | None
    seconds: float
    images_per_second: float
    parameters: int


@dataclass(slots=True)
class Comparison:
    """What came of a comparison.

    Args:
        data: name of the labelled set.
        description: of it, in words.
        entries: each model and seed, failed ones included.
        standings: the models, the best first.
        verdicts: what follows, in sentences.
        notes: what a reader should know.
        paths: name of each test image.
        labels: class of each test image.
        is_anomaly: truth of each test image.
        resamples: bootstrap resamples behind the intervals.
        resumed: entries that an earlier run had left.
    """

    data: str
    description: str
    entries: list[Entry]
    paths: list[str]
    labels: list[str]
    is_anomaly: list[bool]
    standings: list[Standing] = field(default_factory=list)
    verdicts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    resamples: int = 0
    resumed: int = 0

    @property
    def done(self) -> list[Entry]:
        """The entries that did not fail."""
        return [entry for entry in self.entries if entry.failure is None]


def scores_of(entries: Sequence[Entry]) -> NDArray[np.float64]:
    """Return scores float64 (entries, N); NaN where an image was rejected."""
    return np.array([[np.nan if score is None else score for score in entry.scores] for entry in entries], np.float64)
