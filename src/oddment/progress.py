"""How long work tells whoever waits for it how far it is. The library is silent; the command line draws bars."""

from __future__ import annotations

__all__ = ["Progress"]


class Progress:
    """Told of stages of work; this base says nothing and is what the library uses unless given another."""

    def start(self, label: str, total: float | None = None) -> None:
        """A stage begins; `total` is what `update` will reach, None if nobody knows."""

    def update(self, done: float, note: str = "") -> None:
        """The stage is `done` of `total` on; `note` is one short phrase."""

    def finish(self) -> None:
        """The stage has ended."""

    def say(self, message: str) -> None:
        """One sentence worth knowing, now."""
