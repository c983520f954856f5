"""Comparisons: fair, resumable, and plain about who is better."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from oddment.calibration import ThresholdRule
from oddment.comparison import Comparison, Entry, compare, write_comparison
from oddment.comparison.records import scores_of
from oddment.comparison.report import COLUMNS
from oddment.comparison.standings import rank
from oddment.data.labelled import LabelledImage, LabelledSet
from oddment.errors import DataError, ImageError, ParameterError
from oddment.fitting import Settings
from oddment.images.files import ImageRef
from oddment.metrics import auroc

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result
    from numpy.typing import NDArray

SETTINGS = Settings(epochs=1, rule=ThresholdRule("target_fpr", 0.1))


@pytest.fixture(scope="module")
def labelled(digits: NDArray[np.uint8], new_digits: NDArray[np.uint8], articles: NDArray[np.uint8]) -> LabelledSet:
    """A hundred and twenty digits to fit to; digits, articles and a broken file to test on."""
    train = tuple(ImageRef(f"train-{n}", image) for n, image in enumerate(digits[:120]))
    test = [LabelledImage(ImageRef(f"digit-{n}", image), False, "digit") for n, image in enumerate(new_digits)]
    test += [LabelledImage(ImageRef(f"article-{n}", image), True, "article") for n, image in enumerate(articles)]
    test.append(LabelledImage(ImageRef("broken.png", ImageError("empty file")), True, "article"))
    return LabelledSet("sample", "Digits and articles.", train, tuple(test))


@pytest.fixture(scope="module")
def done(labelled: LabelledSet, tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path]:
    """Two models with two seeds, and the folder they were kept in."""
    folder = tmp_path_factory.mktemp("compare")
    result = compare(labelled, ["dense", "latent-plane"], seeds=(0, 1), settings=SETTINGS, folder=folder, bootstrap=100)
    return result, folder


def test_fits_try_no_baselines_beside_them(
    labelled: LabelledSet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Labels tell better than synthetic defects: no fit of a comparison spends time on those, asked for or not."""

    def never(*_: Any, **__: Any) -> None:
        pytest.fail("a comparison tried baselines on synthetic defects")

    monkeypatch.setattr("oddment.fitting.challenge", never)
    for check in (True, False):
        settings = replace(SETTINGS, baseline_check=check)
        result = compare(labelled, ["dense"], settings=settings, folder=tmp_path, bootstrap=10)
        assert [entry.failure for entry in result.entries] == [None]
    assert result.resumed == 1


def _made_up(scores: dict[str, NDArray[np.float64]], truth: NDArray[np.bool_]) -> Comparison:
    """A comparison with given scores; a 2-d array has a row a seed."""
    entries = [
        Entry(name, seed, tuple(row.tolist()), threshold=1.0)
        for name, rows in scores.items()
        for seed, row in enumerate(np.atleast_2d(rows))
    ]
    names = [f"image-{index}" for index in range(len(truth))]
    return Comparison("made up", "", entries, names, ["x"] * len(truth), truth.tolist())


TRUTH = np.arange(300) >= 200
RNG = np.random.default_rng(0)
GOOD, MIDDLING, POOR = (RNG.normal(TRUTH * shift, 1.0) for shift in (3.0, 1.5, 0.5))


class TestFitting:
    """Every entry is fitted and scored alike, and kept."""

    def test_every_model_and_seed_is_an_entry(self, done: tuple[Comparison, Path]) -> None:
        """Each model is fitted with each seed and scores each image, the broken one by nothing."""
        result, _ = done
        assert [(entry.model, entry.seed) for entry in result.entries] == [
            ("dense", 0), ("latent-plane", 0), ("dense", 1), ("latent-plane", 1),
        ]  # fmt: skip
        assert all(len(entry.scores) == 49 and entry.scores[-1] is None for entry in result.entries)
        assert any("1 of 49 test images were rejected" in note for note in result.notes)

    def test_an_entry_is_what_fit_gives(self, done: tuple[Comparison, Path], labelled: LabelledSet) -> None:
        """A comparison's scores are those of a detector with the same settings, to the last bit."""
        from oddment import Detector

        detector = Detector(model="dense", epochs=1, target_fpr=0.1, random_state=1)
        detector.fit(np.stack([ref.payload for ref in labelled.train]))
        own = detector.anomaly_score(np.stack([item.ref.payload for item in labelled.test[:-1]]))
        assert np.array_equal(scores_of([done[0].entries[2]])[0, :-1].astype(np.float32), own)

    def test_standings_are_means_over_seeds(self, done: tuple[Comparison, Path]) -> None:
        """A model's AUROC is the mean over its seeds, inside of their range and its interval."""
        result, _ = done
        truth = np.array(result.is_anomaly)[:-1]
        for item in result.standings:
            own = [auroc(entry.scores[:-1], truth) for entry in result.entries if entry.model == item.model]
            assert item.auroc.value == pytest.approx(np.mean(own))
            assert item.auroc_range == pytest.approx((min(own), max(own)))
            assert item.auroc.low <= item.auroc.value <= item.auroc.high
        assert result.standings[0].behind is None

    def test_results_are_used_again(
        self, done: tuple[Comparison, Path], labelled: LabelledSet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A second run fits nothing, and comes to the same."""
        first, folder = done
        monkeypatch.setattr("oddment.fitting.fit_images", lambda *_, **__: pytest.fail("it was fitted again"))
        again = compare(
            labelled, ["dense", "latent-plane"], seeds=(0, 1), settings=SETTINGS, folder=folder, bootstrap=100
        )
        assert again.resumed == 4
        assert again.standings == first.standings

    def test_an_interrupted_run_goes_on(
        self, labelled: LabelledSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What was finished before Ctrl-C is kept; the rest is fitted by the next run."""
        import oddment.fitting

        real, calls = oddment.fitting.fit_images, []

        def interrupted(*args: Any, **kwargs: Any) -> Any:
            calls.append(args[2].seed)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return real(*args, **kwargs)

        monkeypatch.setattr("oddment.fitting.fit_images", interrupted)
        with pytest.raises(KeyboardInterrupt):
            compare(labelled, ["dense"], seeds=(0, 1), settings=SETTINGS, folder=tmp_path, bootstrap=10)
        result = compare(labelled, ["dense"], seeds=(0, 1), settings=SETTINGS, folder=tmp_path, bootstrap=10)
        assert (result.resumed, calls) == (1, [0, 1, 1])

    def test_results_of_others_are_not_mixed_in(self, done: tuple[Comparison, Path], labelled: LabelledSet) -> None:
        """Other images or settings than those in the folder are refused, whatever the names."""
        _, folder = done
        fewer = replace(labelled, train=labelled.train[:-1])
        with pytest.raises(DataError, match="other images"):
            compare(fewer, ["dense"], settings=SETTINGS, folder=folder)
        with pytest.raises(DataError, match="other settings"):
            compare(labelled, ["dense"], settings=replace(SETTINGS, epochs=2), folder=folder)

    def test_a_damaged_cache_is_named(self, labelled: LabelledSet, tmp_path: Path) -> None:
        """A file that is no comparison is not thrown away unasked."""
        (tmp_path / "compare.json").write_text("[]")
        with pytest.raises(DataError, match="not the results of a comparison"):
            compare(labelled, ["dense"], settings=SETTINGS, folder=tmp_path)

    def test_one_failure_does_not_end_the_rest(self, labelled: LabelledSet) -> None:
        """A model that cannot be fitted is reported with its reason beside those that can."""
        odd = replace(SETTINGS, size=(27, 27))
        result = compare(labelled, ["dense", "conv-small"], settings=odd, bootstrap=10)
        assert [item.model for item in result.standings] == ["dense"]
        assert any("conv-small with seed 0 failed" in note and "multiples of 4" in note for note in result.notes)
        with pytest.raises(DataError, match="no model could be fitted"):
            compare(labelled, ["conv-small"], settings=odd, bootstrap=10)

    def test_mistakes_are_named_together(self, labelled: LabelledSet) -> None:
        """Unknown names, repeated seeds and a bootstrap of nothing are refused before anything is fitted."""
        with pytest.raises(ParameterError, match=r"different numbers.*bootstrap must be.*Did you mean 'dense'"):
            compare(labelled, ["dence"], seeds=(1, 1), bootstrap=0)
        with pytest.raises(ParameterError, match="name at least one model"):
            compare(labelled, [])


class TestVerdicts:
    """What is said of made-up scores."""

    def test_a_better_baseline_is_to_be_used(self) -> None:
        """A baseline beyond the interval of an autoencoder is recommended in plain words."""
        result = _made_up({"conv-small": MIDDLING, "knn": GOOD, "pca": POOR}, TRUTH)
        rank(result, {"knn", "pca"}, 200)
        assert len(result.verdicts) == 1
        assert result.verdicts[0].startswith("knn is better than conv-small by 0.")
        assert result.verdicts[0].endswith("]: use it.")
        assert [item.model for item in result.standings] == ["knn", "conv-small", "pca"]

    def test_each_beaten_model_is_named(self) -> None:
        """A baseline between two autoencoders beats one of them and not the other."""
        result = _made_up({"a": GOOD, "b": POOR, "knn": MIDDLING}, TRUTH)
        rank(result, {"knn"}, 200)
        assert [verdict.split(" by ")[0] for verdict in result.verdicts] == [
            "knn is better than b",
            "a is better than knn, the best baseline,",
        ]

    def test_chance_is_called_chance(self) -> None:
        """Equal detectors are not told apart."""
        noise = RNG.normal(0, 0.05, (2, 300))
        result = _made_up({"conv-small": MIDDLING + noise[0], "knn": MIDDLING + noise[1]}, TRUTH)
        rank(result, {"knn"}, 200)
        assert "no more than chance" in result.verdicts[0]
        assert "use it" not in result.verdicts[0]

    def test_without_baselines_the_best_two_are_compared(self) -> None:
        """Models alone are compared with the next best."""
        result = _made_up({"a": POOR, "b": GOOD}, TRUTH)
        rank(result, set(), 200)
        assert result.verdicts[0].startswith("b is better than a, the next best, by 0.")

    def test_pairing_sees_small_differences(self) -> None:
        """A detector slightly better on the same images is told apart though the intervals overlap."""
        better = MIDDLING + TRUTH * 0.12
        result = _made_up({"a": MIDDLING, "b": better}, TRUTH)
        rank(result, set(), 300)
        first, second = result.standings
        assert first.auroc.low < second.auroc.high
        assert second.behind is not None
        assert second.behind.low > 0

    def test_seeds_widen_the_interval(self) -> None:
        """Seeds that disagree make the interval wider than test images alone do."""
        spread = np.stack([GOOD, POOR, MIDDLING])
        result = _made_up({"steady": np.stack([MIDDLING] * 3), "wild": spread}, TRUTH)
        rank(result, set(), 300)
        width = {item.model: item.auroc.high - item.auroc.low for item in result.standings}
        assert width["wild"] > 1.5 * width["steady"]

    def test_a_seed_that_failed_leaves_the_others(self) -> None:
        """A model that failed with one seed is judged by the rest, without gaps in its interval."""
        result = _made_up({"a": np.stack([GOOD, GOOD]), "b": POOR}, TRUTH)
        rank(result, set(), 100)
        assert [item.seeds for item in result.standings] == [(0, 1), (0,)]
        assert np.isfinite(result.standings[1].auroc.low)


def test_files_are_written(done: tuple[Comparison, Path]) -> None:
    """Tables, page and figures lie beside the kept results."""
    result, folder = done
    written = write_comparison(result, folder)
    assert {path.suffix for path in written} == {".csv", ".md", ".html", ".png"}
    with (folder / "compare.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["model"] for row in rows] == [item.model for item in result.standings]
    with (folder / "compare-scores.csv").open(newline="") as file:
        scores = list(csv.DictReader(file))
    assert len(scores) == 49
    assert float(scores[0]["dense:1"]) == result.entries[2].scores[0]
    assert scores[-1]["dense:0"] == ""
    assert result.verdicts[0].split()[0] in (folder / "compare.html").read_text()


def test_the_command_compares_and_goes_on(tmp_path: Path, invoke: Callable[..., Result], normal_folder: Path) -> None:
    """The command fits, prints standings and verdict, and uses what is there when it is repeated."""
    table = tmp_path / "images.csv"
    files = sorted(normal_folder.iterdir())[:150]
    lines = [f"{file},{'odd' if index % 10 == 0 else 'even'}" for index, file in enumerate(files)]
    table.write_text("path,label\n" + "\n".join(lines) + "\n")
    call = ("compare", table, "--normal", "even", "--models", "dense", "--baselines", "latent-plane", "--epochs", 1,
            "--target-fpr", 0.1, "--bootstrap", 20, "-o", tmp_path / "out")  # fmt: skip
    said = invoke(*call).stdout
    assert "latent-plane (baseline)" in said
    assert "than" in said
    again = json.loads(invoke(*call, "--json").stdout)
    assert again["resumed"] == 2
    assert {item["model"] for item in again["standings"]} == {"dense", "latent-plane"}
    assert "no list of whole numbers" in invoke(*call, "--seeds", "a", code=2).stderr
    assert "other settings" in invoke(*call, "--size", 16, code=3).stderr
