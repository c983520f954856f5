"""The `oddment` command and its list of subcommands."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

import oddment
from oddment.cli import compare, data, demo, evaluate, find, fit, inspect, monitor, recalibrate, recipe, threshold

__all__ = ["app", "main"]

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
app.command("demo")(demo.demo)
app.command("fit")(fit.fit)
app.command("find")(find.find)
app.command("threshold")(threshold.threshold)
app.command("monitor")(monitor.monitor)
app.command("recalibrate")(recalibrate.recalibrate)
app.command("evaluate")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("inspect")(inspect.inspect)
app.add_typer(data.app, name="data")
app.add_typer(recipe.app, name="recipe")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"oddment {oddment.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line."""
    # Read by OpenMP when torch is first imported. Threads that spin while they wait slow training down three to five
    # times as soon as the machine does anything else; threads that sleep cost little on an idle one.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Names that are not UTF-8 must be printable, whatever the terminal's encoding.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    app()
