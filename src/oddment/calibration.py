"""From held-out normal scores to a threshold, p-values and a promise about false alarms. NumPy only.

Source: split conformal prediction, Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World" (2005); as
p-values for outliers, Bates, Candès, Lei, Romano and Sesia, "Testing for outliers with conformal p-values",
Annals of Statistics 51 (2023). For images that come in groups, one image a group: Dunn, Wasserman and Ramdas,
"Distribution-free prediction sets for two-layer hierarchical models", JASA 118 (2023).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from oddment.errors import ParameterError, TooFewImagesError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "DEFAULT_TARGET_FPR",
    "Calibration",
    "ThresholdRule",
    "conformal_threshold",
    "images_needed",
    "p_values",
    "smallest_target_fpr",
]

DEFAULT_TARGET_FPR = 0.01
RuleKind = Literal["target_fpr", "quantile", "max_normal", "fixed"]
ScoreSet = Literal["calibration", "training"]


def images_needed(target_fpr: float) -> int:
    """Return how many calibration images a `target_fpr` needs: the least n with target_fpr ≥ 1 / (n + 1).

    Args:
        target_fpr: false-alarm rate allowed on normal images, in (0, 1).

    Example:
        >>> images_needed(0.01)
        99
    """
    return math.ceil(_tidy(1 / target_fpr)) - 1


def smallest_target_fpr(n_calibration: int) -> float:
    """Return the smallest false-alarm rate that `n_calibration` images can promise: 1 / (n + 1)."""
    return 1 / (n_calibration + 1)


def conformal_threshold(scores: ArrayLike, target_fpr: float) -> float:
    """Return the threshold whose false-alarm rate on new normal images is at most `target_fpr`.

    It is the k-th smallest score, k = ⌈(n + 1)(1 - target_fpr)⌉. A new normal image, exchangeable with the n
    calibration images, scores strictly above it with probability at most `target_fpr`, whatever the distribution, ties
    included.

    Args:
        scores: (n,) anomaly scores of held-out normal images.
        target_fpr: false-alarm rate allowed, in (0, 1).

    Raises:
        ParameterError: if target_fpr is not in (0, 1).
        TooFewImagesError: if n < 1 / target_fpr - 1; no finite threshold can promise that rate.

    Source:
        Vovk et al. (2005), chapter 2; Bates et al. (2023), section 2.

    Example:
        >>> conformal_threshold(range(1, 100), 0.05)
        95.0
    """
    _check_rate("target_fpr", target_fpr)
    ordered = np.sort(np.asarray(scores, dtype=np.float32).ravel())
    needed = images_needed(target_fpr)
    if ordered.size < needed:
        msg = (
            f"target_fpr={target_fpr:g} needs at least {needed:,} calibration images (1/target_fpr - 1); "
            f"got {ordered.size:,}. Add images or raise target_fpr to {_round_up(smallest_target_fpr(ordered.size)):g}."
        )
        raise TooFewImagesError(msg)
    k = math.ceil(_tidy((ordered.size + 1) * (1 - target_fpr)))
    return float(ordered[max(k, 1) - 1])


def p_values(scores: ArrayLike, calibration_scores: ArrayLike) -> NDArray[np.float64]:
    """Return conformal p-values: (1 + number of calibration scores ≥ score) / (n + 1).

    A small p-value says that few normal images score as high. It is not the probability that the image is an anomaly.

    Args:
        scores: (N,) anomaly scores.
        calibration_scores: (n,) anomaly scores of held-out normal images, in any order.

    Returns:
        float64 (N,) in [1 / (n + 1), 1].

    Source:
        Bates et al. (2023), equation 1.

    Example:
        >>> p_values([0.5, 9.0], [1.0, 2.0, 3.0]).tolist()
        [1.0, 0.25]
    """
    ordered = np.sort(np.asarray(calibration_scores, dtype=np.float32).ravel())
    at_least = ordered.size - np.searchsorted(ordered, np.asarray(scores, dtype=np.float32), side="left")
    return np.asarray((1 + at_least) / (ordered.size + 1), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class ThresholdRule:
    """How a threshold is chosen.

    Args:
        kind: "target_fpr" (conformal), "quantile", "max_normal" or "fixed".
        value: the rate, the quantile, the margin or the threshold itself, in that order of kinds.
        over: the scores that a quantile or maximum is taken over: held-out "calibration" or "training" images.
    """

    kind: RuleKind = "target_fpr"
    value: float = DEFAULT_TARGET_FPR
    over: ScoreSet = "calibration"

    def __post_init__(self) -> None:
        """Check the value against its kind.

        Raises:
            ParameterError: if the kind is unknown or the value breaks its rule.
        """
        if self.kind not in ("target_fpr", "quantile", "max_normal", "fixed"):
            msg = f"rule must be target_fpr, quantile, max_normal or fixed; got {self.kind!r}."
            raise ParameterError(msg)
        if self.over not in ("calibration", "training"):
            msg = f"over must be calibration or training; got {self.over!r}."
            raise ParameterError(msg)
        if self.kind in ("target_fpr", "quantile"):
            _check_rate(self.kind, self.value)
        elif not math.isfinite(self.value):
            name = "margin" if self.kind == "max_normal" else "threshold"
            msg = f"{name} must be a finite number; got {self.value}."
            raise ParameterError(msg)

    @classmethod
    def choose(
        cls,
        *,
        target_fpr: float | None = None,
        quantile: float | None = None,
        max_normal: bool = False,
        margin: float | None = None,
        threshold: float | None = None,
        over: ScoreSet | None = None,
    ) -> ThresholdRule:
        """Return the one rule that was asked for; none given means target_fpr = 0.01.

        Raises:
            ParameterError: if two rules are given, or a margin without max_normal.
        """
        asked: dict[RuleKind, float | None] = {
            "target_fpr": target_fpr,
            "quantile": quantile,
            "max_normal": (margin or 0.0) if max_normal else None,
            "fixed": threshold,
        }
        given = {kind: value for kind, value in asked.items() if value is not None}
        if len(given) > 1:
            msg = f"give one threshold rule, not {len(given)} ({', '.join(given)})."
            raise ParameterError(msg)
        if margin is not None and not max_normal:
            msg = f"margin={margin:g} belongs to max_normal; give both or neither."
            raise ParameterError(msg)
        kind, value = next(iter(given.items()), ("target_fpr", DEFAULT_TARGET_FPR))
        if over is not None and kind in ("target_fpr", "fixed"):
            msg = f"over={over} applies to quantile and max_normal only, not to {kind}."
            raise ParameterError(msg)
        return cls(kind, value, over or ("training" if kind == "max_normal" else "calibration"))

    @property
    def label(self) -> str:
        """The rule as the tables of results name it."""
        over = " over training" if self.kind == "quantile" and self.over == "training" else ""
        return f"{self.kind}={self.value:g}{over}"

    def describe(self) -> str:
        """The rule in one sentence."""
        held = "held-out calibration" if self.over == "calibration" else "training"
        match self.kind:
            case "target_fpr":
                return f"conformal: at most {self.value:g} of new normal images score above it"
            case "quantile":
                return f"the {self.value:g} quantile of the {held} scores; no promise on new images"
            case "max_normal":
                margin = f" plus {self.value:g}" if self.value else ""
                return f"the largest of the {held} scores{margin}; no promise on new images"
            case _:
                return "set by hand; no promise on new images"


@dataclass(frozen=True, slots=True)
class Calibration:
    """Everything that turns a score into a verdict, kept raw in the model file.

    Args:
        scores: float32 (n,) ascending scores of held-out normal images.
        training_scores: float32 (m,) ascending scores of the images that were trained on.
        peaks: float32 (n,) ascending largest smoothed anomaly-map value of each calibration image.
        rule: how the threshold was chosen.
        threshold: the threshold itself.
        n_groups: independent groups that the calibration images come from; n when every image stands alone.
    """

    scores: NDArray[np.float32]
    training_scores: NDArray[np.float32]
    peaks: NDArray[np.float32]
    rule: ThresholdRule
    threshold: float
    n_groups: int

    @classmethod
    def of(
        cls,
        scores: NDArray[np.float32],
        training_scores: NDArray[np.float32],
        peaks: NDArray[np.float32],
        rule: ThresholdRule,
        n_groups: int | None = None,
    ) -> Calibration:
        """Return the calibration that `rule` gives over these scores.

        Raises:
            TooFewImagesError: if the rule needs more scores than there are.
        """
        ordered = [np.sort(np.asarray(values, dtype=np.float32)) for values in (scores, training_scores, peaks)]
        groups = ordered[0].size if n_groups is None else n_groups
        draft = cls(ordered[0], ordered[1], ordered[2], rule, math.nan, groups)
        return draft.with_rule(rule)

    def with_rule(self, rule: ThresholdRule) -> Calibration:
        """Return the same calibration under another rule; nothing is retrained or rescored.

        Raises:
            TooFewImagesError: if the rule needs more scores than there are.
        """
        return replace(self, rule=rule, threshold=self._threshold(rule))

    def _threshold(self, rule: ThresholdRule) -> float:
        if rule.kind == "target_fpr":
            return conformal_threshold(self.scores, rule.value)
        if rule.kind == "fixed":
            return rule.value
        pool = self.scores if rule.over == "calibration" else self.training_scores
        if not pool.size:
            msg = f"{rule.kind} needs {rule.over} scores and the model holds none. Use a fixed threshold."
            raise TooFewImagesError(msg)
        if rule.kind == "quantile":
            return float(np.quantile(pool.astype(np.float64), rule.value))
        return float(pool[-1]) + rule.value

    def p_values(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Conformal p-values of `scores`, float64 (N,)."""
        return p_values(scores, self.scores)

    @property
    def target_fpr(self) -> float | None:
        """The promised false-alarm rate; None when the rule promises none."""
        return self.rule.value if self.rule.kind == "target_fpr" else None

    @property
    def flagged_share(self) -> float:
        """The share of calibration images that the threshold itself would flag."""
        return float(np.mean(self.scores > self.threshold)) if self.scores.size else math.nan

    @property
    def region_level(self) -> float:
        """The anomaly-map value above which a pixel belongs to a region: 1 % of the calibration peaks lie above."""
        if not self.peaks.size:
            return math.inf
        return float(np.quantile(self.peaks, 0.99, method="higher"))

    def caveat(self) -> str | None:
        """What weakens the promise, in one sentence; None when it holds to the letter."""
        if not self.scores.size:
            return (
                "No image was held out: there is no promise about new images, their scores may well lie above those of "
                "the training images, and every p-value is 1."
            )
        if self.target_fpr is None or self.n_groups >= images_needed(self.target_fpr):
            return None
        return (
            f"The {self.scores.size:,} calibration images come from only {self.n_groups:,} independent groups "
            f"(near duplicates or --groups), too few to promise {self.target_fpr:g} for images of a new group: the "
            f"promise then holds down to {_round_up(smallest_target_fpr(self.n_groups)):g}, and "
            f"{self.target_fpr:g} is an estimate."
        )

    def as_dict(self) -> dict[str, Any]:
        """The rule, threshold and group count, JSON-ready; the scores travel as an array of their own."""
        rule = {"kind": self.rule.kind, "value": float(self.rule.value), "over": self.rule.over}
        return {"rule": rule, "threshold": float(self.threshold), "n_groups": int(self.n_groups)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], arrays: Mapping[str, NDArray[np.float32]]) -> Calibration:
        """Return the calibration that `as_dict` and the arrays "scores", "training_scores" and "peaks" describe."""
        rule = data["rule"]
        return cls(
            arrays["scores"],
            arrays["training_scores"],
            arrays["peaks"],
            ThresholdRule(rule["kind"], float(rule["value"]), rule["over"]),
            float(data["threshold"]),
            int(data["n_groups"]),
        )


def _check_rate(name: str, value: float) -> None:
    if not 0 < value < 1:
        msg = f"{name} must lie strictly between 0 and 1; got {value:g}. A usual value is 0.01."
        if name == "quantile":
            msg = f"quantile must lie strictly between 0 and 1; got {value:g}. A usual value is 0.99."
        raise ParameterError(msg)


def _tidy(value: float) -> float:
    """Undo binary rounding (1 / 0.01 - 1 = 99.00000000000001) before a ceiling makes an image of it."""
    return round(value, 9)


def _round_up(rate: float) -> float:
    """The rate rounded up to two digits, so that what an error message advises does suffice."""
    digits = 1 - math.floor(math.log10(rate))
    return float(math.ceil(_tidy(rate * 10.0**digits)) / 10.0**digits)
