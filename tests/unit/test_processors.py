"""Whether others use the processors: what decides how threads wait while a model trains."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from oddment import processors
from oddment.cli import _start
from oddment.processors import Neighbours

if TYPE_CHECKING:
    from pathlib import Path

IDLE = "cpu  {} 0 0 900 0 0 0 0 0 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n"


@pytest.fixture
def stat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose processors have worked a hundred ticks."""
    path = tmp_path / "stat"
    path.write_text(IDLE.format(100))
    monkeypatch.setattr(processors, "_STAT", path)
    return path


def test_quiet_where_only_this_process_works(stat: Path) -> None:
    """Its own time is not others': a tenth of a second of it, about ten ticks."""
    neighbours = Neighbours()
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    stat.write_text(IDLE.format(111))
    assert neighbours.are_quiet()


def test_not_quiet_where_another_works(stat: Path) -> None:
    """A whole processor of somebody else's, however short this was."""
    neighbours = Neighbours()
    stat.write_text(IDLE.format(112))
    assert not neighbours.are_quiet()


@pytest.mark.parametrize("content", ["", "cpu", "cpu a b c d e f g h", None])
def test_nobody_tells(content: str | None, stat: Path) -> None:
    """Where the system has no such file, or another one, nobody is taken to be quiet."""
    if content is None:
        stat.unlink()
    else:
        stat.write_text(content)
    assert not Neighbours().are_quiet()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_a_real_neighbour_is_seen() -> None:
    """Processes that count to infinity, one a processor, so that none has room."""
    counting = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(counting) for _ in range(os.cpu_count() or 1)]
    try:
        time.sleep(0.3)
        assert not Neighbours().are_quiet()
    finally:
        for process in running:
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("command", "quiet", "given", "expected"),
    [
        ("fit", True, {}, ("PASSIVE", "10000")),
        ("fit", False, {}, ("PASSIVE", None)),
        ("find", True, {}, ("PASSIVE", None)),
        ("fit", True, {"OMP_WAIT_POLICY": "ACTIVE"}, ("ACTIVE", None)),
        ("fit", True, {"GOMP_SPINCOUNT": "7"}, ("PASSIVE", "7")),
    ],
)
def test_how_threads_wait(
    command: str,
    quiet: bool,
    given: dict[str, str],
    expected: tuple[str, str | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They spin for a moment where a model trains on a machine that does nothing else, unless the user has chosen."""
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    for name in (*names, "THP_MEM_ALLOC_ENABLE"):
        monkeypatch.setenv(name, "")  # so that what main sets is taken back
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(Neighbours, "are_quiet", lambda _: quiet)
    monkeypatch.setattr(sys, "argv", ["oddment", command, "--help"])
    with pytest.raises(SystemExit):
        _start.main()
    assert tuple(os.environ.get(name) for name in names) == expected
