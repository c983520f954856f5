"""`oddment compare`: several models on the same images, split and seeds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    reporting,
)
from oddment.cli.evaluate import (
    Anomaly,
    Contaminate,
    Data,
    HeldOut,
    Limit,
    Normal,
    Seed,
    TestShare,
    check_folder,
    print_grid,
)
from oddment.errors import MissingExtraError, ParameterError

if TYPE_CHECKING:
    from oddment.comparison import Comparison
    from oddment.fitting import Settings

__all__ = ["compare"]

_FITS = "All fits"


def compare(
    data: Data,
    models: Annotated[str, typer.Option(help="Models by name, with commas between: conv-small,dense.")] = "auto",
    baselines: Annotated[str, typer.Option(help="Classical baselines by name, with commas between: knn,pca.")] = "",
    seeds: Annotated[str, typer.Option(help="Seeds of every fit, with commas between.")] = "0",
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write to.")] = Path("oddment-compare"),
    normal: Normal = None,
    anomaly: Anomaly = None,
    held_out: HeldOut = None,
    contaminate: Contaminate = None,
    test_share: TestShare = 0.2,
    limit: Limit = None,
    seed: Seed = 0,
    target_fpr: Annotated[
        float | None,
        typer.Option(help="Share of normal images that may be flagged. \\[default: 0.01]", rich_help_panel=_FITS),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the images, at most.", rich_help_panel=_FITS)] = None,
    budget: Annotated[
        str | None, typer.Option(help="Most time to train each for: 90s, 5m, 1h.", rich_help_panel=_FITS)
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Side, or WIDTHxHEIGHT, that the models see.", rich_help_panel=_FITS)
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.", rich_help_panel=_FITS)] = "auto",
    bootstrap: Annotated[int, typer.Option(help="Resamples behind the intervals.", metavar="N", min=1)] = 1000,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Throw other results in OUT away.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Fit several models to the same images and say which is best, by how much, and whether that is more than chance.

    Each result is kept in OUT/compare.json as it comes: the same command goes on where it was interrupted, and another
    model or seed is added to what is there. OUT also gets compare.html, .md and .csv, and compare-scores.csv (a row an
    image).

    [bold]Examples[/bold]

    oddment compare mnist --normal 7 --models conv-small,dense --seeds 0,1,2 -o out/

    oddment compare mvtec/bottle --models conv-large --baselines knn,pca -o out/
    """
    with reporting(debug=debug):
        check_folder(output)
        settings = _settings(target_fpr, epochs, parse_seconds(budget), parse_size(size), device)
        from oddment.comparison import compare as run
        from oddment.comparison import write_comparison
        from oddment.data.labelled import open_labelled

        labelled = open_labelled(
            data,
            normal=normal or (),
            anomaly=anomaly or (),
            held_out=held_out or (),
            contaminate=contaminate,
            test_share=test_share,
            limit=limit,
            seed=seed,
        )
        try:
            result = run(
                labelled,
                _names(models),
                baselines=_names(baselines),
                seeds=_numbers(seeds),
                settings=settings,
                folder=output,
                overwrite=overwrite,
                bootstrap=bootstrap,
                progress=Bars(quiet=quiet or as_json),
            )
        except KeyboardInterrupt:
            consoles()[1].print(f"Interrupted: finished models are kept in {output}; repeat the command to go on.")
            raise typer.Exit(INTERRUPTED) from None
        written = write_comparison(result, output)
        if as_json:
            from oddment.comparison.report import comparison_dict

            print_json(comparison_dict(result))
        elif not quiet:
            _print(result, [output / "compare.json", *written])


def _settings(
    target_fpr: float | None, epochs: int | None, budget: float | None, size: tuple[int, int] | None, device: str
) -> Settings:
    from oddment.calibration import ThresholdRule

    try:
        from oddment.fitting import Settings
    except ImportError as error:
        if isinstance(error, MissingExtraError):
            raise
        msg = f"comparing needs the training half (missing: {error.name}): pip install 'oddment[train]'."
        raise MissingExtraError(msg) from error
    rule = ThresholdRule.choose(target_fpr=target_fpr)
    settings = Settings(rule=rule, epochs=epochs, budget=budget, size=size, device=device)
    settings.check()
    return settings


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        msg = f"--seeds {text!r} is no list of whole numbers, such as 0,1,2."
        raise ParameterError(msg) from None


def _print(result: Comparison, written: list[Path]) -> None:
    from oddment.comparison.report import standings_grid

    out, _ = consoles()
    out.print(result.description, soft_wrap=True, markup=False)
    if result.resumed:
        out.print(f"{result.resumed:,} of {len(result.entries):,} results were there already.")
    print_grid(out, standings_grid(result, brief=True))
    for verdict in result.verdicts:
        out.print(verdict, soft_wrap=True, markup=False, style="bold")
    for note in result.notes:
        out.print(f"Note: {note}", soft_wrap=True, markup=False, style="yellow")
    out.print(f"Written: {', '.join(str(path) for path in written)}", soft_wrap=True, markup=False)
