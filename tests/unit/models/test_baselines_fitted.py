"""The classical baselines on the whole way from images to a model file, with `Detector` and with the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from typer.testing import CliRunner

import oddment
from oddment import Detector
from oddment.card import model_card
from oddment.cli.app import app
from oddment.data.sample import load_sample
from oddment.models import get_spec, model_names, spec_for

if TYPE_CHECKING:
    from pathlib import Path

NAMES = [name for name in model_names() if get_spec(name).baseline]


@pytest.mark.parametrize("name", NAMES)
def test_detector_report_card_and_model_file(name: str, tmp_path: Path) -> None:
    """Every baseline goes the whole way: it fits, finds articles among digits, is saved and scores the same again."""
    train, fashion = load_sample("mnist-train"), load_sample("fashion-test").images[:30]
    normal = train.images[train.labels == 7][:200]
    detector = Detector(model=name, target_fpr=0.1).fit(normal)
    assert np.median(detector.anomaly_score(fashion)) > detector.threshold_
    assert (detector.scores_ <= detector.threshold_).mean() > 0.8
    detector.save(tmp_path / "model.oddment")
    scorer = oddment.load(tmp_path / "model.oddment")
    assert np.array_equal(scorer.anomaly_score(fashion), detector.anomaly_score(fashion))
    card = model_card(scorer.model)
    assert card["Training"]["fitted"] == "in one pass"
    assert scorer.model.info["training"]["stopped"] == "fitted in one pass"
    assert scorer.model.info["model"]["parameters"] > 0


def test_training_options_are_ignored_with_a_note() -> None:
    """Epochs and a budget mean nothing to a baseline; the caveat names them, and what memory left out."""
    train = load_sample("mnist-train")
    normal = train.images[train.labels == 7][:100]
    detector = Detector(model="knn", options={"references": 40}, target_fpr=0.1, epochs=3, budget=60).fit(normal)
    assert "knn is fitted in one pass: epochs, budget had no effect." in detector.caveats_
    assert any("knows 40 of the" in text for text in detector.caveats_)
    assert "knows 40 of the" in model_card(detector.scorer_.model)["Training"]["note"]


def test_any_threshold_rule_works_on_a_density() -> None:
    """A fixed threshold on minus the log density is a density threshold."""
    train = load_sample("mnist-train")
    normal = train.images[train.labels == 7][:120]
    options = {"measure": "density", "covariance": "full"}
    detector = Detector(model="gaussian", options=options, threshold=0.5).fit(normal)
    assert np.array_equal(detector.predict(normal) == -1, detector.anomaly_score(normal) > 0.5)


@pytest.mark.parametrize("name", ["gaussian", "knn", "isolation-forest", "elliptic-envelope"])
def test_a_baseline_can_look_at_a_latent(name: str) -> None:
    """It trains the autoencoder as on its own, then fits to its latent; reconstructions are decoded."""
    train, fashion = load_sample("mnist-train"), load_sample("fashion-test").images[:30]
    normal = train.images[train.labels == 7][:150]
    options: dict[str, Any] = {"on": "dense"} | ({"n_components": 0} if name == "elliptic-envelope" else {})
    detector = Detector(model=name, options=options, target_fpr=0.1, epochs=3).fit(normal)
    training = detector.scorer_.model.info["training"]
    assert len(training["history"]) == 3
    assert np.isfinite(detector.anomaly_score(fashion)).all()
    assert detector.reconstruct(fashion).shape == (30, 28, 28, 1)
    assert spec_for(name, options).trains
    assert spec_for(name, options).name == name


def test_the_command_line_takes_words_and_leaves_no_checkpoint(tmp_path: Path) -> None:
    """`--option covariance=full` reaches the model; a word that is none of its choices is refused by name."""
    np.save(tmp_path / "normal.npy", load_sample("mnist-train").images[:120])
    command = ["fit", str(tmp_path / "normal.npy"), "-o", str(tmp_path / "m.oddment"), "--model", "gaussian"]
    command += ["--target-fpr", "0.1", "--quiet", "--option"]
    done = CliRunner().invoke(app, [*command, "covariance=full"])
    assert done.exit_code == 0, done.output
    assert oddment.load(tmp_path / "m.oddment").model.info["model"]["options"]["covariance"] == "full"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.oddment", "normal.npy"]
    refused = CliRunner().invoke(app, [*command, "covariance=round"])
    assert refused.exit_code == 2
    assert "covariance must be diagonal or full" in refused.output
