"""The promise of a selection: of the selected images, at most fdr × (share of normal images) are normal, on average.

Tolerances. The false-discovery proportion of one repetition lies in [0, 1], so that with mean m its variance is at most
m (1 - m) (Bhatia and Davis 2000). The mean over R independent repetitions has a standard deviation of at most
sqrt(m (1 - m) / R); z = 4 of these are crossed by chance once in 30,000 runs, and seeds are fixed besides.

For continuous scores the mean is not only at most fdr × π0 but equal to it where fdr (n + 1) / m is a whole number
(Marandon, Lei, Mary and Roquain, "Adaptive novelty detection with false discovery rate guarantee", Annals of Statistics
52, 2024): the tests below look at both sides.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from oddment.calibration import Calibration, ThresholdRule
from oddment.selection import benjamini_hochberg, select

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytestmark = pytest.mark.slow

Z = 4.0
REPETITIONS = 1_000
M = 200

DRAWS: dict[str, Any] = {
    "gamma": lambda rng, n: rng.gamma(9, 1 / 9, n),
    "heavy-tailed": lambda rng, n: np.abs(rng.standard_cauchy(n)),
}
TIED: dict[str, Any] = {
    "rounded": lambda rng, n: np.round(rng.gamma(9, 1 / 9, n), 1),
    "mostly zero": lambda rng, n: np.maximum(0, rng.poisson(0.1, n)).astype(float),
}


def tolerance(mean: float, repetitions: int = REPETITIONS) -> float:
    return Z * math.sqrt(mean * (1 - mean) / repetitions)


def calibrated(scores: NDArray[Any]) -> Calibration:
    ordered = np.sort(scores.astype(np.float32))
    return Calibration(ordered, ordered[:0], ordered, ThresholdRule("fixed", 0.0), 0.0, ordered.size)


def discoveries(
    draw: Any, fdr: float, n: int, share: float, *, shrink: float = 1.0, repetitions: int = REPETITIONS
) -> tuple[float, float]:
    """The mean false-discovery proportion and the mean share of anomalies that are found, m = 200."""
    rng = np.random.default_rng(31)
    odd = np.arange(M) < round(share * M)
    false, power = [], []
    for _ in range(repetitions):
        scores = draw(rng, n + M).astype(np.float32)
        batch = np.where(odd, scores[n:] + np.float32(1.5), scores[n:])
        selection = select(batch, calibrated(shrink * scores[:n]), fdr)
        chosen = batch.astype(np.float64) > selection.threshold
        assert chosen.sum() == selection.selected
        false.append((chosen & ~odd).sum() / max(1, chosen.sum()))
        power.append((chosen & odd).sum() / max(1, odd.sum()))
    return float(np.mean(false)), float(np.mean(power))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("fdr", [0.1, 0.2])
@pytest.mark.parametrize("name", DRAWS)
def test_false_discoveries_of_continuous_scores(name: str, fdr: float, share: float) -> None:
    """The mean false-discovery proportion is fdr × (share of normal images), where n allows every level."""
    # fdr (n + 1) / m = 1 and 2: whole numbers.
    measured, _ = discoveries(DRAWS[name], fdr, 1_999, share)
    promised = fdr * (1 - share)
    assert abs(measured - promised) <= tolerance(promised)


@pytest.mark.parametrize("n", [19, 150, 700])
@pytest.mark.parametrize("share", [0.0, 0.2])
def test_false_discoveries_with_few_calibration_images(n: int, share: float) -> None:
    """Too coarse p-values select less; they never break the promise."""
    measured, _ = discoveries(DRAWS["gamma"], 0.1, n, share)
    assert measured <= 0.1 * (1 - share) + tolerance(0.1 * (1 - share))


@pytest.mark.parametrize("share", [0.0, 0.2])
@pytest.mark.parametrize("name", TIED)
def test_false_discoveries_of_tied_scores(name: str, share: float) -> None:
    """Ties never raise the false-discovery rate above fdr × (share of normal images)."""
    measured, _ = discoveries(TIED[name], 0.1, 1_999, share)
    assert measured <= 0.1 * (1 - share) + tolerance(0.1 * (1 - share))


def test_anomalies_are_found() -> None:
    """The promise is not kept by selecting nothing: most plain anomalies are found."""
    _, power = discoveries(DRAWS["gamma"], 0.1, 1_999, 0.2, repetitions=200)
    assert power > 0.9


def test_training_scores_break_the_promise() -> None:
    """Calibrating on images that were trained on, whose scores are lower, breaks it: these tests can fail."""
    measured, _ = discoveries(DRAWS["gamma"], 0.1, 1_999, 0.1, shrink=0.85, repetitions=200)
    assert measured > 0.09 + tolerance(0.09, 200)


def test_one_procedure_in_two_words() -> None:
    """The selection equals step-up by its definition, written out."""
    rng = np.random.default_rng(2)
    for _ in range(300):
        p = np.round(rng.random(rng.integers(1, 30)) ** 3, 2) + 0.001
        fits = [k for k in range(1, p.size + 1) if np.sort(p)[k - 1] <= 0.2 * k / p.size]
        expected = p <= (0.2 * max(fits) / p.size if fits else 0)
        assert (benjamini_hochberg(p, 0.2) == expected).all()
