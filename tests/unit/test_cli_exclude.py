"""`oddment fit --exclude`: what a review leaves out is neither trained on nor calibrated with."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from oddment import Detector
from oddment.artifact import read_model
from oddment.errors import ParameterError
from oddment.reviewing import Reviewed, write_review

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., Any]

QUICK = ("--model", "pca", "--target-fpr", "0.1", "--no-duplicates", "--no-baseline-check")


@pytest.fixture
def folder(normal_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sixty digits in photos/, and the current folder above it."""
    (tmp_path / "photos").mkdir()
    for path in sorted(normal_folder.iterdir())[:60]:
        shutil.copy(path, tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def name(index: int) -> str:
    return f"photos/digit-{index:04d}.png"


def test_a_review_leaves_out_and_says_so(invoke: Run, folder: Path) -> None:
    """What is left out is printed, is in the model file and on its card, and the model is that of the rest."""
    rows = [Reviewed(name(index), "anomaly" if index < 4 else "keep", True, 1.0) for index in range(6)]
    write_review(
        folder / "photos" / "review.csv", [*rows, Reviewed(name(7), "", True), Reviewed("photos/gone.png", "anomaly")]
    )
    result = invoke("fit", "photos", "-o", "m.oddment", *QUICK, "--exclude", "photos/review.csv")
    assert "5 images (4 marked anomaly, 1 selected by the search and not marked keep)" in result.stderr
    assert "1 of its 6 paths, such as photos/gone.png, which name no image here" in result.stderr
    assert "5 images were left out (--exclude)." in result.stdout
    assert "Note: 1 images were left out because their score selected them" in result.stdout
    data = read_model(folder / "m.oddment").info["data"]
    assert (data["usable"], data["rejected"], data["excluded"]["images"]) == (55, 0, 5)
    assert "5 by review.csv" in invoke("inspect", "m.oddment").stdout
    for index in (0, 1, 2, 3, 7):
        (folder / name(index)).unlink()
    (folder / "photos" / "review.csv").unlink()
    invoke("fit", "photos", "-o", "rest.oddment", *QUICK)
    assert read_model(folder / "rest.oddment").info["data"]["fingerprint"] == data["fingerprint"]


def test_what_a_search_has_found(invoke: Run, folder: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The results of `find` leave out what they select, though fit runs in another folder; a list adds to it."""
    invoke("find", "photos", "-m", model_file, "-o", "out", "-q", "--no-report")
    rows = [json.loads(line) for line in (folder / "out/results.jsonl").read_text(encoding="utf-8").splitlines()]
    selected = {row["path"] for row in rows if row["is_anomaly"]}
    ordinary = next(row["path"] for row in rows if not row["is_anomaly"])
    (folder / "list.txt").write_text(f"{ordinary}\n", encoding="utf-8")
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    arguments = ("fit", "../photos", "-o", "m.oddment", *QUICK, "--exclude", "../list.txt")
    document = json.loads(invoke(*arguments, "--exclude", "../out/results.csv", "--json").stdout)
    listed, found = document["info"]["data"]["excluded"]["files"]
    assert (listed["kind"], listed["images"]) == ("list", 1)
    assert (found["kind"], found["images"]) == ("results", len(selected))
    assert document["info"]["data"]["usable"] == 60 - len(selected) - 1


def test_members_of_an_archive(invoke: Run, folder: Path) -> None:
    """Members of an archive are left out by the names that a search gives them; unsure ones only when asked."""
    shutil.make_archive("photos", "zip", folder, "photos")
    rows = [Reviewed(f"photos.zip!/{name(0)}", "anomaly"), Reviewed(f"photos.zip!/{name(1)}", "unsure")]
    write_review(folder / "review.csv", rows)
    arguments = ("fit", "photos.zip", "-o", "m.oddment", *QUICK, "--exclude", "review.csv", "--json")
    assert json.loads(invoke(*arguments).stdout)["info"]["data"]["usable"] == 59
    assert json.loads(invoke(*arguments, "--exclude-unsure").stdout)["info"]["data"]["usable"] == 58


@pytest.mark.parametrize(
    ("content", "options", "says"),
    [
        ("other/a.png\n", (), "none of its 1 paths names an image here; the first is other/a.png"),
        ("path,verdict\nphotos/digit-0000.png,bad\n", (), "line 2: verdict must be keep, anomaly, unsure or empty"),
        ("".join(f"{name(index)}\n" for index in range(60)), (), "leaves out all 60 images"),
        (None, (), "No such file"),
        ("", ("--exclude-unsure",), "add --exclude"),
    ],
    ids=["no-match", "verdict", "all", "missing", "unsure-alone"],
)
@pytest.mark.usefixtures("folder")
def test_mistakes(invoke: Run, tmp_path: Path, content: str | None, options: tuple[str, ...], says: str) -> None:
    """A review that is wrong, or of other images, is refused before an image is read; no model file is left."""
    review = "review.csv" if (content or "").startswith("path,") else "list.txt"
    if content is not None:
        (tmp_path / review).write_text(content, encoding="utf-8")
    given = options or ("--exclude", review)
    result = invoke("fit", "photos", "-o", "m.oddment", *QUICK, *given, code=2)
    assert says in result.stderr
    assert "Reading images" not in result.stderr
    assert not (tmp_path / "m.oddment").exists()


def test_in_python(folder: Path) -> None:
    """`Detector.fit` takes the same files; groups name all images; arrays have no paths."""
    write_review(folder / "review.csv", [Reviewed(name(index), "anomaly") for index in range(5)])
    detector = Detector(model="pca", target_fpr=0.1, find_duplicates=False, baseline_check=False)
    detector.fit("photos", groups=[0] * 5 + list(range(55)), exclude="review.csv")
    data = detector.scorer_.model.info["data"]
    assert (len(detector.scores_), data["groups"], data["excluded"]["images"]) == (55, 55, 5)
    with pytest.raises(ParameterError, match="X is an array"):
        detector.fit([[0.0, 1.0]] * 40, exclude=["review.csv"])
