"""`oddment recalibrate`: new normal images for an old model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oddment.cli._shared import Bars, Debug, Json, Quiet, consoles, print_json, print_rejections, reporting
from oddment.cli.fit import FixedThreshold, Margin, MaxNormal, MaxPixels, Over, Quantile, Strict, TargetFpr
from oddment.cli.threshold import describe_calibration
from oddment.errors import DataError

if TYPE_CHECKING:
    from oddment.artifact import ModelFile
    from oddment.recalibration import Recalibrated

__all__ = ["recalibrate"]

_READ = "Reading images"


def recalibrate(
    model: Annotated[Path, typer.Argument(help="The model file.", show_default=False)],
    normal: Annotated[
        list[str],
        typer.Argument(
            metavar="NORMAL...",
            help="New normal images: files, folders, 'globs', .zip and .tar archives, .npy/.npz arrays, IDX files.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write here instead of changing MODEL itself.")
    ] = None,
    add: Annotated[
        bool, typer.Option("--add", help="Add to the calibration images instead of replacing them.")
    ] = False,
    note: Annotated[str, typer.Option(help="Why; kept in the model file's history.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Show, and change nothing.")] = False,
    target_fpr: TargetFpr = None,
    quantile: Quantile = None,
    max_normal: MaxNormal = False,
    margin: Margin = None,
    threshold: FixedThreshold = None,
    over: Over = None,
    groups: Annotated[
        str | None,
        typer.Option(
            help="Images of one thing count as one: a CSV (image,group), or a pattern such as 'part(\\d+)'.",
            rich_help_panel=_READ,
        ),
    ] = None,
    max_pixels: MaxPixels = 100_000_000,
    strict: Strict = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Calibrate a model anew with normal images of today; its weights stay as they are.

    For when normal images have come to score otherwise: another lamp, lens
    or batch. Give normal images that the model was not trained on, as many
    as its rule needs: 99 for a false-alarm rate of 1 %.

    The rule stays unless you give another; the file keeps a history.

    [bold]Examples[/bold]

    oddment recalibrate tiles.oddment today/ --note "new lamp"

    oddment recalibrate tiles.oddment more/ --add --target-fpr 0.005 -o tiles-2.oddment
    """
    with reporting(debug=debug):
        from oddment import recalibration
        from oddment.artifact import write_model
        from oddment.calibration import ThresholdRule
        from oddment.images.files import count_images, iter_images
        from oddment.scorer import load

        asked = max_normal or any(value is not None for value in (target_fpr, quantile, margin, threshold, over))
        rule = ThresholdRule.choose(
            target_fpr=target_fpr,
            quantile=quantile,
            max_normal=max_normal,
            margin=margin,
            threshold=threshold,
            over=over,
        )
        target = output or model
        exclude = [model, target]
        refs = iter_images(normal, exclude=exclude)
        scorer = load(model)
        done = recalibration.recalibrate(
            scorer,
            refs,
            count_images(normal, exclude=exclude),
            rule=rule if asked else None,
            add=add,
            groups=groups,
            note=note,
            max_pixels=max_pixels,
            progress=Bars(quiet=quiet or as_json),
        )
        if strict and done.rejections:
            first = done.rejections[0]
            msg = (
                f"{len(done.rejections):,} images cannot be used and --strict was given; the first: "
                f"{first.path}: {first.reason}."
            )
            raise DataError(msg)
        if not dry_run:
            write_model(target, done.scorer.model)
        written = None if dry_run else target
        if as_json:
            print_json(_as_json(scorer.model, done, written))
        elif not quiet:
            _summary(scorer.model, done, written)


def _as_json(old: ModelFile, done: Recalibrated, written: Path | None) -> dict[str, Any]:
    return {
        "before": describe_calibration(old.calibration),
        "after": describe_calibration(done.scorer.calibration),
        "images": {
            "usable": int(done.scores.size) + done.repeated,
            "repeated": done.repeated,
            "groups": done.groups,
            "calibrating": done.used,
            "rejected": len(done.rejections),
        },
        "flagged_before": done.flagged_before,
        "caveats": list(done.caveats),
        "rejections": [{"path": item.path, "reason": item.reason} for item in done.rejections],
        "calibrations": done.scorer.model.info["calibrations"],
        "written": None if written is None else str(written),
    }


def _summary(old: ModelFile, done: Recalibrated, written: Path | None) -> None:
    out, _ = consoles()
    left_out = f", {done.repeated:,} exact duplicates left out" if done.repeated else ""
    out.print(
        f"[bold]{done.used:,} of {done.scores.size:,} images calibrate[/bold] ({done.groups:,} independent groups"
        f"{left_out}). The old threshold flags {done.flagged_before:.2%} of them.",
        soft_wrap=True,
    )
    for label, calibration in (("before", old.calibration), ("after", done.scorer.calibration)):
        out.print(
            f"{label:>6}: threshold {calibration.threshold:.6g} ({calibration.rule.describe()}); "
            f"{calibration.scores.size:,} calibration images.",
            soft_wrap=True,
        )
    for caveat in done.caveats:
        out.print(f"[yellow]Note:[/yellow] {caveat}", soft_wrap=True)
    print_rejections(out, done.rejections, total=len(done.rejections))
    out.print("Nothing was changed (--dry-run)." if written is None else f"Written: {written}", soft_wrap=True)
