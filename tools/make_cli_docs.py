"""Make docs/cli.md from the commands' own help: `python tools/make_cli_docs.py`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

COMMANDS = ("demo", "fit", "find", "threshold", "inspect")
TARGET = Path(__file__).parent.parent / "docs" / "cli.md"


def help_text(*arguments: str) -> str:
    """Return the help of a command as it looks in a terminal of 100 columns."""
    environment = {**os.environ, "COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "oddment", *arguments, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)  # noqa: S603 - ourselves
    plain = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    return "\n".join(line.rstrip() for line in plain.splitlines()).strip()


def page() -> str:
    """Return the whole page."""
    parts = [
        "# Every command and option",
        "",
        "Made from the commands' own help by `python tools/make_cli_docs.py`.",
        "",
    ]
    for name in ("", *COMMANDS):
        arguments = (name,) if name else ()
        parts += [f"## oddment {name}".rstrip(), "", "```text", help_text(*arguments), "```", ""]
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
