"""The command line: `oddment fit`, `find`, `threshold`, `inspect`, `demo` and others; `app` has them all."""

from oddment.cli._start import main, start

__all__ = ["main", "start"]
