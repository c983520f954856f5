"""`oddment fit`: rules, rejected files, checkpoints, budgets, divergence."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from oddment import load
from oddment.artifact import read_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Run = Callable[..., Any]

QUICK = ("--model", "dense", "--epochs", "2", "--target-fpr", "0.1")


@pytest.fixture(scope="session")
def hundred(digits: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred digits as one array file; not to be written to."""
    path = tmp_path_factory.mktemp("array") / "hundred.npy"
    np.save(path, digits[:100])
    return path


class TestHappy:
    """From images to a model file."""

    def test_summary_and_file(self, invoke: Run, hundred: Path, tmp_path: Path) -> None:
        """The summary says what was trained, the threshold and what to do next; the model loads."""
        model = tmp_path / "new" / "m.oddment"
        text = invoke("fit", hundred, "-o", model, *QUICK).stdout
        assert "dense on 28×28 gray; 70 images trained, 10 validated, 20 calibrated" in text
        assert "at most 0.1 of new normal images" in text
        assert f"oddment find NEW_IMAGES -m {model}" in text
        assert load(model).threshold_ > 0
        assert [path.name for path in model.parent.iterdir()] == ["m.oddment"]

    def test_json(self, invoke: Run, hundred: Path, tmp_path: Path) -> None:
        """--json prints one document about the fit and nothing else."""
        document = json.loads(invoke("fit", hundred, "-o", tmp_path / "m.oddment", *QUICK, "--json").stdout)
        assert document["threshold"] == load(tmp_path / "m.oddment").threshold_
        assert document["rule"] == {"kind": "target_fpr", "value": 0.1, "over": "calibration"}
        assert document["info"]["data"]["usable"] == 100

    def test_quiet(self, invoke: Run, hundred: Path, tmp_path: Path) -> None:
        """--quiet prints nothing."""
        assert invoke("fit", hundred, "-o", tmp_path / "m.oddment", *QUICK, "-q").output == ""

    def test_any_mix_of_sources(self, invoke: Run, hundred: Path, new_folder: Path, tmp_path: Path) -> None:
        """Arrays, folders, files and globs in one call are all read."""
        one = next(iter(sorted(new_folder.iterdir())))
        sources = (hundred, new_folder, one, f"{new_folder}/digit-000*.png")
        document = json.loads(invoke("fit", *sources, "-o", tmp_path / "m.oddment", *QUICK, "--json").stdout)
        assert document["info"]["data"]["usable"] == 100 + 48 + 1 + 10
        assert document["info"]["data"]["exact_duplicates"] == 11

    @pytest.mark.parametrize(
        ("arguments", "rule"),
        [
            (("--target-fpr", "0.2"), {"kind": "target_fpr", "value": 0.2, "over": "calibration"}),
            (("--quantile", "0.9"), {"kind": "quantile", "value": 0.9, "over": "calibration"}),
            (("--quantile", "0.9", "--over", "training"), {"kind": "quantile", "value": 0.9, "over": "training"}),
            (("--max-normal",), {"kind": "max_normal", "value": 0.0, "over": "training"}),
            (("--max-normal", "--margin", "0.5"), {"kind": "max_normal", "value": 0.5, "over": "training"}),
            (("--max-normal", "--over", "calibration"), {"kind": "max_normal", "value": 0.0, "over": "calibration"}),
            (("--threshold", "0.25"), {"kind": "fixed", "value": 0.25, "over": "calibration"}),
        ],
    )
    def test_rules(
        self, invoke: Run, hundred: Path, tmp_path: Path, arguments: tuple[str, ...], rule: dict[str, Any]
    ) -> None:
        """Every threshold rule gives the threshold that it names, raw."""
        model = tmp_path / "m.oddment"
        invoke("fit", hundred, "-o", model, "--model", "dense", "--epochs", 2, *arguments, "-q")
        calibration = read_model(model).calibration
        assert calibration.as_dict()["rule"] == rule
        pool = calibration.scores if rule["over"] == "calibration" else calibration.training_scores
        expected = {
            "target_fpr": lambda: float(pool[int(np.ceil((pool.size + 1) * 0.8)) - 1]),
            "quantile": lambda: float(np.quantile(pool.astype(float), 0.9)),
            "max_normal": lambda: float(pool.max()) + rule["value"],
            "fixed": lambda: rule["value"],
        }[rule["kind"]]()
        assert calibration.threshold == expected

    def test_settings_reach_the_model(self, invoke: Run, hundred: Path, tmp_path: Path) -> None:
        """Size, fit, channels, options, seed and rate are those of the model file."""
        model = tmp_path / "m.oddment"
        invoke(
            "fit",
            hundred,
            "-o",
            model,
            *QUICK,
            "--size",
            "24x16",
            "--fit",
            "stretch",
            "--channels",
            "colour",
            "--option",
            "hidden=32,8",
            "--seed",
            7,
            "--learning-rate",
            0.01,
            "--batch-size",
            16,
            "-q",
        )
        contents = read_model(model)
        assert contents.shape == (3, 16, 24)
        assert contents.preparation.fit == "stretch"
        assert contents.info["model"]["options"] == {"hidden": [32, 8]}
        assert [contents.info["training"][key] for key in ("seed", "learning_rate", "batch_size")] == [7, 0.01, 16]

    def test_groups_by_pattern_and_table(self, invoke: Run, normal_folder: Path, tmp_path: Path) -> None:
        """--groups keeps groups whole, named by a pattern or a table; who has none stands alone."""
        fit = (
            "fit",
            f"{normal_folder}/digit-00*.png",
            "-o",
            tmp_path / "m.oddment",
            *QUICK,
            "--no-duplicates",
            "--json",
        )
        by_pattern = json.loads(invoke(*fit, "--groups", r"digit-(\d{3})").stdout)
        assert by_pattern["info"]["data"]["groups"] == 10
        table = tmp_path / "groups.csv"
        rows = [f"digit-{index:04d}.png,{index // 5}" for index in range(95)]
        table.write_text("\n".join(["image,group", *rows]), encoding="utf-8")
        by_table = json.loads(invoke(*fit, "--groups", table, "--overwrite").stdout)
        assert by_table["info"]["data"]["groups"] == 19 + 5

    def test_model_beside_the_images_is_no_image(self, invoke: Run, new_folder: Path, tmp_path: Path) -> None:
        """The model file that is replaced may lie in the folder of images."""
        for path in new_folder.iterdir():
            shutil.copy(path, tmp_path)
        for _ in range(2):
            document = json.loads(
                invoke("fit", tmp_path, "-o", tmp_path / "m.oddment", *QUICK, "--no-duplicates", "--json").stdout
            )
            assert document["info"]["data"]["usable"] == 48
            assert document["rejected"] == []


class TestErrors:
    """Usage errors exit with 2 before an image is read, failures with 3."""

    @pytest.mark.parametrize(
        ("arguments", "code", "says"),
        [
            (["--no-such-option"], 2, "No such option"),
            (["--target-fpr", "0.1", "--quantile", "0.9"], 2, "one threshold rule, not 2"),
            (["--target-fpr", "1.5"], 2, "strictly between 0 and 1"),
            (["--quantile", "0"], 2, "strictly between 0 and 1"),
            (["--margin", "1"], 2, "belongs to max_normal"),
            (["--threshold", "inf"], 2, "finite"),
            (["--over", "training"], 2, "applies to quantile and max_normal only"),
            (["--size", "big"], 2, "'big' is no size"),
            (["--size", "0"], 2, "size must lie between"),
            (["--size", "30x30", "--model", "conv-small"], 2, "multiples of 4"),
            (["--budget", "soon"], 2, "'soon' is no time"),
            (["--budget", "-1s"], 2, "is no time"),
            (["--epochs", "0"], 2, "epochs must be at least 1"),
            (["--epochs", "many"], 2, "--epochs"),
            (["--batch-size", "0", "--learning-rate", "-1"], 2, "learning_rate must be positive"),
            (["--fit", "crop"], 2, "--fit"),
            (["--channels", "4"], 2, "--channels"),
            (["--seed", "-1"], 2, "seed must lie"),
            (["--model", "con-small"], 2, "Did you mean 'conv-small'"),
            (["--option", "latent_dim"], 2, "is not NAME=NUMBER"),
            (["--device", "abacus"], 2, "abacus"),
            (["--groups", "nowhere.csv"], 2, "no such file"),
            (["--groups", "(("], 2, "neither a CSV file nor a regular expression"),
            (["--max-pixels", "0"], 2, "max"),
            (["--resume", "--overwrite"], 2, "give one of them"),
            (["--resume", "--model", "dense"], 3, "no checkpoint to resume from"),
        ],
    )
    def test_exit_codes(
        self, invoke: Run, hundred: Path, tmp_path: Path, arguments: list[str], code: int, says: str
    ) -> None:
        """Every mistake has its exit code and a message that names it; no traceback, no model file."""
        rule = [] if {"--quantile", "--threshold", "--target-fpr"} & set(arguments) else ["--target-fpr", "0.1"]
        result = invoke("fit", hundred, "-o", tmp_path / "m.oddment", *rule, *arguments, code=code)
        assert says in result.stderr
        assert "Traceback" not in result.output
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("sources", "code", "says"),
        [(["nowhere"], 2, "does not exist"), ([], 2, "Missing argument"), (["."], 3, "there are no images")],
    )
    def test_sources(
        self, invoke: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sources: list[str], code: int, says: str
    ) -> None:
        """A missing source is a usage error, an empty folder a failure."""
        monkeypatch.chdir(tmp_path)
        assert says in invoke("fit", *sources, "-o", tmp_path / "m.oddment", code=code).stderr

    def test_output_that_is_a_folder(self, invoke: Run, hundred: Path, tmp_path: Path) -> None:
        """-o names a file."""
        assert "is a folder" in invoke("fit", hundred, "-o", tmp_path, code=2).stderr

    def test_too_few_images(self, invoke: Run, hundred: Path, tmp_path: Path) -> None:
        """The refusal says how many images the asked rate needs, how many are missing and what else can be done."""
        result = invoke("fit", hundred, "-o", tmp_path / "m.oddment", "--target-fpr", "0.01", code=3)
        for part in ("100 usable images", "at least 198", "Add 98 images", "0.02", "--max-normal"):
            assert part in result.stderr

    def test_traceback_only_with_debug(self, spawn: Run, invoke: Run, tmp_path: Path) -> None:
        """A traceback is shown with --debug and never without; the message is the same."""
        (tmp_path / "a.png").write_bytes(b"?")
        arguments = ("fit", tmp_path / "a.png", "-o", tmp_path / "m.oddment")
        plain = invoke(*arguments, code=3)
        assert "Traceback" not in plain.output
        assert "none of the 1 files can be used: 1 × not an image" in plain.stderr
        assert "Traceback" in spawn(*arguments, "--debug", code=3).stderr

    def test_learning_rate_that_diverges(self, invoke: Run, hundred: Path, tmp_path: Path) -> None:
        """Divergence ends the fit with what happened and what to do, and leaves no model file."""
        options = ("--epochs", "3", "--target-fpr", "0.1", "--learning-rate", "1e30")
        result = invoke("fit", hundred, "-o", tmp_path / "m.oddment", "--model", "conv-small", *options, code=3)
        assert "diverged" in result.stderr or "not finite" in result.stderr
        assert "earning rate" in result.stderr
        assert not (tmp_path / "m.oddment").exists()

    def test_images_of_extreme_values(self, invoke: Run, tmp_path: Path) -> None:
        """Floats too large to be squared are refused with an explanation, not trained into nonsense."""
        images = np.random.default_rng(0).random((60, 8, 8)).astype(np.float32)
        images[40:] *= 1e36
        np.save(tmp_path / "extreme.npy", images)
        result = invoke("fit", tmp_path / "extreme.npy", "-o", tmp_path / "m.oddment", *QUICK, code=None)
        if result.exit_code:
            assert result.exit_code == 3
            assert "Traceback" not in result.output
        else:
            assert np.isfinite(load(tmp_path / "m.oddment").threshold_)


class TestUnusable:
    """Files that cannot be used, and files that are there twice."""

    @pytest.fixture
    def dirty(self, normal_folder: Path, tmp_path: Path) -> Path:
        """Sixty good images, a copy of one of them, and three bad files."""
        folder = tmp_path / "dirty"
        folder.mkdir()
        good = sorted(normal_folder.iterdir())[:60]
        for path in good:
            shutil.copy(path, folder)
        shutil.copy(good[0], folder / "zz-copy.png")
        (folder / "empty.png").write_bytes(b"")
        (folder / "notes.txt").write_text("no picture", encoding="utf-8")
        (folder / "torn.png").write_bytes(good[1].read_bytes()[:100])
        return folder

    def test_rejected_and_duplicates_are_reported(self, invoke: Run, dirty: Path, tmp_path: Path) -> None:
        """Rejected files with reasons, and duplicates, are shown, printed as JSON and counted in the model file."""
        options = ("fit", dirty, "-o", tmp_path / "m.oddment", *QUICK)
        text = invoke(*options).stdout
        assert "3 rejected:" in text
        assert f"{dirty}/empty.png: empty file (0 bytes)" in text
        assert "1 exact duplicates, such as" in text
        document = json.loads(invoke(*options, "--json").stdout)
        rejected = [row["path"].rpartition("/")[2] for row in document["rejected"]]
        assert rejected == ["empty.png", "notes.txt", "torn.png"]
        doubled = [name.rpartition("/")[2] for name in document["duplicates"][0]]
        assert doubled == ["digit-0000.png", "zz-copy.png"]
        data = read_model(tmp_path / "m.oddment").info["data"]
        assert (data["usable"], data["rejected"], data["exact_duplicates"]) == (61, 3, 1)

    def test_strict(self, invoke: Run, dirty: Path, tmp_path: Path) -> None:
        """--strict makes a rejected file an error that names it."""
        result = invoke("fit", dirty, "-o", tmp_path / "m.oddment", *QUICK, "--strict", code=3)
        assert "empty.png: empty file" in result.stderr
        assert not (tmp_path / "m.oddment").exists()

    def test_too_large_files(self, invoke: Run, dirty: Path, tmp_path: Path) -> None:
        """--max-pixels rejects what is larger."""
        Image.new("L", (200, 200)).save(dirty / "vast.png")
        document = json.loads(
            invoke("fit", dirty, "-o", tmp_path / "m.oddment", *QUICK, "--max-pixels", 10_000, "--json").stdout
        )
        assert any("10,000" in row["reason"] for row in document["rejected"])


class TestInterrupted:
    """Ctrl-C or a kill costs one epoch at most."""

    OPTIONS = ("--model", "dense", "--epochs", "24", "--target-fpr", "0.1", "--batch-size", "4", "--no-duplicates")

    @pytest.fixture(scope="class")
    @staticmethod
    def whole(invoke: Run, hundred: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """The model of the fit that nothing interrupts."""
        model: Path = tmp_path_factory.mktemp("whole") / "m.oddment"
        invoke("fit", hundred, "-o", model, *TestInterrupted.OPTIONS)
        return model

    @pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGKILL])
    def test_resume_gives_the_uninterrupted_model(
        self,
        command: list[str],
        invoke: Run,
        hundred: Path,
        whole: Path,
        new_digits: NDArray[Any],
        tmp_path: Path,
        kind: signal.Signals,
    ) -> None:
        """Interrupted after an epoch, --resume goes on from it and ends with the same scores, bit for bit."""
        model, checkpoint = tmp_path / "m.oddment", tmp_path / "m.oddment.checkpoint"
        arguments = ("fit", hundred, "-o", model, *self.OPTIONS)
        done = interrupt([*command, *map(str, arguments)], checkpoint.exists, kind)
        assert checkpoint.exists()
        assert not model.exists()
        if kind == signal.SIGINT:
            assert done.returncode == 130
            assert "--resume" in done.stderr
            assert "Traceback" not in done.stderr
        refused = invoke(*arguments, code=3)
        assert "--resume" in refused.stderr
        assert "--overwrite" in refused.stderr
        epochs = len(history_of(checkpoint))
        assert epochs >= 1
        seconds = [epoch["seconds"] for epoch in history_of(checkpoint)]
        invoke(*arguments, "--resume")
        assert not checkpoint.exists()
        history = read_model(model).info["training"]["history"]
        expected = read_model(whole).info["training"]["history"]
        assert [epoch["number"] for epoch in history] == [epoch["number"] for epoch in expected]
        assert [epoch["seconds"] for epoch in history[:epochs]] == seconds, "epochs done are not repeated"
        assert [epoch["validation_loss"] for epoch in history] == [epoch["validation_loss"] for epoch in expected]
        np.testing.assert_array_equal(load(model).anomaly_score(new_digits), load(whole).anomaly_score(new_digits))
        assert load(model).threshold_ == load(whole).threshold_

    @pytest.fixture
    def stopped(self, command: list[str], hundred: Path, tmp_path: Path) -> tuple[Path, tuple[Any, ...]]:
        """A fit that was killed, and its command."""
        model = tmp_path / "m.oddment"
        arguments = ("fit", hundred, "-o", model, *self.OPTIONS)
        checkpoint = tmp_path / "m.oddment.checkpoint"
        interrupt([*command, *map(str, arguments)], checkpoint.exists, signal.SIGKILL)
        return checkpoint, arguments

    def test_a_checkpoint_is_resumed_only_by_its_own_command(
        self, invoke: Run, stopped: tuple[Path, tuple[Any, ...]], new_folder: Path
    ) -> None:
        """Other images, other settings and damage are refused, each in words; --overwrite begins anew."""
        checkpoint, arguments = stopped
        kept = checkpoint.read_bytes()
        for changed in ((*arguments, new_folder), (*arguments, "--seed", "5"), (*arguments, "--size", "20")):
            result = invoke(*changed, "--resume", code=3)
            assert "belongs to other images or settings" in result.stderr
        for damaged in (b"", kept[:50], kept[: len(kept) // 2], b"\xff" * 400, kept[:200] + b"\0" * 100 + kept[300:]):
            checkpoint.write_bytes(damaged)
            result = invoke(*arguments, "--resume", code=3)
            assert "damaged" in result.stderr
            assert "Delete it" in result.stderr
        invoke(*arguments, "--overwrite", "-q")
        assert not checkpoint.exists()


def test_budget_ends_training_early_and_the_card_says_so(invoke: Run, normal_folder: Path, tmp_path: Path) -> None:
    """--budget ends training before the epochs that were asked for; summary, model file and card say why."""
    model, asked = tmp_path / "m.oddment", 1_000_000
    options = ("--model", "dense", "--epochs", asked, "--budget", "2s", "--target-fpr", 0.05)
    result = invoke("fit", normal_folder, "-o", model, *options)
    assert "time budget ended training early" in result.stdout
    training = read_model(model).info["training"]
    assert training["stopped"] == "time budget spent"
    assert 1 <= len(training["history"]) < asked
    card = invoke("inspect", model).stdout
    assert "time budget spent" in card
    assert f"{len(training['history'])} of {asked}" in card


def interrupt(
    arguments: list[str], ready: Callable[[], bool], kind: signal.Signals
) -> subprocess.CompletedProcess[str]:
    """Start a process, send it a signal once `ready`, and return what came of it."""
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "200"}
    )
    deadline = time.monotonic() + 120
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(kind)
    out, errors = process.communicate(timeout=60)
    return subprocess.CompletedProcess(arguments, process.returncode, out, errors)


def history_of(checkpoint: Path) -> list[dict[str, Any]]:
    """The epochs that a checkpoint file holds."""
    data = checkpoint.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    history: list[dict[str, Any]] = json.loads(header["__metadata__"]["oddment"])["history"]
    return history
