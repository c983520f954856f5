"""Several `oddment` commands at a time, each in a process with its share of the cores.

For work of many short steps, which gains little from a second thread and everything from a second process.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, cast

from oddment.errors import OddmentError
from oddment.processors import cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from oddment.progress import Progress

__all__ = ["Command", "run_together"]


@dataclass(frozen=True, slots=True)
class Command:
    """One `oddment` command.

    Args:
        name: what progress calls it.
        words: after `oddment`.
        weight: its share of the work, in any unit.
    """

    name: str
    words: tuple[str, ...]
    weight: float


def run_together(
    commands: Sequence[Command], *, jobs: int, label: str, progress: Progress, width: int | None = None
) -> Iterator[tuple[Command, str]]:
    """Run all commands, the heaviest first and `jobs` at a time, and yield each with its standard output as it ends.

    What a command says on standard error becomes the progress note. If one fails the others are stopped.

    Args:
        commands: see above.
        jobs: at least 1.
        label: of the progress bar.
        progress: told how much of the weight is done.
        width: columns of the terminal, for what the commands print; None leaves it to them.

    Raises:
        OddmentError: if a command fails, with what it said last.
    """
    share = str(max(1, cores() // jobs))
    environment = os.environ | {"OMP_NUM_THREADS": share, "ODDMENT_THREADS": share}
    if width:
        environment |= {"COLUMNS": str(width)}
    running: dict[str, subprocess.Popen[str]] = {}
    notes: dict[str, str] = {}
    done = 0.0
    lock = threading.Lock()
    stopped = threading.Event()

    def note(name: str, line: str) -> None:
        with lock:
            notes[name] = line
            progress.update(done, " · ".join(f"{key}: {value}" for key, value in notes.items()))

    def work(command: Command) -> str:
        if stopped.is_set():
            return ""
        note(command.name, "starting")
        said: list[str] = []
        with subprocess.Popen(  # noqa: S603 - this program, with words of our own
            [sys.executable, "-m", "oddment", *command.words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env=environment,
        ) as process:
            running[command.name] = process
            errors, results = cast("IO[str]", process.stderr), cast("IO[str]", process.stdout)
            listener = threading.Thread(target=_listen, args=(errors, said, command.name, note), daemon=True)
            listener.start()
            output = results.read()
            listener.join()
            code = process.wait()
        running.pop(command.name, None)
        notes.pop(command.name, None)
        if code and not stopped.is_set():
            msg = f"{command.name} failed (exit code {code}): {_last(said)}"
            raise OddmentError(msg)
        return output

    progress.start(label, sum(command.weight for command in commands))
    pool = ThreadPoolExecutor(jobs)
    try:
        futures = {pool.submit(work, item): item for item in sorted(commands, key=lambda item: -item.weight)}
        for future in as_completed(futures):
            output = future.result()
            with lock:
                done += futures[future].weight
                progress.update(done)
            yield futures[future], output
    finally:
        stopped.set()
        for process in list(running.values()):
            process.terminate()
        pool.shutdown(cancel_futures=True)
        progress.finish()


def _listen(stream: IO[str], said: list[str], name: str, note: Callable[[str, str], None]) -> None:
    for line in stream:
        text = line.strip()
        if text:
            said.append(text)
            del said[:-40]
            note(name, re.sub(r"\s+", " ", text)[:80])


def _last(said: Sequence[str]) -> str:
    """From the error message on, if there is one."""
    starts = [index for index, line in enumerate(said) if line.startswith(("Error", "error", "Traceback"))]
    return " ".join(said[starts[-1] :] if starts else said[-3:]) or "it said nothing"
