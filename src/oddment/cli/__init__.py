"""The command line: `oddment fit`, `find`, `threshold`, `inspect`, `demo`."""

from oddment.cli.app import app, main

__all__ = ["app", "main"]
