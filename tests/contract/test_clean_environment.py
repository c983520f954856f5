"""`pip install oddment` without extras: an environment that holds the declared dependencies and nothing else."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tomllib
import venv
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import oddment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Clean = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def declared() -> Iterator[str]:
    """The names of the dependencies without extras, and of theirs, as pyproject.toml declares them today."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    waiting, seen = [Requirement(text) for text in project["dependencies"]], set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in seen or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add(name)
        yield name
        waiting += [Requirement(text) for text in distribution(name).requires or ()]


def top_level(name: str) -> set[Path]:
    """The files and folders of an installed distribution, as they lie in site-packages."""
    site = Path(str(distribution(name).locate_file("")))
    tops = {Path(str(file)).parts[0] for file in distribution(name).files or ()}
    return {site / top for top in tops if top not in {"..", "bin", "__pycache__"} and (site / top).exists()}


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Clean:
    """Runs Python in a fresh virtual environment; needs no network, since the packages are linked from this one."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    site = next(folder.glob("lib*/python3*/site-packages"))
    for item in {path for name in declared() for path in top_level(name)}:
        (site / item.name).symlink_to(item)
    (site / "oddment").symlink_to(Path(oddment.__file__).parent)

    def call(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(folder / "bin" / "python"), "-I", "-W", "error", *map(str, arguments)],
            capture_output=True,
            text=True,
            encoding="utf-8",
            env={key: value for key, value in os.environ.items() if not key.startswith("PYTHON")} | {"COLUMNS": "200"},
            timeout=120,
            check=False,
        )
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return call


def test_the_learning_half_is_not_there(clean: Clean) -> None:
    """Neither torch nor scikit-learn nor SciPy is installed, nor comes with a dependency."""
    names = ["torch", "sklearn", "scipy", "onnx", "pandas", "pyarrow", "matplotlib"]
    code = f"from importlib.util import find_spec; print([name for name in {names} if find_spec(name)])"
    assert clean("-c", code).stdout.strip() == "[]"
    assert not {"torch", "scikit-learn", "scipy"} & set(declared())


def test_find_inspect_threshold(
    clean: Clean, detector: Any, model_file: Path, new_folder: Path, tmp_path: Path
) -> None:
    """Finding, inspecting and changing the threshold work, with the very scores of the environment that trained."""
    clean("-m", "oddment", "find", new_folder, "-m", model_file, "-o", tmp_path / "out", "--maps")
    with (tmp_path / "out" / "results.csv").open(newline="", encoding="utf-8") as file:
        scores = [float(row["anomaly_score"]) for row in csv.DictReader(file)]
    assert scores == detector.anomaly_score(new_folder).tolist()
    assert (tmp_path / "out" / "report.html").exists()
    card = json.loads(clean("-m", "oddment", "inspect", model_file, "--json").stdout)
    assert card["calibration"]["threshold"] == detector.threshold_
    clean("-m", "oddment", "inspect", model_file)
    clean("-m", "oddment", "threshold", model_file)
    clean("-m", "oddment", "threshold", model_file, "--target-fpr", "0.1", "-o", tmp_path / "other.oddment")
    assert (tmp_path / "other.oddment").exists()


def test_monitor_recalibrate(clean: Clean, model_file: Path, new_folder: Path, tmp_path: Path) -> None:
    """Watching and recalibrating work without SciPy; without matplotlib there is no chart and no error."""
    clean("-m", "oddment", "monitor", model_file, new_folder, "-o", tmp_path / "drift")
    assert sorted(path.name for path in (tmp_path / "drift").iterdir()) == ["monitor.csv", "monitor.json"]
    clean("-m", "oddment", "recalibrate", model_file, new_folder, "-o", tmp_path / "other.oddment")
    card = json.loads(clean("-m", "oddment", "inspect", tmp_path / "other.oddment", "--json").stdout)
    assert [entry["how"] for entry in card["info"]["calibrations"]] == ["fit", "replace"]


def test_python(clean: Clean, model_file: Path, new_folder: Path) -> None:
    """`oddment.load` scores paths and arrays, and nothing of the learning half is in sys.modules afterwards."""
    code = (
        "import sys, numpy as np, oddment\n"
        f"scorer = oddment.load({str(model_file)!r})\n"
        f"print(len(scorer.detect({str(new_folder)!r})), scorer.anomaly_score(np.zeros((2, 28, 28), np.uint8)).shape)\n"
        "print(sorted({'torch', 'sklearn', 'scipy', 'oddment.fitting'} & set(sys.modules)))"
    )
    assert clean("-c", code).stdout.splitlines() == ["48 (2,)", "[]"]


@pytest.mark.parametrize("arguments", [["fit", "{new}", "-o", "{out}/m.oddment"], ["demo", "-o", "{out}/demo"]])
def test_fitting_says_what_to_install(clean: Clean, new_folder: Path, tmp_path: Path, arguments: list[str]) -> None:
    """Fitting exits with 2 and the pip command, leaves nothing behind and shows no traceback."""
    words = [word.format(new=new_folder, out=tmp_path) for word in arguments]
    done = clean("-m", "oddment", *words, code=2)
    assert "pip install 'oddment[train]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_parquet_says_what_to_install(clean: Clean, model_file: Path, new_folder: Path, tmp_path: Path) -> None:
    """--parquet without pyarrow exits with 2 and the pip command before anything is written."""
    done = clean("-m", "oddment", "find", new_folder, "-m", model_file, "-o", tmp_path / "out", "--parquet", code=2)
    assert "pip install 'oddment[parquet]'" in done.stderr
    assert not (tmp_path / "out").exists()


def test_this_environment_is_another() -> None:
    """The packages that the clean environment lacks are here, so that the test above means something."""
    assert distribution("torch").version
    assert sys.prefix
