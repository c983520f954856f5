"""What recipes brought into the library: optimisers and losses by name, last weights, partial batches, no hold-out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import load as load_tensors

from oddment.calibration import ThresholdRule
from oddment.card import model_card
from oddment.errors import DataError, ParameterError
from oddment.fitting import Settings, fit_images
from oddment.images.inputs import as_refs
from oddment.scorer import Scorer, load
from oddment.training.split import Split

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

LARGEST = ThresholdRule("max_normal", 0.0, "training")


def fit(images: NDArray[np.uint8], *, split: Split | None = None, **settings: Any) -> Any:
    """A dense model after one epoch."""
    asked = Settings(**{"model": "dense", "epochs": 1, "rule": LARGEST, "find_duplicates": False} | settings)
    return fit_images(lambda: as_refs(images), len(images), asked, split=split)


def test_without_hold_out_every_image_trains(digits: NDArray[np.uint8], tmp_path: Path) -> None:
    """hold_out=False trains on all images, the threshold is the largest score, and the card promises nothing."""
    fitted = fit(digits[:90], hold_out=False)
    data = fitted.model.info["data"]
    assert (data["training"], data["calibration"]) == (90, 0)
    assert fitted.model.calibration.threshold == fitted.scores.max()
    assert "no promise" in fitted.caveats[0]
    assert "no promise" in model_card(fitted.model)["Verdict"]["caveat"]
    Scorer(fitted.model).save(tmp_path / "model.oddment")
    results = load(tmp_path / "model.oddment").detect(digits[:3])
    assert [result.p_value for result in results] == [1.0, 1.0, 1.0]


def test_without_hold_out_no_image_counts_twice(digits: NDArray[np.uint8]) -> None:
    """Where the images that are watched train as well, a baseline that remembers images has each of them once."""
    fitted = fit(digits[:90], hold_out=False, model="knn")
    assert load_tensors(fitted.model.weights)["bank"].shape == (90, 784)


def test_without_hold_out_a_promise_is_refused(digits: NDArray[np.uint8]) -> None:
    """A rule over held-out scores is refused before an image is read."""
    for rule in (ThresholdRule(), ThresholdRule("quantile", 0.9)):
        with pytest.raises(ParameterError, match="no image is held out"):
            fit(digits, hold_out=False, rule=rule)


def test_a_given_split_is_kept(digits: NDArray[np.uint8]) -> None:
    """A given split decides who trains and is watched, and whose scores are the training scores."""
    first = np.arange(80)
    split = Split(first, np.arange(80, 90), first[:0], 0, first)
    fitted = fit(digits[:90], split=split)
    assert fitted.model.calibration.threshold == fitted.scores[:80].max()
    assert fitted.model.info["data"]["validation"] == 10
    with pytest.raises(ParameterError, match="no image is held out"):
        fit(digits[:90], split=split, rule=ThresholdRule())


def test_partial_batches_count_by_their_images(digits: NDArray[np.uint8]) -> None:
    """The rest of an epoch trains as well where asked: other weights, a loss that is still the mean over images."""
    whole, partial = (fit(digits[:90], hold_out=False, batch_size=64, partial_batches=asked) for asked in (False, True))
    assert whole.model.weights != partial.model.weights
    loss = partial.model.info["training"]["history"][0]["training_loss"]
    assert loss == pytest.approx(whole.model.info["training"]["history"][0]["training_loss"], rel=0.1)


def test_last_weights_are_kept_where_asked(digits: NDArray[np.uint8]) -> None:
    """keep="last" leaves the weights of the last epoch, keep="best" those of the lowest validation loss."""
    hurried = {"epochs": 4, "learning_rate": 0.3, "schedule": "constant", "early_stopping": False, "seed": 1}
    best, last = (fit(digits[:200], keep=keep, **hurried) for keep in ("best", "last"))
    history = [row["validation_loss"] for row in last.model.info["training"]["history"]]
    assert history == [row["validation_loss"] for row in best.model.info["training"]["history"]]
    lasts = history.index(min(history)) == len(history) - 1  # of equal ones, the first is kept
    assert (best.model.weights == last.model.weights) == lasts


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad"])
def test_other_optimizers_have_kerass_rates(optimizer: str, digits: NDArray[np.uint8]) -> None:
    """Without a rate of one's own, SGD and Adagrad take Keras's, not the model's for Adam."""
    fitted = fit(digits[:90], optimizer=optimizer, schedule="inverse-time", decay=0.01)
    assert fitted.model.info["training"]["learning_rate"] == {"sgd": 1e-2, "adagrad": 1e-3}[optimizer]
    assert fitted.model.info["training"]["decay"] == 0.01


def test_scores_may_be_cross_entropies(digits: NDArray[np.uint8]) -> None:
    """score="bce" puts the binary cross-entropy into the graph, the same in torch and ONNX Runtime."""
    fitted = fit(digits[:90], loss="bce", score="bce")
    scorer = Scorer(fitted.model)
    images = digits[:4].astype(np.float64) / 255
    redrawn = np.clip(np.asarray(scorer.reconstruct(digits[:4]), np.float64)[..., 0], 1e-7, 1 - 1e-7)
    expected = -(images * np.log(redrawn) + (1 - images) * np.log(1 - redrawn)).mean((1, 2))
    assert scorer.anomaly_score(digits[:4]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"optimizer": "rmsprop"}, "optimizer must be one of"),
        ({"keep": "first"}, "keep must be one of"),
        ({"decay": -1.0}, "decay must be"),
        ({"decay": 0.1}, "belongs to the inverse-time schedule"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], words: str, digits: NDArray[np.uint8]) -> None:
    """A wrong name or number is refused with what would be right."""
    with pytest.raises(ParameterError, match=words):
        fit(digits, **settings)


def test_a_split_needs_every_image(digits: NDArray[np.uint8], tmp_path: Path) -> None:
    """A given split speaks of all images: one that cannot be used is an error."""
    (tmp_path / "broken.png").write_bytes(b"no image")
    refs = [*as_refs(digits[:89]), *as_refs([tmp_path / "broken.png"])]
    split = Split(np.arange(80), np.arange(80, 90), np.arange(0), 0)
    with pytest.raises(DataError, match="cannot be used"):
        fit_images(lambda: iter(refs), 90, Settings(model="dense", epochs=1, rule=LARGEST), split=split)
