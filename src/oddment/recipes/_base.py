"""What a recipe is: a question, options with the original's defaults, an experiment, and the claims it is held to."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from oddment.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

    from oddment.progress import Progress
    from oddment.report.page import Section

__all__ = [
    "FAILS",
    "HOLDS",
    "UNKNOWN",
    "Call",
    "Claim",
    "Option",
    "Recipe",
    "Run",
    "get_recipe",
    "recipe_names",
    "register",
    "verdict",
]

Verdict = Literal["holds", "does not hold", "cannot be checked here"]
HOLDS: Verdict = "holds"
FAILS: Verdict = "does not hold"
UNKNOWN: Verdict = "cannot be checked here"


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a recipe, with the original's default.

    Args:
        name: as the command line has it, without the dashes.
        default: its type is the option's type.
        help: one phrase.
        choices: of a text.
        least: the smallest number that makes sense.
        below: numbers must stay below this.
    """

    name: str
    default: str | int | float
    help: str
    choices: tuple[str, ...] = ()
    least: float | None = None
    below: float | None = None

    def read(self, given: object) -> str | int | float:
        """Return the value in the option's type.

        Raises:
            ParameterError: if it is not of that type, or breaks its rule.
        """
        kind: Any = type(self.default)
        try:
            value: str | int | float = kind(given)
        except (TypeError, ValueError) as error:
            word = {"int": "a whole number", "float": "a number"}.get(kind.__name__, "text")
            msg = f"--{self.name} must be {word}; got {given!r}."
            raise ParameterError(msg) from error
        if self.choices and value not in self.choices:
            msg = f"--{self.name} must be one of {', '.join(self.choices)}; got {value!r}."
            raise ParameterError(msg)
        if not isinstance(value, str):
            # Not a number is neither; so that the comparisons are written to fail for it.
            enough = self.least is None or value >= self.least
            small = float("-inf") < value < (float("inf") if self.below is None else self.below)
            if not (enough and small):
                msg = f"--{self.name} must be {self._bounds()}; got {given}."
                raise ParameterError(msg)
        return value

    def _bounds(self) -> str:
        words = [] if self.least is None else [f"at least {self.least:g}"]
        words += [] if self.below is None else [f"below {self.below:g}"]
        return " and ".join(words) or "finite"


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim of the original, and what came of it.

    Args:
        text: what was claimed.
        source: where.
        measured: what was measured, in words, with its spread over the seeds.
        verdict: "holds", "does not hold" or "cannot be checked here".
        why: the reason for the verdict.
        needs_full: it says something about the full data and the full training; a quick run cannot check it.
    """

    text: str
    source: str
    measured: str
    verdict: Verdict
    why: str
    needs_full: bool = True


def verdict(holds: bool | None) -> Verdict:  # noqa: FBT001 - the one thing it is told
    """Return the verdict for true, false and unknown."""
    return UNKNOWN if holds is None else HOLDS if holds else FAILS


@dataclass(frozen=True, slots=True)
class Call:
    """How an experiment is run.

    Args:
        options: name → value, complete.
        seed: of everything that is drawn.
        quick: on the embedded sample, for a few seconds.
        out: folder for what the experiment leaves beside the report; exists.
        draws: whether pictures are wanted; they are made for the first seed alone.
        progress: told of stages.
    """

    options: Mapping[str, Any]
    seed: int
    quick: bool
    out: Path
    draws: bool
    progress: Progress


@dataclass(slots=True)
class Run:
    """What one run of an experiment gave.

    Args:
        figures: name → number, compared over the seeds.
        rows: of results.csv, a row an image; the same keys in each.
        pictures: file name → (figure, caption).
        sections: tables and sentences for the report.
        data: which images were used, in a sentence.
        seed: filled in by the runner.
        seconds: likewise.
    """

    figures: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    pictures: dict[str, tuple[Figure, str]] = field(default_factory=dict)
    sections: list[Section] = field(default_factory=list)
    data: str = ""
    seed: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A published experiment.

    Args:
        name: what the command line calls it.
        title: one line.
        question: what the experiment asks.
        source: where it was published.
        setup: what is trained on what, in sentences.
        options: with the original's defaults.
        quick: option → default of a quick run.
        seeds: how many seeds a full run takes.
        experiment: runs once.
        claims: judges all runs.
        minutes: of one core, for one full-size seed; roughly.
    """

    name: str
    title: str
    question: str
    source: str
    setup: Sequence[str]
    options: tuple[Option, ...]
    quick: Mapping[str, str | int | float]
    experiment: Callable[[Call], Run]
    claims: Callable[[Sequence[Run], Mapping[str, Any]], Iterator[Claim]]
    seeds: int = 3
    minutes: float

    def settle(self, given: Mapping[str, object], *, quick: bool) -> dict[str, Any]:
        """Return every option's value: what was given, else the default.

        Raises:
            ParameterError: if an option is unknown or a value wrong; one message that names all mistakes.
        """
        known = {option.name: option for option in self.options}
        problems, values = (
            [],
            {option.name: option.default for option in self.options} | dict(self.quick if quick else {}),
        )
        for name, value in given.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f" Did you mean --{near[0]}?" if near else ""
                problems.append(f"recipe {self.name} has no option --{name}; it has --{', --'.join(known)}.{hint}")
                continue
            try:
                values[name] = known[name].read(value)
            except ParameterError as error:
                problems.append(str(error))
        if problems:
            raise ParameterError(" ".join(problems))
        return values


_RECIPES: dict[str, Recipe] = {}


def register(recipe: Recipe) -> Recipe:
    """Add a recipe and return it.

    Raises:
        ParameterError: if the name is taken.
    """
    if recipe.name in _RECIPES:
        msg = f"recipe name {recipe.name!r} is registered already."
        raise ParameterError(msg)
    _RECIPES[recipe.name] = recipe
    return recipe


@cache
def _discover() -> None:
    import oddment.recipes as package

    for info in pkgutil.iter_modules(package.__path__):
        if not info.name.startswith("_"):
            importlib.import_module(f"{package.__name__}.{info.name}")


def recipe_names() -> list[str]:
    """Return the names of all recipes, sorted."""
    _discover()
    return sorted(_RECIPES)


def get_recipe(name: str) -> Recipe:
    """Return a recipe.

    Raises:
        ParameterError: if there is none of that name; the message suggests the nearest.
    """
    _discover()
    if name not in _RECIPES:
        near = difflib.get_close_matches(name, _RECIPES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        msg = f"there is no recipe {name!r}: {', '.join(recipe_names())}.{hint}"
        raise ParameterError(msg)
    return _RECIPES[name]
