"""Every recipe, end to end in its quick mode, and the claims that it must answer."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from oddment.errors import DataError, ParameterError
from oddment.recipes import Option, get_recipe, recipe_names, register, run_recipe
from oddment.recipes._report import number, over_seeds
from oddment.recipes.deepweeds import printed_by_the_article
from oddment.scorer import load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oddment.recipes import Outcome

# What each system claims or prints: a piece of the claim's text.
CLAIMED = {
    "three-autoencoders": ["abnormal half", "two dense models", "too well", "101,200", "218,192", "12,201"],
    "held-out-digit": [
        *(f"train loss {loss}" for loss in ("4.024", "3.847", "3.792", "3.756", "3.732")),
        *(f"test loss {loss}" for loss in ("3.856", "3.721", "3.675", "3.649", "3.634")),
        "5s: accuracy 0.00",
        "no false positive",
        "almost correctly",
        "50,992",
    ],
    "latent-plane": ["7s reconstruct better", "horizontal line", "25,090", "26,369"],
    "deepweeds": ["11 images over", "all 11", "2,121,216", "2,223,587"],
    "contaminated-ones": [
        *("0.0405", "0.0088", "0.0037", "0.0019", "2 minutes", "0.0286", "7 outliers", "5 of them"),
        *("69,392", "109,377"),
    ],
}
PICTURES = {
    "three-autoencoders": ["result.png", "result-epoch-1.png", "digits.png", "articles.png", "model-autoencoder.png"],
    "held-out-digit": ["reconstructions.png", "errors.png", "loss.png"],
    "latent-plane": ["latent.png", "errors.png", "examples-normal.png", "redrawn-abnormal.png"],
    "deepweeds": ["errors.png", "redrawn-anomalies.png", "loss.png"],
    "contaminated-ones": ["recon_plot.png", "recon_vis.png", "outliers.png"],
}


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Outcome, Path]]:
    """Runs a recipe quickly, once a session."""
    done: dict[str, tuple[Outcome, Path]] = {}

    def call(name: str) -> tuple[Outcome, Path]:
        if name not in done:
            folder = tmp_path_factory.mktemp("recipe") / name
            done[name] = (run_recipe(get_recipe(name), folder, quick=True), folder)
        return done[name]

    return call


def test_the_five_recipes_are_there() -> None:
    """The five reference systems, and each under its name."""
    assert recipe_names() == sorted(CLAIMED)
    assert all(get_recipe(name).name == name for name in CLAIMED)


@pytest.mark.parametrize("name", sorted(CLAIMED))
def test_a_recipe_runs_and_answers_every_claim(name: str, quick: Callable[[str], tuple[Outcome, Path]]) -> None:
    """A quick run writes every file, has a row for each claim, and checks no claim that needs the full data."""
    outcome, folder = quick(name)
    assert {path.name for path in outcome.written} >= {"claims.md", "results.json", "results.csv", "report.html"}
    text = (folder / "claims.md").read_text(encoding="utf-8")
    missing = [claim for claim in CLAIMED[name] if claim not in text]
    assert not missing
    counts = [claim for claim in outcome.claims if "parameters" in claim.text]
    assert counts
    assert all(claim.verdict == "holds" for claim in counts)
    assert all(claim.verdict == "cannot be checked here" for claim in outcome.claims if claim.needs_full)


@pytest.mark.parametrize("name", sorted(CLAIMED))
def test_its_tables_agree(name: str, quick: Callable[[str], tuple[Outcome, Path]]) -> None:
    """results.json is plain JSON with the options and seeds, results.csv has a row an image."""
    outcome, folder = quick(name)
    data = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert (data["recipe"], data["seeds"], data["quick"]) == (name, [0], True)
    assert data["options"] == outcome.options
    assert data["claims"][0]["verdict"] == "cannot be checked here"
    with (folder / "results.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(outcome.runs[0].rows)
    assert rows[0]["seed"] == "0"


@pytest.mark.parametrize("name", sorted(CLAIMED))
def test_its_pictures_show_something(name: str, quick: Callable[[str], tuple[Outcome, Path]]) -> None:
    """Every picture of the original is there, none is blank, and the report holds them all."""
    outcome, folder = quick(name)
    drawn = outcome.runs[0].pictures
    assert set(PICTURES[name]) <= set(drawn)
    for picture in drawn:
        with Image.open(folder / picture) as image:
            assert np.asarray(image.convert("L")).std() > 1, picture
    assert (folder / "report.html").read_text(encoding="utf-8").count("data:image/png") == len(drawn)


def test_the_saved_model_finds_the_same_outliers(quick: Callable[[str], tuple[Outcome, Path]]) -> None:
    """contaminated-ones leaves a model file and a plain array, from which every score follows again."""
    outcome, folder = quick("contaminated-ones")
    images = np.load(folder / "images.npy", allow_pickle=False)
    scores = load(folder / "autoencoder.oddment").anomaly_score(images)
    assert [repr(float(score)) for score in scores] == [row["error"] for row in outcome.runs[0].rows]


def test_every_seed_gives_a_run(tmp_path: Path) -> None:
    """--seeds runs several seeds, the table has all of them, the claims tell the spread."""
    few = {"epochs": "1", "test-images": "10"}
    outcome = run_recipe(get_recipe("latent-plane"), tmp_path, few, seed=3, seeds=2, quick=True)
    assert [run.seed for run in outcome.runs] == [3, 4]
    assert len(set(outcome.figures["mean score, normal"])) == 2
    assert outcome.runs[1].pictures == {}
    assert "2 seeds" in (tmp_path / "claims.md").read_text(encoding="utf-8")


def test_a_seed_fixes_the_run(tmp_path: Path) -> None:
    """The same seed gives the same figures to the bit."""
    few = {"epochs": "1", "test-images": "10"}
    first, second = (run_recipe(get_recipe("latent-plane"), tmp_path, few, seed=1, quick=True) for _ in range(2))
    assert first.figures == second.figures


def test_loss_and_optimizer_of_the_original(tmp_path: Path) -> None:
    """three-autoencoders takes the original's other loss and optimisers, and then scores by that loss."""
    options = {"optimizer": "sgd", "loss": "bce", "epochs": "1", "test-samples": "5", "picture": "mine.png"}
    outcome = run_recipe(get_recipe("three-autoencoders"), tmp_path, options, quick=True)
    assert (tmp_path / "mine.png").exists()
    # An untrained sigmoid says one half: ln 2, where the squared error would be a quarter at most.
    assert all(0.5 < float(row["autoencoder"]) < 1.5 for row in outcome.runs[0].rows)


def test_the_articles_arithmetic_passes_everything() -> None:
    """The article's count is fixed by its quantile and its check passes normal images as well."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1020, 8, 8, 3)).astype(np.uint8)
    odd = np.arange(1020) >= 1009
    printed = printed_by_the_article(images, rng.random((204, 8, 8, 3)).astype(np.float32), odd, 0.95)
    assert printed["over the threshold"] == 11
    assert printed["found to be anomalies by the any-pixel check"] == 11
    assert printed["normal images that pass the same check"] == 11
    assert printed["truly anomalies"] == 0


def test_look_alikes_are_called_so(quick: Callable[[str], tuple[Outcome, Path]]) -> None:
    """Without the photographs the recipe says that it ran on generated images."""
    outcome, folder = quick("deepweeds")
    assert "not photographs" in outcome.runs[0].data
    assert "not photographs" in (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epoch": "3"}, "Did you mean --epochs?"),
        ({"epochs": "many"}, "whole number"),
        ({"epochs": "0"}, "at least 1"),
        ({"optimizer": "rmsprop"}, "one of adam"),
        ({"epochs": "0", "loss": "l1"}, "--loss must be one of"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, str], words: str, tmp_path: Path) -> None:
    """A wrong option is refused before anything runs, with what would be right."""
    with pytest.raises(ParameterError, match=words):
        run_recipe(get_recipe("three-autoencoders"), tmp_path / "out", options, quick=True)
    assert not (tmp_path / "out").exists()


def test_refusals_name_what_is_right(tmp_path: Path) -> None:
    """An unknown recipe, no seed, a file for a folder, one class twice: each is refused in words."""
    with pytest.raises(ParameterError, match="Did you mean 'deepweeds'"):
        get_recipe("deepweed")
    with pytest.raises(ParameterError, match="seeds must lie"):
        run_recipe(get_recipe("deepweeds"), tmp_path, seeds=0, quick=True)
    (tmp_path / "file").touch()
    with pytest.raises(ParameterError, match="is a file"):
        run_recipe(get_recipe("deepweeds"), tmp_path / "file", quick=True)
    with pytest.raises(ParameterError, match="two classes"):
        run_recipe(get_recipe("deepweeds"), tmp_path, {"normal": "lantana"}, quick=True)
    with pytest.raises(DataError, match="does not exist"):
        run_recipe(get_recipe("deepweeds"), tmp_path, {"data": str(tmp_path / "none")}, quick=True)
    with pytest.raises(ParameterError, match="registered already"):
        register(get_recipe("deepweeds"))


def test_full_runs_need_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full run on a machine without MNIST says how to get it."""
    monkeypatch.setenv("ODDMENT_DATA", str(tmp_path / "none"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(DataError, match="oddment data get mnist"):
        run_recipe(get_recipe("latent-plane"), tmp_path / "out")


def test_numbers_for_people() -> None:
    """Whole numbers stay whole, what is not a number is a dash, spreads say over how many seeds."""
    assert [number(value) for value in (7.0, 0.02861234, float("nan"), 60000.0)] == ["7", "0.02861", "–", "60,000"]
    assert over_seeds([7.0, 7.0]) == "7 (each of 2 seeds)"
    assert Option("margin", 0.0, "").read("-0.5") == -0.5
    with pytest.raises(ParameterError, match="finite"):
        Option("margin", 0.0, "").read("nan")


# --- the command line


def test_cli_list_and_show(invoke: Callable[..., Any]) -> None:
    """`list` names every recipe, `show` every option with its default, both also as JSON."""
    shown = invoke("recipe", "list").stdout
    assert all(name in shown for name in CLAIMED)
    listed = json.loads(invoke("recipe", "list", "--json").stdout)
    assert [item["name"] for item in listed["recipes"]] == sorted(CLAIMED)
    text = invoke("recipe", "show", "contaminated-ones").stdout
    assert "--quantile" in text
    assert "0.999" in text
    assert json.loads(invoke("recipe", "show", "deepweeds", "--json").stdout)["seeds"] == 1
    assert "no recipe" in invoke("recipe", "show", "nothing", code=2).stderr


def test_cli_run(invoke: Callable[..., Any], tmp_path: Path) -> None:
    """`run` takes a recipe's own options after its name and writes its folder; --json prints the claims."""
    words = ("recipe", "run", "latent-plane", "-o", tmp_path / "out", "--quick", "--epochs", 1, "--test-images=10")
    result = invoke(*words, "--json")
    data = json.loads(result.stdout)
    assert (data["options"]["epochs"], data["options"]["test-images"]) == (1, 10)
    assert data["claims"][0]["claim"] == "7s reconstruct better than 5s"
    assert (tmp_path / "out" / "report.html").exists()
    assert "cannot be checked here" in invoke(*words).stdout
    assert not invoke(*words, "-q").stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "the name of one recipe"),
        (("latent-plane", "--all"), "the name of one recipe"),
        (("--all", "--epochs", "1"), "name"),
        (("latent-plane", "--epochs"), "needs a value"),
        (("latent-plane", "more"), "neither an option"),
        (("latent-plane", "--speed", "9"), "has no option --speed"),
    ],
)
def test_cli_wrong_usage(words: tuple[str, ...], message: str, invoke: Callable[..., Any]) -> None:
    """Wrong usage exits with 2 and says what would be right."""
    assert message in invoke("recipe", "run", *words, "--quick", code=2).stderr
