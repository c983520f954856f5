"""`oddment evaluate`: a model against labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oddment.cli._shared import Bars, Debug, Json, Quiet, consoles, print_json, print_rejections, reporting
from oddment.errors import MissingExtraError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from oddment.data.labelled import LabelledSet
    from oddment.evaluation import Evaluation
    from oddment.report.page import Grid
    from oddment.scorer import Scorer

__all__ = ["evaluate"]

_SPLIT = "Which images"

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="Labelled images: a folder per class, MVTec's layout, a CSV of paths and labels, or mnist, fashion-mnist, "
        "mnist+fashion-mnist, deepweeds.",
        show_default=False,
    ),
]
Normal = Annotated[
    list[str] | None, typer.Option(help="A normal class; repeatable.", metavar="CLASS", rich_help_panel=_SPLIT)
]
Anomaly = Annotated[
    list[str] | None,
    typer.Option(
        help="An anomalous class; repeatable. \\[default: all others]", metavar="CLASS", rich_help_panel=_SPLIT
    ),
]
HeldOut = Annotated[
    list[str] | None,
    typer.Option(help="Instead: this class is anomalous, all others normal.", metavar="CLASS", rich_help_panel=_SPLIT),
]
Contaminate = Annotated[
    float | None,
    typer.Option(
        help="Mix this share of anomalies into the training images, and test on them.", rich_help_panel=_SPLIT
    ),
]
TestShare = Annotated[
    float, typer.Option(help="Share of normal images to test on, where the data have no split.", rich_help_panel=_SPLIT)
]
Limit = Annotated[
    int | None, typer.Option(help="At most so many training and so many test images.", rich_help_panel=_SPLIT)
]
Seed = Annotated[int, typer.Option(help="Of the split and the resamples.", rich_help_panel=_SPLIT)]
Bootstrap = Annotated[int, typer.Option(help="Resamples behind the intervals; 0 for none.", metavar="N", min=0)]


def evaluate(
    data: Data,
    model: Annotated[Path, typer.Option("--model", "-m", help="The model file.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write to.")] = Path(
        "oddment-evaluation"
    ),
    normal: Normal = None,
    anomaly: Anomaly = None,
    held_out: HeldOut = None,
    contaminate: Contaminate = None,
    test_share: TestShare = 0.2,
    limit: Limit = None,
    seed: Seed = 0,
    groups: Annotated[
        str | None,
        typer.Option(
            help="Images of one thing are resampled together: a CSV (image,group) or a pattern such as 'part(\\d+)'.",
            rich_help_panel=_SPLIT,
        ),
    ] = None,
    bootstrap: Bootstrap = 1000,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure a model on labelled images: AUROC, average precision, rates at its threshold, each with an interval.

    OUT gets evaluation.html, .md, .json and .csv (a row an image), and the figures as PNG files. Test on images that
    the model was not fitted on: the same DATA, options and seed give the same split.

    [bold]Examples[/bold]

    oddment evaluate mvtec/bottle -m bottle.oddment -o out/

    oddment evaluate mnist --held-out 5 -m digits.oddment --json
    """
    with reporting(debug=debug):
        check_folder(output)
        from oddment.data.labelled import open_labelled
        from oddment.images.groups import read_groups
        from oddment.scorer import load

        scorer = load(model)
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
        result = _run(
            scorer, labelled, bootstrap, seed, read_groups(groups) if groups else None, quiet=quiet or as_json
        )
        from oddment.evaluation import write_evaluation
        from oddment.evaluation.report import evaluation_dict

        written = write_evaluation(result, output, model_name=model.name)
        if as_json:
            print_json(evaluation_dict(result))
        elif not quiet:
            _print(result, labelled, written)


def check_folder(output: Path) -> None:
    """Check that OUT can be a folder.

    Raises:
        ParameterError: if it is a file.
    """
    if output.exists() and not output.is_dir():
        msg = f"-o {output} is a file. Name a folder to write the results to."
        raise ParameterError(msg)


def _run(
    scorer: Scorer,
    labelled: LabelledSet,
    bootstrap: int,
    seed: int,
    groups: Callable[[str], str | None] | None,
    *,
    quiet: bool,
) -> Evaluation:
    try:
        from oddment.evaluation import evaluate as measure
        from oddment.metrics import rate  # noqa: F401 - fails before anything is scored
    except ImportError as error:
        if isinstance(error, MissingExtraError):
            raise
        msg = f"measuring needs scikit-learn and SciPy (missing: {error.name}): pip install 'oddment[train]'."
        raise MissingExtraError(msg) from error
    return measure(scorer, labelled, bootstrap=bootstrap, seed=seed, groups=groups, progress=Bars(quiet=quiet))


def _print(result: Evaluation, labelled: LabelledSet, written: list[Path]) -> None:
    from oddment.evaluation.report import class_grid, confusion_grid, figure_grid, summary
    from oddment.results import Rejection

    out, _ = consoles()
    out.print(labelled.description, soft_wrap=True, markup=False)
    out.print(f"[bold]{summary(result)}[/bold]".replace("] [", "] \\["), soft_wrap=True)
    for grid in (figure_grid(result, brief=True), confusion_grid(result), class_grid(result, brief=True)):
        print_grid(out, grid)
    rejections = [item.result for item in result.rejected if isinstance(item.result, Rejection)]
    print_rejections(out, rejections, total=len(rejections))
    for note in result.notes:
        out.print(f"Note: {note}", soft_wrap=True, markup=False, style="yellow")
    out.print(f"Written: {', '.join(str(path) for path in written)}", soft_wrap=True, markup=False)


def print_grid(console: Console, grid: Grid) -> None:
    """Print a table; numbers set right, what others named never read as markup."""
    from rich.table import Table
    from rich.text import Text

    from oddment.report.page import is_number

    table = Table(box=None, padding=(0, 1), header_style="dim")
    for index, name in enumerate(grid.columns):
        right = bool(grid.rows) and all(is_number(row[index]) for row in grid.rows)
        table.add_column(name, justify="right" if right else "left", overflow="fold", no_wrap=right)
    for index, row in enumerate(grid.rows):
        table.add_row(*(Text(cell) for cell in row), style="bold" if index == grid.best else "")
    console.print(table)
    console.print()
