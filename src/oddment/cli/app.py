"""The `oddment` command with all its subcommands, for tests and for the page of help; see `_start` for what runs."""

from __future__ import annotations

from oddment.cli._start import COMMANDS, GROUPS, new_app, register

__all__ = ["app"]

app = new_app()
register(app, *COMMANDS, *GROUPS)
