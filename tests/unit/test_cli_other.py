"""`oddment threshold`, `inspect`, `demo`, and the command line as a whole."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import oddment
from oddment import load
from oddment.artifact import read_model
from oddment.cli._shared import parse_seconds, parse_size
from oddment.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., Any]


@pytest.fixture
def model(model_file: Path, tmp_path: Path) -> Path:
    """A copy of the model file that may be changed."""
    return Path(shutil.copy(model_file, tmp_path / "m.oddment"))


class TestThreshold:
    """Another rule without retraining."""

    def test_changes_the_rule_and_nothing_else(self, invoke: Run, model: Path, model_file: Path) -> None:
        """The new threshold is in the file, the graph is untouched, and before and after are shown."""
        text = invoke("threshold", model, "--target-fpr", "0.1").stdout
        old, new = read_model(model_file), read_model(model)
        assert new.calibration.threshold < old.calibration.threshold
        assert new.calibration.rule.value == 0.1
        assert (new.graph, new.weights) == (old.graph, old.weights)
        history = new.info.pop("calibrations")
        assert new.info == old.info
        assert [entry["how"] for entry in history] == ["fit", "threshold"]
        assert [entry["threshold"] for entry in history] == [old.calibration.threshold, new.calibration.threshold]
        flagged = int((old.calibration.scores > new.calibration.threshold).sum())
        assert f"flags {flagged} of 120 calibration images" in text
        assert f"Written: {model}" in text

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["--quantile", "0.5"], lambda c: float(np.quantile(c.scores.astype(float), 0.5))),
            (["--max-normal"], lambda c: float(c.training_scores.max())),
            (["--max-normal", "--margin", "-0.01"], lambda c: float(c.training_scores.max()) - 0.01),
            (["--max-normal", "--over", "calibration"], lambda c: float(c.scores.max())),
            (["--threshold", "0.125"], lambda _: 0.125),
            (["--threshold", "-1"], lambda _: -1.0),
        ],
    )
    def test_every_rule(self, invoke: Run, model: Path, arguments: list[str], expected: Any) -> None:
        """Each rule gives its own threshold, as --json says and the file keeps."""
        document = json.loads(invoke("threshold", model, *arguments, "--json").stdout)
        assert document["after"]["threshold"] == load(model).threshold_ == expected(read_model(model).calibration)
        assert document["written"] == str(model)

    def test_dry_run_and_output(self, invoke: Run, model: Path, tmp_path: Path) -> None:
        """--dry-run writes nothing; --output leaves the model and writes another."""
        before = model.read_bytes()
        assert "Nothing was changed" in invoke("threshold", model, "--quantile", "0.5", "-n").stdout
        invoke("threshold", model, "--quantile", "0.5", "-o", tmp_path / "other.oddment")
        assert model.read_bytes() == before
        assert load(tmp_path / "other.oddment").threshold_ != load(model).threshold_

    def test_without_a_rule_shows_choices(self, invoke: Run, model: Path) -> None:
        """Without a rule it shows the rates that the calibration images allow, and changes nothing."""
        before = model.read_bytes()
        text = invoke("threshold", model).stdout
        assert "0.01" in text
        assert "0.005" not in text
        assert "The least rate that 120 calibration images can promise is 0.0083" in text
        document = json.loads(invoke("threshold", model, "--json").stdout)
        assert [row["rule"]["value"] for row in document["choices"]] == [0.1, 0.05, 0.02, 0.01]
        assert model.read_bytes() == before

    @pytest.mark.parametrize(
        ("arguments", "code", "says"),
        [
            (["--target-fpr", "0.001"], 3, "999"),
            (["--target-fpr", "0"], 2, "strictly between"),
            (["--target-fpr", "0.1", "--max-normal"], 2, "one threshold rule"),
            (["--margin", "1"], 2, "belongs to max_normal"),
            (["--threshold", "nan"], 2, "finite"),
            (["--frobnicate"], 2, "No such option"),
        ],
    )
    def test_mistakes_change_nothing(
        self, invoke: Run, model: Path, arguments: list[str], code: int, says: str
    ) -> None:
        """A rule that cannot be is refused, and the file stays as it is."""
        before = model.read_bytes()
        assert says in invoke("threshold", model, *arguments, code=code).stderr
        assert model.read_bytes() == before


class TestInspect:
    """Everything a model file says of itself."""

    def test_card(self, invoke: Run, model: Path) -> None:
        """All sections of the model card are shown."""
        text = invoke("inspect", model, "--history").stdout
        for part in ("Verdict", "Images", "Training", "Data", "Checks", "Versions", "History", "epoch 10", "28×28"):
            assert part in text
        assert "torch against ONNX Runtime" in text

    def test_json_holds_every_score(self, invoke: Run, model: Path) -> None:
        """--json prints the whole manifest with the calibration scores."""
        document = json.loads(invoke("inspect", model, "--json").stdout)
        calibration = read_model(model).calibration
        assert np.float32(document["calibration"]["scores"]).tolist() == calibration.scores.tolist()
        assert document["calibration"]["threshold"] == calibration.threshold
        assert len(document["info"]["training"]["history"]) == 10

    @pytest.mark.parametrize("cut", [0, 10, 1000, -1])
    def test_damaged_files(self, invoke: Run, model: Path, cut: int) -> None:
        """A truncated file is refused in a sentence."""
        model.write_bytes(model.read_bytes()[:cut])
        result = invoke("inspect", model, code=3)
        assert str(model) in result.stderr
        assert "Traceback" not in result.output

    def test_missing(self, invoke: Run, tmp_path: Path) -> None:
        """A file that is not there is named, with what makes one."""
        assert "oddment fit" in invoke("inspect", tmp_path / "no.oddment", code=3).stderr


@pytest.mark.slow
def test_demo(spawn: Run, tmp_path: Path) -> None:
    """The demonstration runs from an empty folder, twice, finds most of the clothing and flags few digits."""
    first = spawn("demo", cwd=tmp_path)
    assert "digits (normal)" in first.stdout
    out = tmp_path / "oddment-demo"
    assert (out / "report.html").exists()
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    flagged = {kind: [row["is_anomaly"] for row in rows if f"/{kind}-" in row["path"]] for kind in ("digit", "article")}
    assert np.mean(flagged["article"]) > 0.7
    assert np.mean(flagged["digit"]) < 0.03
    # The folder holds the images that were searched, the model and the results: none of the latter is an image.
    spawn("find", "oddment-demo/new", "-m", "oddment-demo/digits.oddment", "-o", "oddment-demo", "-q", cwd=tmp_path)
    again = [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["anomaly_score"] for row in again] == [row["anomaly_score"] for row in rows]


class TestWhole:
    """The command itself."""

    def test_version_and_module(self, spawn: Run) -> None:
        """`python -m oddment --version` prints the version."""
        assert spawn("--version").stdout.strip() == f"oddment {oddment.__version__}"

    def test_no_arguments_show_help(self, invoke: Run) -> None:
        """Without a command the help is shown and the exit code is that of wrong usage."""
        assert "find" in invoke(code=2).output

    def test_unknown_command(self, invoke: Run) -> None:
        """An unknown command is a usage error."""
        invoke("fnid", code=2)

    @pytest.mark.parametrize(
        ("text", "seconds"), [("90", 90), ("90s", 90), ("5m", 300), ("1.5h", 5400), (" 2 m ", 120), (None, None)]
    )
    def test_times(self, text: str | None, seconds: float | None) -> None:
        """Seconds, minutes and hours are understood."""
        assert parse_seconds(text) == seconds

    @pytest.mark.parametrize("text", ["", "soon", "0", "0s", "-5m", "5d", "1e3", "5m 3s"])
    def test_no_times(self, text: str) -> None:
        """Anything else is refused with examples."""
        with pytest.raises(ParameterError, match="90s, 5m, 1h"):
            parse_seconds(text)

    @pytest.mark.parametrize(
        ("text", "size"), [("256", (256, 256)), ("320x240", (240, 320)), ("320×240", (240, 320)), (None, None)]
    )
    def test_sizes(self, text: str | None, size: tuple[int, int] | None) -> None:
        """One side, or width and height, become (height, width)."""
        assert parse_size(text) == size

    @pytest.mark.parametrize("text", ["", "big", "-4", "3x", "1x2x3", "1.5"])
    def test_no_sizes(self, text: str) -> None:
        """Anything else is refused with examples."""
        with pytest.raises(ParameterError, match="320x240"):
            parse_size(text)


def test_the_process_ends_at_once_and_nothing_is_lost() -> None:
    """What was printed is printed and what others registered for the end is done, though Python frees nothing."""
    code = "import atexit, sys; from oddment.cli import start; atexit.register(print, 'last'); sys.argv = {}; start()"
    for words, status, said in ((["oddment", "--version"], 0, "oddment "), (["oddment", "find"], 2, "")):
        done = subprocess.run(
            [sys.executable, "-c", f"{code.format(words)}; print('never')"], capture_output=True, text=True, check=False
        )
        assert done.returncode == status
        assert done.stdout.startswith(said)
        assert done.stdout.endswith("last\n")
