"""Where the command line starts: of a dozen commands only the one that was asked for is loaded."""

from __future__ import annotations

import atexit
import os
import sys
from importlib import import_module
from typing import Annotated

import typer

import oddment
from oddment.processors import Neighbours

__all__ = ["COMMANDS", "GROUPS", "main", "new_app", "register", "start"]

# In the order of the help. Each is a function in the file of its name; a group is the `app` in its file.
COMMANDS = (
    "demo",
    "fit",
    "find",
    "audit",
    "threshold",
    "monitor",
    "recalibrate",
    "evaluate",
    "compare",
    "inspect",
)
GROUPS = ("data", "recipe")
_TRAINING = {"demo", "fit", "audit", "compare", "recipe"}
_SPIN = "10000"  # rounds


def new_app() -> typer.Typer:
    """Return the `oddment` command, without subcommands."""
    app = typer.Typer(
        name="oddment",
        help=(
            "Find the odd images in a folder: train on normal ones, and see what cannot be redrawn.\n\n"
            "Start with [bold]oddment demo[/bold]; then [bold]oddment fit normal/ -o my.oddment[/bold] and "
            "[bold]oddment find new/ -m my.oddment -o out/[/bold]."
        ),
        epilog="Exit codes: 0 done, 1 anomalies found (with --exit-code), 2 wrong usage, 3 failed, 130 interrupted.",
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    return app


def register(app: typer.Typer, *names: str) -> None:
    """Load subcommands, and add them to the command."""
    for name in names:
        module = import_module(f"oddment.cli.{name}")
        if name in GROUPS:
            app.add_typer(module.app, name=name)
        else:
            app.command(name)(getattr(module, name))


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"oddment {oddment.__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line."""
    neighbours, chosen = Neighbours(), "OMP_WAIT_POLICY" in os.environ
    # Read by OpenMP when torch is first imported. Threads that spin while they wait slow training down three to five
    # times as soon as the machine does anything else.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Read by torch likewise: large pages for large tensors, which a step on large maps looks up less often.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    # Names that are not UTF-8 must be printable, whatever the terminal's encoding.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    app = new_app()
    asked = sys.argv[1:2]
    # Whatever else comes first (an option, a mistake, nothing) needs to know them all.
    register(app, *(asked if asked and asked[0] in (*COMMANDS, *GROUPS) else (*COMMANDS, *GROUPS)))
    if asked and asked[0] in _TRAINING and not chosen and neighbours.are_quiet():
        # Waking threads that sleep takes a fifth of a training where nothing else runs. Should something start to run
        # later, so short a spin costs a quarter.
        os.environ.setdefault("GOMP_SPINCOUNT", _SPIN)
    app()


def start() -> None:
    """Run the command line as the whole of a process, which ends without tidying up what the system frees at once.

    Python frees each object and torch each tensor by itself: .3 s after a fit, .07 s after a search of 20,000 images.
    """
    try:
        main()
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            raise
        atexit._run_exitfuncs()  # noqa: SLF001 - what others want done in any case
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except OSError:  # nobody reads it any more, which Python has its own way to say
            raise end from None
        os._exit(end.code or 0)
