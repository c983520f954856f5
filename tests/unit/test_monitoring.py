"""`oddment monitor`: verdicts in words, results as they were written, files, exit codes."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from oddment import Calibration, ThresholdRule
from oddment.drift import compare, gaps, log10_capital, online_p_values
from oddment.errors import DataError, ParameterError, TooFewImagesError
from oddment.monitoring import monitor
from oddment.streams import Stream, read_results

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Run = Callable[..., Any]

RNG = np.random.default_rng(3)
NORMAL = RNG.gamma(9, 1 / 9, 500).astype(np.float32)
CALIBRATION = Calibration.of(NORMAL[:200], NORMAL[:0], NORMAL[:200], ThresholdRule())
QUIET = NORMAL[200:]


class TestStatistics:
    """The figures themselves, against other ways to compute them."""

    def test_two_sample_statistics(self) -> None:
        """Both statistics are SciPy's, ties included, and p-values agree with its own within their chance."""
        stats = pytest.importorskip("scipy.stats")
        for step in (0, 0.25):
            x, y = RNG.normal(size=80), RNG.normal(0.3, 1, 60)
            if step:
                x, y = np.round(x / step) * step, np.round(y / step) * step
            x, y = x.astype(np.float32), y.astype(np.float32)
            ours = compare(x, y, permutations=1999)
            theirs = stats.ks_2samp(x, y, method="asymp")
            assert ours.ks == pytest.approx(theirs.statistic)
            if not step:
                # SciPy gives equal values their mean rank, which is another statistic where there are ties.
                cvm = stats.cramervonmises_2samp(x, y)
                assert ours.cvm == pytest.approx(cvm.statistic, rel=0.02, abs=0.005)
                assert ours.cvm_p == pytest.approx(cvm.pvalue, abs=0.05)
                assert ours.ks_p == pytest.approx(stats.ks_2samp(x, y, method="exact").pvalue, abs=0.05)

    def test_gaps_by_definition(self) -> None:
        """The gaps are the one-sided distances of the two distribution functions."""
        old, new = [1.0, 2, 3, 4], [2.0, 4, 4, 9]
        found = gaps(old, new)
        assert (found.rose, found.fell, found.rose_at) == (0.5, 0.0, 0.75)
        assert found.above == np.mean([(n > o) + 0.5 * (n == o) for n in new for o in old])
        assert gaps(new, old).fell == 0.5

    def test_online_p_values_by_definition(self) -> None:
        """Each is what its formula says of the calibration and all before it, across blocks, ties included."""
        old = np.round(RNG.normal(size=30), 1).astype(np.float32)
        stream = np.round(RNG.normal(size=2_500), 1).astype(np.float32)
        p, uniform = online_p_values(old, stream, seed=5), 1 - np.random.default_rng(5).random(stream.size)
        for index in (0, 1, 1_023, 1_024, 2_499):
            seen = np.concatenate([old, stream[: index + 1]])
            above, equal = (seen > stream[index]).sum(), (seen == stream[index]).sum()
            assert p[index] == pytest.approx((above + uniform[index] * equal) / seen.size)

    def test_a_longer_stream_begins_like_the_shorter(self) -> None:
        """Looking again later changes nothing of what was seen."""
        whole = log10_capital(online_p_values(NORMAL[:50], QUIET))
        part = log10_capital(online_p_values(NORMAL[:50], QUIET[:77]))
        assert whole[:77].tolist() == part.tolist()

    def test_rows_are_streams_of_their_own(self) -> None:
        """Several streams at once give what each gives alone."""
        p = RNG.random((3, 40))
        assert log10_capital(p).tolist() == [log10_capital(row).tolist() for row in p]

    @pytest.mark.parametrize("p", [[0.0], [1.5], [-0.1]])
    def test_no_p_values(self, p: list[float]) -> None:
        """Numbers that are no p-values are refused."""
        with pytest.raises(ParameterError, match="p_values must lie in"):
            log10_capital(p)

    def test_extreme_streams_stay_finite(self) -> None:
        """A hundred thousand certain wins or losses neither overflow nor become NaN."""
        for value in (1e-12, 1.0, 0.5):
            assert np.isfinite(log10_capital(np.full(20_000, value))).all()


class TestVerdict:
    """From scores to words."""

    def test_order_alone_can_be_drift(self) -> None:
        """Scores that rise steadily are no exchangeable stream, although all together they look like calibration."""
        found = monitor(np.sort(QUIET), CALIBRATION)
        assert found.alarm_at is not None
        assert found.comparison.ks_p > 0.01

    def test_fine(self) -> None:
        """A stream like the calibration raises no alarm."""
        found = monitor(QUIET, CALIBRATION)
        assert (found.verdict.kind, found.verdict.action, found.alarm_at) == ("fine", "none", None)
        assert found.as_dict()["alarm"] is False

    @pytest.mark.parametrize(
        ("change", "kind", "action"),
        [
            (lambda s: 1.5 * s, "rose", "recalibrate"),
            (lambda s: 6 * s, "rose", "retrain"),
            (lambda s: 0.6 * s, "fell", "recalibrate"),
            (lambda s: s**3, "shape", "retrain"),
            (lambda s: s + 4 * (np.arange(s.size) % 3 == 0), "outliers", "look"),
        ],
    )
    def test_changes(self, change: Any, kind: str, action: str) -> None:
        """Each kind of change has its name and advice, and the first image of the alarm is named."""
        stream = np.concatenate([QUIET[:100], change(QUIET[100:])])
        found = monitor(stream, CALIBRATION, name_of=lambda index: f"shot-{index}")
        assert (found.verdict.kind, found.verdict.action) == (kind, action)
        assert found.alarm_at is not None
        assert found.log10_martingale[found.alarm_at] >= 2 > found.log10_martingale[: found.alarm_at].max()
        assert f"shot-{found.alarm_at}" in found.verdict.why
        assert "probability 0.01" in found.verdict.why
        assert 60 <= found.onset <= found.alarm_at

    def test_a_difference_without_an_alarm(self) -> None:
        """A batch that differs by the tests for one look alone is to be watched."""
        higher = 1.1 * np.quantile(NORMAL[:200], np.linspace(0, 1, 300))
        small = monitor(np.random.default_rng(3).permutation(higher), CALIBRATION, alpha=0.02)
        assert small.alarm_at is None
        assert small.verdict.kind == "watch"
        assert "meant for one look" in small.verdict.why

    def test_mistakes(self) -> None:
        """Wrong rates, no scores, none to compare with and infinite ones are refused by name."""
        with pytest.raises(ParameterError, match="alpha must lie strictly"):
            monitor(QUIET, CALIBRATION, alpha=0)
        with pytest.raises(TooFewImagesError, match="no scored images"):
            monitor([], CALIBRATION)
        with pytest.raises(ParameterError, match="number 2 is not"):
            monitor([1.0, np.inf], CALIBRATION)
        empty = Calibration.of(NORMAL[:0], NORMAL, NORMAL[:0], ThresholdRule("fixed", 1.0))
        with pytest.raises(TooFewImagesError, match="holds no calibration scores"):
            monitor(QUIET, empty)


@pytest.fixture(scope="module")
def results(invoke: Run, new_digits: NDArray[Any], model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a search through forty digits and a broken file."""
    folder = tmp_path_factory.mktemp("watched")
    (folder / "in").mkdir()
    for index, image in enumerate(new_digits):
        Image.fromarray(image).save(folder / "in" / f"{index:02d}.png")
    (folder / "in" / "broken.png").write_bytes(b"no image")
    invoke("find", folder / "in", "-m", model_file, "-o", folder / "out", "-q", "--no-report")
    return folder


class TestStreams:
    """Reading results."""

    def test_tables_and_images_are_one_stream(self, invoke: Run, results: Path, model_file: Path) -> None:
        """The folder of a search, its tables and its images give the same figures."""
        told = [
            json.loads(invoke("monitor", model_file, path, "--json").stdout)
            for path in (results / "out", results / "out/results.csv", results / "out/results.jsonl", results / "in")
        ]
        assert told[0] == told[1] == told[2] == told[3]
        assert (told[0]["images"], told[0]["rejected"]) == (40, 1)

    def test_order_is_that_of_the_arguments(self, results: Path, model_file: Path) -> None:
        """Streams follow each other as they were named; caveats are told once."""
        from oddment.artifact import read_model

        one = read_results(results / "out/results.csv", read_model(model_file).calibration)
        both = Stream(("a",), np.float32([9.0]), 2, ("odd",)) + one
        assert both.paths == ("a", *one.paths)
        assert (both.scores[0], both.rejected, both.caveats) == (9.0, 3, ("odd",))

    def test_results_of_another_model_are_noticed(self, results: Path) -> None:
        """Other p-values than the model gives are a caveat."""
        stream = read_results(results / "out/results.csv", CALIBRATION)
        assert "another model" in stream.caveats[0]

    def test_a_chosen_part_is_noticed(self, results: Path, model_file: Path, tmp_path: Path) -> None:
        """A table of anomalies alone is a caveat: chosen by their scores, they look like drift."""
        from oddment.artifact import read_model

        rows = [json.loads(line) for line in (results / "out/results.jsonl").read_text(encoding="utf-8").splitlines()]
        odd = [row | {"is_anomaly": True} for row in rows if row["status"] == "scored"]
        (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in odd), encoding="utf-8")
        (caveat,) = read_results(tmp_path / "r.jsonl", read_model(model_file).calibration).caveats
        assert "anomalies only" in caveat

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("a.csv", "garbage"),
            ("a.csv", "path,status,anomaly_score,p_value,is_anomaly\na,scored,x,1,true\n"),
            ("a.csv", "path,status,anomaly_score,p_value,is_anomaly\na,scored,inf,1,true\n"),
            ("a.csv", "path,status,anomaly_score,p_value,is_anomaly\na,odd,1,1,true\n"),
            ("a.jsonl", "{"),
            ("a.jsonl", "[1]\n"),
            ("a.jsonl", '{"path": "a"}\n'),
        ],
    )
    def test_other_files(self, invoke: Run, model_file: Path, tmp_path: Path, name: str, content: str) -> None:
        """What is no table of results is refused with its name."""
        (tmp_path / name).write_text(content, encoding="utf-8")
        with pytest.raises(DataError, match="not the results of a search"):
            read_results(tmp_path / name, CALIBRATION)
        assert name in invoke("monitor", model_file, tmp_path / name, code=3).stderr


class TestCommand:
    """`oddment monitor`."""

    def test_files(self, invoke: Run, results: Path, model_file: Path, tmp_path: Path) -> None:
        """OUT has the verdict, a row an image and a chart."""
        text = invoke("monitor", model_file, results / "out", "-o", tmp_path / "drift").stdout
        assert "Fine: no sign of drift in 40 images." in text
        about = json.loads((tmp_path / "drift/monitor.json").read_text(encoding="utf-8"))
        assert about["verdict"]["kind"] == "fine"
        with (tmp_path / "drift/monitor.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert [int(row["index"]) for row in rows] == list(range(40))
        assert float(rows[-1]["log10_martingale"]) == about["log10_martingale"]["last"]
        assert all(0 < float(row["p_value"]) <= 1 for row in rows)
        with Image.open(tmp_path / "drift/monitor.png") as image:
            assert image.width > 600

    def test_alarm_and_exit_code(self, invoke: Run, results: Path, model_file: Path, tmp_path: Path) -> None:
        """Inverted digits raise the alarm, with the image's name, and --exit-code tells of it."""
        for path in sorted((results / "in").glob("[0-9]*.png")):
            with Image.open(path) as image:
                Image.fromarray(255 - np.asarray(image)).save(tmp_path / path.name)
        invoke("monitor", model_file, results / "in", "--exit-code")
        done = invoke("monitor", model_file, results / "in", tmp_path, "--exit-code", code=1)
        assert done.stdout.startswith("Alarm. ")
        assert f"{tmp_path}/" in done.stdout.replace("\n", "")
        invoke("monitor", model_file, results / "in", tmp_path, "-q")

    def test_mistakes(self, invoke: Run, results: Path, model_file: Path, tmp_path: Path) -> None:
        """A wrong rate, a file for a folder, Parquet and a missing source are usage errors."""
        (tmp_path / "f").write_text("", encoding="utf-8")
        for arguments in (
            [results / "out", "--alpha", "2"],
            [results / "out", "-o", tmp_path / "f"],
            [tmp_path / "r.parquet"],
            [tmp_path / "nothing"],
        ):
            invoke("monitor", model_file, *arguments, code=2)
