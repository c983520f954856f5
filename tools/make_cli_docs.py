"""Make docs/cli.md from the commands' own help: `python tools/make_cli_docs.py`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from oddment.cli.app import app

TARGET = Path(__file__).parent.parent / "docs" / "cli.md"


def help_text(*arguments: str) -> str:
    """Return the help of a command as it looks in a terminal of 100 columns."""
    environment = {**os.environ, "COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "oddment", *arguments, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)  # noqa: S603 - ourselves
    plain = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    return "\n".join(line.rstrip() for line in plain.splitlines()).strip()


def commands() -> list[tuple[str, ...]]:
    """Return every command, subcommands as pairs, in the order of the help."""
    found: list[tuple[str, ...]] = [(str(command.name),) for command in app.registered_commands]
    for group in app.registered_groups:
        inner = [(str(group.name), str(command.name)) for command in (group.typer_instance or app).registered_commands]
        found += [(str(group.name),), *inner]
    return found


def page() -> str:
    """Return the whole page."""
    parts = [
        "# Every command and option",
        "",
        "Made from the commands' own help by `python tools/make_cli_docs.py`.",
        "",
    ]
    for arguments in [(), *commands()]:
        parts += [f"## oddment {' '.join(arguments)}".rstrip(), "", "```text", help_text(*arguments), "```", ""]
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
