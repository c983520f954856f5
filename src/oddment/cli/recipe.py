"""`oddment recipe`: published experiments, repeated with one command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oddment.cli._shared import Bars, Debug, Json, Quiet, consoles, print_json, reporting
from oddment.cli._together import Command, run_together
from oddment.errors import MissingExtraError, ParameterError

if TYPE_CHECKING:
    from types import ModuleType

    from oddment.recipes import Outcome, Recipe

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Repeat published experiments: what was claimed beside what is measured.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
_NAMES = "contaminated-ones, deepweeds, held-out-digit, latent-plane or three-autoencoders."


@app.command("list")
def list_(as_json: Json = False, debug: Debug = False) -> None:
    """Show every recipe and the question that it asks."""
    with reporting(debug=debug):
        recipes = _recipes()
        found = [recipes.get_recipe(name) for name in recipes.recipe_names()]
        if as_json:
            print_json({"recipes": [_as_dict(recipe) for recipe in found]})
            return
        out, _ = consoles()
        for recipe in found:
            out.print(f"[bold]{recipe.name}[/bold]  {recipe.title}\n  {recipe.question}", soft_wrap=True)


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help=_NAMES, show_default=False)], as_json: Json = False, debug: Debug = False
) -> None:
    """Show a recipe: question, source, setup and every option with the original's default."""
    with reporting(debug=debug):
        recipe = _recipes().get_recipe(name)
        if as_json:
            print_json(_as_dict(recipe))
            return
        from oddment.cli.evaluate import print_grid
        from oddment.report.page import Grid

        out, _ = consoles()
        out.print(f"[bold]{recipe.name}[/bold]  {recipe.title}\n{recipe.question}", soft_wrap=True)
        out.print(f"Source: {recipe.source}.", soft_wrap=True, markup=False)
        for sentence in recipe.setup:
            out.print(sentence, soft_wrap=True, markup=False)
        rows = [(f"--{o.name}", str(o.default), str(recipe.quick.get(o.name, "")), o.help) for o in recipe.options]
        print_grid(out, Grid(("option", "default", "with --quick", "what it is"), rows))
        out.print(f"Seeds of a full run: {recipe.seeds}. Run it: oddment recipe run {recipe.name}", soft_wrap=True)


@app.command("run", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help=_NAMES, show_default=False)] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The folder to write to. \\[default: oddment-recipes/NAME]"),
    ] = None,
    run_all: Annotated[bool, typer.Option("--all", help="Every recipe, each into a folder of its own in OUT.")] = False,
    seed: Annotated[int, typer.Option(help="The first seed.")] = 0,
    seeds: Annotated[
        int | None, typer.Option(help="How many seeds, counted up. \\[default: the recipe's]", metavar="N")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Seconds, on the embedded sample: shows that everything runs.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            help="With --all: how many at a time, each with its share of the cores. \\[default: one a core]", min=1
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Run a recipe and write its pictures, results.json, results.csv, report.html and claims.md.

    A recipe's own options follow its name: `oddment recipe show NAME` lists them.

    [bold]Examples[/bold]

    oddment recipe run held-out-digit -o out/ --seeds 3

    oddment recipe run --all --quick
    """
    with reporting(debug=debug):
        options = _own_options(context.args)
        if run_all == (name is not None) or (run_all and options):
            msg = "give the name of one recipe, and then its options; or --all and no option of a recipe."
            raise ParameterError(msg)
        if name is None:
            _run_all(output or Path("oddment-recipes"), jobs, seed, seeds, quick=quick, as_json=as_json, quiet=quiet)
            return
        recipes = _recipes()
        recipe = recipes.get_recipe(name)
        folder = output or Path("oddment-recipes") / name
        bars = Bars(quiet=quiet or as_json)
        outcome = recipes.run_recipe(recipe, folder, options, seed=seed, seeds=seeds, quick=quick, progress=bars)
        if as_json:
            print_json(_outcome_dict(outcome, folder))
        elif not quiet:
            _print(outcome, folder)


def _run_all(
    base: Path, jobs: int | None, seed: int, seeds: int | None, *, quick: bool, as_json: bool, quiet: bool
) -> None:
    """Every recipe, in processes of their own: they are many short steps, which a second thread hardly helps."""
    from oddment.processors import cores

    recipes = _recipes()
    out, _ = consoles()
    words = ["--seed", str(seed), *(["--seeds", str(seeds)] if seeds is not None else [])]
    words += [flag for flag, given in (("--quick", quick), ("--json", as_json), ("--quiet", quiet)) if given]
    commands = [
        Command(
            name,
            ("recipe", "run", name, "-o", str(base / name), *words),
            recipe.minutes * (seeds or recipe.seeds),
        )
        for name, recipe in ((name, recipes.get_recipe(name)) for name in recipes.recipe_names())
    ]
    jobs = min(jobs or cores(), len(commands))
    label = f"{len(commands)} recipes, {jobs} at a time" if jobs > 1 else f"{len(commands)} recipes"
    bars = Bars(quiet=quiet or as_json)
    printed: dict[str, str] = {}
    for command, text in run_together(
        commands, jobs=jobs, label=label, progress=bars, width=out.width if out.is_terminal else None
    ):
        printed[command.name] = text
        if not as_json and text:
            bars.say(f"{command.name}:")
            out.print(text.rstrip(), soft_wrap=True, markup=False, highlight=False)
    if as_json:
        print_json({"runs": [json.loads(printed[command.name]) for command in commands]})


def _recipes() -> ModuleType:
    try:
        from oddment import recipes
    except ImportError as error:
        if isinstance(error, MissingExtraError):
            raise
        msg = f"recipes need the training half and figures (missing: {error.name}): pip install 'oddment[train,plot]'."
        raise MissingExtraError(msg) from error
    return recipes


def _own_options(words: list[str]) -> dict[str, str]:
    """`--name value` and `--name=value`, as the recipe's own options are written."""
    options: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        key, equals, value = word.partition("=")
        if not key.startswith("--") or len(key) < 3:
            msg = f"{word!r} is neither an option nor its value. A recipe's options follow its name: --epochs 5."
            raise ParameterError(msg)
        if not equals:
            value = next(rest, "")
            if not value or value.startswith("--"):
                msg = f"{key} needs a value: {key} VALUE."
                raise ParameterError(msg)
        options[key[2:]] = value
    return options


def _as_dict(recipe: Recipe) -> dict[str, Any]:
    return {
        "name": recipe.name,
        "title": recipe.title,
        "question": recipe.question,
        "source": recipe.source,
        "seeds": recipe.seeds,
        "options": [
            {"name": option.name, "default": option.default, "help": option.help, "choices": list(option.choices)}
            for option in recipe.options
        ],
    }


def _outcome_dict(outcome: Outcome, folder: Path) -> dict[str, Any]:
    return {
        "recipe": outcome.recipe.name,
        "folder": str(folder),
        "quick": outcome.quick,
        "options": outcome.options,
        "seeds": [run.seed for run in outcome.runs],
        "claims": [
            {"claim": c.text, "measured": c.measured, "verdict": c.verdict, "why": c.why} for c in outcome.claims
        ],
    }


def _print(outcome: Outcome, folder: Path) -> None:
    from oddment.cli.evaluate import print_grid
    from oddment.report.page import Grid

    out, _ = consoles()
    rows = [(claim.text, claim.measured, claim.verdict) for claim in outcome.claims]
    print_grid(out, Grid(("claim", "measured", "verdict"), rows))
    out.print(
        f"Written: {folder} ({len(outcome.written)} files; begin with report.html).", soft_wrap=True, markup=False
    )
