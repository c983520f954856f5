"""What an audit promises with images that are known to be normal: valid p-values, whatever its models share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from oddment.auditing import AuditOptions, audit_images
from oddment.fitting import Settings

if TYPE_CHECKING:
    from pathlib import Path

REPETITIONS, AUDITED, REFERENCE = 200, 24, 39
LEVELS = (0.05, 0.1, 0.25, 0.5)


@pytest.fixture(scope="module")
def p_values(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """P-values (REPETITIONS, AUDITED) of normal images, audited beside a reference of the same kind."""
    folder: Path = tmp_path_factory.mktemp("audits")
    rng, found = np.random.default_rng(0), []
    for _ in range(REPETITIONS):
        # Some kinds of image are rarer and odder than others, so that scores have a tail.
        size = rng.gamma(2.0, 0.5, (AUDITED + REFERENCE, 1, 1))
        images = np.clip(128 + 30 * size * rng.normal(size=(AUDITED + REFERENCE, 8, 8)), 0, 255).astype(np.uint8)
        np.save(folder / "audited.npy", images[:AUDITED])
        np.save(folder / "reference.npy", images[AUDITED:])
        done = audit_images(
            [folder / "audited.npy"],
            Settings(model="pca", options={"n_components": 2}, device="cpu", find_duplicates=False),
            AuditOptions(parts=2, trim=0),
            reference=[folder / "reference.npy"],
        )
        found.append(done.p_values)
    return np.stack(found)


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_p_values_against_a_reference_are_valid(p_values: np.ndarray, level: float) -> None:
    """A normal image has a p-value of at most α with a probability of at most α.

    Tolerance: images of one repetition share models and reference, repetitions share nothing. The share of p-values at
    or below α has a standard error of s / √200, s the deviation of the repetitions' shares; four of them are passed by
    chance once in thirty thousand.
    """
    shares = (p_values <= level).mean(axis=1)
    error = float(shares.std(ddof=1)) / REPETITIONS**0.5
    assert shares.mean() <= level + 4 * error


@pytest.mark.slow
def test_p_values_are_no_idle_promise(p_values: np.ndarray) -> None:
    """They are not all near 1: the highest of two models' scores costs little."""
    assert (p_values <= 0.5).mean() > 0.3
