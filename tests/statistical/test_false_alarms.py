"""The promise itself: over many calibrations, new normal images are flagged no more often than target_fpr.

Tolerances. With n calibration scores and the k-th smallest as threshold, the probability P that a new score lies above
it is, for continuous scores, Beta(n + 1 - k, k) distributed over calibrations (Vovk 2012): its mean is
m = (n + 1 - k) / (n + 1), at most target_fpr and above target_fpr - 1 / (n + 1); its variance is m (1 - m) / (n + 2).
The share of t new scores above the threshold adds at most m (1 - m) / t. The mean over R independent repetitions has a
standard deviation of at most

    sqrt(m (1 - m) (1 / (n + 2) + 1 / t) / R),

and a bound of z = 4 of these is crossed by chance once in 30,000 runs; seeds are fixed besides. With ties P is at most
what it would be if ties were broken at random, so that the upper bound holds for them too.
"""

from __future__ import annotations

import math
import os
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from oddment import Detector
from oddment.calibration import ThresholdRule, conformal_threshold, images_needed, p_values
from oddment.images import iter_images
from oddment.selection import benjamini_hochberg
from oddment.training.split import split_images

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytestmark = pytest.mark.slow

Z = 4.0
REPETITIONS = 400

CONTINUOUS: dict[str, Any] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "uniform": lambda rng, n: rng.random(n),
    "heavy-tailed": lambda rng, n: rng.standard_cauchy(n),
    "skewed": lambda rng, n: rng.lognormal(0, 2, n),
    "two modes": lambda rng, n: rng.normal(size=n) + 10 * (rng.random(n) < 0.03),
}
DISCRETE: dict[str, Any] = {
    "a few values": lambda rng, n: rng.integers(0, 7, n),
    "mostly zero": lambda rng, n: np.maximum(0, rng.poisson(0.1, n)),
    "constant": lambda _, n: np.ones(n),
    "rounded": lambda rng, n: np.round(rng.normal(size=n), 1),
}


def tolerance(rate: float, n: int, t: int, repetitions: int) -> float:
    return Z * math.sqrt(rate * (1 - rate) * (1 / (n + 2) + 1 / t) / repetitions)


def false_alarms(draw: Any, rate: float, n: int, t: int) -> float:
    """The mean share of t new scores above the threshold of n, over many repetitions."""
    rng = np.random.default_rng(2024)
    shares = []
    for _ in range(REPETITIONS):
        scores = draw(rng, n + t).astype(np.float32)
        shares.append(np.mean(scores[n:] > conformal_threshold(scores[:n], rate)))
    return float(np.mean(shares))


SIZES = [(0.01, 99), (0.01, 250), (0.05, 19), (0.05, 30), (0.1, 500), (1 / 3, 2), (0.5, 1)]


@pytest.mark.parametrize(("rate", "n"), SIZES)
@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_scores(name: str, rate: float, n: int) -> None:
    """The false-alarm rate of continuous scores is at most target_fpr, and below it by 1 / (n + 1) at most."""
    t = 400
    measured = false_alarms(CONTINUOUS[name], rate, n, t)
    assert measured <= rate + tolerance(rate, n, t, REPETITIONS)
    assert measured >= rate - 1 / (n + 1) - tolerance(rate, n, t, REPETITIONS)


@pytest.mark.parametrize(("rate", "n"), SIZES)
@pytest.mark.parametrize("name", DISCRETE)
def test_tied_scores(name: str, rate: float, n: int) -> None:
    """Ties never raise the false-alarm rate above target_fpr."""
    t = 400
    assert false_alarms(DISCRETE[name], rate, n, t) <= rate + tolerance(rate, n, t, REPETITIONS)


@pytest.mark.parametrize("name", [*CONTINUOUS, *DISCRETE])
def test_p_values_are_valid(name: str) -> None:
    """A p-value of a normal image is at most u with probability at most u, for every u."""
    rng, n, t = np.random.default_rng(7), 60, 200
    draw = (CONTINUOUS | DISCRETE)[name]
    levels = np.array([1 / 61, 0.05, 0.1, 0.25, 0.5, 0.9])
    shares = []
    for _ in range(REPETITIONS):
        scores = draw(rng, n + t).astype(np.float32)
        shares.append((p_values(scores[n:], scores[:n])[:, None] <= levels + 1e-12).mean(axis=0))
    bounds = [level + tolerance(level, n, t, REPETITIONS) for level in levels]
    assert (np.mean(shares, axis=0) <= bounds).all()


def test_one_image_a_group_keeps_the_promise() -> None:
    """For images of new groups one image a group keeps the promise, and all images of the same groups break it."""
    rate, n_groups, each, new = 0.05, 40, 30, 300
    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(n_groups), each)
    rule = ThresholdRule("target_fpr", rate)
    kept, naive = [], []
    for seed in range(REPETITIONS):
        # Images of one object score alike: nine tenths of the variance lie between objects.
        scores = rng.normal(size=n_groups)[groups] + rng.normal(size=groups.size) / 3
        fresh = rng.normal(size=new) + rng.normal(size=new) / 3
        split = split_images(groups, rule, seed=seed)
        assert split.calibration.size == split.n_groups == images_needed(rate)
        kept.append(np.mean(fresh > conformal_threshold(scores[split.calibration], rate)))
        siblings = scores[np.isin(groups, groups[split.calibration])]
        naive.append(np.mean(fresh > conformal_threshold(siblings, rate)))
    bound = rate + tolerance(rate, images_needed(rate), new, REPETITIONS)
    assert np.mean(kept) <= bound
    assert np.mean(naive) > bound


# --- end to end


def digits(count: int) -> NDArray[np.uint8]:
    """Images of MNIST, or of blurred strokes where ODDMENT_DATA is not set."""
    folder = os.environ.get("ODDMENT_DATA")
    if folder:
        files = sorted((Path(folder) / "mnist").glob("train-images*"))
        return np.stack([np.asarray(ref.payload) for ref in islice(iter_images(files[:1]), count)])
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:28, 0:28]
    images = np.empty((count, 28, 28), np.uint8)
    for image in images:
        cy, cx, angle, length = rng.uniform(9, 19), rng.uniform(9, 19), rng.uniform(0, np.pi), rng.uniform(3, 10)
        along = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        across = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
        distance = np.hypot(np.maximum(0, abs(along) - length), across)
        image[:] = 255 * np.exp(-((distance / rng.uniform(1, 2.5)) ** 2))
    return images


@pytest.fixture(scope="module")
def fitted() -> tuple[Detector, NDArray[np.float32]]:
    """A model fitted to 1,000 images, and the scores of 3,000 others."""
    images = digits(4_000)
    detector = Detector(model="conv-small", target_fpr=0.05, epochs=2).fit(images[:1_000])
    return detector, detector.anomaly_score(images[1_000:])


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_real_scores_resplit(fitted: tuple[Detector, NDArray[np.float32]], rate: float) -> None:
    """Over random resplits of real scores the mean false-alarm rate is target_fpr, to chance and 1 / (n + 1)."""
    _, scores = fitted
    rng, n, repetitions = np.random.default_rng(11), 400, 200
    # Drawn without replacement from one pool: the mean is the same, the variance smaller than for a fresh pool.
    t = scores.size - n
    shares = []
    for _ in range(repetitions):
        mixed = rng.permutation(scores)
        shares.append(np.mean(mixed[n:] > conformal_threshold(mixed[:n], rate)))
    assert np.mean(shares) <= rate + tolerance(rate, n, t, repetitions)
    assert np.mean(shares) >= rate - 1 / (n + 1) - tolerance(rate, n, t, repetitions)


def test_real_selections(fitted: tuple[Detector, NDArray[np.float32]]) -> None:
    """Over random resplits of real scores the mean share of false ones among the selected is fdr × 9/10, to chance."""
    detector, scores = fitted
    odd = detector.anomaly_score(255 - digits(200))
    rng, n, repetitions, fdr = np.random.default_rng(12), 1_999, 1_000, 0.1
    shares = []
    for _ in range(repetitions):
        mixed = rng.permutation(scores)
        batch = np.concatenate([mixed[n : n + 180], rng.choice(odd, 20, replace=False)])
        chosen = benjamini_hochberg(p_values(batch, mixed[:n]), fdr)
        shares.append(chosen[:180].sum() / max(1, chosen.sum()))
    # A share lies in [0, 1], so that its variance is at most m (1 - m); fdr (n + 1) / 200 is a whole number, so that m
    # is what is promised, where scores have no ties (see test_selection.py).
    assert abs(np.mean(shares) - 0.9 * fdr) <= Z * math.sqrt(0.09 * 0.91 / repetitions)


def test_the_fitted_threshold(fitted: tuple[Detector, NDArray[np.float32]]) -> None:
    """The one threshold that fitting chose flags new images at the promised rate, to the chance of one calibration."""
    detector, scores = fitted
    n = detector.scorer_.calibration.n_groups
    assert n >= 190
    measured = float(np.mean(scores.astype(np.float64) > detector.threshold_))
    assert abs(measured - 0.05) <= 1 / (n + 1) + tolerance(0.05, n, scores.size, 1)
