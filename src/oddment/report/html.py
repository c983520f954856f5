"""The report of one search: one HTML file that needs nothing else, offline or in the mail."""

from __future__ import annotations

import base64
import hashlib
import math
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from oddment.report.explain import Explanations
from oddment.report.payload import build_payload, choose_pictures, picture_texts, to_script_json
from oddment.whole import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    import numpy as np
    from jinja2 import Template
    from numpy.typing import NDArray

    from oddment.report.page import Section
    from oddment.report.pictures import Pictures

__all__ = ["ReportData", "load_template", "write_report"]

_STATIC_ROWS = 20  # shown without a script: mail previews run none


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """Everything one report shows.

    Args:
        title: the heading.
        model_name: the model's name.
        created: when the search ended.
        version: Oddment's version.
        rows: rows as `Detection.as_row` and `Rejection.as_row` give them, ranked; about 10,000 at most.
        pictures: pictures of some of the rows, by path.
        n_scored: images scored in the whole search; may exceed the rows.
        n_rejected: files rejected in the whole search.
        n_anomalies: anomalies in the whole search.
        other_scores: float32 (n,) scores of the scored images that are not in `rows`.
        calibration_scores: float32 (n,) held-out normal scores of the model.
        threshold: an image is an anomaly when its score is strictly above this.
        rule: how the threshold was chosen, in words.
        target_fpr: the false-alarm rate allowed on normal images, if the threshold was chosen by one.
        card: the model's card: section, label, value.
        notes: warnings in words.
        complete: False when the search was interrupted.
        recompute: the command that makes another threshold permanent; `{threshold}` stands for its value.
        fdr: the false-discovery rate, if the anomalies were selected from the whole batch by one.
        explanations: of some of the rows, for the larger view.
        audit: the images were judged by models fitted to themselves; `calibration_scores` are then expected ones.
        looks: of an audit, a score is the higher of what the models and what the looks of an image say.
        estimated: the rate `fdr` is an estimate and no promise.
        sections: tables of what else was found.
    """

    title: str
    model_name: str
    created: datetime
    version: str
    rows: Sequence[Mapping[str, Any]]
    pictures: Mapping[str, Pictures]
    n_scored: int
    n_rejected: int
    n_anomalies: int
    other_scores: NDArray[np.float32]
    calibration_scores: NDArray[np.float32]
    threshold: float
    rule: str
    target_fpr: float | None
    card: Mapping[str, Mapping[str, str]]
    notes: Sequence[str] = ()
    complete: bool = True
    recompute: str = "oddment threshold MODEL.oddment --threshold {threshold}"
    fdr: float | None = None
    explanations: Explanations = field(default_factory=Explanations)
    audit: bool = False
    looks: bool = False
    estimated: bool = False
    sections: Sequence[Section] = ()


def write_report(path: Path, data: ReportData) -> None:
    """Write the report to `path`, atomically: a reader sees the old file or the new one, never half of one.

    Args:
        path: the HTML file; its folder must exist.
        data: what it shows.

    Raises:
        OSError: if the file cannot be written.
    """
    # A file name may hold bytes that are no text; "?" stands for them in the few places outside the JSON.
    write_whole(path, (part.encode("utf-8", errors="replace") for part in _render(data)))


@cache
def load_template() -> Template:
    """Return the page's template, compiled; long work may call this while it waits, so that it is ready at the end."""
    from jinja2 import Environment, StrictUndefined

    # Autoescape on for everything; the only exceptions are Markup: our own files and the two data blocks.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(count=_count, significant=_significant, percent=_percent, bound=_bound)
    return environment.from_string(_asset("report.html.j2"))


def _render(data: ReportData) -> Iterator[str]:
    """Yield the page in parts: with all pictures it has some 15 MB, which would be held several times."""
    from markupsafe import Markup

    scored = [row for row in data.rows if row["status"] == "scored"]
    kept = choose_pictures(scored, data.pictures, beside=data.explanations.nbytes)
    style, script = _asset("report.css"), _asset("review.js") + _asset("report.js")
    return load_template().generate(
        data=data,
        created=_date(data.created),
        static_rows=scored[:_STATIC_ROWS],
        expected=data.n_scored * (data.target_fpr or 0.0),
        expected_false=data.n_anomalies * (data.fdr or 0.0),
        n_listed=len(scored),
        n_pictures=len(kept),
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        style_hash=_csp_hash(style),
        script_hash=_csp_hash(script),
        payload=map(Markup, to_script_json(build_payload(data, scored, kept))),
        picture_texts=map(Markup, picture_texts(kept)),
    )


def _asset(name: str) -> str:
    # Universal newlines: a browser hashes the script with line feeds, whatever Git checked out.
    return resources.files("oddment.report").joinpath(name).read_text(encoding="utf-8").replace("\r\n", "\n")


def _csp_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _date(moment: datetime) -> str:
    zone = moment.tzname()
    return f"{moment.day} {moment:%B %Y, %H:%M}" + (f" {zone}" if zone else "")


def _count(number: int) -> str:
    return f"{number:,}"


def _significant(number: float | None) -> str:
    return "-" if number is None else f"{number:.4g}" if math.isfinite(number) else "∞"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _bound(number: float) -> str:
    # A bound is rounded up: 1.2 false alarms expected are not "at most 1".
    return f"{math.ceil(round(10 * number, 6)) / 10:g}" if number < 10 else f"{math.ceil(round(number, 6)):,}"
