"""What the commands share: consoles, progress bars, errors turned into exit codes, the parsing of sizes and times."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from oddment.errors import OddmentError, ParameterError
from oddment.progress import Progress as ProgressBase

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rich.progress import Progress

    from oddment.results import Rejection

__all__ = [
    "INTERRUPTED",
    "Bars",
    "Debug",
    "Json",
    "Quiet",
    "consoles",
    "parse_seconds",
    "parse_size",
    "print_card",
    "print_json",
    "print_ranking",
    "print_rejections",
    "reporting",
]

INTERRUPTED = 130

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel="Output")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.", rich_help_panel="Output")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.", rich_help_panel="Output")]


def consoles() -> tuple[Console, Console]:
    """Return the consoles of standard output and standard error; colour only on a terminal."""
    return Console(highlight=False), Console(stderr=True, highlight=False)


@contextmanager
def reporting(*, debug: bool) -> Iterator[None]:
    """Turn errors into a message on standard error and an exit code."""
    # Pillow logs oddities of hostile files; what matters of them comes back as the reason of a rejection.
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except KeyboardInterrupt:
        _fail("Interrupted.", INTERRUPTED, debug=False)
    except OddmentError as error:
        _fail(str(error), error.exit_code, debug=debug)
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        _fail(f"{name}{error.strerror or error}.", 3, debug=debug)
    except MemoryError:
        _fail("out of memory. Lower --size or --batch-size, or give fewer images at once.", 3, debug=debug)
    except Exception as error:  # noqa: BLE001 - the last line of defence before a traceback in a stranger's face
        text = f"internal error ({type(error).__name__}: {error}). Please report it with the output of --debug."
        _fail(text, 3, debug=debug)


def _fail(message: str, code: int, *, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    _, errors = consoles()
    errors.print(f"[bold red]oddment:[/bold red] {_escape(message)}", soft_wrap=True)
    raise typer.Exit(code)


def _escape(text: str) -> str:
    return text.replace("[", "\\[")


class Bars(ProgressBase):
    """Progress bars on standard error; plain lines every few seconds where that is no terminal."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = consoles()[1]
        self._quiet = quiet
        self._live = self._console.is_terminal and not quiet
        self._bars: Progress | None = None
        self._label, self._note = "", ""
        self._total: float | None = None
        self._shown = self._started = 0.0

    def start(self, label: str, total: float | None = None) -> None:
        """Show a new bar."""
        self._label, self._total, self._note = label, total, ""
        self._shown = self._started = time.monotonic()
        if not self._live:
            return
        # 20 ms that a pipe need not pay.
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        share = total == 1.0
        columns = [
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            TextColumn("{task.percentage:>3.0f}%") if share else MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        ]
        self._bars = Progress(*columns, console=self._console, refresh_per_second=8)
        self._bars.start()
        self._task = self._bars.add_task(label, total=total, note="")

    def update(self, done: float, note: str = "") -> None:
        """Move the bar."""
        self._note = note or self._note
        if self._bars:
            self._bars.update(self._task, completed=done, note=self._note)
        elif not self._quiet and time.monotonic() - self._shown > 10:  # seconds between lines in a log
            self._shown = time.monotonic()
            share = f" {done / self._total:.0%}" if self._total else ""
            self._console.print(f"{self._label}:{share} {_escape(self._note)}", soft_wrap=True)

    def finish(self) -> None:
        """Leave one line of what was done."""
        if self._bars:
            self._bars.stop()
            self._bars = None
        elif not self._quiet:
            seconds = time.monotonic() - self._started
            note = f" · {_escape(self._note)}" if self._note else ""
            self._console.print(f"{self._label}: {seconds:.1f} s{note}", soft_wrap=True)

    def say(self, message: str) -> None:
        """Print one sentence."""
        if not self._quiet:
            self._console.print(_escape(message), soft_wrap=True)


def parse_seconds(text: str | None) -> float | None:
    """Return the seconds in "90", "90s", "5m" or "1.5h".

    Raises:
        ParameterError: if it is none of these.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h)?", text.strip())
    if not match or not float(match[1]):
        msg = f"--budget {text!r} is no time. Give seconds, minutes or hours: 90s, 5m, 1h."
        raise ParameterError(msg)
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2] or "s"]


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Return (height, width) of "256" or "WIDTHxHEIGHT".

    Raises:
        ParameterError: if it is neither.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)(?:[x×](\d+))?", text.strip())
    if not match:
        msg = f"--size {text!r} is no size. Give one side or WIDTHxHEIGHT: 256, 320x240."
        raise ParameterError(msg)
    width = int(match[1])
    return (int(match[2]) if match[2] else width), width


def print_json(data: object) -> None:
    """Print one JSON document on standard output."""
    sys.stdout.write(json.dumps(data, indent=1, allow_nan=False) + "\n")


def print_card(console: Console, card: Mapping[str, Mapping[str, str]]) -> None:
    """Print sections of label and value."""
    from rich.table import Table

    for section, rows in card.items():
        table = Table(
            title=section, title_justify="left", title_style="bold", show_header=False, box=None, padding=(0, 2)
        )
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for label, value in rows.items():
            table.add_row(label, _escape(value))
        console.print(table)
        console.print()


def print_ranking(
    console: Console,
    rows: Iterable[tuple[float, float, bool, str]],
    *,
    verdicts: tuple[str, str] = ("anomaly", "normal"),
) -> None:
    """Print the highest scores: score, p-value, whether it is an anomaly, and name of each, highest first."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2), header_style="dim")
    for name in ("rank", "score", "p-value"):
        table.add_column(name, justify="right", overflow="fold")
    for name in ("verdict", "image"):
        table.add_column(name, overflow="fold")
    for rank, (score, p_value, is_anomaly, path) in enumerate(rows, start=1):
        verdict = f"[red]{verdicts[0]}[/red]" if is_anomaly else verdicts[1]
        table.add_row(str(rank), f"{score:.5g}", f"{p_value:.2g}", verdict, path.replace("[", "\\["))
    console.print(table)


def print_rejections(console: Console, rejections: Iterable[Rejection], *, total: int, most: int = 10) -> None:
    """Print the first rejected files with their reasons."""
    if not total:
        return
    console.print(f"[yellow]{total:,} rejected:[/yellow]")
    for rejection, _ in zip(rejections, range(most), strict=False):
        console.print(f"  {_escape(rejection.path)}: {_escape(rejection.reason)}", soft_wrap=True)
    if total > most:
        console.print(f"  … and {total - most:,} more")


def public(info: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a model's info that a summary shows: all but the long lists."""
    data = {key: value for key, value in info.get("data", {}).items() if key not in ("rejections", "duplicates")}
    return {**info, "data": data}
