"""The files of an audit: tables as a search writes them, the report, and lists of everything else that was found."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

import oddment
from oddment.auditing.pictures import draw
from oddment.errors import DataError, ParameterError
from oddment.images.files import iter_images
from oddment.images.references import printable
from oddment.report import ReportData, write_report
from oddment.report.page import Grid, Section
from oddment.results import Detection
from oddment.reviewing import write_paths
from oddment.tables import write_tables
from oddment.whole import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from oddment.auditing.run import Audit
    from oddment.progress import Progress

__all__ = ["FILES", "check_target", "copy_clean", "summary", "write_audit"]

FILES = (
    "results.csv",
    "results.jsonl",
    "results.parquet",
    "report.html",
    "clean.txt",
    "duplicates.csv",
    "checks.csv",
    "labels.csv",
    "leaks.csv",
    "audit.json",
)
"""Every file that an audit may write."""

_REPORT_ROWS = 10_000
_REPORT_REJECTIONS = 2_000
_SECTION_ROWS = 50
# The histogram of the report shows what normal scores would look like, at this many quantiles.
_NULL_POINTS = 2_000


def write_audit(
    audit: Audit,
    out: Path,
    *,
    parquet: bool = False,
    report: bool = True,
    command: str = "",
    progress: Progress | None = None,
) -> list[Path]:
    """Write the files of an audit into a folder and return them.

    Args:
        audit: what was found.
        out: the folder; exists.
        parquet: results.parquet as well.
        report: report.html.
        command: how the audit is run again, for the report; "" where nobody knows.
        progress: told of stages.

    Raises:
        MissingExtraError: if pyarrow is needed and not installed.
        ParameterError: if a path holds a line break and cannot be listed in clean.txt; all else is written by then.
    """
    for name in FILES:
        (out / name).unlink(missing_ok=True)
    drawn = draw(audit, progress) if report else None
    rows = _rows(audit, drawn.regions if drawn else {})
    files = write_tables(out, lambda: ((row, json.dumps(row)) for row in rows), parquet=parquet)
    files += [_table(out / name, columns, lines) for name, (columns, lines) in _lists(audit).items() if lines]
    files.append(write_whole(out / "audit.json", json.dumps(summary(audit), indent=1) + "\n"))
    if drawn:
        ranked = sorted((row for row in rows if row["rank"]), key=lambda row: row["rank"])
        rejected = [row for row in rows if not row["rank"]]
        path = out / "report.html"
        write_report(
            path,
            ReportData(
                title=_title(audit.chosen.count, len(audit.scores)),
                model_name=f"{audit.choice.spec.name}, fitted to this folder",
                created=datetime.now(UTC),
                version=oddment.__version__,
                rows=[*ranked[:_REPORT_ROWS], *rejected[:_REPORT_REJECTIONS]],
                pictures=drawn.pictures,
                n_scored=len(ranked),
                n_rejected=len(rejected),
                n_anomalies=audit.chosen.count,
                other_scores=np.sort(np.array([row["anomaly_score"] for row in ranked[_REPORT_ROWS:]], np.float32)),
                calibration_scores=_expected(),
                threshold=audit.chosen.threshold,
                rule=audit.chosen.describe(),
                target_fpr=None,
                card=_card(audit),
                notes=audit.notes,
                recompute=f"{command} --threshold {{threshold}}" if command else "",
                fdr=audit.chosen.rule.value if audit.chosen.rule.kind == "fdr" else None,
                audit=True,
                looks=_asked_looks(audit),
                estimated=not audit.chosen.reference,
                sections=_sections(audit),
            ),
        )
        files.append(path)
    write_paths(out / "clean.txt", (row["path"] for row in rows if row["is_anomaly"] is False))
    return [*files, out / "clean.txt"]


def summary(audit: Audit) -> dict[str, Any]:
    """What an audit came to, JSON-ready."""
    return {
        "oddment": oddment.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": audit.choice.spec.name,
        "scored": len(audit.scores),
        "rejected": len(audit.collection.rejections),
        "selected": audit.chosen.count,
        "rule": audit.chosen.rule.label,
        "threshold": audit.chosen.threshold,
        "promise": audit.chosen.describe(),
        "exact_duplicates": sum(len(item.paths) - 1 for item in audit.duplicates if item.exact),
        "near_duplicate_sets": sum(not item.exact for item in audit.duplicates),
        "oddities": len(audit.oddities),
        "leaks": len(audit.leaks),
        "label_suspects": len(audit.suspects),
        "classes": sorted(set(audit.classes)) if audit.classes else None,
        "normal_share": [round(item.nulls[-1].normal, 4) for item in audit.judged],
        "notes": list(audit.notes),
    }


def check_target(target: Path) -> None:
    """Check that clean images may be copied into a folder.

    Raises:
        DataError: if it holds something.
        ParameterError: if it is a file.
    """
    if target.exists() and not target.is_dir():
        msg = f"--apply-to {target} is a file. Name a folder to copy the clean images to."
        raise ParameterError(msg)
    if target.exists() and any(target.iterdir()):
        msg = f"--apply-to {target} is not empty. Name a new folder: nothing is overwritten."
        raise DataError(msg)


def copy_clean(sources: Sequence[str | Path], paths: Iterable[str], target: Path) -> int:
    """Copy these images into a folder, under the names that they have below their source, and return how many.

    Nothing at the source is changed. Members of archives become files.

    Args:
        sources: what was audited.
        paths: names of the images to copy.
        target: a folder that does not exist yet, or is empty.

    Raises:
        DataError: if the folder holds something, an image is one of an array, or one is gone.
        ParameterError: if `target` is a file.
    """
    check_target(target)
    wanted, roots = set(paths), [printable(str(source)).rstrip("/") for source in sources]
    target.mkdir(parents=True, exist_ok=True)
    copied: set[str] = set()
    for ref in iter_images(sources, exclude=[target]):
        if ref.path not in wanted:
            continue
        if not isinstance(ref.payload, Path | bytes):
            msg = f"{ref.path}: images of an array are no files and cannot be copied; clean.txt lists those to keep."
            raise DataError(msg)
        place = target / _below(ref.path, roots, several=len(roots) > 1)
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(ref.payload, bytes):
            place.write_bytes(ref.payload)
        else:
            shutil.copy2(ref.payload, place)
        copied.add(ref.path)
    if copied != wanted:
        missing = sorted(wanted - copied)
        msg = f"{len(missing):,} images are no longer where they were, the first: {missing[0]}."
        raise DataError(msg)
    return len(copied)


def _below(path: str, roots: Sequence[str], *, several: bool) -> PurePosixPath:
    """The name below its source; below the source's own name where there are several."""
    for root in sorted(roots, key=len, reverse=True):
        for mark in (f"{root}/", f"{root}!/"):
            if path.startswith(mark):
                rest = path[len(mark) :]
                return _harmless(f"{PurePosixPath(root).name}/{rest}" if several else rest)
    return _harmless(path if several else PurePosixPath(path).name)


def _harmless(name: str) -> PurePosixPath:
    """The path without whatever would lead out of the folder."""
    parts = [part for part in name.replace("!/", "/").split("/") if part not in ("", ".", "..")]
    return PurePosixPath(*(part.replace(":", "_") if os.name == "nt" else part for part in parts))


# --- rows


def _rows(audit: Audit, regions: dict[int, Any]) -> list[dict[str, Any]]:
    """Rows as a search writes them: scored ones in order, then the rejected."""
    ranks = np.empty(len(audit.scores), dtype=np.int64)
    ranks[np.argsort(-audit.scores, kind="stable")] = np.arange(1, len(audit.scores) + 1)
    rows = []
    for index, path in enumerate(audit.collection.paths):
        facts = audit.collection.measures[index]
        rows.append(
            Detection(
                path=path,
                anomaly_score=float(audit.scores[index]),
                threshold=audit.chosen.threshold,
                p_value=float(audit.p_values[index]),
                is_anomaly=bool(audit.chosen.selected[index]),
                size=(facts.width, facts.height),
                regions=regions.get(index, ()),
                rank=int(ranks[index]),
                rule=audit.chosen.rule.label,
            ).as_row()
        )
    return rows + [item.as_row() for item in audit.collection.rejections]


def _lists(audit: Audit) -> dict[str, tuple[Sequence[str], list[Sequence[object]]]]:
    """File name → columns and lines of the other lists."""
    twice: list[Sequence[object]] = [
        (number, "exact" if item.exact else "near", path)
        for number, item in enumerate(audit.duplicates, start=1)
        for path in item.paths
    ]
    return {
        "duplicates.csv": (("set", "kind", "path"), twice),
        "checks.csv": (
            ("path", "check", "value", "usual"),
            [(item.path, item.check, item.value, item.usual) for item in audit.oddities],
        ),
        "labels.csv": (
            ("path", "class", "fits", "p_class", "p_fits"),
            [
                (item.path, item.given, item.fits, f"{item.p_given:.3g}", f"{item.p_fits:.3g}")
                for item in audit.suspects
            ],
        ),
        "leaks.csv": (
            ("path", "other", "kind", "bits"),
            [(item.path, item.other, "exact" if item.exact else "near", item.bits) for item in audit.leaks],
        ),
    }


def _table(path: Path, columns: Sequence[str], lines: Sequence[Sequence[object]]) -> Path:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(lines)
    return write_whole(path, text.getvalue())


# --- the report


def _title(selected: int, scored: int) -> str:
    what = "One image stands" if selected == 1 else f"{selected:,} images stand" if selected else "No image stands"
    return f"{what} out among {scored:,}"


def _expected() -> NDArray[np.float32]:
    """Scores that normal images would have if they went on as their bulk does."""
    from scipy.special import ndtri

    return np.asarray(ndtri((np.arange(_NULL_POINTS) + 0.5) / _NULL_POINTS), dtype=np.float32)


def _asked_looks(audit: Audit) -> bool:
    return audit.judged[0].crossed.looks is not None


def _card(audit: Audit) -> dict[str, dict[str, str]]:
    spec, made, options = audit.choice.spec, audit.choice.preparation, audit.options
    left = sum(int(item.crossed.trimmed.sum()) for item in audit.judged)
    return {
        "Audit": {
            "Model": f"{spec.name}, {audit.choice.reason}",
            "Sees": f"{made.width} × {made.height} pixels, {'colour' if made.channels == 3 else 'gray'}",
            "Fitted": f"{options.parts} models{' for each class' if audit.classes else ''}, each without the part that "
            "it scores",
            "Left out of training": f"{left:,} images that looked odd" if left else "nothing",
            "Score": "standard deviations above the middle of normal images"
            + ("; the higher of what the models and what the looks say" if _asked_looks(audit) else ""),
        },
        "Images": {
            "Scored": f"{len(audit.scores):,}",
            "Rejected": f"{len(audit.collection.rejections):,}",
            "Estimated normal": ", ".join(
                f"{item.name + ' ' if item.name else ''}{item.nulls[-1].normal:.1%}" for item in audit.judged[:20]
            ),
            "SHA-256": audit.collection.fingerprint()[:16],
        },
    }


def _sections(audit: Audit) -> list[Section]:
    """What was found without a model, as tables of the report."""
    sections = []
    if audit.suspects:
        sections.append(
            _section(
                "Wrong labels, perhaps",
                f"{len(audit.suspects):,} images are odd in their own class and not in another.",
                ("Image", "Lies in", "Fits", "p there", "p here"),
                [(s.path, s.given, s.fits, f"{s.p_given:.2g}", f"{s.p_fits:.2g}") for s in audit.suspects],
                "labels.csv",
            )
        )
    if audit.leaks:
        sections.append(
            _section(
                "In both folders",
                f"{len(audit.leaks):,} images occur in the other folder too: a test on them says nothing.",
                ("Image", "Also there as", "Kind"),
                [
                    (item.path, item.other, "exact" if item.exact else f"near ({item.bits} bits)")
                    for item in audit.leaks
                ],
                "leaks.csv",
            )
        )
    if audit.duplicates:
        exact = sum(item.exact for item in audit.duplicates)
        sections.append(
            _section(
                "Duplicates",
                f"{exact:,} sets of images that are equal to the last pixel, {len(audit.duplicates) - exact:,} that "
                "look alike. None of them ever trained a model that scored another of its set.",
                ("Kind", "Images", "Names"),
                [
                    ("exact" if item.exact else "near", f"{len(item.paths):,}", _some(item.paths))
                    for item in audit.duplicates
                ],
                "duplicates.csv",
            )
        )
    if audit.oddities:
        sections.append(
            _section(
                "Plain facts that stand out",
                "Size, colour, depth, brightness, contrast and sharpness, beside what the other images have.",
                ("Image", "What", "Has", "Others have"),
                [(item.path, item.check, item.value, item.usual) for item in audit.oddities],
                "checks.csv",
            )
        )
    return sections


def _section(heading: str, text: str, columns: Sequence[str], rows: Sequence[Sequence[str]], name: str) -> Section:
    more = f" The first {_SECTION_ROWS} of {len(rows):,}; all are in {name}." if len(rows) > _SECTION_ROWS else ""
    return Section(heading, (text + more,), Grid(columns, rows[:_SECTION_ROWS]))


def _some(paths: Sequence[str]) -> str:
    return ", ".join(paths[:4]) + (f" and {len(paths) - 4:,} more" if len(paths) > 4 else "")
