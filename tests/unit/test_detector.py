"""`Detector`: scikit-learn's contract, the signs, what it takes for images, and PyOD's contract."""

from __future__ import annotations

import copy
import pickle
from dataclasses import fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone, is_outlier_detector
from sklearn.utils.estimator_checks import parametrize_with_checks

from oddment import Detection, Detector, Rejection, load
from oddment.errors import ParameterError, TooFewImagesError
from oddment.fitting import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

# scikit-learn's checks fit twenty to three hundred rows: too few for a conformal promise of 0.01.
SMALL = {"quantile": 0.9, "epochs": 2}


def expected_failures(_: object) -> dict[str, str]:
    """None: whatever fails here is a mistake."""
    return {}


@parametrize_with_checks([Detector(**SMALL)], expected_failed_checks=expected_failures)
# "skipped" is a warning to scikit-learn: two checks need pandas or an array API that are not installed.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learn(estimator: Any, check: Any) -> None:
    """Every check of scikit-learn for outlier detectors passes."""
    check(estimator)


class TestSigns:
    """Four ways to say one thing."""

    def test_higher_anomaly_score_is_lower_for_scikit_learn(self, detector: Any, new_digits: NDArray[Any]) -> None:
        """score_samples is minus the anomaly score, offset_ minus the threshold, decision_function their difference."""
        score = detector.anomaly_score(new_digits)
        np.testing.assert_array_equal(detector.score_samples(new_digits), -score.astype(np.float64))
        assert detector.offset_ == -detector.threshold_
        np.testing.assert_array_equal(
            detector.decision_function(new_digits), detector.threshold_ - score.astype(np.float64)
        )

    def test_predict_is_minus_one_strictly_above_the_threshold(self, detector: Any, digits: NDArray[Any]) -> None:
        """An image whose score equals the threshold is normal, one above it is not."""
        score = detector.anomaly_score(digits).astype(np.float64)
        assert (score == detector.threshold_).any(), "the threshold is one of the calibration scores"
        np.testing.assert_array_equal(detector.predict(digits), np.where(score > detector.threshold_, -1, 1))
        assert detector.predict(digits).dtype == np.int64

    def test_clothing_scores_higher_than_digits(
        self, detector: Any, new_digits: NDArray[Any], articles: NDArray[Any]
    ) -> None:
        """Odd images have higher scores and smaller p-values than normal ones."""
        assert np.median(detector.anomaly_score(articles)) > np.median(detector.anomaly_score(new_digits))
        assert np.median(detector.p_value(articles)) < np.median(detector.p_value(new_digits))

    def test_p_values_count_calibration_scores(self, detector: Any, new_digits: NDArray[Any]) -> None:
        """A p-value is one plus the calibration scores at least as high, over their number plus one."""
        held = detector.scorer_.calibration.scores
        score = detector.anomaly_score(new_digits)
        expected = [(1 + int((held >= value).sum())) / (held.size + 1) for value in score]
        np.testing.assert_allclose(detector.p_value(new_digits), expected)

    def test_detect_agrees_with_the_arrays(self, detector: Any, new_digits: NDArray[Any]) -> None:
        """`detect` gives the scores, p-values and verdicts of the array methods, with ranks from the highest score."""
        found = detector.detect(new_digits, maps=True)
        assert [item.anomaly_score for item in found] == detector.anomaly_score(new_digits).tolist()
        assert [item.p_value for item in found] == detector.p_value(new_digits).tolist()
        assert [item.is_anomaly for item in found] == (detector.predict(new_digits) < 0).tolist()
        by_rank = sorted(found, key=lambda item: item.rank)
        assert [item.rank for item in by_rank] == list(range(1, len(found) + 1))
        assert all(a.anomaly_score >= b.anomaly_score for a, b in pairwise(by_rank))
        np.testing.assert_array_equal(np.stack([item.anomaly_map for item in found]), detector.anomaly_map(new_digits))

    def test_shapes_of_what_comes_out(self, detector: Any, new_digits: NDArray[Any]) -> None:
        """Maps have the images' size, reconstructions channels last, latents one row an image."""
        count = len(new_digits)
        assert detector.anomaly_map(new_digits).shape == (count, 28, 28)
        assert detector.reconstruct(new_digits).shape == (count, 28, 28, 1)
        assert detector.latent(new_digits).shape == (count, 64)
        assert detector.anomaly_score(new_digits).dtype == np.float32


class TestWhatItTakes:
    """Arrays of many kinds, flat rows, paths."""

    @pytest.mark.parametrize("shape", [(28, 28), (28, 28, 1), (28, 28, 3)])
    @pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64", "int32"])
    def test_arrays(self, digits: NDArray[Any], shape: tuple[int, ...], dtype: str) -> None:
        """Gray and colour stacks of every pixel type are fitted and scored."""
        stack = digits[:80] if len(shape) == 2 else np.repeat(digits[:80, :, :, None], shape[2], axis=3)
        images = stack.astype(dtype) * np.array({"uint16": 257, "float32": 1 / 255}.get(dtype, 1), dtype)
        detector = Detector(**{**SMALL, "epochs": 1}, model="dense").fit(images)
        scores = detector.anomaly_score(images)
        assert scores.shape == (80,)
        assert np.isfinite(scores).all()
        np.testing.assert_array_equal(scores, detector.scores_)

    def test_whole_numbers_and_fractions_give_one_score(self, digits: NDArray[Any]) -> None:
        """uint8, and the same pixels as fractions of 1, are the same images to the model."""
        whole = Detector(**SMALL, model="dense").fit(digits[:80])
        fractions = Detector(**SMALL, model="dense").fit((digits[:80] / 255).astype(np.float32))
        np.testing.assert_allclose(whole.scores_, fractions.scores_, rtol=1e-4)

    def test_values_outside_zero_to_one_are_brought_there(self, digits: NDArray[Any]) -> None:
        """Floats of any range are scaled by the range of the training images."""
        images = digits[:80].astype(np.float64) * 40 - 3000
        detector = Detector(**SMALL, model="dense").fit(images)
        assert detector.scorer_.model.preparation.ranges["float32"] == (-3000.0, 7200.0)
        assert 0 < float(np.median(detector.scores_)) < 1

    def test_flat_rows_with_a_shape_are_images(self, digits: NDArray[Any]) -> None:
        """Flat rows and image_shape give the scores of the images."""
        rows = digits[:80].reshape(80, -1)
        flat = Detector(**SMALL, model="dense", image_shape=(28, 28)).fit(rows)
        stack = Detector(**SMALL, model="dense").fit(digits[:80])
        np.testing.assert_array_equal(flat.anomaly_score(rows), stack.anomaly_score(digits[:80]))
        assert flat.n_features_in_ == 784

    def test_rows_of_features_are_not_compared_as_pictures(self) -> None:
        """Rows without a shape are no pictures: alike as they look to a perceptual hash, each stands alone."""
        rows = np.random.default_rng(0).normal(size=(60, 4))
        detector = Detector(**SMALL).fit(rows)
        assert detector.scorer_.model.info["data"]["groups"] == 60

    @pytest.mark.parametrize("as_text", [True, False])
    def test_folder_file_and_list_of_paths(
        self, detector: Any, new_folder: Path, new_digits: NDArray[Any], *, as_text: bool
    ) -> None:
        """A folder, one file and a list of files score as the arrays they hold."""
        expected = detector.anomaly_score(new_digits)
        files = sorted(new_folder.glob("digit-*.png"))
        give = str if as_text else (lambda path: path)
        np.testing.assert_array_equal(detector.anomaly_score([give(path) for path in files]), expected)
        np.testing.assert_array_equal(detector.anomaly_score(give(files[3])), expected[3:4])
        np.testing.assert_array_equal(detector.anomaly_score(give(new_folder))[8:], expected)

    def test_fit_on_a_folder(self, normal_folder: Path, detector: Any) -> None:
        """A folder of PNG files gives the detector that the array gives, to the last bit."""
        from_files = clone(detector).fit(normal_folder)
        np.testing.assert_array_equal(from_files.scores_, detector.scores_)
        assert not hasattr(from_files, "n_features_in_")

    def test_unusable_file_is_rejected_by_detect_and_named_by_scores(
        self, detector: Any, new_folder: Path, tmp_path: Path
    ) -> None:
        """`detect` gives a rejected row with its reason; numbers that must line up refuse, naming the file."""
        good, bad = next(iter(sorted(new_folder.iterdir()))), tmp_path / "bad.png"
        bad.write_bytes(b"not a picture")
        found = detector.detect([good, bad])
        assert isinstance(found[0], Detection)
        assert isinstance(found[1], Rejection)
        assert found[1].path == str(bad)
        with pytest.raises(Exception, match=r"bad\.png: not an image"):
            detector.anomaly_score([good, bad])

    def test_images_of_another_size(self, detector: Any) -> None:
        """Other sizes than those of training are scored, maps at their own resolution."""
        images = np.zeros((2, 40, 60), np.uint8)
        assert detector.anomaly_map(images).shape == (2, 40, 60)

    @pytest.mark.parametrize(
        ("images", "says"),
        [
            (np.zeros((4, 28, 28, 2), np.uint8), "C = 1, 3 or 4"),
            (np.zeros((4, 28, 28, 1, 1), np.uint8), "C = 1, 3 or 4"),
            (np.zeros((28, 28), np.uint8), r"X\[None\] for a single image"),
            (np.zeros((4, 784), np.uint8), "image_shape"),
            (np.zeros(784), "2D"),
            (np.zeros((0, 28, 28)), "minimum of 1"),
            (np.full((4, 28, 28), np.nan), "NaN"),
            (np.zeros((4, 28, 28), complex), "[Cc]omplex"),
            (np.full((4, 28, 28), "x"), "could not convert|not compatible|numeric"),
            ("no/such/folder", "does not exist"),
        ],
    )
    def test_wrong_images(self, detector: Any, images: Any, says: str) -> None:
        """What is no stack of images is refused by a ValueError that says what is wanted."""
        with pytest.raises(ValueError, match=says):
            detector.predict(images)

    def test_wrong_number_of_features(self, digits: NDArray[Any]) -> None:
        """Rows of another width than those fitted are refused, and so is an image_shape that does not fit."""
        rows = digits[:60].reshape(60, -1)
        with pytest.raises(ParameterError, match=r"image_shape=\(20, 20\) holds 400 numbers and each row has 784"):
            Detector(**SMALL, image_shape=(20, 20)).fit(rows)
        detector = Detector(**SMALL, model="dense", image_shape=(28, 28)).fit(rows)
        with pytest.raises(ValueError, match="X has 100 features"):
            detector.predict(np.zeros((3, 100)))

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ({"target_fpr": 2.0}, "target_fpr must lie strictly between 0 and 1"),
            ({"target_fpr": 0.1, "quantile": 0.9}, "one threshold rule"),
            ({"margin": 1.0}, "belongs to max_normal"),
            ({"model": "dence"}, "Did you mean 'dense'"),
            ({"options": {"latent": 3}, "quantile": 0.9}, "has no option latent"),
            ({"epochs": 0, "learning_rate": -1.0}, "epochs must be at least 1.*learning_rate must be positive"),
            ({"fit_mode": "crop"}, "letterbox, stretch, tile"),
            ({"channels": 2}, "channels must be 1 or 3"),
            ({"device": "abacus"}, "device='abacus'"),
        ],
    )
    def test_wrong_parameters(self, digits: NDArray[Any], given: dict[str, Any], says: str) -> None:
        """A parameter that breaks its rule is named together with the rule."""
        with pytest.raises(ParameterError, match=says):
            Detector(**given).fit(digits[:60])

    def test_too_few_images_say_how_many_are_needed(self, digits: NDArray[Any]) -> None:
        """The promise of 0.01 needs 198 images; sixty are refused with that number."""
        with pytest.raises(TooFewImagesError, match="198"):
            Detector().fit(digits[:60])

    def test_groups_must_match_the_images(self, digits: NDArray[Any]) -> None:
        """Groups keep images together and must be one an image."""
        detector = Detector(**SMALL, model="dense", find_duplicates=False).fit(digits[:60], groups=np.arange(60) // 3)
        assert detector.scorer_.model.info["data"]["groups"] == 20
        with pytest.raises(ParameterError, match="groups has 5 entries for 60"):
            Detector(**SMALL).fit(digits[:60], groups=np.arange(5))


class TestSameAgain:
    """Seeds, copies, files."""

    def test_same_seed_same_scores_other_seed_other_scores(self, digits: NDArray[Any]) -> None:
        """The seed fixes every score to the bit."""
        first, again, other = (Detector(**SMALL, random_state=seed).fit(digits[:100]).scores_ for seed in (3, 3, 4))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)

    def test_a_random_state_object_is_a_seed(self, digits: NDArray[Any]) -> None:
        """A NumPy RandomState gives one seed, the same for equal states."""
        first, again = (
            Detector(**SMALL, model="dense", random_state=np.random.RandomState(5)).fit(digits[:60]).scores_
            for _ in range(2)
        )
        np.testing.assert_array_equal(first, again)

    @pytest.mark.parametrize("model", ["conv-small", "dense"])
    def test_global_generators_are_left_alone(self, digits: NDArray[Any], model: str) -> None:
        """Fitting draws nothing from the caller's own random numbers."""
        torch.manual_seed(1)
        np.random.seed(1)  # noqa: NPY002 - the global generator is what is watched
        before = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
        Detector(**SMALL, model=model).fit(digits[:60])
        assert torch.equal(before[0], torch.get_rng_state())
        np.testing.assert_array_equal(before[1][1], np.random.get_state()[1])  # noqa: NPY002
        assert before[1][2] == np.random.get_state()[2]  # noqa: NPY002

    def test_save_and_load(self, detector: Any, model_file: Path, new_digits: NDArray[Any]) -> None:
        """A loaded model file gives the detector's scores, p-values, verdicts and maps, bit for bit."""
        loaded = load(model_file)
        for name in ("anomaly_score", "p_value", "predict", "anomaly_map", "reconstruct", "latent"):
            np.testing.assert_array_equal(getattr(loaded, name)(new_digits), getattr(detector, name)(new_digits), name)
        assert loaded.threshold_ == detector.threshold_

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda item: pickle.loads(pickle.dumps(item))])
    def test_copies_score_alike(self, detector: Any, new_digits: NDArray[Any], copied: Any) -> None:
        """A deep copy, and one through pickle as joblib makes them, score alike."""
        np.testing.assert_array_equal(copied(detector).anomaly_score(new_digits), detector.anomaly_score(new_digits))

    def test_clone_keeps_parameters_and_nothing_fitted(self, detector: Any) -> None:
        """`clone` copies what was given and forgets what was learnt; set_params changes one thing."""
        twin = clone(detector)
        assert twin.get_params() == detector.get_params()
        assert not hasattr(twin, "scorer_")
        assert twin.set_params(epochs=3).epochs == 3
        assert is_outlier_detector(detector)

    def test_what_it_keeps(self, digits: NDArray[Any], tmp_path: Path) -> None:
        """Rejected files, exact duplicates and caveats of the fit are there to be read."""
        for index, image in enumerate(digits[:60]):
            Image.fromarray(image).save(tmp_path / f"{index:02d}.png")
        Image.fromarray(digits[0]).save(tmp_path / "copy.png")
        (tmp_path / "broken.png").write_bytes(b"")
        detector = Detector(**SMALL, model="dense").fit(tmp_path)
        assert [item.reason for item in detector.rejections_] == ["empty file (0 bytes)"]
        assert detector.duplicates_ == ((str(tmp_path / "00.png"), str(tmp_path / "copy.png")),)
        assert detector.scores_.shape == (61,)

    def test_a_budget_ends_training_and_says_so(self, digits: NDArray[Any]) -> None:
        """Out of time, training stops, the history is short and a caveat says why."""
        detector = Detector(quantile=0.9, model="dense", epochs=100_000, budget=0.5).fit(digits[:60])
        training = detector.scorer_.model.info["training"]
        assert training["stopped"] == "time budget spent"
        assert len(training["history"]) < 100_000
        assert any("budget" in text for text in detector.caveats_)


PASSED_ON: dict[str, Any] = {
    "model": "dense",
    "options": {"hidden": (8, 4)},
    "fit_mode": "stretch",
    "channels": 3,
    "hold_out": False,
    "epochs": 3,
    "batch_size": 8,
    "learning_rate": 0.01,
    "optimizer": "sgd",
    "schedule": "constant",
    "decay": 0.01,
    "loss": "bce",
    "score_mode": "bce",
    "pool": "max",
    "early_stopping": False,
    "keep": "last",
    "precision": "float32",
    "budget": 9.0,
    "device": "cpu",
    "find_duplicates": False,
    "baseline_check": False,
    "standardise_exposure": True,
    "thumbnails": False,
}


class TestSettings:
    """What a detector is told reaches the fit."""

    @pytest.mark.parametrize("name", PASSED_ON)
    def test_each_is_passed_on(self, name: str, digits: NDArray[Any], monkeypatch: pytest.MonkeyPatch) -> None:
        """A parameter is stored as given, kept by `clone`, and arrives in the settings under its name, less `_mode`."""
        given = PASSED_ON[name]
        asked: list[Any] = []

        def stop(_refs: Any, _count: int, settings: Any, **_: Any) -> None:
            asked.append(settings)
            raise KeyboardInterrupt

        monkeypatch.setattr("oddment.detector.fit_images", stop)
        detector = clone(Detector(**{name: given}))
        assert detector.get_params()[name] == given
        with pytest.raises(KeyboardInterrupt):
            detector.fit(digits[:60])
        setting = name.removesuffix("_mode")
        assert getattr(asked[0], setting) == given
        assert getattr(asked[0], setting) != getattr(Settings(), setting)

    def test_every_training_setting_is_a_parameter(self) -> None:
        """Whatever tells the training loop what to do can be told to a detector; the rest has another name or none."""
        elsewhere = {"fit", "score", "rule", "seed", "max_pixels", "strict", "partial_batches", "ranges"}
        missing = {field.name for field in fields(Settings)} - set(Detector().get_params()) - elsewhere
        assert not missing

    @pytest.mark.parametrize("name", ["optimizer", "schedule", "loss", "score_mode", "pool", "keep", "precision"])
    def test_wrong_names_are_refused_when_fitting(self, name: str, digits: NDArray[Any]) -> None:
        """As scikit-learn wants it, nothing is checked before `fit`, which says what would be right."""
        with pytest.raises(ParameterError, match=f"{name.removesuffix('_mode')} must be one of"):
            Detector(**SMALL, **{name: "no-such"}).fit(digits[:60])

    def test_over_chooses_the_scores_of_the_rule(self, digits: NDArray[Any]) -> None:
        """With nothing held out, a quantile is taken over the training scores; over held-out ones it is refused."""
        given = {"model": "dense", "epochs": 1, "quantile": 0.5, "hold_out": False}
        detector = Detector(**given, over="training").fit(digits[:60])
        assert detector.threshold_ == pytest.approx(np.median(detector.scores_))
        with pytest.raises(ParameterError, match="no image is held out"):
            Detector(**given).fit(digits[:60])

    def test_they_change_the_training(self, digits: NDArray[Any]) -> None:
        """Optimizer, schedule and the rest are those of the model file."""
        told = {"optimizer": "sgd", "schedule": "inverse-time", "decay": 0.5, "loss": "bce", "keep": "last"}
        training = Detector(**SMALL, model="dense", **told).fit(digits[:60]).scorer_.model.info["training"]
        assert {name: training[name] for name in told} == told


@pytest.fixture(scope="module")
def reference(digits: NDArray[Any]) -> Any:
    """PyOD's nearest neighbours."""
    knn = pytest.importorskip("pyod.models.knn", reason="pyod is not installed")
    return knn.KNN().fit(digits[:200].reshape(200, -1).astype(float))


class TestPyod:
    """The contract of PyOD, read off one of its own detectors."""

    def test_attributes(self, detector: Any, reference: Any) -> None:
        """decision_scores_, labels_, threshold_ and contamination are there, of PyOD's types and shapes."""
        ours = detector.as_pyod()
        for name in ("decision_scores_", "labels_"):
            theirs, mine = getattr(reference, name), getattr(ours, name)
            assert (mine.dtype, mine.ndim) == (theirs.dtype, theirs.ndim), name
        assert len(ours.decision_scores_) == 600
        assert isinstance(ours.threshold_, float)
        assert isinstance(ours.contamination, float)
        np.testing.assert_array_equal(ours.labels_, (ours.decision_scores_ > ours.threshold_).astype(int))

    @pytest.mark.parametrize("method", ["decision_function", "predict", "predict_proba"])
    def test_results_have_their_shapes_and_types(
        self, detector: Any, reference: Any, new_digits: NDArray[Any], method: str
    ) -> None:
        """Scores, labels and so-called probabilities have the shapes and types that PyOD's have."""
        theirs = getattr(reference, method)(new_digits.reshape(len(new_digits), -1).astype(float))
        mine = getattr(detector.as_pyod(), method)(new_digits)
        assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)

    def test_signs(self, detector: Any, reference: Any, new_digits: NDArray[Any], articles: NDArray[Any]) -> None:
        """Odd images score higher with both, and predict is 1 for what scikit-learn calls -1."""
        ours = detector.as_pyod()
        both = np.concatenate([new_digits, articles])
        flat = both.reshape(len(both), -1).astype(float)
        for scores in (ours.decision_function(both), reference.decision_function(flat)):
            assert np.median(scores[-len(articles) :]) > np.median(scores[: -len(articles)])
        np.testing.assert_array_equal(ours.decision_function(both), -detector.score_samples(both))
        np.testing.assert_array_equal(ours.predict(both), (1 - detector.predict(both)) // 2)

    @pytest.mark.parametrize("method", ["linear", "unify"])
    def test_probabilities_as_pyod_computes_them(self, detector: Any, new_digits: NDArray[Any], method: str) -> None:
        """Both ways of scaling give what PyOD's own code gives for the same scores."""
        base = pytest.importorskip("pyod.models.base", reason="pyod is not installed")
        ours = detector.as_pyod()

        class Fixed(base.BaseDetector):  # type: ignore[misc,name-defined]
            """PyOD's scaling around our scores."""

            def __init__(self) -> None:
                super().__init__(contamination=0.1)

            def fit(self, X: Any, y: Any = None) -> Any:  # noqa: ARG002, N803 - PyOD's signature
                self._set_n_classes(y)
                self.decision_scores_ = ours.decision_scores_
                self._process_decision_scores()
                return self

            def decision_function(self, X: Any) -> Any:  # noqa: N803
                return ours.decision_function(X)

        expected = Fixed().fit(None).predict_proba(new_digits, method=method)
        np.testing.assert_allclose(ours.predict_proba(new_digits, method=method), expected, atol=1e-6)
        with pytest.raises(ParameterError, match="linear or unify"):
            ours.predict_proba(new_digits, method="guess")

    def test_fit_through_it(self, digits: NDArray[Any]) -> None:
        """`fit` returns itself and `fit_predict` the labels of the training images."""
        wrapped = Detector(**SMALL, model="dense").as_pyod()
        assert wrapped.fit(digits[:60]) is wrapped
        np.testing.assert_array_equal(wrapped.fit_predict(digits[:60]), wrapped.labels_)
