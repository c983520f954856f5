"""Selecting from a batch: Benjamini-Hochberg, too few calibration images, `find --fdr`, `detect(fdr=)`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from oddment import Calibration, ThresholdRule, load
from oddment.calibration import p_values
from oddment.errors import ParameterError, TooFewImagesError
from oddment.selection import benjamini_hochberg, check_fdr, select

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Run = Callable[..., Any]


def calibrated(scores: Any, n_groups: int | None = None) -> Calibration:
    values = np.asarray(scores, dtype=np.float32)
    return Calibration.of(values, values[:0], values, ThresholdRule("fixed", 0.0), n_groups)


class TestProcedure:
    """The step-up procedure itself."""

    def test_an_example_by_hand(self) -> None:
        """The fifteen p-values of Benjamini and Hochberg's own example have four selected at 0.05."""
        p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528,
             0.7590, 1.0000]  # fmt: skip
        assert benjamini_hochberg(p, 0.05).tolist() == [True] * 4 + [False] * 11

    def test_step_up_takes_a_high_p_value_with_it(self) -> None:
        """A p-value above its own level is selected where a later one is below its."""
        assert benjamini_hochberg([0.04, 0.045, 0.9], 0.0675).tolist() == [True, True, False]

    def test_equal_on_paper_is_equal(self) -> None:
        """A p-value that equals its level but for binary rounding is selected."""
        for m in range(1, 200):
            for k in range(1, m + 1):
                p = np.ones(m)
                p[:k] = k / (10 * m)
                assert benjamini_hochberg(p, 0.1).sum() == k

    def test_nothing_in_nothing_out(self) -> None:
        """An empty batch has an empty selection."""
        assert benjamini_hochberg([], 0.1).size == 0
        assert select([], calibrated(range(20)), 0.1).selected == 0

    @pytest.mark.parametrize("fdr", [0.0, 1.0, -1.0, float("nan")])
    def test_rates_outside_the_unit_interval(self, fdr: float) -> None:
        """They are refused by name."""
        with pytest.raises(ParameterError, match="fdr must lie strictly between 0 and 1"):
            benjamini_hochberg([0.5], fdr)


class TestSelect:
    """From scores to a selection with a threshold."""

    def test_the_threshold_reproduces_the_selection(self) -> None:
        """Exactly the selected scores lie strictly above the threshold, ties in calibration and batch or not."""
        rng = np.random.default_rng(0)
        for step in (0.0, 0.1, 0.5):
            for _ in range(200):
                scores = rng.normal(size=rng.integers(20, 300))
                batch = rng.normal(size=rng.integers(1, 80)) + 3 * (rng.random() < 0.7)
                if step:
                    scores, batch = np.round(scores / step) * step, np.round(batch / step) * step
                calibration = calibrated(scores)
                expected = benjamini_hochberg(p_values(batch, calibration.scores), 0.2)
                selection = select(batch, calibration, 0.2)
                assert (batch.astype(np.float32).astype(float) > selection.threshold).tolist() == expected.tolist()
                assert selection.selected == expected.sum()

    def test_equal_scores_share_a_verdict(self) -> None:
        """Nine equal scores above all calibration are selected together, although one alone would not be."""
        calibration = calibrated(np.linspace(0, 1, 99))
        assert select([5.0] * 9 + [0.5] * 41, calibration, 0.1).selected == 9
        assert select([5.0] * 4 + [0.5] * 46, calibration, 0.1).selected == 0

    def test_none_can_ever_be_selected(self) -> None:
        """Below 1/fdr - 1 calibration images the selection is refused, with the number that it takes."""
        with pytest.raises(TooFewImagesError, match=r"needs at least 9 calibration images .* the model has 8"):
            check_fdr(0.1, calibrated(range(8)))
        check_fdr(0.1, calibrated(range(9)))

    def test_too_few_for_a_small_selection(self) -> None:
        """The caveat names n, m, fdr, the least selection, and how many images would allow one and ten."""
        selection = select(np.zeros(5_000), calibrated(np.arange(99)), 0.1)
        (caveat,) = selection.caveats()
        assert selection.fewest == 500
        for part in ("99 calibration", "fdr=0.1", "5,000 images", "at least 500", "49,999", "4,999 of ten"):
            assert part in caveat
        assert not select(np.zeros(10), calibrated(np.arange(99)), 0.1).caveats()

    def test_the_numbers_of_the_caveat_are_right(self) -> None:
        """As many as it names can be selected and one fewer cannot; as many images as it names allow one."""
        calibration = calibrated(np.arange(99))
        for m in (11, 50, 333):
            fewest = select(np.zeros(m), calibration, 0.1).fewest
            assert select([1e3] * fewest + [0.0] * (m - fewest), calibration, 0.1).selected == fewest
            assert select([1e3] * (fewest - 1) + [0.0] * (m - fewest + 1), calibration, 0.1).selected == 0
            needed = select(np.zeros(m), calibration, 0.1).needed_for(1)
            assert select([1e6] + [0.0] * (m - 1), calibrated(np.arange(needed)), 0.1).selected == 1
            assert select([1e6] + [0.0] * (m - 1), calibrated(np.arange(needed - 1)), 0.1).selected == 0

    def test_groups_weaken_the_promise(self) -> None:
        """Calibration images of few groups make the rate an estimate, and the selection says so."""
        assert "estimate" in select([1.0], calibrated(np.arange(99), n_groups=12), 0.1).caveats()[0]


# --- through Python and the command line


@pytest.fixture(scope="module")
def odd_folder(articles: NDArray[Any], new_digits: NDArray[Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Few digits and much clothing, some of it twice, and a broken file."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("odd")
    for index, image in enumerate([*new_digits[:10], *articles, *articles]):
        Image.fromarray(255 - image if index >= 10 else image).save(folder / f"{index:02d}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def read_json(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()]


class TestFind:
    """`oddment find --fdr`."""

    def test_rows_carry_the_selection(self, invoke: Run, odd_folder: Path, model_file: Path, tmp_path: Path) -> None:
        """Verdicts, threshold and rule of every row are those of the whole batch; selected rows have a box."""
        invoke("find", odd_folder, "-m", model_file, "-o", tmp_path, "--fdr", "0.2")
        rows = [row for row in read_json(tmp_path) if row["status"] == "scored"]
        expected = benjamini_hochberg([row["p_value"] for row in rows], 0.2)
        assert expected.any()
        assert not expected.all()
        assert [row["is_anomaly"] for row in rows] == expected.tolist()
        assert {row["rule"] for row in rows} == {"fdr=0.2"}
        assert len({row["threshold"] for row in rows}) == 1
        assert all((row["anomaly_score"] > row["threshold"]) == row["is_anomaly"] for row in rows)
        assert all(row["regions"] for row in rows if row["is_anomaly"])

    def test_python_says_the_same(self, invoke: Run, odd_folder: Path, model_file: Path, tmp_path: Path) -> None:
        """`detect(fdr=)` gives the rows of the command."""
        invoke("find", odd_folder, "-m", model_file, "-o", tmp_path, "--fdr", "0.2", "--no-report")
        assert [item.as_row() for item in load(model_file).detect(odd_folder, fdr=0.2)] == read_json(tmp_path)

    def test_json_and_summary_name_the_rule(
        self, invoke: Run, odd_folder: Path, model_file: Path, tmp_path: Path
    ) -> None:
        """Both say that Benjamini-Hochberg decided, and what it promises; without --fdr the model's rule did."""
        summary = json.loads(
            invoke("find", odd_folder, "-m", model_file, "-o", tmp_path, "--fdr", "0.2", "--json").stdout
        )
        head = summary["summary"]
        assert (head["rule"], head["fdr"], head["target_fpr"]) == ("fdr=0.2", 0.2, None)
        assert "at most 0.2 are normal ones on average" in head["promise"]
        assert head["anomalies"] == sum(bool(row["is_anomaly"]) for row in summary["results"])
        assert (
            "Benjamini-Hochberg over the 26 images"
            in invoke("find", odd_folder, "-m", model_file, "-o", tmp_path, "--fdr", "0.2").stdout
        )
        plain = json.loads(invoke("find", odd_folder, "-m", model_file, "-o", tmp_path, "--json").stdout)["summary"]
        assert (plain["rule"], plain["fdr"], plain["target_fpr"]) == ("target_fpr=0.05", None, 0.05)

    def test_only_anomalies_and_exit_code_follow_the_selection(
        self, invoke: Run, odd_folder: Path, model_file: Path, tmp_path: Path
    ) -> None:
        """--only-anomalies lists the selected, --exit-code tells of them, and the report counts them."""
        invoke("find", odd_folder, "-m", model_file, "-o", tmp_path, "--fdr", "0.2", "--only-anomalies", "--exit-code",
               code=1)  # fmt: skip
        rows = read_json(tmp_path)
        assert all(row["is_anomaly"] or row["status"] == "rejected" for row in rows)
        report = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert f"{sum(bool(row['is_anomaly']) for row in rows)} images are odd among 26" in report
        assert "Of the images selected, at most 20 % are normal ones on average" in report

    def test_nothing_selected(self, invoke: Run, new_folder: Path, model_file: Path, tmp_path: Path) -> None:
        """Where the calibration is too small for the batch, it says so before and after, and nothing is an anomaly."""
        done = invoke("find", new_folder, "-m", model_file, "-o", tmp_path, "--fdr", "0.01", "--exit-code")
        assert "at least 40 together" in done.stderr
        assert "none was selected" in done.stdout
        assert not any(row["is_anomaly"] for row in read_json(tmp_path))

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (["--fdr", "0.001"], 3, "needs at least 999 calibration images"),
            (["--fdr", "2"], 2, "fdr must lie strictly between 0 and 1"),
            (["--fdr", "0.1", "--threshold", "1"], 2, "give one of them"),
        ],
    )
    def test_mistakes_write_nothing(
        self, invoke: Run, new_folder: Path, model_file: Path, tmp_path: Path, arguments: list[str], code: int,
        message: str,
    ) -> None:  # fmt: skip
        """They are named before anything is scored or written."""
        done = invoke("find", new_folder, "-m", model_file, "-o", tmp_path / "out", *arguments, code=code)
        assert message in done.stderr
        assert not (tmp_path / "out").exists()

    def test_resumed_with_another_rate(self, command: list[str], invoke: Run, model_file: Path, tmp_path: Path) -> None:
        """An interrupted selection goes on at its own rate only, and ends as if nothing had happened."""
        from PIL import Image

        rng = np.random.default_rng(0)
        folder = tmp_path / "in"
        folder.mkdir()
        for index in range(600):
            Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(folder / f"{index:04d}.png")
        process = subprocess.Popen(
            [*command, "find", str(folder), "-m", str(model_file), "-o", str(tmp_path / "out"), "--fdr", "0.2"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ,
        )
        journal = tmp_path / "out" / "results.partial.jsonl"
        while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") > 30):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        base = ("find", folder, "-m", model_file, "-o", tmp_path / "out", "--resume")
        if journal.exists():
            assert "another model or threshold, or another --fdr" in invoke(*base, "--fdr", "0.3", code=3).stderr
            invoke(*base, "--fdr", "0.2")
        invoke("find", folder, "-m", model_file, "-o", tmp_path / "whole", "--fdr", "0.2", "-q")
        assert read_json(tmp_path / "out") == read_json(tmp_path / "whole")
