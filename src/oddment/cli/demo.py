"""`oddment demo`: the whole way on the embedded sample."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from oddment.cli._shared import Bars, Debug, Quiet, consoles, reporting

__all__ = ["demo"]


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write to.")] = Path("oddment-demo"),
    seed: Annotated[int, typer.Option(help="Fixes everything.")] = 0,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Learn handwritten digits, then find pieces of clothing among new digits. No network, half a minute.

    The embedded sample (MNIST digits, Fashion-MNIST articles) is written out as PNG files, so that every step can be
    repeated by hand with the commands that are shown.
    """
    with reporting(debug=debug):
        from oddment.cli.find import print_summary, run_search
        from oddment.cli.fit import _settings, run_fit
        from oddment.data.sample import write_demo
        from oddment.scorer import Scorer
        from oddment.searching import Search, SearchOptions

        out, _ = consoles()
        started = time.perf_counter()
        model = output / "digits.oddment"
        settings = _settings(seed=seed)

        def say(text: str) -> None:
            if not quiet:
                out.print(text, soft_wrap=True)

        normal, new = write_demo(output)
        say(f"[bold]$ oddment fit {normal} -o {model}[/bold]")
        fitted = run_fit([str(normal)], model, settings, overwrite=True, progress=Bars(quiet=quiet))
        say(f"\n[bold]$ oddment find {new} -m {model} -o {output}[/bold]")
        search = Search(Scorer(fitted.model), model, [new], output, SearchOptions(overwrite=True), Bars(quiet=quiet))
        summary = run_search(search)
        if quiet:
            return
        print_summary(search, summary)
        _score_card(output)
        say(
            f"\nDone in {time.perf_counter() - started:.0f} s. Open [bold]{output / 'report.html'}[/bold] in a browser."
        )


def _score_card(output: Path) -> None:
    """The file names say what each image is; count how the verdicts did."""
    import json

    from rich.table import Table

    counts = {"digit": [0, 0], "article": [0, 0]}
    with (output / "results.jsonl").open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            kind = Path(row["path"]).name.split("-")[0]
            counts[kind][0] += 1
            counts[kind][1] += row["is_anomaly"]
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for name in ("what it is", "images", "flagged", "share"):
        table.add_column(name, justify="left" if name == "what it is" else "right")
    for kind, label in (("digit", "digits (normal)"), ("article", "clothing (odd)")):
        total, flagged = counts[kind]
        table.add_row(label, f"{total:,}", f"{flagged:,}", f"{flagged / total:.1%}")
    out, _ = consoles()
    out.print()
    out.print(table)
