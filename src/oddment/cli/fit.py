"""`oddment fit`: from normal images to a model file."""

from __future__ import annotations

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
    parse_seconds,
    parse_size,
    print_json,
    print_rejections,
    public,
    reporting,
)
from oddment.errors import DataError, MissingExtraError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oddment.fitting import Fitted, Settings
    from oddment.progress import Progress
    from oddment.reviewing import Exclusion

__all__ = [
    "Channels",
    "Device",
    "Epochs",
    "FixedThreshold",
    "Margin",
    "MaxNormal",
    "MaxPixels",
    "ModelName",
    "ModelOption",
    "Over",
    "Quantile",
    "Seed",
    "Size",
    "StandardiseExposure",
    "Strict",
    "TargetFpr",
    "fit",
    "parse_options",
    "run_fit",
]

_RULE = "Threshold (one of)"
_TRAIN = "Training"
_READ = "Reading images"

TargetFpr = Annotated[
    float | None,
    typer.Option(
        help="Share of new normal images that may be flagged: a promise, kept by held-out images. \\[default: 0.01]",
        rich_help_panel=_RULE,
    ),
]
Quantile = Annotated[
    float | None, typer.Option(help="This quantile of the held-out scores instead; no promise.", rich_help_panel=_RULE)
]
MaxNormal = Annotated[
    bool, typer.Option("--max-normal", help="The largest score of the training images instead.", rich_help_panel=_RULE)
]
Margin = Annotated[float | None, typer.Option(help="Added to --max-normal.", rich_help_panel=_RULE)]
FixedThreshold = Annotated[float | None, typer.Option("--threshold", help="This value instead.", rich_help_panel=_RULE)]
Over = Annotated[
    Literal["calibration", "training"] | None,
    typer.Option(
        help="Scores that --quantile (default: calibration) or --max-normal (default: training) is taken over.",
        rich_help_panel=_RULE,
    ),
]
ModelName = Annotated[
    str,
    typer.Option(
        "--model", help="auto, or a model by name, such as conv-small, conv-large or knn.", rich_help_panel=_TRAIN
    ),
]
ModelOption = Annotated[
    list[str] | None,
    typer.Option("--option", help="A model's own option, such as latent_dim=16; repeatable.", rich_help_panel=_TRAIN),
]
Epochs = Annotated[int | None, typer.Option(help="Passes over the images, at most.", rich_help_panel=_TRAIN)]
Seed = Annotated[int, typer.Option(help="Same seed, same images, same machine: same scores.", rich_help_panel=_TRAIN)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.", rich_help_panel=_TRAIN)]
Size = Annotated[
    str | None,
    typer.Option(
        help="Side, or WIDTHxHEIGHT, that the model sees. \\[default: from the images]", rich_help_panel=_READ
    ),
]
Channels = Annotated[
    Literal["auto", "gray", "colour"], typer.Option(help="What the model sees.", rich_help_panel=_READ)
]
StandardiseExposure = Annotated[
    bool,
    typer.Option(
        "--standardise-exposure",
        help="Bring each image to one mean and one contrast first: for light that changes.",
        rich_help_panel=_TRAIN,
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="An unusable file is an error.", rich_help_panel=_READ)]
MaxPixels = Annotated[int, typer.Option(help="Reject larger images before they are decoded.", rich_help_panel=_READ)]


def fit(
    normal: Annotated[
        list[str],
        typer.Argument(
            metavar="NORMAL...",
            help="Normal images: files, folders, 'globs', .zip and .tar archives, .npy/.npz arrays, IDX files.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The model file to write.", show_default=False)],
    target_fpr: TargetFpr = None,
    quantile: Quantile = None,
    max_normal: MaxNormal = False,
    margin: Margin = None,
    threshold: FixedThreshold = None,
    over: Over = None,
    model: ModelName = "auto",
    option: ModelOption = None,
    epochs: Epochs = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.", rich_help_panel=_TRAIN)] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak of the optimizer's rate.", rich_help_panel=_TRAIN)
    ] = None,
    optimizer: Annotated[
        Literal["adam", "sgd", "adagrad"], typer.Option(help="As Keras has them.", rich_help_panel=_TRAIN)
    ] = "adam",
    schedule: Annotated[
        Literal["cosine", "constant", "inverse-time"],
        typer.Option(help="How the learning rate falls.", rich_help_panel=_TRAIN),
    ] = "cosine",
    decay: Annotated[
        float, typer.Option(help="Of --schedule inverse-time: rate / (1 + decay × step).", rich_help_panel=_TRAIN)
    ] = 0.0,
    loss: Annotated[
        Literal["model", "mse", "bce"],
        typer.Option(help="The model's own, squared error or cross-entropy.", rich_help_panel=_TRAIN),
    ] = "model",
    score: Annotated[
        str,
        typer.Option(
            help="The model's own; mse, mae, bce, ssim or msgms of its reconstruction; some added up: mse,ssim; or "
            "best: whichever does best on synthetic defects, as --model auto takes.",
            rich_help_panel=_TRAIN,
        ),
    ] = "model",
    pool: Annotated[
        str,
        typer.Option(
            help="How the anomaly map becomes the score: the model's own way, mean, max, top=0.05 or quantile=0.99.",
            rich_help_panel=_TRAIN,
        ),
    ] = "model",
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"],
        typer.Option(help="Of training; auto: bfloat16 where the processor has units.", rich_help_panel=_TRAIN),
    ] = "auto",
    hold_out: Annotated[
        bool,
        typer.Option(
            "--hold-out/--no-hold-out",
            help="Hold images out to calibrate; without, only --max-normal, --threshold or --quantile --over training.",
            rich_help_panel=_RULE,
        ),
    ] = True,
    budget: Annotated[
        str | None, typer.Option(help="Most time to train for: 90s, 5m, 1h.", rich_help_panel=_TRAIN)
    ] = None,
    no_baseline_check: Annotated[
        bool,
        typer.Option(
            "--no-baseline-check",
            help="Do not try whether plain knn or pca do as well on synthetic defects.",
            rich_help_panel=_TRAIN,
        ),
    ] = False,
    no_thumbnails: Annotated[
        bool,
        typer.Option(
            "--no-thumbnails",
            help="Keep no small pictures of training images in the model file: for secret images.",
            rich_help_panel=_READ,
        ),
    ] = False,
    standardise_exposure: StandardiseExposure = False,
    seed: Seed = 0,
    device: Device = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted fit.", rich_help_panel=_TRAIN)
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Throw an interrupted fit away.", rich_help_panel=_TRAIN)
    ] = False,
    size: Size = None,
    fit_mode: Annotated[
        Literal["letterbox", "stretch", "tile"],
        typer.Option("--fit", help="Keep the aspect ratio, ignore it, or cut into tiles.", rich_help_panel=_READ),
    ] = "letterbox",
    channels: Channels = "auto",
    groups: Annotated[
        str | None,
        typer.Option(
            help="Images of one thing stay on one side of the split: a CSV (image,group), "
            "or a pattern such as 'part(\\d+)'.",
            rich_help_panel=_READ,
        ),
    ] = None,
    exclude: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Leave out the images that a review.csv, a results.csv or a list of paths says; repeatable.",
            rich_help_panel=_READ,
        ),
    ] = None,
    exclude_unsure: Annotated[
        bool,
        typer.Option("--exclude-unsure", help="Leave out all that --exclude marks unsure.", rich_help_panel=_READ),
    ] = False,
    duplicates: Annotated[
        bool,
        typer.Option(
            "--duplicates/--no-duplicates", help="Keep near duplicates on one side too.", rich_help_panel=_READ
        ),
    ] = True,
    max_pixels: MaxPixels = 100_000_000,
    strict: Strict = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    r"""Train on normal images and write one model file.

    Unusable files are rejected with their reason, near duplicates never straddle the split, and the threshold keeps the
    share of false alarms that you allow.

    [bold]Examples[/bold]

    oddment fit normal/ -o tiles.oddment

    oddment fit 'shots/**/*.png' -o parts.oddment --groups 'part(\d+)' --target-fpr 0.05 --budget 5m
    """
    with reporting(debug=debug):
        from oddment.calibration import ThresholdRule

        rule = ThresholdRule.choose(
            target_fpr=target_fpr,
            quantile=quantile,
            max_normal=max_normal,
            margin=margin,
            threshold=threshold,
            over=over,
        )
        settings = _settings(
            model=model,
            options=parse_options(option or []),
            size=parse_size(size),
            fit=fit_mode,
            channels={"auto": None, "gray": 1, "colour": 3}[channels],
            rule=rule,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            optimizer=optimizer,
            schedule=schedule,
            decay=decay,
            loss=loss,
            score=score,
            pool=pool,
            precision=precision,
            hold_out=hold_out,
            budget=parse_seconds(budget),
            seed=seed,
            device=device,
            max_pixels=max_pixels,
            strict=strict,
            find_duplicates=duplicates,
            baseline_check=not no_baseline_check,
            standardise_exposure=standardise_exposure,
            thumbnails=not no_thumbnails,
        )
        fitted = run_fit(
            normal,
            output,
            settings,
            groups=groups,
            leave_out=exclude or (),
            unsure=exclude_unsure,
            resume=resume,
            overwrite=overwrite,
            progress=Bars(quiet=quiet or as_json),
        )
        if as_json:
            print_json(_as_json(fitted, output))
        elif not quiet:
            _summary(fitted, output)


def _settings(**given: Any) -> Settings:  # noqa: ANN401 - the fields of Settings
    try:
        from oddment.fitting import Settings
    except ImportError as error:
        msg = f"fitting needs the training half (missing: {error.name}): pip install 'oddment[train]'."
        raise MissingExtraError(msg) from error
    return Settings(**given)


def run_fit(
    sources: list[str],
    output: Path,
    settings: Settings,
    *,
    groups: str | None = None,
    leave_out: Sequence[Path] = (),
    unsure: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress,
) -> Fitted:
    """Fit, write the model file and return what came of it.

    Args:
        sources: files, folders, globs, archives, arrays.
        output: the model file.
        settings: what was asked for.
        groups: a table or a pattern, as `read_groups` takes it.
        leave_out: reviews, as `read_review` takes them: what they leave out is not trained on.
        unsure: leave out what they mark unsure too.
        resume: go on with an interrupted fit.
        overwrite: throw it away.
        progress: told of stages.

    Raises:
        DataError: if an interrupted fit lies beside `output` and neither resume nor overwrite was asked for.
    """
    from oddment.artifact import write_model
    from oddment.fitting import fit_images
    from oddment.images.files import iter_images, require_images
    from oddment.images.groups import group_numbers, read_groups
    from oddment.training.checkpoint import Checkpoint

    path = output.with_name(f"{output.name}.checkpoint")
    if output.is_dir():
        msg = f"-o {output} is a folder. Name the model file itself, such as {output / 'model.oddment'}."
        raise ParameterError(msg)
    if resume and overwrite:
        msg = "--resume goes on with an interrupted fit and --overwrite throws it away: give one of them."
        raise ParameterError(msg)
    if path.exists() and not (resume or overwrite):
        msg = f"{path} holds an interrupted fit. Add --resume to finish it, or --overwrite to begin anew."
        raise DataError(msg)
    if unsure and not leave_out:
        msg = "--exclude-unsure says which images of a review are left out: add --exclude review.csv."
        raise ParameterError(msg)
    if overwrite:
        path.unlink(missing_ok=True)
    settings.check()
    group_of = read_groups(groups) if groups else None

    def number(paths: list[str]) -> Any:  # noqa: ANN401 - an array
        labels, alone = group_numbers(paths, group_of)  # type: ignore[arg-type]
        if alone:
            progress.say(f"--groups {groups}: {alone:,} of {len(paths):,} images belong to no group and stand alone.")
        return labels

    exclude = [output, path, *leave_out]
    exclusion = _excluded(sources, exclude, leave_out, unsure=unsure, progress=progress) if leave_out else None
    gone = exclusion.images if exclusion else frozenset[str]()
    try:
        fitted = fit_images(
            lambda: (ref for ref in iter_images(sources, exclude=exclude) if ref.path not in gone),
            exclusion.left if exclusion else require_images(sources, exclude=exclude),
            settings,
            groups=number if group_of else None,
            exclusion=exclusion,
            checkpoint=lambda fingerprint: Checkpoint(path, fingerprint),
            resume=resume,
            progress=progress,
        )
    except KeyboardInterrupt:
        progress.finish()
        kept = (
            "the last finished epoch is kept; repeat the command with --resume"
            if path.exists()
            else "nothing to keep yet"
        )
        consoles()[1].print(f"Interrupted: {kept}.", soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None
    write_model(output, fitted.model)
    path.unlink(missing_ok=True)
    return fitted


def _excluded(
    sources: list[str], exclude: Sequence[Path], reviews: Sequence[Path], *, unsure: bool, progress: Progress
) -> Exclusion:
    """Which images the reviews leave out; told as it is found."""
    from oddment.images.files import image_names
    from oddment.reviewing import leave_out

    exclusion = leave_out(reviews, list(image_names(sources, exclude=exclude)), unsure=unsure)
    for note in exclusion.notes:
        progress.say(note)
    return exclusion


def parse_options(given: list[str]) -> dict[str, Any]:
    """`key=value` pairs; values are numbers, lists of numbers such as 32,64, or words such as full or conv-small."""
    options: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        try:
            numbers = [float(part) if "." in part else int(part) for part in value.split(",")]
        except ValueError:
            numbers = []
        word = value.strip()
        if not equals or not (numbers or word.replace("-", "").isalnum()):
            msg = (
                f"--option {text!r} is not NAME=NUMBER or NAME=WORD, such as latent_dim=16, filters=32,64 or on=pixels."
            )
            raise ParameterError(msg)
        options[key.strip()] = tuple(numbers) if len(numbers) > 1 else numbers[0] if numbers else word
    return options


def _as_json(fitted: Fitted, output: Path) -> dict[str, Any]:
    calibration = fitted.model.calibration
    return {
        "model": str(output),
        "threshold": calibration.threshold,
        "rule": calibration.as_dict()["rule"],
        "info": public(fitted.model.info),
        "rejected": [{"path": item.path, "reason": item.reason} for item in fitted.rejections],
        "duplicates": [list(names) for names in fitted.duplicates],
        "caveats": list(fitted.caveats),
    }


def _summary(fitted: Fitted, output: Path) -> None:
    out, _ = consoles()
    model, data = fitted.model, fitted.model.info["data"]
    preparation, calibration = model.preparation, model.calibration
    colour = "gray" if preparation.channels == 1 else "colour"
    out.print(
        f"[bold]{output}[/bold]: {model.info['model']['name']} on {preparation.width}×{preparation.height} {colour}; "
        f"{data['training']:,} images trained, {data['validation']:,} validated, {data['calibration']:,} calibrated.",
        soft_wrap=True,
    )
    out.print(f"Threshold {calibration.threshold:.6g}: {calibration.rule.describe()}.", soft_wrap=True)
    if "excluded" in data:
        out.print(f"{data['excluded']['images']:,} images were left out (--exclude).", soft_wrap=True)
    if fitted.duplicates:
        extra = sum(len(names) - 1 for names in fitted.duplicates)
        out.print(
            f"{extra:,} exact duplicates, such as {' = '.join(fitted.duplicates[0][:3])}.", soft_wrap=True, markup=False
        )
    print_rejections(out, fitted.rejections, total=len(fitted.rejections))
    for caveat in fitted.caveats:
        out.print(f"[yellow]Note:[/yellow] {caveat}", soft_wrap=True)
    out.print(f"Next: oddment find NEW_IMAGES -m {output} -o out/", soft_wrap=True)
