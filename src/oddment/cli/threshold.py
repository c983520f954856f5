"""`oddment threshold`: another rule for a model, without retraining."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oddment.cli._shared import Debug, Json, consoles, print_json, reporting
from oddment.cli.fit import FixedThreshold, Margin, MaxNormal, Over, Quantile, TargetFpr

if TYPE_CHECKING:
    from oddment.calibration import Calibration

__all__ = ["describe_calibration", "threshold"]


def threshold(
    model: Annotated[Path, typer.Argument(help="The model file.", show_default=False)],
    target_fpr: TargetFpr = None,
    quantile: Quantile = None,
    max_normal: MaxNormal = False,
    margin: Margin = None,
    threshold: FixedThreshold = None,
    over: Over = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write here instead of changing MODEL itself.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Show, and change nothing.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Change a model's threshold rule; show what it would have flagged among the calibration images.

    Without a rule it shows what several false-alarm rates would give, and changes nothing.

    [bold]Examples[/bold]

    oddment threshold tiles.oddment

    oddment threshold tiles.oddment --target-fpr 0.001
    """
    with reporting(debug=debug):
        from oddment.artifact import read_model, write_model
        from oddment.calibration import ThresholdRule
        from oddment.recalibration import with_history

        contents = read_model(model)
        asked = max_normal or any(value is not None for value in (target_fpr, quantile, margin, threshold, over))
        if not asked:
            _choices(contents.calibration, as_json=as_json)
            return
        rule = ThresholdRule.choose(
            target_fpr=target_fpr,
            quantile=quantile,
            max_normal=max_normal,
            margin=margin,
            threshold=threshold,
            over=over,
        )
        calibration = contents.calibration.with_rule(rule)
        target = None if dry_run else (output or model)
        if target is not None:
            write_model(target, with_history(contents, replace(contents, calibration=calibration), "threshold"))
        _show(contents.calibration, calibration, target, as_json=as_json)


def _flagged(calibration: Calibration) -> int:
    return int((calibration.scores > calibration.threshold).sum())


def describe_calibration(calibration: Calibration) -> dict[str, Any]:
    """Rule, threshold and what they rest on, JSON-ready."""
    return {
        "threshold": calibration.threshold,
        "rule": calibration.as_dict()["rule"],
        "calibration_images": int(calibration.scores.size),
        "flagged": _flagged(calibration),
        "caveat": calibration.caveat(),
    }


def _show(old: Calibration, new: Calibration, target: Path | None, *, as_json: bool) -> None:
    if as_json:
        written = None if target is None else str(target)
        print_json({"before": describe_calibration(old), "after": describe_calibration(new), "written": written})
        return
    out, _ = consoles()
    for label, calibration in (("before", old), ("after", new)):
        out.print(
            f"{label:>6}: threshold {calibration.threshold:.6g} ({calibration.rule.describe()}); flags "
            f"{_flagged(calibration):,} of {calibration.scores.size:,} calibration images.",
            soft_wrap=True,
        )
    if new.caveat():
        out.print(f"[yellow]Note:[/yellow] {new.caveat()}", soft_wrap=True)
    out.print("Nothing was changed (--dry-run)." if target is None else f"Written: {target}", soft_wrap=True)


def _choices(calibration: Calibration, *, as_json: bool) -> None:
    from oddment.calibration import ThresholdRule, images_needed

    rates = (0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
    possible = [rate for rate in rates if images_needed(rate) <= calibration.scores.size]
    rows = [calibration.with_rule(ThresholdRule("target_fpr", rate)) for rate in possible]
    if as_json:
        print_json({"now": describe_calibration(calibration), "choices": [describe_calibration(row) for row in rows]})
        return
    from rich.table import Table

    out, _ = consoles()
    out.print(f"Now: threshold {calibration.threshold:.6g} ({calibration.rule.describe()}).", soft_wrap=True)
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for name in ("--target-fpr", "threshold", f"flags of {calibration.scores.size:,}"):
        table.add_column(name, justify="right")
    for rate, row in zip(possible, rows, strict=True):
        table.add_row(f"{rate:g}", f"{row.threshold:.6g}", f"{_flagged(row):,}")
    out.print(table)
    least = 1 / (calibration.scores.size + 1)
    out.print(f"The least rate that {calibration.scores.size:,} calibration images can promise is {least:.2g}.")
