"""The model beside plain baselines: said where it is no better, silent where it is, never an obstacle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from oddment import Detector
from oddment.artifact import read_model
from oddment.card import model_card
from oddment.images.prepare import Placement, Preparation, Prepared
from oddment.metrics import Interval
from oddment.training.challenge import Challenge, Untried, challenge
from oddment.training.store import PixelStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

TRAINING, HELD_OUT = np.arange(60), np.arange(60, 100)


def store_of(images: NDArray[np.uint8], valid: tuple[int, int, int, int] | None = None) -> PixelStore:
    """Gray pictures (N, H, W), prepared."""
    _, height, width = images.shape
    store = PixelStore(Preparation(height, width, 1), len(images))
    place = Placement(valid or (0, 0, height, width), (0, 0, width, height))
    for owner, image in enumerate(images):
        store.append(Prepared(image[None, :, :, None], (place,), (width, height)), owner)
    return store


def knows_the_originals(store: PixelStore) -> Callable[..., NDArray[np.float32]]:
    """A perfect score: how far an image is from the nearest that is in the store."""
    originals = store.preparation.scale(store.pixels)

    def score(images: NDArray[np.float32], _: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.array([np.abs(originals - image).sum(axis=(1, 2, 3)).min() for image in images], np.float32)

    return score


def blind(images: NDArray[np.float32], _: NDArray[np.int64]) -> NDArray[np.float32]:
    """A score that says the same of every image."""
    return np.zeros(len(images), np.float32)


class TestFigures:
    """What `challenge` measures."""

    def test_a_model_that_is_better_is_not_talked_down(self, digits: NDArray[np.uint8]) -> None:
        """A score that finds every defect is ahead beyond the interval, and there is no caveat."""
        store = store_of(digits[:100])
        tried = challenge("oracle", knows_the_originals(store), store, TRAINING, HELD_OUT, seed=0)
        assert isinstance(tried, Challenge)
        assert tried.auroc["oracle"] == 1.0
        assert tried.ahead.low > 0
        assert tried.caveat() is None
        assert (tried.images, tried.references) == (40, 60)

    def test_a_model_that_is_worse_is_told(self, digits: NDArray[np.uint8]) -> None:
        """A score that sees nothing gets the caveat, which names the better baseline and both figures."""
        store = store_of(digits[:400])
        tried = challenge("blind", blind, store, np.arange(200), np.arange(200, 400), seed=0)
        assert isinstance(tried, Challenge)
        assert tried.auroc["blind"] == 0.5
        assert tried.ahead.high < 0
        assert tried.rival == max(("knn", "pca"), key=lambda name: tried.auroc[name])
        text = tried.caveat() or ""
        assert f"a plain {tried.rival} tells synthetic defects from normal images better than blind does" in text
        assert f"AUROC {tried.auroc[tried.rival]:.3f} against 0.500" in text
        assert "200 of your own held-out images" in text
        assert f"--model {tried.rival}" in text

    def test_the_same_again(self, digits: NDArray[np.uint8]) -> None:
        """The seed fixes every figure, and the caller's random numbers are not touched."""
        store = store_of(digits[:100])
        before = torch.get_rng_state()
        first, again, other = (challenge("blind", blind, store, TRAINING, HELD_OUT, seed=seed) for seed in (1, 1, 2))
        assert torch.equal(before, torch.get_rng_state())
        figures = [
            {key: value for key, value in tried.as_dict().items() if key != "seconds"} for tried in (first, again)
        ]
        assert figures[0] == figures[1]
        assert figures[0]["auroc"] != other.as_dict()["auroc"]

    @pytest.mark.parametrize("valid", [(0, 0, 96, 128), (40, 3, 60, 90)])
    def test_large_pictures_with_padding(self, valid: tuple[int, int, int, int]) -> None:
        """Photographs are brought to the baselines' size; a defect is seen there, padding is not."""
        rng = np.random.default_rng(0)
        usual = np.repeat(np.repeat(rng.integers(50, 150, (12, 16)), 8, axis=0), 8, axis=1)
        images = (usual + rng.integers(-9, 10, (60, 96, 128))).astype(np.uint8)
        store = store_of(images, valid)
        noisy = images.copy()
        outside = np.ones((96, 128), dtype=bool)
        outside[valid[0] : valid[2], valid[1] : valid[3]] = False
        noisy[:, outside] = 255
        tried, beside = (
            challenge("oracle", knows_the_originals(each), each, np.arange(30), np.arange(30, 60), seed=0)
            for each in (store, store_of(noisy, valid))
        )
        assert isinstance(tried, Challenge)
        assert isinstance(beside, Challenge)
        assert tried.auroc["pca"] > 0.9
        # Resizing mixes a little padding into the outermost pixels.
        assert beside.auroc["pca"] == pytest.approx(tried.auroc["pca"], abs=0.1)

    def test_photographs_are_fewer(self) -> None:
        """Of large pictures fewer are scored, and baselines know fewer: the check stays a small share of the fit."""
        images = np.random.default_rng(0).integers(0, 255, (240, 512, 512), np.uint8)
        asked: list[int] = []

        def counting(pictures: NDArray[np.float32], valid: NDArray[np.int64]) -> NDArray[np.float32]:
            asked.append(len(pictures))
            return blind(pictures, valid)

        tried = challenge("blind", counting, store_of(images), np.arange(40), np.arange(40, 240), seed=0)
        assert isinstance(tried, Challenge)
        assert (tried.images, sum(asked)) == (60, 120)

    @pytest.mark.parametrize(
        ("ahead", "auroc", "words"),
        [
            ((-0.2, -0.3, -0.1), {"dense": 0.7, "knn": 0.9, "pca": 0.8}, "better than dense does (AUROC 0.900 against"),
            ((0.01, -0.01, 0.02), {"dense": 0.91, "knn": 0.9, "pca": 0.8}, "as well as dense does (AUROC 0.900"),
            ((0.02, 0.01, 0.03), {"dense": 0.92, "knn": 0.9, "pca": 0.8}, None),
            ((-0.01, -0.1, 0.1), {"dense": 0.51, "knn": 0.52, "pca": 0.5}, "neither dense nor a plain knn"),
        ],
    )
    def test_the_words_follow_the_interval(
        self, ahead: tuple[float, float, float], auroc: dict[str, float], words: str | None
    ) -> None:
        """Better, as well, silence, or that nothing was told apart: whatever the interval allows to say."""
        text = Challenge("dense", "knn", auroc, Interval(*ahead), 100, 500, 1.0).caveat()
        assert text is None if words is None else words in (text or "")


class TestUntried:
    """What cannot be tried is not tried, and the reason is kept."""

    def test_too_few(self, digits: NDArray[np.uint8]) -> None:
        """Nineteen held-out images say nothing."""
        tried = challenge("blind", blind, store_of(digits[:79]), TRAINING, np.arange(60, 79), seed=0)
        assert tried.as_dict() == {"skipped": "19 held-out images are too few; it takes 20"}
        assert tried.caveat() is None

    def test_too_small(self, digits: NDArray[np.uint8]) -> None:
        """Nor do rows of features and slivers."""
        tried = challenge("blind", blind, store_of(digits[:100], (3, 0, 10, 28)), TRAINING, HELD_OUT, seed=0)
        assert tried == Untried("pictures of 7 pixels are too small; it takes 8")

    @pytest.mark.parametrize(
        ("settings", "reason"),
        [
            ({"baseline_check": False}, "switched off"),
            ({"model": "knn"}, "knn is a baseline itself"),
            ({"hold_out": False, "target_fpr": None, "max_normal": True}, "0 held-out images are too few; it takes 20"),
        ],
    )
    def test_where_fitting_does_not_try(self, digits: NDArray[np.uint8], settings: dict[str, Any], reason: str) -> None:
        """Switched off, for a baseline, or with nothing held out, the model file and the card say why."""
        asked = {"model": "dense", "epochs": 1, "target_fpr": 0.1} | settings
        model = Detector(**asked).fit(digits[:100]).scorer_.model
        assert model.info["training"]["baselines"] == {"skipped": reason}
        assert model_card(model)["Checks"]["plain baselines"] == f"not tried: {reason}"


class TestFit:
    """On the whole way from images to a model file."""

    def test_a_bad_model_is_told(self, digits: NDArray[np.uint8]) -> None:
        """A dense model after one epoch is no match for a baseline: caveat, figures and card say so."""
        detector = Detector(model="dense", epochs=1, target_fpr=0.05).fit(digits)
        found = detector.scorer_.model.info["training"]["baselines"]
        assert set(found["auroc"]) == {"dense", "knn", "pca"}
        assert found["images"] == 120
        assert found["ahead"]["high"] < 0
        assert found["auroc"]["dense"] < found["auroc"][found["best"]]
        assert any(f"a plain {found['best']} tells" in text for text in detector.caveats_)
        checks = model_card(detector.scorer_.model)["Checks"]
        assert f"dense {found['auroc']['dense']:.3f}" in checks["plain baselines"]
        assert "a hint" in checks["ahead of the best of them"]

    def test_a_good_one_is_not(self, digits: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the model is ahead, no caveat speaks of baselines, and the figures are kept all the same."""
        ahead = Challenge(
            "dense", "pca", {"dense": 0.9, "pca": 0.8, "knn": 0.7}, Interval(0.1, 0.05, 0.15), 20, 70, 0.1
        )
        monkeypatch.setattr("oddment.fitting.challenge", lambda *_, **__: ahead)
        detector = Detector(model="dense", epochs=1, target_fpr=0.1).fit(digits[:100])
        assert not [text for text in detector.caveats_ if "plain" in text]
        assert detector.scorer_.model.info["training"]["baselines"] == ahead.as_dict()

    def test_the_check_changes_no_score(self, digits: NDArray[np.uint8]) -> None:
        """With and without it, weights, scores and threshold are the same to the bit."""
        given = {"model": "dense", "epochs": 2, "target_fpr": 0.1, "random_state": 3}
        one, other = (Detector(**given, baseline_check=check).fit(digits[:100]) for check in (True, False))
        np.testing.assert_array_equal(one.scores_, other.scores_)
        assert one.threshold_ == other.threshold_
        assert one.scorer_.model.weights == other.scorer_.model.weights

    def test_tiles_count_once_an_image(self) -> None:
        """Of an image in tiles one tile is taken: its other tiles are no further evidence."""
        images = np.random.default_rng(0).integers(0, 255, (110, 20, 20), np.uint8)
        detector = Detector(model="dense", epochs=1, target_fpr=0.1, size=8, fit_mode="tile").fit(images)
        model = detector.scorer_.model
        assert model.info["training"]["baselines"]["images"] == model.info["data"]["calibration"]

    def test_command_line(self, invoke: Any, digits: NDArray[np.uint8], tmp_path: Path) -> None:
        """`fit` prints the hint as a note, `--no-baseline-check` leaves it out, `inspect` shows the figures."""
        np.save(tmp_path / "digits.npy", digits)
        fit = ("fit", tmp_path / "digits.npy", "-o", tmp_path / "m.oddment", "--model", "dense", "--epochs", 1)
        assert "tells synthetic defects from normal images" in invoke(*fit, "--target-fpr", 0.05).stdout
        assert "ahead of the best of them" in invoke("inspect", tmp_path / "m.oddment").stdout
        assert "synthetic" not in invoke(*fit, "--target-fpr", 0.05, "--no-baseline-check").stdout
        assert read_model(tmp_path / "m.oddment").info["training"]["baselines"] == {"skipped": "switched off"}
        assert "not tried: switched off" in invoke("inspect", tmp_path / "m.oddment").stdout
