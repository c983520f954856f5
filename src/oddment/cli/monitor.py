"""`oddment monitor`: has the stream drifted?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oddment.cli._shared import Bars, Debug, Json, Quiet, consoles, print_json, reporting
from oddment.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from oddment.artifact import ModelFile
    from oddment.monitoring import Monitoring
    from oddment.progress import Progress
    from oddment.streams import Stream

__all__ = ["monitor"]

_TABLES = (".csv", ".jsonl")


def monitor(
    model: Annotated[Path, typer.Argument(help="The model file.", show_default=False)],
    results: Annotated[
        list[str],
        typer.Argument(
            metavar="RESULTS...",
            help="In order of time: results.csv or results.jsonl of earlier searches, their folders, or images.",
            show_default=False,
        ),
    ],
    alpha: Annotated[
        float, typer.Option(help="Chance of a false alarm, ever, however often you look.", show_default=True)
    ] = 0.01,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A folder for monitor.json, monitor.csv and, with matplotlib, a chart."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Breaks ties between equal scores.")] = 0,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 when the alarm rose.")] = False,
    max_pixels: Annotated[int, typer.Option(help="Reject larger images before they are decoded.", min=1)] = 100_000_000,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Watch scores over time: are new images still like those of calibration?

    Says that all is fine, or how the scores changed, since which image,
    and whether to look, to recalibrate or to retrain.

    You may run it after every image: give all results so far, oldest first;
    a longer stream goes on where the shorter one ended. While nothing
    changes, the alarm ever rises with probability --alpha at most.

    [bold]Examples[/bold]

    oddment monitor tiles.oddment monday/results.csv tuesday/results.csv

    oddment monitor tiles.oddment shots/ -o drift/ --alpha 0.001 --exit-code
    """
    with reporting(debug=debug):
        from oddment.artifact import read_model
        from oddment.monitoring import monitor as watch
        from oddment.monitoring import write_monitoring

        if output is not None and output.exists() and not output.is_dir():
            msg = f"-o {output} is a file. Name a folder to write to."
            raise ParameterError(msg)
        contents = read_model(model)
        stream = _stream(contents, results, max_pixels=max_pixels, progress=Bars(quiet=quiet or as_json))
        found = watch(stream.scores, contents.calibration, alpha=alpha, seed=seed, name_of=_names(stream))
        files = [] if output is None else write_monitoring(output, found, stream, contents.calibration)
        if as_json:
            about = {
                "rejected": stream.rejected,
                "caveats": list(stream.caveats),
                "files": [str(path) for path in files],
            }
            print_json(found.as_dict() | about)
        elif not quiet:
            _summary(found, stream, files)
        raise typer.Exit(1 if exit_code and found.alarm_at is not None else 0)


def _stream(contents: ModelFile, sources: Sequence[str], *, max_pixels: int, progress: Progress) -> Stream:
    """Results as they are, and images scored, in the order in which they were named."""
    from oddment.streams import Stream, read_results

    stream = Stream.of([])
    for source in sources:
        table = _table_of(Path(source))
        if table is not None:
            stream += read_results(table, contents.calibration)
        else:
            stream += _scored(contents, source, max_pixels, progress)
    return stream


def _table_of(path: Path) -> Path | None:
    """The table of results that a path is, or that lies in the folder that it is."""
    if path.is_dir():
        return next((path / name for name in ("results.jsonl", "results.csv") if (path / name).is_file()), None)
    if path.suffix.lower() == ".parquet":
        msg = f"{path}: give results.jsonl or results.csv, which lie beside it."
        raise ParameterError(msg)
    return path if path.suffix.lower() in _TABLES else None


def _scored(contents: ModelFile, source: str, max_pixels: int, progress: Progress) -> Stream:
    from oddment.images.files import count_images, iter_images
    from oddment.scorer import Scorer
    from oddment.streams import Stream

    refs, total = iter_images([source]), count_images([source])
    results = []
    progress.start(f"Scoring {source}", total)
    for done, found in enumerate(Scorer(contents).find(refs, max_pixels=max_pixels), start=1):
        results.append(found.result)
        progress.update(done)
    progress.finish()
    return Stream.of(results)


def _names(stream: Stream) -> Callable[[int], str]:
    return lambda index: f"{index + 1:,} ({stream.paths[index]})"


def _summary(found: Monitoring, stream: Stream, files: Sequence[Path]) -> None:
    out, _ = consoles()
    colour = {"fine": "green", "watch": "yellow"}.get(found.verdict.kind, "red")
    label = {"fine": "", "watch": ""}.get(found.verdict.kind, "Alarm. ")
    out.print(f"[bold {colour}]{label}{found.verdict.words}[/bold {colour}]", soft_wrap=True)
    out.print(found.verdict.why.replace("[", "\\["), soft_wrap=True)
    both = found.comparison
    rejected = f", {stream.rejected:,} rejected files left out" if stream.rejected else ""
    out.print(
        f"{found.scores.size:,} images against {found.n_calibration:,} of calibration{rejected}. In one look at all: "
        f"Kolmogorov-Smirnov {both.ks:.3f} (p = {both.ks_p:.2g}), Cramér-von Mises {both.cvm:.3g} "
        f"(p = {both.cvm_p:.2g}); a score is above a calibration score in {both.gaps.above:.0%} of all pairs.",
        soft_wrap=True,
    )
    for caveat in stream.caveats:
        out.print(f"[yellow]Note:[/yellow] {caveat}".replace("[/yellow] [", "[/yellow] \\["), soft_wrap=True)
    if files:
        out.print(f"Written: {', '.join(map(str, files))}", soft_wrap=True)
