"""The model that "auto" takes, and the picture that it sees."""

from __future__ import annotations

import numpy as np
import pytest

from oddment import Detector
from oddment.calibration import ThresholdRule
from oddment.images.survey import Survey
from oddment.training import choosing
from oddment.training.choosing import choose
from oddment.training.settings import Settings


def looked(width: int, height: int, *, same_aspect: bool = True, colour: bool = False) -> Survey:
    return Survey(10, width, height, same_aspect, colour, {"uint8": (0.0, 255.0)}, {})


@pytest.mark.parametrize(
    ("seen", "features", "expected"),
    [
        (looked(28, 28), True, ("gradient-memory", 28, 28)),
        (looked(96, 80), False, ("gradient-memory", 80, 96)),
        (looked(100, 100), False, ("photograph-memory", 104, 104)),
        (looked(1600, 1200), False, ("photograph-memory", 192, 256)),
        (looked(300, 400, same_aspect=False), False, ("photograph-memory", 256, 256)),
        (looked(300, 400, same_aspect=False), True, ("feature-memory", 384, 384)),
        (looked(1600, 1200), True, ("feature-memory", 288, 384)),
        (looked(6, 6), True, ("dense", 6, 6)),
        (looked(64, 64, colour=True), True, ("gradient-memory", 64, 64)),
    ],
)
def test_auto_goes_by_size_and_what_is_installed(
    seen: Survey, features: bool, expected: tuple[str, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small images keep their size; photographs come to the model's own side, rounded up to its stride."""
    monkeypatch.setattr(choosing, "has_weights", lambda _: features)
    choice = choose(Settings(), seen)
    assert (choice.spec.name, choice.preparation.height, choice.preparation.width) == expected
    assert choice.reason.startswith("chosen: ")


def test_what_is_asked_for_is_taken() -> None:
    """A name, a size and channels override the choice, each alone."""
    choice = choose(Settings(model="dense", size=(20, 24), channels=3), looked(300, 300))
    assert (choice.spec.name, choice.reason) == ("dense", "asked for")
    assert (choice.preparation.height, choice.preparation.width, choice.preparation.channels) == (20, 24, 3)
    assert choose(Settings(size=(32, 32)), looked(300, 300)).spec.name == "gradient-memory"


def test_colour_is_kept() -> None:
    """Colour images are prepared as such."""
    assert choose(Settings(), looked(64, 64, colour=True)).preparation.channels == 3


@pytest.mark.parametrize(
    "rule", [ThresholdRule("max_normal", 0.0, "training"), ThresholdRule("quantile", 0.9, "training")]
)
@pytest.mark.parametrize(("side", "expected"), [(28, "conv-small"), (300, "conv-large")])
def test_no_memory_where_training_scores_decide(
    rule: ThresholdRule, side: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that a model remembers has too low a score to set a threshold by: a model that trains is taken."""
    monkeypatch.setattr(choosing, "has_weights", lambda _: True)
    assert choose(Settings(rule=rule), looked(side, side)).spec.name == expected
    held_out = ThresholdRule(rule.kind, rule.value, "calibration")
    assert choose(Settings(rule=held_out), looked(side, side)).spec.remembers


@pytest.mark.parametrize(("model", "warned"), [("knn", True), ("gradient-memory", True), ("pca", False)])
def test_a_memory_that_is_asked_for_is_warned_of(model: str, warned: bool) -> None:
    """Who asks for a memory and for a threshold over training scores is told what comes of it."""
    images = (np.random.default_rng(0).random((40, 12, 12)) * 255).astype(np.uint8)
    caveats = Detector(model=model, max_normal=True).fit(images).caveats_
    assert any("remembers" in text for text in caveats) is warned
