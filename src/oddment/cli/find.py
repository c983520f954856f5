"""`oddment find`: from images to verdicts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oddment.cli._shared import (
    INTERRUPTED,
    Bars,
    Debug,
    Json,
    Quiet,
    consoles,
    print_ranking,
    print_rejections,
    reporting,
)
from oddment.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from oddment.searching import Search, Summary

__all__ = ["find"]

_WHAT = "What is written"


def find(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES...",
            help="Images: files, folders, 'globs', .zip and .tar archives, .npy/.npz arrays, IDX files.",
            show_default=False,
        ),
    ],
    model: Annotated[Path, typer.Option("--model", "-m", help="The model file.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write to.")] = Path("oddment-out"),
    maps: Annotated[
        bool, typer.Option("--maps", help="Heat maps at original size, in OUT/maps.", rich_help_panel=_WHAT)
    ] = False,
    parquet: Annotated[bool, typer.Option("--parquet", help="results.parquet as well.", rich_help_panel=_WHAT)] = False,
    report: Annotated[bool, typer.Option("--report/--no-report", help="report.html.", rich_help_panel=_WHAT)] = True,
    top: Annotated[
        int | None, typer.Option(help="List the K highest scores only.", metavar="K", min=1, rich_help_panel=_WHAT)
    ] = None,
    only_anomalies: Annotated[
        bool, typer.Option("--only-anomalies", help="List anomalies and rejected files only.", rich_help_panel=_WHAT)
    ] = False,
    threshold: Annotated[
        float | None, typer.Option(help="Another threshold for this search; the model file stays as it is.")
    ] = None,
    fdr: Annotated[
        float | None,
        typer.Option(
            help="Judge all images together instead: select so that at most this share of the selected are normal, "
            "on average. A usual value is 0.1."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Finish an interrupted search.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Throw an interrupted search away.")] = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 when an anomaly was found.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 when a file was rejected.")] = False,
    max_pixels: Annotated[int, typer.Option(help="Reject larger images before they are decoded.", min=1)] = 100_000_000,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Score images, say which are anomalies and where, and write results and a report.

    OUT gets results.csv, results.jsonl and report.html. Interrupted, it keeps what was found; --resume finishes it.

    [bold]Examples[/bold]

    oddment find new/ -m tiles.oddment -o out/

    oddment find photo.png -m tiles.oddment --json --exit-code

    oddment find lot-7/ -m tiles.oddment -o out/ --fdr 0.1
    """
    with reporting(debug=debug):
        from oddment.calibration import ThresholdRule
        from oddment.scorer import load
        from oddment.searching import Search, SearchOptions

        if output.exists() and not output.is_dir():
            msg = f"-o {output} is a file. Name a folder to write the results to."
            raise ParameterError(msg)
        if resume and overwrite:
            msg = "--resume finishes an interrupted search and --overwrite throws it away: give one of them."
            raise ParameterError(msg)
        if fdr is not None and threshold is not None:
            msg = (
                f"--fdr {fdr:g} selects from all images together and --threshold {threshold:g} judges each by itself: "
                "give one of them."
            )
            raise ParameterError(msg)
        scorer = load(model)
        if threshold is not None:
            scorer = scorer.with_rule(ThresholdRule("fixed", threshold))
        options = SearchOptions(
            maps=maps,
            parquet=parquet,
            report=report,
            top=top,
            only_anomalies=only_anomalies,
            max_pixels=max_pixels,
            resume=resume,
            overwrite=overwrite,
            fdr=fdr,
        )
        search = Search(scorer, model, images, output, options, Bars(quiet=quiet or as_json))
        summary = run_search(search)
        if as_json:
            _print_json(search, summary)
        elif not quiet:
            print_summary(search, summary)
        raise typer.Exit(_exit_code(summary, exit_code=exit_code, strict=strict))


def run_search(search: Search) -> Summary:
    """Run a search to its end, or to Ctrl-C, and write what it found either way."""
    complete = False
    try:
        for _ in search.run():
            pass
        complete = True
    except KeyboardInterrupt:
        consoles()[1].print("Interrupted: writing what was found so far …")
    return search.finish(complete=complete)


def _exit_code(summary: Summary, *, exit_code: bool, strict: bool) -> int:
    if not summary.complete:
        return INTERRUPTED
    if not summary.scored and summary.rejected:
        return 3
    if strict and summary.rejected:
        return 3
    return 1 if exit_code and summary.anomalies else 0


def _rows(folder: Path) -> Iterable[dict[str, Any]]:
    with (folder / "results.jsonl").open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _print_json(search: Search, summary: Summary) -> None:
    """One JSON document, streamed: a million rows need no memory."""
    selection, calibration = summary.selection, search.scorer.calibration
    head = {
        "scored": summary.scored,
        "anomalies": summary.anomalies,
        "rejected": summary.rejected,
        "complete": summary.complete,
        "threshold": summary.threshold,
        "rule": summary.rule,
        "target_fpr": summary.target_fpr,
        "fdr": None if selection is None else selection.fdr,
        "promise": _promise(search, summary),
        "caveats": list(selection.caveats()) if selection else [text for text in (calibration.caveat(),) if text],
        "files": [str(path) for path in summary.files],
    }
    sys.stdout.write('{"summary": ' + json.dumps(head) + ',\n "results": [')
    for index, row in enumerate(_rows(search.out)):
        sys.stdout.write((",\n  " if index else "\n  ") + json.dumps(row))
    sys.stdout.write("\n ]}\n")


def _promise(search: Search, summary: Summary) -> str:
    """What decided, and what it promises, in one sentence."""
    selection = summary.selection
    if selection is not None:
        expected = f" ({selection.expected_false:.1f} here)" if selection.selected else ""
        return f"{selection.describe()}{expected}."
    if summary.target_fpr is None:
        return f"{search.scorer.calibration.rule.describe()}."
    expected = f"{summary.target_fpr * summary.scored:.1f}"
    return (
        f"if all images were normal, {summary.target_fpr:g} of them would be flagged at most, on average "
        f"({expected} here)."
    )


def print_summary(search: Search, summary: Summary, *, most: int = 10) -> None:
    """Print counts, the highest scores and where everything lies."""
    from oddment.results import Rejection

    out, _ = consoles()
    best: list[dict[str, Any]] = []
    rejected: list[Rejection] = []
    for row in _rows(search.out):
        if row["status"] == "rejected" and len(rejected) < most:
            rejected.append(Rejection(path=row["path"], reason=row["reason"]))
        elif row["rank"] and row["rank"] <= most:
            best.append(row)
    state = "" if summary.complete else " so far (interrupted; --resume finishes it)"
    what = "anomaly" if summary.anomalies == 1 else "anomalies"
    counts = f"{summary.scored:,} scored, {summary.anomalies:,} {what}, {summary.rejected:,} rejected"
    out.print(f"[bold]{counts}[/bold]{state}", soft_wrap=True)
    if summary.resumed:
        out.print(f"{summary.resumed:,} of them were there from the interrupted search.")
    out.print(f"Threshold {summary.threshold:.6g}: {_promise(search, summary)}", soft_wrap=True)
    for caveat in summary.selection.caveats() if summary.selection else ():
        out.print(f"[yellow]Note:[/yellow] {caveat}", soft_wrap=True)
    if best:
        ranked = sorted(best, key=lambda row: int(row["rank"]))
        print_ranking(out, [(row["anomaly_score"], row["p_value"], row["is_anomaly"], row["path"]) for row in ranked])
    print_rejections(out, rejected, total=summary.rejected, most=most)
    out.print(f"Written: {', '.join(str(path) for path in summary.files)}", soft_wrap=True)
