"""The promises of the monitor: uniform p-values, an alarm that rarely rises without drift, tests that keep their level.

Tolerances. Online p-values of an exchangeable stream are independent and uniform, so that a share of N of them at most
u has mean u and variance u (1 - u) / N. An alarm in one of R independent streams is a coin that lands so with
probability alpha at most, hence a measured rate exceeds alpha by more than z sqrt(alpha (1 - alpha) / R) once in 30,000
runs at z = 4. Permutation p-values are at most u with probability at most u, measured in the same way. Seeds are fixed
besides.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from oddment.calibration import Calibration, ThresholdRule, p_values
from oddment.drift import compare, log10_capital, online_p_values
from oddment.monitoring import monitor

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytestmark = pytest.mark.slow

Z = 4.0
DRAWS: dict[str, Any] = {
    "gamma": lambda rng, n: rng.gamma(9, 1 / 9, n),
    "heavy-tailed": lambda rng, n: np.abs(rng.standard_cauchy(n)),
    "rounded": lambda rng, n: np.round(rng.gamma(9, 1 / 9, n), 1),
    "constant": lambda _, n: np.ones(n),
}


def tolerance(rate: float, count: int) -> float:
    return Z * math.sqrt(rate * (1 - rate) / count)


def streams(
    draw: Any, n: int, m: int, repetitions: int, *, shrink: float = 1.0, online: bool = True
) -> NDArray[np.float64]:
    """P-values of many streams (repetitions, m) without drift, each after a calibration of its own."""
    rng = np.random.default_rng(17)
    rows = []
    for seed in range(repetitions):
        scores = draw(rng, n + m)
        calibration = shrink * scores[:n]
        rows.append(
            online_p_values(calibration, scores[n:], seed=seed) if online else p_values(scores[n:], calibration)
        )
    return np.stack(rows)


@pytest.mark.parametrize("name", DRAWS)
def test_online_p_values_are_uniform(name: str) -> None:
    """Each share of the p-values is what it is of uniform numbers, ties or not."""
    p = streams(DRAWS[name], 20, 60, 400)
    for level in (0.01, 0.05, 0.25, 0.5, 0.9):
        assert abs(np.mean(p <= level) - level) <= tolerance(level, p.size)


@pytest.mark.parametrize("name", DRAWS)
def test_online_p_values_are_independent(name: str) -> None:
    """Neighbours do not lean on each other, and whole streams scatter no more than independent numbers do."""
    p = streams(DRAWS[name], 20, 60, 400) - 0.5
    # Products of two independent numbers, uniform on ±1/2, have variance 1/144.
    assert abs(np.mean(p[:, 1:] * p[:, :-1])) <= Z / 12 / math.sqrt(p[:, 1:].size)
    # Means of 60 have variance 1/720, and the variance of 400 such means scatters by sqrt(2/399) of itself.
    assert abs(np.var(p.mean(axis=1)) * 720 - 1) <= Z * math.sqrt(2 / 399)


def test_p_values_of_one_calibration_are_not_independent() -> None:
    """P-values against the calibration scores alone lean on them together: whole streams scatter far more."""
    p = streams(DRAWS["gamma"], 20, 60, 400, online=False)
    assert np.var(p.mean(axis=1)) * 720 > 2


CROSSINGS = 1_000


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("name", ["gamma", "rounded"])
def test_alarms_without_drift(name: str, alpha: float) -> None:
    """Looked at after each of 400 images, the alarm rises in at most a share alpha of the streams."""
    peaks = log10_capital(streams(DRAWS[name], 50, 400, CROSSINGS)).max(axis=1)
    assert np.mean(peaks >= -math.log10(alpha)) <= alpha + tolerance(alpha, CROSSINGS)


def test_capital_gains_nothing_on_average() -> None:
    """The martingale's mean stays 1: over 10 images, where it cannot be carried by a few giants."""
    capital = 10 ** log10_capital(streams(DRAWS["gamma"], 50, 10, 4 * CROSSINGS))[:, -1]
    assert abs(capital.mean() - 1) <= Z * capital.std() / math.sqrt(capital.size)


def test_training_scores_raise_alarms() -> None:
    """Calibrating on images that were trained on, whose scores are lower, raises false alarms: these tests can fail."""
    peaks = log10_capital(streams(DRAWS["gamma"], 100, 400, 200, shrink=0.8)).max(axis=1)
    assert np.mean(peaks >= 2) > 0.01 + tolerance(0.01, 200)


def test_p_values_of_one_calibration_raise_alarms() -> None:
    """A bet against p-values of the calibration alone wins by the calibration's own chance."""
    peaks = log10_capital(streams(DRAWS["gamma"], 50, 2_000, 200, online=False)).max(axis=1)
    assert np.mean(peaks >= 2) > 0.01 + tolerance(0.01, 200)


@pytest.mark.parametrize("name", ["gamma", "rounded", "constant"])
@pytest.mark.parametrize("sizes", [(60, 40), (10, 150)])
def test_level_of_the_tests_for_one_look(name: str, sizes: tuple[int, int]) -> None:
    """Kolmogorov-Smirnov and Cramér-von Mises reject streams without drift no more often than they say."""
    rng, repetitions, (n, m) = np.random.default_rng(8), 400, sizes
    found = []
    for seed in range(repetitions):
        scores = DRAWS[name](rng, n + m)
        both = compare(scores[:n], scores[n:], permutations=99, seed=seed)
        found.append((both.ks_p, both.cvm_p))
    for level in (0.05, 0.2):
        rates = np.mean(np.array(found) <= level + 1e-12, axis=0)
        assert (rates <= level + tolerance(level, repetitions)).all()
        if name == "gamma":
            # Continuous scores reach the level of Cramér-von Mises; Kolmogorov-Smirnov's few values stay below.
            assert rates[1] >= level - tolerance(level, repetitions) - 0.01


def test_tests_for_one_look_see_training_scores() -> None:
    """Calibrating on images that were trained on breaks the level: these tests can fail."""
    rng, repetitions = np.random.default_rng(9), 200
    rejected = [
        compare(0.8 * rng.gamma(9, 1 / 9, 60), rng.gamma(9, 1 / 9, 40), permutations=99, seed=seed).cvm_p <= 0.05
        for seed in range(repetitions)
    ]
    assert np.mean(rejected) > 0.05 + tolerance(0.05, repetitions)


CHANGES: dict[str, tuple[Any, set[str]]] = {
    "rose": (lambda rng, n: 1.4 * rng.gamma(9, 1 / 9, n), {"recalibrate"}),
    "rose far": (lambda rng, n: 5 * rng.gamma(9, 1 / 9, n), {"retrain"}),
    "fell": (lambda rng, n: 0.7 * rng.gamma(9, 1 / 9, n), {"recalibrate"}),
    "spread": (lambda rng, n: np.exp(np.log(rng.gamma(9, 1 / 9, n)) * 2.5), {"retrain"}),
    "odd images": (lambda rng, n: rng.gamma(9, 1 / 9, n) + 4 * (rng.random(n) < 0.3), {"look"}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changes_are_found_and_named(name: str) -> None:
    """After 100 images without drift, most changes raise the alarm within 400 images, with the right advice."""
    rng, repetitions = np.random.default_rng(4), 30
    draw, actions = CHANGES[name]
    right = 0
    for seed in range(repetitions):
        normal = rng.gamma(9, 1 / 9, 400).astype(np.float32)
        calibration = Calibration.of(normal[:300], normal[:0], normal[:300], ThresholdRule())
        stream = np.concatenate([normal[300:], draw(rng, 400)])
        found = monitor(stream, calibration, seed=seed)
        right += found.alarm_at is not None and found.alarm_at >= 100 and found.verdict.action in actions
    assert right >= 0.8 * repetitions
