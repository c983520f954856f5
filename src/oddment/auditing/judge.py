"""Which images of an audit are selected, and what is promised of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from oddment.errors import ParameterError
from oddment.selection import benjamini_hochberg

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Chosen", "Rule", "choose_images"]


@dataclass(frozen=True, slots=True)
class Rule:
    """How images are selected.

    Args:
        kind: "fdr", "quantile", "top" or "threshold".
        value: the rate, the quantile, the number, the score.

    Raises:
        ParameterError: if the value breaks the rule of its kind.
    """

    kind: Literal["fdr", "quantile", "top", "threshold"] = "fdr"
    value: float = 0.1

    def __post_init__(self) -> None:
        """Check the value."""
        if self.kind in ("fdr", "quantile") and not 0 < self.value < 1:
            msg = f"{self.kind} must lie strictly between 0 and 1; got {self.value:g}."
            raise ParameterError(msg)
        if self.kind == "top" and self.value < 1:
            msg = f"top must be at least 1; got {self.value:g}."
            raise ParameterError(msg)
        if not np.isfinite(self.value):
            msg = f"{self.kind} must be a finite number; got {self.value}."
            raise ParameterError(msg)

    @property
    def label(self) -> str:
        """The rule as the tables of results name it."""
        return f"{self.kind}={self.value:g}"


@dataclass(frozen=True, slots=True)
class Chosen:
    """What was selected.

    Args:
        rule: how.
        selected: bool (n,).
        threshold: every selected score is above it, and no other one is.
        reference: how many known normal images gave the p-values; 0 where these are estimates.
    """

    rule: Rule
    selected: NDArray[np.bool_]
    threshold: float
    reference: int

    @property
    def count(self) -> int:
        """Selected images."""
        return int(self.selected.sum())

    def describe(self) -> str:
        """The rule, and what it promises, in sentences."""
        kind, value = self.rule.kind, self.rule.value
        if kind == "fdr" and self.reference:
            return (
                f"Benjamini-Hochberg over all images of the audit, on conformal p-values from {self.reference:,} "
                f"known to be normal: of those selected, at most {value:g} are normal ones on average. Each p-value "
                "is valid by itself; that the rate follows is proven where one model gives all scores, and here each "
                "of several scores a part."
            )
        if kind == "fdr":
            return (
                f"Benjamini-Hochberg over all images of the audit: of those selected, about {value:g} are normal ones "
                "as far as the scores of normal images go on as their bulk does. That is an estimate and not a "
                "promise: nobody has said which images are normal. With images known to be normal, given with "
                "--reference, p-values need no such guess."
            )
        told = {
            "quantile": f"the {1 - value:.3g} of the images with the highest scores",
            "top": f"the {value:g} highest scores",
            "threshold": f"scores above {value:g}, as asked",
        }
        return f"{told[kind][0].upper()}{told[kind][1:]}: nothing is promised of them."


def choose_images(
    scores: NDArray[np.float64], p_values: NDArray[np.float64], rule: Rule, *, reference: int = 0
) -> Chosen:
    """Return which images the rule selects.

    Args:
        scores: float64 (n,).
        p_values: float64 (n,), falling as scores rise.
        rule: the rule.
        reference: how many known normal images gave the p-values.
    """
    if rule.kind == "threshold":
        selected = scores > rule.value
        return Chosen(rule, selected, rule.value, reference)
    if rule.kind == "fdr":
        selected = benjamini_hochberg(p_values, rule.value)
    else:
        count = rule.value if rule.kind == "top" else np.floor((1 - rule.value) * len(scores) + 1e-9)
        order = np.argsort(-scores, kind="stable")
        selected = np.zeros(len(scores), dtype=bool)
        if count >= 1:
            # Equal scores share one fate.
            selected = scores >= scores[order[min(int(count), len(scores)) - 1]]
    return Chosen(rule, selected, _between(scores, selected), reference)


def _between(scores: NDArray[np.float64], selected: NDArray[np.bool_]) -> float:
    """The highest score that is not selected, or, with all selected, one just below the lowest."""
    if not selected.all():
        return float(scores[~selected].max())
    return float(np.nextafter(scores.min(), -np.inf)) if scores.size else 0.0
