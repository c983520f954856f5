"""What a comparison leaves in a folder: CSV, Markdown, one HTML page, and figures; compare.json is there already."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

import oddment
from oddment.comparison.records import scores_of
from oddment.evaluation.figures import draw
from oddment.report.page import Grid, Page, Picture, Section, page_html, page_markdown
from oddment.whole import write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

    from oddment.comparison.records import Comparison, Standing

__all__ = ["COLUMNS", "comparison_dict", "comparison_figures", "comparison_page", "standings_grid", "write_comparison"]

COLUMNS = (
    "model", "kind", "seeds", "auroc", "auroc_low", "auroc_high", "auroc_least", "auroc_most", "average_precision",
    "average_precision_low", "average_precision_high", "tpr", "fpr", "behind", "behind_low", "behind_high",
    "fit_seconds", "images_per_second", "parameters",
)  # fmt: skip
"""The columns of compare.csv."""


def write_comparison(result: Comparison, folder: Path) -> list[Path]:
    """Write compare.csv, compare-scores.csv, compare.md, compare.html and the figures; returns the files written."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures, notes = draw(lambda: comparison_figures(result))
    page = comparison_page(result, pictures, notes)
    written = [
        write_whole(folder / "compare.csv", _standings_csv(result)),
        write_whole(folder / "compare-scores.csv", _scores_csv(result)),
        write_whole(folder / "compare.md", page_markdown(page)),
        write_whole(folder / "compare.html", page_html(page)),
    ]
    return [*written, *(write_whole(folder / picture.name, picture.content) for picture in pictures)]


def comparison_dict(result: Comparison) -> dict[str, Any]:
    """Return the standings and what follows from them as JSON-ready data."""
    return {
        "oddment": oddment.__version__,
        "data": {"name": result.data, "description": result.description},
        "resamples": result.resamples,
        "resumed": result.resumed,
        "verdicts": result.verdicts,
        "notes": result.notes,
        "standings": [dict(zip(COLUMNS, _cells(item), strict=True)) for item in result.standings],
        "failures": [
            {"model": entry.model, "seed": entry.seed, "reason": entry.failure}
            for entry in result.entries
            if entry.failure is not None
        ],
    }


def comparison_page(result: Comparison, pictures: list[Picture], notes: list[str] | None = None) -> Page:
    """Return the page of a comparison."""
    best = result.standings[0]
    lead = [*result.verdicts, f"Data: {result.description}"]
    seeds = [
        (entry.model, str(entry.seed), f"{auroc:.4f}", f"{entry.threshold:.6g}", f"{entry.seconds:.1f}")
        for entry, auroc in zip(result.done, _aurocs(result), strict=True)
    ]
    sections = [
        Section("Standings", result.notes + (notes or []), standings_grid(result), pictures),
        Section("Every seed", (), Grid(("model", "seed", "AUROC", "threshold", "seconds to fit"), seeds)),
    ]
    made = (
        f"Oddment {oddment.__version__}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC. Intervals hold 95 %: paired bootstrap "
        f"over test images and seeds, {result.resamples:,} resamples."
    )
    return Page(f"{best.model} leads on {result.data}", lead, sections, made)


def standings_grid(result: Comparison, *, brief: bool = False) -> Grid:
    """A row a model, the best first; in brief as narrow as a terminal."""
    columns = ("model", "AUROC", "behind the best", "found", "false alarms", "seeds from … to", "average precision",
               "seconds to fit", "images / s", "parameters")  # fmt: skip
    rows = [
        (
            f"{item.model} (baseline)" if item.is_baseline else item.model,
            str(item.auroc),
            "–" if item.behind is None else str(item.behind),
            f"{item.tpr:.3f}",
            f"{item.fpr:.3f}",
            f"{item.auroc_range[0]:.3f} … {item.auroc_range[1]:.3f}" if len(item.seeds) > 1 else "–",
            str(item.average_precision),
            f"{item.seconds:.1f}",
            f"{item.images_per_second:,.0f}",
            f"{item.parameters:,}",
        )
        for item in result.standings
    ]
    if brief:
        return Grid((*columns[:3], "seconds"), [(*row[:3], row[7]) for row in rows], best=0)
    return Grid(columns, rows, best=0)


def _cells(item: Standing) -> list[Any]:
    behind = item.behind
    return [
        item.model, "baseline" if item.is_baseline else "model", len(item.seeds),
        item.auroc.value, item.auroc.low, item.auroc.high, *item.auroc_range,
        item.average_precision.value, item.average_precision.low, item.average_precision.high, item.tpr, item.fpr,
        *((0.0, 0.0, 0.0) if behind is None else (behind.value, behind.low, behind.high)),
        round(item.seconds, 3), round(item.images_per_second, 1), item.parameters,
    ]  # fmt: skip


def _standings_csv(result: Comparison) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_cells(item) for item in result.standings)
    return text.getvalue()


def _scores_csv(result: Comparison) -> str:
    """A row an image, a column an entry; empty where it was rejected."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    done = result.done
    writer.writerow(["path", "label", "truth", *(f"{entry.model}:{entry.seed}" for entry in done)])
    for index, (path, label, odd) in enumerate(zip(result.paths, result.labels, result.is_anomaly, strict=True)):
        scores = [entry.scores[index] for entry in done]
        writer.writerow([path, label, "anomaly" if odd else "normal", *("" if s is None else repr(s) for s in scores)])
    return text.getvalue()


def _aurocs(result: Comparison) -> list[float]:
    from oddment.metrics import auroc

    scores = scores_of(result.done)
    usable = np.isfinite(scores).all(axis=0)
    truth = np.array(result.is_anomaly, dtype=bool)[usable]
    return [auroc(row[usable], truth) for row in scores]


def comparison_figures(result: Comparison) -> dict[str, tuple[Figure, str]]:
    """Return file name → (figure, caption). Needs matplotlib.

    Raises:
        MissingExtraError: if matplotlib is not installed.
    """
    from oddment import plot

    scores = scores_of(result.done)
    usable = np.isfinite(scores).all(axis=0)
    truth = np.array(result.is_anomaly, dtype=bool)[usable]
    first: dict[str, Any] = {}
    for entry, row in zip(result.done, scores, strict=True):
        first.setdefault(entry.model, row[usable])
    ranked = {item.model: first[item.model] for item in result.standings}
    standings = {item.model: item.auroc for item in result.standings}
    return {
        "compare-auroc": (
            plot.intervals(standings, x="AUROC", heading="AUROC with 95 % intervals"),
            "AUROC of every model, mean over the seeds, with its interval; the table has the paired differences.",
        ),
        "compare-roc": (plot.roc(ranked, truth), "ROC curves, the first seed of each model."),
        "compare-precision-recall": (
            plot.precision_recall(ranked, truth),
            "Precision against recall, the first seed of each model.",
        ),
    }
