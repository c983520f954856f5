"""Which images of one batch to select so that few of the selected are false: false-discovery control. NumPy only.

Source: Benjamini and Hochberg, "Controlling the false discovery rate", JRSS B 57 (1995). That their procedure keeps its
promise on conformal p-values, although all of them lean on the same calibration scores: Bates, Candès, Lei, Romano and
Sesia, "Testing for outliers with conformal p-values", Annals of Statistics 51 (2023), theorem 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from oddment.calibration import p_values
from oddment.errors import ParameterError, TooFewImagesError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from oddment.calibration import Calibration

__all__ = ["Selection", "benjamini_hochberg", "check_fdr", "select"]

# p ≤ fdr·k/m must hold where both are equal on paper: 1/100 and 0.1·1/10 differ in their last bit.
_ROUNDING = 1 + 1e-9


def benjamini_hochberg(p_values: ArrayLike, fdr: float) -> NDArray[np.bool_]:
    """Return which p-values the Benjamini-Hochberg procedure selects, bool (m,).

    With k the largest number for which k of the m p-values are at most fdr·k/m, these k are selected. Equal p-values
    share one fate.

    Args:
        p_values: (m,) p-values in (0, 1].
        fdr: the share of false ones allowed among the selected, on average; in (0, 1).

    Raises:
        ParameterError: if fdr is not in (0, 1).

    Source:
        Benjamini and Hochberg (1995), procedure (1).

    Example:
        >>> benjamini_hochberg([0.01, 0.03, 0.03, 0.5], 0.1).tolist()
        [True, True, True, False]
    """
    _check_rate(fdr)
    p = np.asarray(p_values, dtype=np.float64).ravel()
    ordered = np.sort(p)
    levels = fdr * np.arange(1, p.size + 1) / max(1, p.size) * _ROUNDING
    passed = np.flatnonzero(ordered <= levels)
    return p <= levels[passed[-1]] if passed.size else np.zeros(p.size, dtype=bool)


@dataclass(frozen=True, slots=True)
class Selection:
    """What was selected from one batch, and what is promised of it.

    Args:
        fdr: the share of false ones allowed among the selected, on average.
        threshold: an image of this batch is selected when its score is strictly above this; a calibration score, or the
            highest score of all where nothing is selected.
        selected: images that were selected.
        batch: images that they were selected from.
        n_calibration: calibration images that the p-values lean on.
        n_groups: independent groups among them.
    """

    fdr: float
    threshold: float
    selected: int
    batch: int
    n_calibration: int
    n_groups: int

    @property
    def label(self) -> str:
        """The rule as the tables of results name it."""
        return f"fdr={self.fdr:g}"

    @property
    def fewest(self) -> int:
        """The least number that can be selected at all from such a batch: p-values are never below 1 / (n + 1)."""
        return max(1, math.ceil(round(self.batch / (self.fdr * (self.n_calibration + 1)), 9)))

    def needed_for(self, count: int) -> int:
        """Return how many calibration images would let a selection of `count` images be."""
        return max(1, math.ceil(round(self.batch / (self.fdr * count), 9)) - 1)

    @property
    def expected_false(self) -> float:
        """The most of the selected that are false, on average."""
        return self.fdr * self.selected

    def describe(self) -> str:
        """The rule in one sentence."""
        which = "of those selected" if self.selected else "none was selected; of those it selects"
        return (
            f"Benjamini-Hochberg over the {self.batch:,} images of this search: {which}, at most {self.fdr:g} are "
            "normal ones on average"
        )

    def caveats(self) -> tuple[str, ...]:
        """What limits the selection or weakens its promise, in sentences."""
        return tuple(text for text in (self._coarse(), self._grouped()) if text)

    def _coarse(self) -> str | None:
        if self.fewest == 1 or not self.batch:
            return None
        one, ten = self.needed_for(1), self.needed_for(10)
        also = f", {ten:,} of ten" if self.fewest > 10 else ""
        return (
            f"With {self.n_calibration:,} calibration images no p-value is below {1 / (self.n_calibration + 1):.2g}. "
            f"At fdr={self.fdr:g} a batch of {self.batch:,} images then has none selected, or at least {self.fewest:,} "
            f"together: fewer odd ones than that are missed. {one:,} calibration images would allow a selection of "
            f"one{also}. Or search smaller batches, or use the model's own threshold."
        )

    def _grouped(self) -> str | None:
        if self.n_groups >= self.n_calibration:
            return None
        return (
            f"The {self.n_calibration:,} calibration images come from only {self.n_groups:,} independent groups (near "
            f"duplicates or --groups): the rate of {self.fdr:g} is then an estimate."
        )


def check_fdr(fdr: float, calibration: Calibration) -> None:
    """Check that a selection at this rate can be made at all, whatever the batch.

    Raises:
        ParameterError: if fdr is not in (0, 1).
        TooFewImagesError: if even a batch of anomalies only would have none selected: fdr < 1 / (n + 1).
    """
    _check_rate(fdr)
    n = calibration.scores.size
    needed = math.ceil(round(1 / fdr, 9)) - 1
    if n < needed:
        msg = (
            f"fdr={fdr:g} needs at least {needed:,} calibration images (1/fdr - 1), and for a selection of k from a "
            f"batch of m images m/(fdr k) - 1; the model has {n:,}, so that nothing could ever be selected. Add some "
            "with `oddment recalibrate`, or raise fdr."
        )
        raise TooFewImagesError(msg)


def select(scores: ArrayLike, calibration: Calibration, fdr: float) -> Selection:
    """Return the selection from one batch by the conformal p-values of its scores.

    For normal images that are independent of each other and exchangeable with the calibration images, the expected
    share of normal ones among the selected is at most fdr times the share of normal ones in the batch. The expectation
    is over calibration and batch.

    Args:
        scores: (m,) anomaly scores of the whole batch.
        calibration: the model's calibration.
        fdr: the share of false ones allowed among the selected, on average.

    Raises:
        ParameterError: if fdr is not in (0, 1).
        TooFewImagesError: if there are too few calibration images for any selection.

    Source:
        Bates et al. (2023), section 2.3.
    """
    check_fdr(fdr, calibration)
    batch = np.asarray(scores, dtype=np.float32).ravel()
    chosen = benjamini_hochberg(p_values(batch, calibration.scores), fdr)
    return Selection(
        fdr=fdr,
        threshold=_threshold(batch, chosen, calibration.scores),
        selected=int(chosen.sum()),
        batch=batch.size,
        n_calibration=calibration.scores.size,
        n_groups=calibration.n_groups,
    )


def _threshold(batch: NDArray[np.float32], chosen: NDArray[np.bool_], ordered: NDArray[np.float32]) -> float:
    """The highest calibration score below all selected ones.

    There is one: a p-value of 1 is never selected. And nothing between it and them is left out, since it would have the
    p-value of the lowest selected.
    """
    if not chosen.any():
        return float(max(ordered[-1], batch.max(initial=ordered[-1])))
    return float(ordered[np.searchsorted(ordered, batch[chosen].min(), side="left") - 1])


def _check_rate(fdr: float) -> None:
    if not 0 < fdr < 1:
        msg = f"fdr must lie strictly between 0 and 1; got {fdr:g}. A usual value is 0.1."
        raise ParameterError(msg)
