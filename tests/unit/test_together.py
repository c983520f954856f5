"""Several commands at a time: what they print, what they say, and one that fails."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from oddment.cli._together import Command, run_together
from oddment.errors import OddmentError
from oddment.progress import Progress
from oddment.recipes import recipe_names

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Heard(Progress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.done: list[float] = []
        self.finished = 0

    def update(self, done: float, note: str = "") -> None:  # noqa: ARG002 - the base's interface
        """Keep it."""
        self.done.append(done)

    def finish(self) -> None:
        """Count it."""
        self.finished += 1


def test_each_command_gives_its_output() -> None:
    """All of them, each once, and the progress ends at the whole weight."""
    heard = Heard()
    commands = [Command(f"c{number}", ("--version",), number) for number in (1, 2, 3)]
    found = {item.name: text for item, text in run_together(commands, jobs=2, label="x", progress=heard)}
    assert sorted(found) == ["c1", "c2", "c3"]
    assert all(text.startswith("oddment ") for text in found.values())
    assert (max(heard.done), heard.finished) == (6, 1)


def test_a_failure_stops_the_others(tmp_path: Path) -> None:
    """The error names the command and repeats what it said; what had not begun never does."""
    heard = Heard()
    bad = Command("bad", ("find", str(tmp_path / "nowhere"), "-m", str(tmp_path / "m.oddment")), 9)
    late = Command("late", ("data", "path", "mnist"), 1)
    with pytest.raises(OddmentError, match=r"bad failed \(exit code 3\): .*m\.oddment"):
        list(run_together([bad, late], jobs=1, label="x", progress=heard))
    assert heard.finished == 1


def test_all_recipes(tmp_path: Path, invoke: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """`recipe run --all` runs each recipe into its own folder, and prints one document in the order of their names."""
    seen: list[Command] = []

    def pretend(commands: Any, **_: Any) -> Any:
        seen.extend(commands)
        return ((item, json.dumps({"recipe": item.name})) for item in reversed(commands))

    monkeypatch.setattr("oddment.cli.recipe.run_together", pretend)
    words = ("recipe", "run", "--all", "--quick", "-o", tmp_path, "--seed", 4, "--json", "--jobs", 2)
    runs = json.loads(invoke(*words).stdout)["runs"]
    assert [run["recipe"] for run in runs] == [item.name for item in seen] == recipe_names()
    for item in seen:
        assert item.words[:3] == ("recipe", "run", item.name)
        assert item.words[3:] == ("-o", str(tmp_path / item.name), "--seed", "4", "--quick", "--json")
