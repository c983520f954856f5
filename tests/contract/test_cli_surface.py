"""The command line's surface: help at 80 columns, and a reference that leaves nothing out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer
from typer.testing import CliRunner

from oddment.cli.app import app

if TYPE_CHECKING:
    from collections.abc import Callable

GROUP: Any = typer.main.get_command(app)
COMMANDS = sorted(GROUP.commands)
REFERENCE = Path(__file__).parents[2] / "docs" / "cli.md"


def options_of(command: str) -> list[str]:
    """The long options of a command."""
    names = [name for item in GROUP.commands[command].params for name in (*item.opts, *item.secondary_opts)]
    return sorted(name for name in names if name.startswith("--"))


def test_the_commands() -> None:
    """The commands of the product are there."""
    assert {"demo", "find", "fit", "inspect", "threshold"} <= set(COMMANDS)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_eighty_columns(command: str) -> None:
    """Help fits a terminal of 80 columns and names every option in full, each with a help text."""
    runner = CliRunner(env={"COLUMNS": "80", "TERMINAL_WIDTH": "80", "TERM": "dumb", "NO_COLOR": "1"})
    result = runner.invoke(app, [*([command] if command else []), "--help"])
    assert result.exit_code == 0
    assert max(len(line) for line in result.stdout.splitlines()) <= 80
    if command:
        missing = [name for name in options_of(command) if name not in result.stdout]
        assert not missing
        silent = [item.name for item in GROUP.commands[command].params if not getattr(item, "help", None)]
        assert not silent


def commands_below(group: Any, *words: str) -> list[tuple[tuple[str, ...], Any]]:
    """All commands, those in groups too, and how they are called."""
    found = []
    for name, command in group.commands.items():
        inner = hasattr(command, "commands")
        found += commands_below(command, *words, name) if inner else [((*words, name), command)]
    return found


@pytest.mark.parametrize(("words", "command"), commands_below(GROUP))
def test_help_says_the_defaults_that_it_is_told(words: tuple[str, ...], command: Any) -> None:
    """What stands in brackets in a help text is shown, and not taken for a colour."""
    runner = CliRunner(env={"COLUMNS": "80", "TERMINAL_WIDTH": "80", "TERM": "dumb", "NO_COLOR": "1"})
    shown = re.sub(r"[│\s]", "", runner.invoke(app, [*words, "--help"]).stdout)
    for item in command.params:
        for told in re.findall(r"\[default: [^\]]*", getattr(item, "help", None) or ""):
            assert re.sub(r"\s", "", told) in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_short_help(command: str) -> None:
    """-h is --help."""
    assert CliRunner().invoke(app, [command, "-h"]).exit_code == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_in_help_are_commands(command: str, invoke: Callable[..., Any]) -> None:
    """Every example in a command's help starts with that command and uses options that it has."""
    text = GROUP.commands[command].help or ""
    for line in re.findall(r"^\s*(oddment .*)$", text, flags=re.MULTILINE):
        words = line.split()
        assert words[1] == command
        used = [word for word in words if word.startswith("--")]
        assert set(used) <= set(options_of(command)), line


@pytest.mark.skipif(not REFERENCE.exists(), reason="docs/cli.md is not written yet")
@pytest.mark.parametrize("command", COMMANDS)
def test_reference_is_complete(command: str) -> None:
    """docs/cli.md names every command and every option."""
    text = REFERENCE.read_text(encoding="utf-8")
    assert f"oddment {command}" in text
    missing = [name for name in options_of(command) if not re.search(rf"{re.escape(name)}(?![\w-])", text)]
    assert not missing, f"oddment {command}: {', '.join(missing)} is not in docs/cli.md"
