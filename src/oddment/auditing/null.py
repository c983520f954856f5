"""What scores of normal images look like in a folder where nobody has said which images are normal.

Ranks cannot tell: whatever is in the folder, the ranks of its images among each other are uniform, so that conformal
p-values of a folder against itself never let a selection be made. Something must be taken for granted about the tail
that anomalies and the oddest normal images share. Here it is that normal scores are log-normal above a shift, which is
fitted to the bulk of the scores, where anomalies are few.

Source: Efron, "Large-Scale Simultaneous Hypothesis Testing: The Choice of a Null Hypothesis", JASA 99 (2004): an
empirical null from the central part of the statistics. Differs in the family, which is skewed, and in fitting it to
quantiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr, ndtri

from oddment.errors import TooFewImagesError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["LEAST_SCORES", "EmpiricalNull", "fit_null", "p_of"]

LEAST_SCORES = 20
"""Fewer scores than this have no bulk to fit."""

# The part of normal scores that is fitted: below, images may be easy for reasons of their own; above, they may be odd.
_LEVELS = np.linspace(0.1, 0.9, 41)
# The distance of the shift below the lowest fitted quantile, in widths of the bulk: from skewed to a plain Gaussian.
_SHIFTS = np.geomspace(0.1, 100, 61)
_ROUNDS = 12
# Where the share of normal images is looked at: of them, this share lies above.
_TAIL = 0.1
_LEAST_NORMAL = 0.5


@dataclass(frozen=True, slots=True)
class EmpiricalNull:
    """A shifted log-normal distribution of normal scores.

    Args:
        shift: normal scores lie above it.
        mean: of log(score - shift).
        deviation: of the same, above 0.
        normal: estimated share of normal images, in [0.5, 1].
    """

    shift: float
    mean: float
    deviation: float
    normal: float

    def standardise(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Return scores as deviations of the Gaussian that their logarithms follow, float64 (n,), at least -8."""
        above = np.asarray(scores, dtype=np.float64) - self.shift
        z = (np.log(np.maximum(above, 1e-300)) - self.mean) / self.deviation
        return np.maximum(z, -8.0)

    def p_values(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Return the estimated share of normal images that score at least as high, float64 (n,) in (0, 1]."""
        return p_of(self.standardise(scores))


def p_of(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of a standard Gaussian above z, float64 (n,), above 0."""
    return np.asarray(np.maximum(ndtr(-z), np.finfo(np.float64).tiny), dtype=np.float64)


def fit_null(scores: ArrayLike) -> EmpiricalNull:
    """Return the distribution of normal scores, from scores of normal images and some anomalies above them.

    Args:
        scores: (n,) scores, higher is odder.

    Raises:
        TooFewImagesError: if there are fewer than 20.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    if ordered.size < LEAST_SCORES:
        msg = (
            f"{ordered.size:,} images are too few to tell what normal scores look like; it takes {LEAST_SCORES:,}. Add "
            "images, or select with --top or --quantile."
        )
        raise TooFewImagesError(msg)
    normal = 1.0
    for _ in range(_ROUNDS):
        found = _fit(ordered, normal)
        above = float((found.p_values(ordered) < _TAIL).mean())
        # A share a of anomalies, all of them up there, makes it a + (1 - a) times the tail.
        normal = float(np.clip((1 - above) / (1 - _TAIL), _LEAST_NORMAL, 1.0))
    return EmpiricalNull(found.shift, found.mean, found.deviation, normal)


def _fit(ordered: NDArray[np.float64], normal: float) -> EmpiricalNull:
    """The straightest line of log(quantile - shift) over normal quantiles, among all shifts."""
    quantiles = np.quantile(ordered, _LEVELS * normal)
    width = float(quantiles[-1] - quantiles[0])
    if width <= 0:
        # More than half of the images have one score, as where most are black: whatever is above it is odd.
        width = max(1e-12, abs(float(quantiles[0])) * 1e-9)
        quantiles = quantiles[0] + np.linspace(0, width, quantiles.size)
    shifts = quantiles[0] - _SHIFTS * width
    logs = np.log(quantiles[None] - shifts[:, None])
    z = ndtri(_LEVELS)
    # Regression of z on the logarithms: its residual is in one unit whatever the shift.
    centred = logs - logs.mean(axis=1, keepdims=True)
    slope = (centred @ (z - z.mean())) / (centred**2).sum(axis=1)
    residual = ((z - z.mean() - slope[:, None] * centred) ** 2).sum(axis=1)
    best = int(np.argmin(residual))
    deviation = 1 / float(slope[best])
    mean = float(logs[best].mean() - deviation * z.mean())
    return EmpiricalNull(float(shifts[best]), mean, deviation, normal)
