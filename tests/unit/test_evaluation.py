"""An evaluation's figures against scikit-learn, its files, and what it says of itself."""

from __future__ import annotations

import csv
import json
import math
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from oddment.data.labelled import LabelledImage, LabelledSet
from oddment.errors import DataError, ImageError, ParameterError
from oddment.evaluation import evaluate, write_evaluation
from oddment.evaluation.report import COLUMNS, evaluation_dict, evaluation_page
from oddment.evaluation.run import read_mask
from oddment.images.files import ImageRef
from oddment.report.page import page_markdown

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result
    from numpy.typing import NDArray

    from oddment.evaluation import Evaluation


@pytest.fixture(scope="module")
def labelled(new_digits: NDArray[np.uint8], articles: NDArray[np.uint8]) -> LabelledSet:
    """Forty digits, eight articles, and one broken article; a digit class with a name meant to hurt."""
    test = [
        LabelledImage(ImageRef(f"digit-{n}", image), is_anomaly=False, label="<b>even|" if n % 2 == 0 else "odd")
        for n, image in enumerate(new_digits)
    ]
    test += [LabelledImage(ImageRef(f"article-{n}", image), True, "article") for n, image in enumerate(articles)]
    test.insert(3, LabelledImage(ImageRef("broken.png", ImageError("empty file")), True, "article"))
    return LabelledSet("sample", "Digits and articles.", (), tuple(test))


@pytest.fixture(scope="module")
def result(detector: Any, labelled: LabelledSet) -> Evaluation:
    """The evaluation of the session's small model."""
    return evaluate(detector.scorer_, labelled, bootstrap=100)


def test_figures_are_those_of_scikit_learn(detector: Any, labelled: LabelledSet, result: Evaluation) -> None:
    """Ranking figures over the scored images agree with scikit-learn's, and rates with counting."""
    usable = [item for item in labelled.test if not isinstance(item.ref.payload, ImageError)]
    scores = detector.anomaly_score(np.stack([item.ref.payload for item in usable]))
    truth = np.array([item.is_anomaly for item in usable])
    assert result.figures["auroc"].value == pytest.approx(roc_auc_score(truth, scores))
    assert result.figures["average_precision"].value == pytest.approx(average_precision_score(truth, scores))
    assert result.figures["tpr"].value == pytest.approx((scores[truth] > detector.threshold_).mean())
    assert result.figures["fpr"].value == pytest.approx((scores[~truth] > detector.threshold_).mean())
    for name in ("auroc", "average_precision", "f1", "tpr", "fpr"):
        figure = result.figures[name]
        assert figure.low <= figure.value <= figure.high, name


def test_every_image_is_accounted_for(labelled: LabelledSet, result: Evaluation) -> None:
    """Rejected files are counted with their class and reason, and every image has one outcome, in order."""
    assert [item.result.path for item in result.judged] == [item.ref.path for item in labelled.test]
    counts = {name: result.count(name) for name in ("found", "missed", "passed", "false alarm", "rejected")}  # type: ignore[arg-type]
    assert sum(counts.values()) == 49
    assert counts["rejected"] == 1
    article = result.classes[-1]
    assert (article.label, article.total, article.rejected, article.is_anomaly) == ("article", 9, 1, True)
    assert evaluation_dict(result)["rejections"] == [{"path": "broken.png", "label": "article", "reason": "empty file"}]
    assert any("1 of 49 test images were rejected" in note for note in result.notes)


def test_classes_are_ranked_among_all_normal_images(result: Evaluation) -> None:
    """With one anomalous class its AUROC is that of the whole; normal classes have none."""
    assert [item.label for item in result.classes] == ["<b>even|", "odd", "article"]
    assert result.classes[-1].auroc.value == result.figures["auroc"].value
    assert math.isnan(result.classes[0].auroc.value)


@pytest.fixture(scope="module")
def written(result: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Everything that is written, in a folder of its own that is made for it."""
    return write_evaluation(result, tmp_path_factory.mktemp("evaluation") / "out", model_name="digits.oddment")


def test_files_are_written(result: Evaluation, written: list[Path]) -> None:
    """JSON parses, the table has a row an image, figures lie beside the page, and nothing else is left."""
    folder = written[0].parent
    assert sorted(written) == sorted(folder.iterdir())
    content = json.loads((folder / "evaluation.json").read_text())
    assert content["counts"] == {"test": 49, "scored": 48, "rejected": 1, "normal": 40, "anomalous": 8}
    with (folder / "evaluation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 49
    assert rows[3]["outcome"] == "rejected"
    assert rows[3]["reason"] == "empty file"
    assert float(rows[0]["anomaly_score"]) == result.judged[0].score
    assert {path.suffix for path in written} == {".json", ".csv", ".md", ".html", ".png"}


def test_the_page_is_safe_and_alone(written: list[Path]) -> None:
    """Names of others are never markup, in HTML or Markdown, and the page loads nothing."""
    folder = written[0].parent
    page = (folder / "evaluation.html").read_text()
    assert "&lt;b&gt;even|" in page
    assert "<b>even" not in page
    # With the colon: the letters alone may come about in an embedded picture.
    assert "http:" not in page
    assert "https:" not in page
    assert "<script" not in page
    text = (folder / "evaluation.md").read_text()
    assert "| \\<b>even\\| |" in text
    assert "![" in text


def test_without_matplotlib_there_are_tables(
    result: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the plot extra is missing, the page says so and everything else is written."""
    for name in [name for name in sys.modules if name.startswith("oddment.plot")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("oddment.plot", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    written = write_evaluation(result, tmp_path)
    assert {path.suffix for path in written} == {".json", ".csv", ".md", ".html"}
    assert "oddment[plot]" in (tmp_path / "evaluation.html").read_text()


def test_one_kind_alone_still_has_its_rate(detector: Any, labelled: LabelledSet) -> None:
    """With normal images alone, AUROC is not defined and says so; the false-alarm rate is."""
    normal = replace(labelled, test=tuple(item for item in labelled.test if not item.is_anomaly))
    result = evaluate(detector.scorer_, normal, bootstrap=10)
    assert "auroc" not in result.figures
    assert result.figures["fpr"].value >= 0
    assert any("no anomaly among" in note for note in result.notes)
    assert evaluation_dict(result)["figures"]["tpr"]["value"] is None


def test_a_broken_promise_is_noticed(detector: Any, labelled: LabelledSet) -> None:
    """Normal images unlike those of calibration are told from bad luck."""
    strange = replace(labelled, test=tuple(replace(item, is_anomaly=not item.is_anomaly) for item in labelled.test * 3))
    assert any("lies further above" in note for note in evaluate(detector.scorer_, strange, bootstrap=0).notes)
    assert not any("lies further above" in note for note in evaluate(detector.scorer_, labelled, bootstrap=0).notes)


def test_groups_reach_the_bootstrap(detector: Any, labelled: LabelledSet) -> None:
    """Images of one group are drawn together, which changes the interval and not the figure."""
    alone = evaluate(detector.scorer_, labelled, bootstrap=50)
    grouped = evaluate(detector.scorer_, labelled, bootstrap=50, groups=lambda path: path[-1])
    assert alone.figures["auroc"].value == grouped.figures["auroc"].value
    assert alone.figures["average_precision"] != grouped.figures["average_precision"]


def test_masks_give_pixel_figures(detector: Any, new_digits: NDArray[np.uint8], tmp_path: Path) -> None:
    """A bright patch under its mask is found; an anomaly without a mask is counted as such."""
    spoilt = new_digits[:3].copy()
    spoilt[:, 2:8, 2:8] = 255
    mask = np.zeros((28, 28), np.uint8)
    mask[2:8, 2:8] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    test = [LabelledImage(ImageRef(f"good-{n}", image), False, "good") for n, image in enumerate(new_digits[5:15])]
    test += [
        LabelledImage(ImageRef(f"spot-{n}", image), True, "spot", mask=tmp_path / "mask.png" if n else None)
        for n, image in enumerate(spoilt)
    ]
    result = evaluate(detector.scorer_, LabelledSet("spots", "", (), tuple(test)), bootstrap=0)
    assert result.pixels is not None
    assert result.pixels.auroc > 0.9
    assert result.pixels.aupro > 0.7
    assert (result.pixels.n_regions, result.pixels.n_images, result.unmasked) == (2, 12, 1)
    assert "| AUPRO |" in page_markdown(evaluation_page(result, []))


def test_masks_of_all_kinds_are_read(tmp_path: Path) -> None:
    """Any value but black counts in a mask of few values; in a smoothed one, what is brighter than half."""
    few = np.array([[0, 1], [2, 255]], np.uint8)
    smooth = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for name, pixels in (("few.png", few), ("smooth.png", smooth)):
        Image.fromarray(pixels).save(tmp_path / name)
    assert read_mask(tmp_path / "few.png").tolist() == [[False, True], [True, True]]
    assert read_mask(tmp_path / "smooth.png").sum() == 128
    with pytest.raises(DataError, match=r"mask .*missing\.png: no such file"):
        read_mask(tmp_path / "missing.png")


def test_mistakes_are_named(detector: Any, labelled: LabelledSet) -> None:
    """A negative bootstrap and a test set without a usable image are refused."""
    with pytest.raises(ParameterError, match="bootstrap must be 0 or more"):
        evaluate(detector.scorer_, labelled, bootstrap=-1)
    broken = replace(labelled, test=tuple(item for item in labelled.test if item.ref.path == "broken.png"))
    with pytest.raises(
        DataError, match=r"none of the 1 test images could be scored; the first: broken\.png: empty file"
    ):
        evaluate(detector.scorer_, broken)


@pytest.fixture(scope="module")
def class_folder(
    new_digits: NDArray[np.uint8], articles: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder per class, with a file that is no image."""
    root = tmp_path_factory.mktemp("labelled")
    for name, images in (("digit", new_digits), ("article", articles)):
        (root / name).mkdir()
        for index, image in enumerate(images):
            Image.fromarray(image).save(root / name / f"{index}.png")
    (root / "article" / "empty.png").touch()
    return root


class TestCommand:
    """The command line."""

    def test_evaluate_prints_and_writes(
        self, class_folder: Path, model_file: Path, tmp_path: Path, invoke: Callable[..., Result]
    ) -> None:
        """The command prints figures and classes, names what was rejected, and writes the page."""
        said = invoke(
            "evaluate", class_folder, "-m", model_file, "-o", tmp_path, "--normal", "digit", "--test-share", 0.9
        ).stdout
        assert "AUROC" in said
        assert "article (anomaly)" in said
        assert "1 rejected" in said
        assert (tmp_path / "evaluation.html").stat().st_size > 10_000

    def test_json_is_the_file(
        self, class_folder: Path, model_file: Path, tmp_path: Path, invoke: Callable[..., Result]
    ) -> None:
        """--json prints what evaluation.json holds and nothing else."""
        options = ("--normal", "digit", "--limit", 20, "--bootstrap", 10, "--json")
        said = invoke("evaluate", class_folder, "-m", model_file, "-o", tmp_path, *options).stdout
        assert json.loads(said) == json.loads((tmp_path / "evaluation.json").read_text())

    def test_mistakes_exit_with_two(self, class_folder: Path, model_file: Path, invoke: Callable[..., Result]) -> None:
        """A class that is not there, and an OUT that is a file, are wrong usage."""
        assert "no class" in invoke("evaluate", class_folder, "-m", model_file, "--normal", "cat", code=2).stderr
        said = invoke("evaluate", class_folder, "-m", model_file, "-o", model_file, "--normal", "digit", code=2).stderr
        assert "is a file" in said
