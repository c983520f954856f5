"""Runs a recipe over its seeds, judges its claims and writes the folder of results."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from oddment.errors import ParameterError
from oddment.progress import Progress
from oddment.recipes._base import UNKNOWN, Call, Claim, Recipe, Run
from oddment.recipes._report import Outcome, write_outcome

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["run_recipe"]


def run_recipe(
    recipe: Recipe,
    out: Path,
    options: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    seeds: int | None = None,
    quick: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Run a recipe and write its folder: pictures, results.json, results.csv, report.html and claims.md.

    Args:
        recipe: of `get_recipe`.
        out: the folder; made if missing.
        options: overrides of the recipe's options.
        seed: the first seed.
        seeds: how many, counted up from the first; the recipe's own number when None, one for a quick run.
        quick: on the embedded sample, with small defaults: shows that everything runs, checks no figure.
        progress: told of stages.

    Raises:
        ParameterError: if an option, the seed or the number of seeds is wrong, or `out` is a file.
        DataError: if the data are not on this machine.
        MissingExtraError: if matplotlib is not installed.
    """
    import oddment.plot  # noqa: F401 - fails before anything is trained

    values = recipe.settle(options or {}, quick=quick)
    count = seeds if seeds is not None else 1 if quick else recipe.seeds
    if not 1 <= count <= 1000 or not 0 <= seed < 2**32 - count:
        msg = f"seeds must lie between 1 and 1000 and seed between 0 and 2**32 - 1; got {count} from {seed}."
        raise ParameterError(msg)
    if out.exists() and not out.is_dir():
        msg = f"-o {out} is a file. Name a folder to write the results to."
        raise ParameterError(msg)
    out.mkdir(parents=True, exist_ok=True)
    progress = progress or Progress()
    runs: list[Run] = []
    for number in range(count):
        if count > 1:
            progress.say(f"{recipe.name}: seed {seed + number} ({number + 1} of {count})")
        started = time.perf_counter()
        call = Call(values, seed + number, quick, out, number == 0, progress)
        run = recipe.experiment(call)
        run.seed, run.seconds = seed + number, time.perf_counter() - started
        runs.append(run)
    claims = [_quick(claim) if quick and claim.needs_full else claim for claim in recipe.claims(runs, values)]
    outcome = Outcome(recipe, values, runs, claims, quick=quick)
    outcome.written = write_outcome(outcome, out)
    return outcome


def _quick(claim: Claim) -> Claim:
    return replace(
        claim, verdict=UNKNOWN, why="a quick run on the sample, too small and too short for this; run without --quick"
    )
