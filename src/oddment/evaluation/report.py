"""What an evaluation leaves in a folder: JSON, CSV, Markdown, one HTML page, and the figures as PNG files."""

from __future__ import annotations

import csv
import io
import json
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import oddment
from oddment.evaluation.figures import draw, evaluation_figures
from oddment.report.page import Grid, Page, Picture, Section, page_html, page_markdown
from oddment.results import Detection, Rejection
from oddment.whole import write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from oddment.evaluation.records import Evaluation

__all__ = ["COLUMNS", "evaluation_dict", "evaluation_page", "write_evaluation"]

COLUMNS = ("path", "label", "truth", "status", "anomaly_score", "p_value", "verdict", "outcome", "reason")
"""The columns of evaluation.csv."""

NAMES = {
    "auroc": "AUROC",
    "average_precision": "average precision",
    "f1": "F1 at the threshold",
    "best_f1": "best F1 of any threshold",
    "tpr": "anomalies found",
    "fpr": "false alarms",
    "precision": "flags that are right",
    "accuracy": "right verdicts",
}
_MEANING = {
    "auroc": "how often an anomaly scores above a normal image",
    "average_precision": "precision averaged over the anomalies; chance gives their share, {share:.3f}",
    "f1": "harmonic mean of precision and recall",
    "best_f1": "at {best:.6g}, chosen with these very labels: an upper bound",
    "tpr": "true-positive rate, recall: {found:,} of {anomalies:,}",
    "fpr": "false-positive rate: {alarms:,} of {normal:,}",
    "precision": "at this set's share of anomalies: {found:,} of {flagged:,}",
    "accuracy": "at this set's share of anomalies",
}


def write_evaluation(result: Evaluation, folder: Path, *, model_name: str = "") -> list[Path]:
    """Write evaluation.json, .csv, .md and .html and the figures; each file whole or not at all.

    Args:
        result: of `evaluate`.
        folder: where to; made if missing.
        model_name: the model file's name, for the page.

    Returns:
        The files written. Without matplotlib there are no figures, and the page says so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures, note = draw(lambda: evaluation_figures(result))
    page = evaluation_page(result, pictures, model_name=model_name, notes=note)
    written = [
        write_whole(folder / "evaluation.json", json.dumps(evaluation_dict(result), indent=1, allow_nan=False) + "\n"),
        write_whole(folder / "evaluation.csv", _table(result)),
        write_whole(folder / "evaluation.md", page_markdown(page)),
        write_whole(folder / "evaluation.html", page_html(page)),
    ]
    return [*written, *(write_whole(folder / picture.name, picture.content) for picture in pictures)]


def evaluation_dict(result: Evaluation) -> dict[str, Any]:
    """Return everything but the images as JSON-ready data; what is not defined is null."""
    calibration, info = result.scorer.calibration, result.scorer.model.info
    pixels = result.pixels
    return {
        "oddment": oddment.__version__,
        "data": {"name": result.data, "description": result.description},
        "model": {"name": info.get("model", {}).get("name"), "created": info.get("created")},
        "threshold": calibration.threshold,
        "rule": calibration.as_dict()["rule"],
        "counts": {
            "test": len(result.judged),
            "scored": len(result.scored),
            "rejected": len(result.rejected),
            "normal": int((~result.truth).sum()),
            "anomalous": int(result.truth.sum()),
        },
        "confusion": {
            "true_positives": result.count("found"),
            "false_positives": result.count("false alarm"),
            "false_negatives": result.count("missed"),
            "true_negatives": result.count("passed"),
        },
        "figures": {name: figure.as_dict() for name, figure in result.figures.items()},
        "best_threshold": _finite(result.best_threshold),
        "confidence": 0.95,
        "resamples": result.resamples,
        "classes": [
            {
                "label": item.label,
                "is_anomaly": item.is_anomaly,
                "total": item.total,
                "flagged": item.flagged,
                "rejected": item.rejected,
                "flagged_rate": item.rate.as_dict(),
                "auroc": item.auroc.as_dict(),
                "average_precision": item.average_precision.as_dict(),
            }
            for item in result.classes
        ],
        "pixels": None
        if pixels is None
        else {name: getattr(pixels, name) for name in pixels.__dataclass_fields__} | {"unmasked": result.unmasked},
        "rejections": [
            {"path": item.result.path, "label": item.label, "reason": item.result.reason}
            for item in result.judged
            if isinstance(item.result, Rejection)
        ],
        "notes": result.notes,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _table(result: Evaluation) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for item in result.judged:
        found = item.result if isinstance(item.result, Detection) else None
        writer.writerow(
            [
                item.result.path,
                item.label,
                "anomaly" if item.is_anomaly else "normal",
                item.result.status,
                "" if found is None else repr(found.anomaly_score),
                "" if found is None else repr(found.p_value),
                "" if found is None else "anomaly" if found.is_anomaly else "normal",
                item.outcome,
                item.result.reason if isinstance(item.result, Rejection) else "",
            ]
        )
    return text.getvalue()


# --- the page


def evaluation_page(
    result: Evaluation, pictures: list[Picture], *, model_name: str = "", notes: list[str] | None = None
) -> Page:
    """Return the page of an evaluation."""
    calibration = result.scorer.calibration
    model = model_name or str(result.scorer.model.info.get("model", {}).get("name", "the model"))
    lead = [summary(result), f"Data: {result.description}",
            f"Threshold {calibration.threshold:.6g}: {calibration.rule.describe()}."]  # fmt: skip
    sections = [Section("Figures", result.notes + (notes or []), figure_grid(result), pictures[:4])]
    sections.append(Section("Verdicts", (), confusion_grid(result)))
    sections.append(Section("Classes", ("An anomaly class is ranked among all normal images.",),
                            class_grid(result)))  # fmt: skip
    if result.pixels is not None:
        sections.append(Section("Pixels", _pixel_words(result), _pixel_grid(result)))
    if pictures[4:]:
        sections.append(Section("Pictures", (), None, pictures[4:]))
    if result.rejected:
        rows = [
            (item.result.path, item.label, item.result.reason)
            for item in result.rejected
            if isinstance(item.result, Rejection)
        ]
        more = [f"{len(rows) - 200:,} more are in evaluation.csv."] if len(rows) > 200 else []
        sections.append(Section("Rejected files", more, Grid(("file", "class", "reason"), rows[:200])))
    made = f"Oddment {oddment.__version__}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC. Intervals hold 95 %: "
    how = f"bootstrap with {result.resamples:,} resamples for" if result.resamples else "none without bootstrap for"
    made += f"Clopper–Pearson for rates, {how} AUROC, average precision and F1."
    return Page(f"{model} on {result.data}", lead, sections, made)


def summary(result: Evaluation) -> str:
    """What it comes to, in a sentence."""
    found, missed, alarms = (result.count(name) for name in ("found", "missed", "false alarm"))
    normal = result.count("passed") + alarms
    text = f"{found:,} of {found + missed:,} anomalies found, {alarms:,} of {normal:,} normal images flagged"
    return f"{text}; AUROC {result.figures['auroc']}." if "auroc" in result.figures else f"{text}."


def figure_grid(result: Evaluation, *, brief: bool = False) -> Grid:
    """The figures of the whole set; in brief without what they mean."""
    truth = result.truth
    found, alarms = result.count("found"), result.count("false alarm")
    facts = {
        "share": float(truth.mean()),
        "best": result.best_threshold,
        "found": found,
        "anomalies": int(truth.sum()),
        "alarms": alarms,
        "normal": int((~truth).sum()),
        "flagged": found + alarms,
    }
    rows = [
        (NAMES[name], f"{figure.value:.4f}" if not math.isnan(figure.value) else "–", _ends(figure.low, figure.high),
         _MEANING[name].format(**facts))
        for name, figure in result.figures.items()
    ]  # fmt: skip
    columns = ("figure", "value", "95 % interval", "what it is")
    return Grid(columns[:3], [row[:3] for row in rows]) if brief else Grid(columns, rows)


def _ends(low: float, high: float) -> str:
    return "–" if math.isnan(low) else f"{low:.4f} … {high:.4f}"


def confusion_grid(result: Evaluation) -> Grid:
    """Truth against verdict."""
    rejected = [sum(item.is_anomaly is kind for item in result.rejected) for kind in (False, True)]
    rows = [
        ("normal", result.count("passed"), result.count("false alarm"), rejected[0]),
        ("anomaly", result.count("missed"), result.count("found"), rejected[1]),
    ]
    return Grid(("truth", "called normal", "called anomaly", "rejected"), [
        (name, *(f"{count:,}" for count in counts)) for name, *counts in rows
    ])  # fmt: skip


def class_grid(result: Evaluation, *, brief: bool = False) -> Grid:
    """A row a class; in brief as narrow as a terminal."""
    columns = ("class", "truth", "images", "flagged", "share flagged", "AUROC", "rejected", "average precision")
    rows = [
        (
            item.label,
            "anomaly" if item.is_anomaly else "normal",
            f"{item.total:,}",
            f"{item.flagged:,}",
            str(item.rate),
            str(item.auroc),
            f"{item.rejected:,}",
            str(item.average_precision),
        )
        for item in result.classes
    ]
    if brief:
        short = [
            (
                f"{item.label} (anomaly)" if item.is_anomaly else item.label,
                f"{item.flagged:,} of {item.total - item.rejected:,}",
                str(item.rate),
                str(item.auroc),
            )
            for item in result.classes
        ]
        return Grid(("class", "flagged", "share", "AUROC"), short)
    return Grid(columns, rows)


def _pixel_words(result: Evaluation) -> list[str]:
    pixels = result.pixels
    if pixels is None:
        return []
    text = (
        f"{pixels.n_images:,} images with {pixels.n_regions:,} anomalous regions; {pixels.anomalous_share:.2%} of "
        "their pixels are anomalous. AUPRO is the share of each region that is found, averaged over false-alarm rates "
        f"per pixel up to {pixels.limit:g}."
    )
    return [text]


def _pixel_grid(result: Evaluation) -> Grid | None:
    pixels = result.pixels
    if pixels is None:
        return None
    rows = [("pixel AUROC", f"{pixels.auroc:.4f}"), ("AUPRO", f"{pixels.aupro:.4f}"),
            ("pixel average precision", f"{pixels.average_precision:.4f}")]  # fmt: skip
    return Grid(("figure", "value"), rows)
