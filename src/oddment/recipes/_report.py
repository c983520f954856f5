"""What a recipe leaves in its folder: pictures, results.json, results.csv, report.html and claims.md."""

from __future__ import annotations

import csv
import io
import json
import math
import platform
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import oddment
from oddment.plot import as_png
from oddment.report.page import Grid, Page, Picture, Section, page_html, page_markdown
from oddment.whole import write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from oddment.recipes._base import Claim, Recipe, Run

__all__ = ["Outcome", "claims_grid", "number", "over_seeds", "write_outcome"]


@dataclass(slots=True)
class Outcome:
    """What came of a recipe.

    Args:
        recipe: what was run.
        options: with which options.
        runs: one a seed.
        claims: the original's claims, judged.
        quick: whether it was a quick run.
        written: the files.
    """

    recipe: Recipe
    options: dict[str, Any]
    runs: list[Run]
    claims: list[Claim]
    quick: bool
    written: list[Path] = field(default_factory=list)

    @property
    def figures(self) -> dict[str, list[float]]:
        """Each figure's values, one a seed."""
        return {name: [run.figures[name] for run in self.runs] for name in self.runs[0].figures}


def number(value: float) -> str:
    """Return a number for people: whole ones whole, others with four significant digits."""
    if not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e12 else f"{value:.4g}"


def over_seeds(values: Sequence[float]) -> str:
    """Return mean and range over the seeds, or the one value there is.

    Example:
        >>> over_seeds([0.5, 0.75, 1.0])
        '0.75 (0.5 to 1 over 3 seeds)'
        >>> over_seeds([7.0])
        '7 (one seed)'
    """
    if len(values) == 1:
        return f"{number(values[0])} (one seed)"
    if min(values) == max(values):
        return f"{number(values[0])} (each of {len(values)} seeds)"
    return f"{number(float(np.mean(values)))} ({number(min(values))} to {number(max(values))} over {len(values)} seeds)"


def claims_grid(claims: Sequence[Claim]) -> Grid:
    """The claims as a table."""
    rows = [(claim.text, claim.source, claim.measured, claim.verdict, claim.why) for claim in claims]
    return Grid(("claim", "source", "measured", "verdict", "why"), rows)


def write_outcome(outcome: Outcome, folder: Path) -> list[Path]:
    """Write everything, each file whole or not at all; returns the files."""
    first = outcome.runs[0]
    pictures = [Picture(name, as_png(figure), caption) for name, (figure, caption) in first.pictures.items()]
    page = _page(outcome, pictures)
    claims = Page(
        f"{outcome.recipe.name}: claims",
        _lead(outcome),
        [Section("Claims", (), claims_grid(outcome.claims))],
        _colophon(outcome),
    )
    written = [
        write_whole(folder / "claims.md", page_markdown(claims)),
        write_whole(folder / "results.json", json.dumps(_as_dict(outcome), indent=1, allow_nan=False) + "\n"),
        write_whole(folder / "results.csv", _table(outcome)),
        write_whole(folder / "report.html", page_html(page)),
    ]
    for picture in pictures:
        (folder / picture.name).parent.mkdir(parents=True, exist_ok=True)
        written.append(write_whole(folder / picture.name, picture.content))
    return written


def _lead(outcome: Outcome) -> list[str]:
    kinds = ("holds", "does not hold", "cannot be checked here")
    counts = [(kind, sum(claim.verdict == kind for claim in outcome.claims)) for kind in kinds]
    lead = [outcome.recipe.question, f"Claims: {', '.join(f'{count} {kind}' for kind, count in counts if count)}."]
    if outcome.quick:
        lead.append("This was a quick run on a small sample: it shows that everything runs and checks no figure.")
    return lead


def _colophon(outcome: Outcome) -> str:
    seeds = ", ".join(str(run.seed) for run in outcome.runs)
    threads = torch.get_num_threads()
    return (
        f"Oddment {oddment.__version__}, torch {torch.__version__}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; "
        f"seed {seeds}; {sum(run.seconds for run in outcome.runs):.0f} s with {threads} "
        f"{'thread' if threads == 1 else 'threads'}."
    )


def _page(outcome: Outcome, pictures: list[Picture]) -> Page:
    recipe, first = outcome.recipe, outcome.runs[0]
    options = [
        (f"--{option.name}", str(outcome.options[option.name]), str(option.default), option.help)
        for option in recipe.options
    ]
    figures = [(name, *(number(value) for value in values)) for name, values in outcome.figures.items()]
    seeds = [f"seed {run.seed}" for run in outcome.runs]
    sections = [
        Section("Claims", (), claims_grid(outcome.claims)),
        Section(
            "The experiment",
            (*recipe.setup, f"Source: {recipe.source}.", f"Data: {first.data}."),
            Grid(("option", "this run", "original", "what it is"), options),
        ),
        Section("Pictures", (f"Of seed {first.seed}.",), None, pictures),
        *first.sections,
        Section("Figures", (), Grid(("figure", *seeds), figures)),
    ]
    return Page(f"{recipe.name}: {recipe.title}", _lead(outcome), sections, _colophon(outcome))


def _as_dict(outcome: Outcome) -> dict[str, Any]:
    return {
        "oddment": oddment.__version__,
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__},
        "recipe": outcome.recipe.name,
        "source": outcome.recipe.source,
        "quick": outcome.quick,
        "options": outcome.options,
        "data": outcome.runs[0].data,
        "seeds": [run.seed for run in outcome.runs],
        "seconds": [round(run.seconds, 2) for run in outcome.runs],
        "figures": {
            name: {"values": [_finite(value) for value in values], "mean": _finite(float(np.mean(values)))}
            for name, values in outcome.figures.items()
        },
        "claims": [
            {"claim": c.text, "source": c.source, "measured": c.measured, "verdict": c.verdict, "why": c.why}
            for c in outcome.claims
        ],
        "pictures": {name: caption for name, (_, caption) in outcome.runs[0].pictures.items()},
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _table(outcome: Outcome) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["seed", *outcome.runs[0].rows[0]], lineterminator="\n")
    writer.writeheader()
    for run in outcome.runs:
        writer.writerows({"seed": run.seed, **row} for row in run.rows)
    return text.getvalue()
