"""`oddment audit`: what is odd in a folder that nobody has looked through."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from oddment.cli._shared import (
    INTERRUPTED,
    Bars,
    Debug,
    Json,
    Quiet,
    consoles,
    parse_size,
    print_json,
    print_ranking,
    print_rejections,
    reporting,
)
from oddment.cli.fit import (
    Channels,
    Device,
    Epochs,
    MaxPixels,
    ModelName,
    ModelOption,
    Seed,
    Size,
    StandardiseExposure,
    Strict,
    parse_options,
)
from oddment.errors import MissingExtraError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oddment.auditing import Audit, Rule

__all__ = ["audit"]

_SELECT = "What is selected (one of)"
_ALSO = "What else is looked at"
_TRAIN = "Models"
_WHAT = "What is written"
_PARTIAL = "audit.partial"


def audit(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="FOLDER...",
            help="Images: folders, files, 'globs', .zip and .tar archives, .npy/.npz arrays, IDX files.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write to.")] = Path("oddment-audit"),
    fdr: Annotated[
        float | None,
        typer.Option(
            help="Select so that about this share of the selected are ordinary images. \\[default: 0.1]",
            rich_help_panel=_SELECT,
        ),
    ] = None,
    quantile: Annotated[
        float | None, typer.Option(help="Select the scores above this quantile of all.", rich_help_panel=_SELECT)
    ] = None,
    top: Annotated[
        int | None, typer.Option(help="Select the K highest scores.", metavar="K", min=1, rich_help_panel=_SELECT)
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Select the scores above this value.", rich_help_panel=_SELECT)
    ] = None,
    reference: Annotated[
        list[str] | None,
        typer.Option(
            help="Images known to be normal, in none of the folders; repeatable. P-values then need no guess.",
            rich_help_panel=_ALSO,
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            help="A folder that should share no image with these, such as a test set; repeatable.",
            rich_help_panel=_ALSO,
        ),
    ] = None,
    classes: Annotated[
        bool | None,
        typer.Option(
            "--classes/--no-classes",
            help="Judge each subfolder by its own images, and look for wrong labels. "
            "\\[default: if all have 30 images]",
            show_default=False,
            rich_help_panel=_ALSO,
        ),
    ] = None,
    model: ModelName = "auto",
    option: ModelOption = None,
    epochs: Epochs = None,
    parts: Annotated[
        int, typer.Option(help="Models, each scoring the part it was fitted without.", rich_help_panel=_TRAIN)
    ] = 5,
    trim: Annotated[
        float | None,
        typer.Option(
            help="Share of the images, the oddest-looking, left out of training. With 0, or a model that is named, "
            "small images get no second opinion by their looks. \\[default: 0.2; 0 for photographs, unless their "
            "model is trained]",
            show_default=False,
            rich_help_panel=_TRAIN,
        ),
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(
            help="Images of one thing never judge each other: a CSV (image,group), or a pattern such as 'part(\\d+)'.",
            rich_help_panel=_TRAIN,
        ),
    ] = None,
    size: Size = None,
    fit_mode: Annotated[
        Literal["letterbox", "stretch"],
        typer.Option("--fit", help="Keep the aspect ratio, or ignore it.", rich_help_panel=_TRAIN),
    ] = "letterbox",
    channels: Channels = "auto",
    standardise_exposure: StandardiseExposure = False,
    seed: Seed = 0,
    device: Device = "auto",
    max_pixels: MaxPixels = 100_000_000,
    apply_to: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Copy the images that were not selected into this new folder. Nothing is moved or deleted.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    parquet: Annotated[bool, typer.Option("--parquet", help="results.parquet as well.", rich_help_panel=_WHAT)] = False,
    report: Annotated[bool, typer.Option("--report/--no-report", help="report.html.", rich_help_panel=_WHAT)] = True,
    strict: Strict = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 when an image was selected.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Finish an interrupted audit.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Throw an interrupted audit away.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    r"""Find what is odd among images that nobody has looked through, and what is there twice.

    Nothing needs to be known to be normal. Every image is scored by a model that was fitted to other images, without
    those that looked odd. Beside the ranking: duplicates, unreadable files, odd sizes, exposure and sharpness, wrong
    labels where the subfolders are classes, and images that another folder holds too.

    OUT gets results.csv, results.jsonl, report.html, clean.txt, and a table of each other kind of finding. Then train
    on the rest with oddment fit --exclude OUT/results.csv.

    [bold]Examples[/bold]

    oddment audit photos/ -o audit/

    oddment audit train/ -o audit/ --against test/ --fdr 0.05
    """
    with reporting(debug=debug):
        rule = _rule(fdr, quantile, top, threshold)
        from oddment.auditing.write import check_target, copy_clean, summary, write_audit

        if output.exists() and not output.is_dir():
            msg = f"-o {output} is a file. Name a folder to write the results to."
            raise ParameterError(msg)
        if apply_to is not None:
            check_target(apply_to)
        if resume and overwrite:
            msg = "--resume finishes an interrupted audit and --overwrite throws it away: give one of them."
            raise ParameterError(msg)
        bars = Bars(quiet=quiet or as_json)
        done = _audit(
            images,
            output,
            rule,
            settings={
                "model": model,
                "options": parse_options(option or []),
                "epochs": epochs,
                "size": parse_size(size),
                "fit": fit_mode,
                "channels": {"auto": None, "gray": 1, "colour": 3}[channels],
                "standardise_exposure": standardise_exposure,
                "seed": seed,
                "device": device,
                "max_pixels": max_pixels,
                "strict": strict,
            },
            options={"parts": parts, "trim": trim, "classes": classes},
            reference=reference or [],
            against=against or [],
            groups=groups,
            resume=resume,
            overwrite=overwrite,
            bars=bars,
        )
        command = shlex.join(["oddment", "audit", *map(str, images), "-o", str(output)])
        files = write_audit(done, output, parquet=parquet, report=report, command=command, progress=bars)
        copied = None
        if apply_to is not None:
            clean = [p for p, odd in zip(done.collection.paths, done.chosen.selected, strict=True) if not odd]
            copied = copy_clean(images, clean, apply_to)
        if as_json:
            print_json(summary(done) | {"files": [str(path) for path in files], "copied": copied})
        elif not quiet:
            _print(done, files, copied, apply_to)
        raise typer.Exit(1 if exit_code and done.chosen.count else 0)


def _rule(fdr: float | None, quantile: float | None, top: int | None, threshold: float | None) -> Rule:
    try:
        from oddment.auditing import Rule
    except ImportError as error:
        if isinstance(error, MissingExtraError):
            raise
        msg = f"audits need the training half (missing: {error.name}): pip install 'oddment[train]'."
        raise MissingExtraError(msg) from error
    given = {"fdr": fdr, "quantile": quantile, "top": top, "threshold": threshold}
    asked = [(kind, value) for kind, value in given.items() if value is not None]
    if len(asked) > 1:
        msg = f"{' and '.join(f'--{kind}' for kind, _ in asked)} select in different ways: give one of them."
        raise ParameterError(msg)
    return Rule(*asked[0]) if asked else Rule()  # type: ignore[arg-type]


def _audit(
    images: Sequence[str],
    output: Path,
    rule: Rule,
    *,
    settings: dict[str, Any],
    options: dict[str, Any],
    reference: Sequence[str],
    against: Sequence[str],
    groups: str | None,
    resume: bool,
    overwrite: bool,
    bars: Bars,
) -> Audit:
    """Run the audit; what an interrupted one had worked out stays in OUT."""
    from oddment.auditing import AuditOptions, audit_images
    from oddment.auditing.partial import Partial
    from oddment.auditing.write import FILES
    from oddment.fitting import Settings
    from oddment.images.groups import group_numbers, read_groups

    told, work = AuditOptions(rule=rule, **options), output / _PARTIAL
    kept: list[Partial] = []
    if work.exists() and not (resume or overwrite):
        # Before an image is read.
        Partial(work, {}, resume=False, overwrite=False)

    def partial(identity: str) -> Partial:
        output.mkdir(parents=True, exist_ok=True)
        kept.append(Partial(work, {"audit": identity}, resume=resume, overwrite=overwrite))
        return kept[0]

    finder = read_groups(groups) if groups else None
    try:
        done = audit_images(
            images,
            Settings(**settings),
            told,
            exclude=[work, *(output / name for name in FILES)],
            reference=reference,
            against=against,
            groups=(lambda paths: group_numbers(paths, finder)[0]) if finder else None,
            partial=partial,
            progress=bars,
        )
    except KeyboardInterrupt:
        if kept:
            consoles()[1].print(f"Interrupted. What was worked out is in {work}: --resume goes on from there.")
            raise typer.Exit(INTERRUPTED) from None
        raise
    for item in kept:
        item.discard()
    return done


def _print(done: Audit, files: Sequence[Path], copied: int | None, target: Path | None, *, most: int = 10) -> None:
    out, _ = consoles()
    rejections = done.collection.rejections
    out.print(
        f"[bold]{len(done.scores):,} scored, {done.chosen.count:,} selected, {len(rejections):,} rejected[/bold]",
        soft_wrap=True,
    )
    out.print(done.chosen.describe(), soft_wrap=True, markup=False)
    for note in done.notes:
        out.print("[yellow]Note:[/yellow] ", end="")
        out.print(note, soft_wrap=True, markup=False)
    highest = sorted(range(len(done.scores)), key=lambda index: -done.scores[index])[:most]
    paths, selected = done.collection.paths, done.chosen.selected
    print_ranking(
        out,
        [(done.scores[i], done.p_values[i], selected[i], paths[i]) for i in highest],
        verdicts=("selected", "ordinary"),
    )
    for line in _also(done):
        out.print(line, soft_wrap=True, markup=False)
    print_rejections(out, rejections, total=len(rejections), most=most)
    if copied is not None:
        out.print(f"Copied: {copied:,} images to {target}", soft_wrap=True, markup=False)
    out.print(f"Written: {', '.join(map(str, files))}", soft_wrap=True, markup=False)


def _also(done: Audit) -> list[str]:
    """What was found besides the ranking, a line each."""
    exact = [item for item in done.duplicates if item.exact]
    counts = (
        (sum(len(item.paths) - 1 for item in exact), "exact copy of another image", "exact copies of other images"),
        (len(done.duplicates) - len(exact), "set of images that look alike", "sets of images that look alike"),
        (len(done.leaks), "image of the other folder", "images of the other folder"),
        (len(done.suspects), "label that may be wrong", "labels that may be wrong"),
        (len(done.oddities), "odd size, exposure or sharpness", "odd sizes, exposures or sharpnesses"),
    )
    files = ("duplicates.csv", "duplicates.csv", "leaks.csv", "labels.csv", "checks.csv")
    return [
        f"{count:,} {one if count == 1 else many} ({file})"
        for (count, one, many), file in zip(counts, files, strict=True)
        if count
    ]
