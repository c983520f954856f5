"""A search that is interrupted, goes on, and is as large as it likes: the journal, --resume, memory."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from oddment import ThresholdRule, forked, load, searching
from oddment.errors import DataError
from oddment.images.files import iter_images
from oddment.scorer import Scorer
from oddment.searching import JOURNAL, Search, SearchOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., Any]

MANY = 2_000


def read_json(folder: Path) -> list[dict[str, Any]]:
    """The rows of results.jsonl."""
    return [json.loads(line) for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()]


def journal_rows(folder: Path) -> int:
    """Whole rows in the journal; 0 before there is one."""
    journal = folder / JOURNAL
    return max(0, journal.read_bytes().count(b"\n") - 1) if journal.exists() else 0


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two thousand tiny PNG files, a few of them broken; not to be written to."""
    folder: Path = tmp_path_factory.mktemp("many") / "in"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(MANY):
        path = folder / f"{index:05d}.png"
        if index % 400 == 7:
            path.write_bytes(b"broken")
        else:
            # Few values, so that some scores are equal and ranks must break ties by arrival.
            Image.fromarray(
                (rng.random((8, 8)) * 255).astype(np.uint8) if index % 3 else np.zeros((8, 8), np.uint8)
            ).save(path, compress_level=1)
    return folder


@pytest.fixture(scope="module")
def whole(invoke: Run, many: Path, model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The rows of the search that nothing interrupts."""
    out = tmp_path_factory.mktemp("whole")
    invoke("find", many, "-m", model_file, "-o", out, "-q", "--no-report")
    return read_json(out)


def interrupted(
    command: list[str], many: Path, model: Path, out: Path, kind: signal.Signals, *extra: str
) -> subprocess.CompletedProcess[str]:
    """Start a search, send it a signal when some rows are in the journal, and return what came of it."""
    process = subprocess.Popen(
        [*command, "find", str(many), "-m", str(model), "-o", str(out), *extra],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"COLUMNS": "200"},
    )
    deadline = time.monotonic() + 120
    while journal_rows(out) < 100:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(kind)
    output, errors = process.communicate(timeout=120)
    return subprocess.CompletedProcess([], process.returncode, output, errors)


class TestInterrupted:
    """Ctrl-C and a kill in the middle."""

    def test_control_c_leaves_valid_results_and_resume_finishes(
        self, command: list[str], invoke: Run, many: Path, model_file: Path, whole: list[dict[str, Any]], tmp_path: Path
    ) -> None:
        """Ctrl-C exits with 130 and valid partial results; --resume ends with those of the uninterrupted search."""
        done = interrupted(command, many, model_file, tmp_path, signal.SIGINT)
        assert done.returncode == 130, done.stderr
        assert "Interrupted" in done.stderr
        assert "Traceback" not in done.stderr
        assert "--resume finishes it" in done.stdout
        part = read_json(tmp_path)
        assert 100 <= len(part) < MANY
        assert [row["path"] for row in part] == [row["path"] for row in whole[: len(part)]]
        scored = [row for row in part if row["rank"]]
        assert sorted(row["rank"] for row in scored) == list(range(1, len(scored) + 1))
        assert (tmp_path / "results.csv").read_text(encoding="utf-8").count("\n") == len(part) + 1
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert "interrupted" in page.lower()
        self.refuses_without_resume(invoke, many, model_file, tmp_path)
        result = invoke("find", many, "-m", model_file, "-o", tmp_path, "--resume")
        assert f"{len(part):,} of them were there from the interrupted search" in result.stdout
        assert read_json(tmp_path) == whole
        assert not (tmp_path / JOURNAL).exists()

    def refuses_without_resume(self, invoke: Run, many: Path, model: Path, out: Path) -> None:
        """A new search into the folder names both remedies and touches nothing."""
        before = {path.name: path.read_bytes() for path in out.iterdir()}
        result = invoke("find", many, "-m", model, "-o", out, code=3)
        assert "--resume" in result.stderr
        assert "--overwrite" in result.stderr
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before

    def test_a_kill_leaves_a_journal_that_resume_finishes(
        self, command: list[str], invoke: Run, many: Path, model_file: Path, whole: list[dict[str, Any]], tmp_path: Path
    ) -> None:
        """After a kill every row but a torn last one is whole, and --resume ends as if nothing had been."""
        done = interrupted(command, many, model_file, tmp_path, signal.SIGKILL, "--maps", "--no-report")
        assert done.returncode == -signal.SIGKILL
        lines = (tmp_path / JOURNAL).read_bytes().split(b"\n")
        assert all(json.loads(line) for line in lines[:-1])
        with (tmp_path / JOURNAL).open("ab") as file:
            file.write(b'{"path": "torn')
        invoke("find", many, "-m", model_file, "-o", tmp_path, "--resume", "--maps", "--no-report", "-q")
        assert read_json(tmp_path) == whole
        names = {path.name for path in (tmp_path / "maps").rglob("*.png")}
        assert names == {f"{row['path'].rpartition('/')[2]}.png" for row in whole if row["rank"]}

    def test_overwrite_begins_anew(
        self, command: list[str], invoke: Run, many: Path, model_file: Path, new_folder: Path, tmp_path: Path
    ) -> None:
        """--overwrite throws the interrupted search away; another model or threshold cannot resume it."""
        interrupted(command, many, model_file, tmp_path, signal.SIGKILL)
        other = tmp_path / "other.oddment"
        shutil.copy(model_file, other)
        invoke("threshold", other, "--target-fpr", "0.1")
        for arguments in ((other,), (model_file, "--threshold", "0.5")):
            result = invoke("find", many, "-m", *arguments, "-o", tmp_path, "--resume", code=3)
            assert "another model or threshold" in result.stderr
        assert (
            "give one of them"
            in invoke("find", many, "-m", model_file, "-o", tmp_path, "--resume", "--overwrite", code=2).stderr
        )
        invoke("find", new_folder, "-m", model_file, "-o", tmp_path, "--overwrite")
        assert len(read_json(tmp_path)) == 48


class TestResume:
    """The same, inside the process, where the moment can be chosen."""

    @pytest.fixture
    def search(self, model_file: Path, new_folder: Path, tmp_path: Path) -> Callable[..., Search]:
        """Makes a search of the new images into one folder."""
        scorer = load(model_file)

        def make(sources: list[Any] | None = None, rule: ThresholdRule | None = None, **options: Any) -> Search:
            chosen = scorer.with_rule(rule) if rule else scorer
            return Search(chosen, model_file, sources or [new_folder], tmp_path / "out", SearchOptions(**options))

        return make

    def run(self, search: Search, stop: int | None = None) -> list[dict[str, Any]]:
        """Run up to `stop` rows, or to the end, and return what was written."""
        for number, _ in enumerate(search.run(), start=1):
            if number == stop:
                break
        search.finish(complete=stop is None)
        return read_json(search.out)

    @pytest.mark.parametrize("stop", [1, 31, 32, 33, 47])
    def test_wherever_it_stops(self, search: Callable[..., Search], stop: int) -> None:
        """Stopped after any row, the resumed search equals the whole one, nothing twice and nothing left out."""
        whole = self.run(search())
        self.run(search(), stop)
        again = search(resume=True)
        assert again.journal.resumed == stop
        assert self.run(again) == whole

    def test_stopped_twice(self, search: Callable[..., Search]) -> None:
        """A resumed search may be interrupted and resumed again."""
        whole = self.run(search())
        self.run(search(), 10)
        self.run(search(resume=True), 10)
        assert self.run(search(resume=True)) == whole

    def test_an_image_that_is_named_twice_has_two_rows(self, search: Callable[..., Search], new_folder: Path) -> None:
        """Sources that both reach an image give it two rows, interrupted between them or not."""
        whole = self.run(search([new_folder, new_folder]))
        assert len(whole) == 96
        self.run(search([new_folder, new_folder]), 60)
        assert self.run(search([new_folder, new_folder], resume=True)) == whole

    def test_pictures_of_the_first_half_are_in_the_report(self, search: Callable[..., Search]) -> None:
        """The report of a resumed search shows pictures from before the interruption, too."""
        self.run(search(), 24)
        again = search(resume=True)
        self.run(again)
        assert again.gallery is not None
        assert len(again.gallery.items()) == 48

    def test_each_image_is_scored_once(self, search: Callable[..., Search], monkeypatch: pytest.MonkeyPatch) -> None:
        """Where all pictures have room none is made late, and none after an interruption either."""
        scored: list[int] = []
        score = Scorer.score_prepared
        monkeypatch.setattr(
            Scorer, "score_prepared", lambda self, prepared: scored.append(len(prepared)) or score(self, prepared)
        )
        whole = search()
        self.run(whole)
        assert sum(scored) == 48
        assert whole.gallery is not None
        assert len(whole.gallery.items()) == 48
        monkeypatch.setattr(Search, "_watched", lambda _, refs: refs)  # so that pictures are missing
        stopped = search()
        for _ in stopped.run():
            break
        before = len(scored)
        stopped.finish(complete=False)
        assert len(scored) == before

    def test_ctrl_c_between_counting_and_writing(self, search: Callable[..., Search]) -> None:
        """Counts and ranks of partial results are those of the rows on disk."""
        stopped = search()
        for number, _ in enumerate(stopped.run(), start=1):
            if number == 20:
                stopped.journal.totals.add(9e9, is_anomaly=True)
                break
        summary = stopped.finish(complete=False)
        rows = read_json(stopped.out)
        assert summary.scored == len(rows) == 20
        assert sorted(row["rank"] for row in rows) == list(range(1, 21))

    def test_another_threshold_or_no_journal(self, search: Callable[..., Search]) -> None:
        """What cannot be gone on with is refused with the remedy."""
        with pytest.raises(DataError, match="no interrupted search to resume"):
            search(resume=True)
        self.run(search(), 10)
        with pytest.raises(DataError, match="another model or threshold"):
            search(resume=True, rule=ThresholdRule("fixed", 0.1))
        with pytest.raises(DataError, match="--overwrite"):
            search()

    @pytest.mark.parametrize("damage", [b"", b"not json\n", b"\xff\xfe\n", b"[]\n"])
    def test_a_damaged_header(self, search: Callable[..., Search], damage: bytes) -> None:
        """A journal whose first line is none is refused with the remedy."""
        self.path(search).write_bytes(damage)
        with pytest.raises(DataError, match=r"Delete it|anew"):
            search(resume=True)

    def path(self, search: Callable[..., Search]) -> Path:
        """The journal of the searches that `search` makes."""
        stopped = search(overwrite=True)
        stopped.journal.close()
        return stopped.journal.path

    def test_a_damaged_row(self, search: Callable[..., Search]) -> None:
        """A journal damaged in its middle is refused with the remedy, not an internal error."""
        journal = self.path(search)
        journal.write_bytes(journal.read_bytes() + b"{}\n[1]\n{{{\n")
        with pytest.raises(DataError, match=r"damaged.*--overwrite"):
            search(resume=True)


def test_rows_reach_the_disk_while_it_runs(model_file: Path, many: Path, tmp_path: Path) -> None:
    """Results can be read before the end: the journal grows on disk as rows are found."""
    search = Search(load(model_file), model_file, [many], tmp_path, SearchOptions(report=False))
    sizes = []
    for number, _ in enumerate(search.run(), start=1):
        if number % 250 == 0:
            sizes.append(journal_rows(tmp_path))
    assert sizes == sorted(sizes)
    assert sizes[0] > 100
    assert all(found > 250 * (number + 1) - 100 for number, found in enumerate(sizes))
    assert search.finish(complete=True).scored == MANY - 5


def test_slow_rows_are_not_kept_back(model_file: Path, new_folder: Path, tmp_path: Path) -> None:
    """Where images are slow, a row is on disk after a second, not only with the next sixty-four."""
    search = Search(load(model_file), model_file, [new_folder], tmp_path, SearchOptions(report=False))
    rows = iter(search.run())
    next(rows)
    search.journal._flushed -= 2
    next(rows)
    assert journal_rows(tmp_path) == 2
    rows.close()  # type: ignore[attr-defined]
    search.finish(complete=False)


PROBE = """
import resource, sys
from pathlib import Path
from oddment import load
from oddment.searching import Search, SearchOptions
model, source, out = map(Path, sys.argv[1:])
search = Search(load(model), model, [source], out, SearchOptions())
for _ in search.run():
    pass
search.finish(complete=True)
print(sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_files(model_file: Path, tmp_path: Path) -> None:
    """Six thousand files need at most a tenth more memory than fifteen hundred, report included."""
    # Larger than any allocator noise would hide, small enough to be written and read in seconds.
    content = tmp_path / "one.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8), np.uint8)).save(content)
    peaks = []
    for count in (1_500, 6_000):
        folder = tmp_path / str(count)
        folder.mkdir()
        for index in range(count):
            os.link(content, folder / f"{index:05d}.png")
        done = subprocess.run(
            [sys.executable, "-c", PROBE, str(model_file), str(folder), str(tmp_path / f"out{count}")],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(done.stdout))
    assert peaks[1] < 1.1 * peaks[0], f"{peaks[0]:,} → {peaks[1]:,} KiB"


def test_a_search_asks_for_references_only_as_it_goes(model_file: Path, many: Path) -> None:
    """Far fewer references are drawn than there are files when the first results are there."""
    drawn = 0

    def counted() -> Any:
        nonlocal drawn
        for ref in iter_images([many]):
            drawn += 1
            yield ref

    scorer = load(model_file)
    found = scorer.find(counted(), workers=2)
    next(found)
    assert drawn <= 5 * scorer.model.scoring_batch < MANY / 2
    found.close()  # type: ignore[attr-defined]


def test_what_else_a_caller_wants_is_made_where_images_are_scored(model_file: Path, many: Path) -> None:
    """In the threads that score, of the image that it comes with."""
    threads = set()

    def named(found: Any) -> str:
        threads.add(threading.current_thread())
        return f"of {found.ref.path}"

    found = list(load(model_file).find(islice(iter_images([many]), 200), also=named))
    assert [item.extra for item in found] == [f"of {item.ref.path}" for item in found]
    assert len(found) == 200
    assert threading.main_thread() not in threads


IN_ONE_PROCESS, IN_COPIES = {"ODDMENT_THREADS": "1"}, {"ODDMENT_THREADS": "2"}


def report_data(out: Path) -> dict[str, Any]:
    """What the page's script reads, without what is told of the run itself."""
    page = (out / "report.html").read_text(encoding="utf-8")
    [text] = re.findall(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL)[:1]
    data: dict[str, Any] = json.loads(text)
    return data


class TestCopies:
    """A large search works in copies of its process."""

    def test_the_same_as_in_threads(
        self, command: list[str], many: Path, model_file: Path, whole: list[dict[str, Any]], tmp_path: Path
    ) -> None:
        """Tables, maps and the report, pictures and all, are those of one process with one thread."""
        outs = [tmp_path / "one", tmp_path / "two"]
        for out, environment in zip(outs, (IN_ONE_PROCESS, IN_COPIES), strict=True):
            subprocess.run(
                [*command, "find", str(many), "-m", str(model_file), "-o", str(out), "-q", "--maps"],
                env=os.environ | environment,
                check=True,
            )
        assert read_json(outs[0]) == read_json(outs[1]) == whole
        one, two = (
            {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.suffix in {".csv", ".png"}}
            for out in outs
        )
        assert one == two
        assert len(one) == MANY - 5 + 1
        data = [report_data(out) for out in outs]
        assert data[0] == data[1]
        assert len(data[0]["pictures"]) > 900
        shown = [(out / "report.html").read_bytes().rpartition(b"<script")[0] for out in outs]
        assert len(shown[0]) == len(shown[1])

    def test_archives_are_searched_in_copies(
        self, command: list[str], many: Path, model_file: Path, tmp_path: Path
    ) -> None:
        """Members of an archive travel to the copies, and their pictures back, since they cannot be read again."""
        packed = shutil.make_archive(str(tmp_path / "many"), "zip", many)
        found = []
        for name, environment in (("one", IN_ONE_PROCESS), ("two", IN_COPIES)):
            subprocess.run(
                [*command, "find", packed, "-m", str(model_file), "-o", str(tmp_path / name), "-q"],
                env=os.environ | environment,
                check=True,
            )
            found.append((read_json(tmp_path / name), report_data(tmp_path / name)))
        assert found[0] == found[1]
        assert len(found[0][1]["pictures"]) > 900

    def test_a_copy_that_is_killed(
        self,
        command: list[str],
        invoke: Run,
        many: Path,
        model_file: Path,
        whole: list[dict[str, Any]],
        tmp_path: Path,
    ) -> None:
        """The search ends with what to do about it, nothing hangs, and --resume finishes it."""
        process = subprocess.Popen(
            [*command, "find", str(many), "-m", str(model_file), "-o", str(tmp_path), "-q"],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | IN_COPIES | {"COLUMNS": "500"},
        )
        os.kill(self.copies_of(process)[0], signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 3
        assert "--resume" in errors
        assert "ODDMENT_THREADS=1" in errors
        assert "Traceback" not in errors
        invoke("find", many, "-m", model_file, "-o", tmp_path, "--resume", "-q", "--no-report")
        assert read_json(tmp_path) == whole

    def test_copies_end_with_the_search_that_is_killed(
        self, command: list[str], many: Path, model_file: Path, tmp_path: Path
    ) -> None:
        """No process is left over, however the search ends."""
        process = subprocess.Popen(
            [*command, "find", str(many), "-m", str(model_file), "-o", str(tmp_path), "-q"],
            env=os.environ | IN_COPIES,
        )
        copies = self.copies_of(process)
        process.kill()
        process.wait(timeout=60)
        deadline = time.monotonic() + 60
        while any(is_running(number) for number in copies):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def copies_of(self, process: subprocess.Popen[Any]) -> list[int]:
        """The copies of a search that is in the middle of its work."""
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        if not children.exists():
            pytest.skip("the system does not tell of which process another is the child")
        deadline = time.monotonic() + 120
        while len(found := children.read_text(encoding="ascii").split()) < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
        return [int(number) for number in found]


def is_running(number: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{number}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


COPIES = """
import os, threading, time
from multiprocessing import active_children
from oddment.forked import copies

def work(item):
    if item == 40:
        raise ValueError("forty")
    time.sleep(0.001 * (item % 3))
    return item * base, os.getpid()

base = 10
made = copies(work, 2)
found = list(made.ahead(range(40)))
assert [value for value, _ in found] == [10 * item for item in range(40)], found
assert len({number for _, number in found}) == 2 and os.getpid() not in {number for _, number in found}
drawn = []
first = made.ahead(drawn.append(item) or item for item in range(30))
next(first)
assert len(drawn) <= 7, drawn
first.close()
try:
    list(made.ahead([40]))
except ValueError as error:
    assert str(error) == "forty"
else:
    raise SystemExit("not raised")
made.close()
assert copies(work, 1) is None

fork, forks = os.fork, []
def refused():
    forks.append(1)
    if len(forks) == 2:
        raise BlockingIOError("no more processes")
    return fork()
os.fork = refused
assert copies(work, 2) is None
assert len(forks) == 2 and not [child for child in active_children() if child.join(30) or child.is_alive()]
os.fork = fork

waiting = threading.Event()
threading.Thread(target=waiting.wait).start()
assert copies(work, 2) is None
waiting.set()
print("done")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks safely")
def test_copies_do_their_work_in_order() -> None:
    """What copies make comes in the order of the items, ahead by a few; errors come through; not beside threads."""
    done = subprocess.run([sys.executable, "-c", COPIES], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "done\n", done.stderr


def test_pictures_that_are_drawn_ahead_are_those_that_would_have_been(
    model_file: Path, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is drawn beside the scoring changes when pictures are made, and none of them."""

    def pictures(out: Path) -> tuple[dict[str, Any], int]:
        drawn: list[threading.Thread] = []
        true = searching.render_pictures

        def watched(*args: Any, **asked: Any) -> Any:
            drawn.append(threading.current_thread())
            return true(*args, **asked)

        with monkeypatch.context() as patch:
            patch.setattr(searching, "render_pictures", watched)
            # In threads, whatever else runs in this process.
            patch.setattr(forked, "copies", lambda *_: None)
            search = Search(load(model_file), model_file, [many], out, SearchOptions())
            for _ in search.run():
                pass
            assert search.gallery is not None
            kept = dict(search.gallery.items())
            assert threading.main_thread() not in drawn
            search.finish(complete=True)
        return kept, len(drawn)

    ahead, drawn = pictures(tmp_path / "ahead")
    monkeypatch.setattr(Search, "_watched", lambda _, refs: refs)
    after, drawn_after = pictures(tmp_path / "after")
    assert ahead == after
    assert len(ahead) <= drawn_after < 1.05 * len(ahead)
    assert len(ahead) <= drawn < 1.4 * len(ahead)
