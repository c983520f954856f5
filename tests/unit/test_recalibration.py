"""`oddment recalibrate` and `Scorer.recalibrate`: new normal images, weights untouched, the history kept."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from oddment import ThresholdRule, load
from oddment.artifact import read_model
from oddment.card import model_card
from oddment.errors import DataError, TooFewImagesError
from oddment.regions import map_peak

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Run = Callable[..., Any]


def save(folder: Path, images: Any, name: str = "i") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{name}{index:03d}.png")
    return folder


@pytest.fixture(scope="module")
def others() -> NDArray[np.uint8]:
    """Two hundred digits that the model was not fitted to."""
    from oddment.data.sample import load_sample

    return load_sample("mnist-train").images[600:800]


@pytest.fixture
def model(model_file: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(model_file, tmp_path / "m.oddment"))


class TestCalibration:
    """What the new calibration is made of."""

    def test_scores_peaks_and_threshold(self, model_file: Path, others: NDArray[np.uint8]) -> None:
        """Scores and map peaks of the new images, through the runtime; rule, weights and training scores stay."""
        scorer = load(model_file)
        done = scorer.recalibrate(others)
        new, old = done.scorer.model, scorer.model
        assert new.calibration.scores.tolist() == sorted(scorer.anomaly_score(others).tolist())
        peaks = [map_peak(found.scored.anomaly_map) for found in scorer._found(others)]
        assert new.calibration.peaks.tolist() == sorted(np.float32(peaks).tolist())
        assert new.calibration.rule == old.calibration.rule
        assert new.calibration.training_scores.tolist() == old.calibration.training_scores.tolist()
        assert (new.graph, new.weights, new.preparation) == (old.graph, old.weights, old.preparation)
        assert done.scorer.runtime is scorer.runtime
        assert done.used == done.groups == 200
        assert not done.caveats

    def test_it_can_be_saved_and_read(self, model_file: Path, others: NDArray[np.uint8], tmp_path: Path) -> None:
        """The result is a model file, whose threshold is borne out by its scores."""
        done = load(model_file).recalibrate(others, rule=ThresholdRule("target_fpr", 0.02), note="new lamp")
        done.scorer.save(tmp_path / "new.oddment")
        again = load(tmp_path / "new.oddment")
        assert again.threshold_ == done.scorer.threshold_
        assert again.calibration.rule.value == 0.02
        assert again.p_value(others).tolist() == done.scorer.p_value(others).tolist()

    def test_add_keeps_what_is_there(self, model_file: Path, others: NDArray[np.uint8]) -> None:
        """With add, old and new scores calibrate together."""
        scorer = load(model_file)
        done = scorer.recalibrate(others, add=True)
        both = [*scorer.calibration.scores.tolist(), *scorer.anomaly_score(others).tolist()]
        assert done.scorer.calibration.scores.tolist() == sorted(both)
        assert done.scorer.calibration.n_groups == 320
        assert done.scorer.model.map_range == scorer.model.map_range

    def test_exact_duplicates_count_once(self, model_file: Path, others: NDArray[np.uint8]) -> None:
        """An image that is equal to an earlier one to the last pixel is left out."""
        done = load(model_file).recalibrate(np.concatenate([others[:60], others[:30], others[:60]]))
        assert (done.used, done.repeated, done.scores.size) == (60, 90, 60)

    def test_near_duplicates_count_once(self, model_file: Path, others: NDArray[np.uint8]) -> None:
        """Of near duplicates one image calibrates."""
        close = np.clip(others[:60].astype(int) + 2, 0, 255).astype(np.uint8)
        done = load(model_file).recalibrate(np.concatenate([others[:60], close]))
        assert (done.used, done.groups, done.scores.size) == (60, 60, 120)

    def test_one_image_of_each_group(self, model_file: Path, others: NDArray[np.uint8], tmp_path: Path) -> None:
        """Images of one group count as one, as a pattern over the path tells them."""
        folder = save(tmp_path / "shots", others[:200])
        done = load(model_file).recalibrate(folder, groups=r"(i\d\d)\d")
        assert (done.used, done.groups) == (20, 20)

    def test_too_few_groups_are_told(self, model_file: Path, others: NDArray[np.uint8], tmp_path: Path) -> None:
        """With too few groups for the rate all images calibrate, and a caveat says that the rate is an estimate."""
        folder = save(tmp_path / "shots", others[:200])
        done = load(model_file).recalibrate(folder, groups=r"i(\d)")
        assert (done.used, done.groups) == (200, 2)
        assert "only 2 independent groups" in " ".join(done.caveats)

    def test_too_few_images(self, model_file: Path, others: NDArray[np.uint8]) -> None:
        """Fewer than the rule needs are refused with the number; with add those that are there count."""
        scorer = load(model_file)
        with pytest.raises(TooFewImagesError, match=r"needs at least 19 calibration images .* got 10.*--add"):
            scorer.recalibrate(others[:10])
        assert scorer.recalibrate(others[:10], add=True).scorer.calibration.scores.size == 130

    def test_nothing_usable(self, model_file: Path, tmp_path: Path) -> None:
        """Without a usable image there is nothing to calibrate with."""
        (tmp_path / "a.png").write_bytes(b"no image")
        with pytest.raises(DataError, match="none of the 1 files can be used"):
            load(model_file).recalibrate(tmp_path)


class TestCaveats:
    """What is told, since it makes the threshold wrong."""

    def test_training_images(self, model_file: Path, digits: NDArray[np.uint8]) -> None:
        """The very images of the fit are recognised by their fingerprint, some of them by their scores."""
        scorer = load(model_file)
        assert "the very images" in scorer.recalibrate(digits).caveats[0]
        assert "were trained on" in scorer.recalibrate(digits[:100]).caveats[0]

    def test_the_same_images_again(self, model_file: Path, others: NDArray[np.uint8]) -> None:
        """Adding the same images twice is noticed."""
        done = load(model_file).recalibrate(others)
        assert "now count twice" in done.scorer.recalibrate(others[:50], add=True).caveats[0]

    def test_rules_that_look_elsewhere(self, model_file: Path, others: NDArray[np.uint8]) -> None:
        """A fixed threshold stays what it is, and so it is said."""
        done = load(model_file).recalibrate(others, rule=ThresholdRule("fixed", 0.25))
        assert done.scorer.threshold_ == 0.25
        assert "the threshold stays" in done.caveats[0]


class TestHistory:
    """The list of calibrations in the model file."""

    def test_every_change_is_an_entry(self, invoke: Run, model: Path, others: NDArray[Any], tmp_path: Path) -> None:
        """Fit, recalibrations and rules, oldest first, each with what it rested on; the card tells them."""
        folder = save(tmp_path / "more", others)
        before = read_model(model)
        invoke("recalibrate", model, folder, "--note", "new lamp")
        invoke("threshold", model, "--target-fpr", "0.1")
        invoke("recalibrate", model, save(tmp_path / "yet", before_flip(others)), "--add")
        after = read_model(model)
        history = after.info["calibrations"]
        assert [entry["how"] for entry in history] == ["fit", "replace", "threshold", "add"]
        assert [entry["images"] for entry in history] == [120, 200, 200, 400]
        assert [entry["rule"]["value"] for entry in history] == [0.05, 0.05, 0.1, 0.1]
        assert history[0]["when"] == before.info["created"]
        assert history[0]["threshold"] == before.calibration.threshold
        assert history[-1]["threshold"] == after.calibration.threshold
        assert history[1]["note"] == "new lamp"
        assert "new lamp" in model_card(after)["Calibrations"]["2. recalibrated"]
        assert "Calibrations" not in model_card(before)
        assert "new lamp" in invoke("inspect", model).stdout

    def test_a_foreign_list_is_no_obstacle(self, model_file: Path, others: NDArray[np.uint8]) -> None:
        """Whatever a file says in its place, a new list begins."""
        scorer = load(model_file)
        for odd in ("text", [], {"a": 1}, None):
            scorer.model.info["calibrations"] = odd
            assert len(scorer.recalibrate(others).scorer.model.info["calibrations"]) == 2


def before_flip(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(images[:, ::-1])


class TestCommand:
    """`oddment recalibrate`."""

    def test_json(self, invoke: Run, model: Path, others: NDArray[Any], tmp_path: Path) -> None:
        """Before, after, counts, rejections and the file, as JSON; the old file stays with -o."""
        folder = save(tmp_path / "more", [*others[:100], others[0]])
        (folder / "x.png").write_bytes(b"no image")
        digest = hashlib.sha256(model.read_bytes()).hexdigest()
        told = json.loads(invoke("recalibrate", model, folder, "-o", tmp_path / "n.oddment", "--json").stdout)
        assert told["images"] == {"usable": 101, "repeated": 1, "groups": 100, "calibrating": 100, "rejected": 1}
        assert told["before"]["calibration_images"] == 120
        assert told["after"]["threshold"] == load(tmp_path / "n.oddment").threshold_
        assert told["rejections"][0]["path"].endswith("x.png")
        assert 0 <= told["flagged_before"] <= 1
        assert hashlib.sha256(model.read_bytes()).hexdigest() == digest

    def test_dry_run_and_mistakes_change_nothing(
        self, invoke: Run, model: Path, others: NDArray[Any], tmp_path: Path
    ) -> None:
        """--dry-run, too few images, two rules, --strict with a broken file and a missing folder write nothing."""
        folder = save(tmp_path / "more", others[:30])
        content = model.read_bytes()
        assert "Nothing was changed" in invoke("recalibrate", model, folder, "-n").stdout
        invoke("recalibrate", model, folder, "--target-fpr", "0.01", code=3)
        invoke("recalibrate", model, folder, "--target-fpr", "0.01", "--quantile", "0.9", code=2)
        invoke("recalibrate", model, tmp_path / "none", code=2)
        (folder / "x.png").write_bytes(b"no image")
        invoke("recalibrate", model, folder, "--strict", code=3)
        assert model.read_bytes() == content
        assert sorted(path.name for path in tmp_path.iterdir()) == ["m.oddment", "more"]
