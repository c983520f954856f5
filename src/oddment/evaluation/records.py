"""What an evaluation consists of: each image judged, each class, the figures of the whole."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from oddment.results import Detection, Rejection

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from oddment.metrics import Interval, PixelResult
    from oddment.scorer import Scored, Scorer

__all__ = ["ClassFigures", "Evaluation", "Example", "Judged"]


@dataclass(frozen=True, slots=True)
class Judged:
    """One test image, its truth and the verdict on it.

    Args:
        result: the verdict, or why there is none.
        is_anomaly: the truth.
        label: its class.
    """

    result: Detection | Rejection
    is_anomaly: bool
    label: str

    @property
    def score(self) -> float:
        """The anomaly score; NaN for a rejected file."""
        return self.result.anomaly_score if isinstance(self.result, Detection) else math.nan

    @property
    def outcome(self) -> str:
        """What the verdict is called: found, missed, passed, false alarm or rejected."""
        if isinstance(self.result, Rejection):
            return "rejected"
        if self.is_anomaly:
            return "found" if self.result.is_anomaly else "missed"
        return "false alarm" if self.result.is_anomaly else "passed"


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """One class; ranking figures are an anomaly class's against all normal images, and undefined for normal classes.

    Args:
        label: the class.
        is_anomaly: whether it is anomalous.
        total: its images in the test set.
        flagged: those above the threshold.
        rejected: those that could not be scored.
        rate: flagged of the scored: found anomalies, or false alarms.
        auroc: area under the ROC curve.
        average_precision: likewise.
    """

    label: str
    is_anomaly: bool
    total: int
    flagged: int
    rejected: int
    rate: Interval
    auroc: Interval
    average_precision: Interval


@dataclass(frozen=True, slots=True)
class Example:
    """One image with what the model made of it, kept for the figures."""

    judged: Judged
    scored: Scored


@dataclass(slots=True)
class Evaluation:
    """What a model is worth on a labelled set.

    Args:
        data: name of the set.
        description: of the set, in words.
        scorer: the model.
        judged: every test image in order, rejected ones included.
        figures: name → figure with its interval: auroc, average_precision, f1, best_f1, tpr, fpr, precision, accuracy.
        best_threshold: where F1 is best, found with the labels.
        classes: each class.
        pixels: what the anomaly maps are worth; None without masks.
        unmasked: anomalies without a mask, left out of the pixel figures.
        notes: what a reader should know, in sentences.
        latents: (index of the image, latent) of a sample.
        examples: the best and worst reconstructions of either kind: (is_anomaly, "low" or "high") → examples.
        resamples: bootstrap resamples behind the intervals.
    """

    data: str
    description: str
    scorer: Scorer
    judged: list[Judged]
    figures: dict[str, Interval] = field(default_factory=dict)
    best_threshold: float = math.nan
    classes: list[ClassFigures] = field(default_factory=list)
    pixels: PixelResult | None = None
    unmasked: int = 0
    notes: list[str] = field(default_factory=list)
    latents: list[tuple[int, NDArray[np.float32]]] = field(default_factory=list)
    examples: dict[tuple[bool, str], list[Example]] = field(default_factory=dict)
    resamples: int = 0

    @property
    def scored(self) -> list[Judged]:
        """The test images that have a score, in order."""
        return [item for item in self.judged if isinstance(item.result, Detection)]

    @property
    def rejected(self) -> list[Judged]:
        """The test images that have none."""
        return [item for item in self.judged if isinstance(item.result, Rejection)]

    @property
    def scores(self) -> NDArray[np.float64]:
        """Scores of `scored`, float64 (N,)."""
        return np.array([item.score for item in self.scored])

    @property
    def truth(self) -> NDArray[np.bool_]:
        """Truth of `scored`, bool (N,)."""
        return np.array([item.is_anomaly for item in self.scored], dtype=bool)

    def count(self, outcome: Literal["found", "missed", "passed", "false alarm", "rejected"]) -> int:
        """How many images came to that."""
        return sum(item.outcome == outcome for item in self.judged)
