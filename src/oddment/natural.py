"""Natural order: 2 before 10, as people count."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["naturally_sorted", "sort_naturally"]

# ASCII only: other scripts' digits are letters to most file managers.
_DIGITS = re.compile(r"[0-9]+")
_WIDEST = 20


def sort_naturally(names: list[str]) -> None:
    """Sort in place so that 2 comes before 10.

    The keys are the names with their numbers padded: as small as the names, where tuples of parts take ten times that.
    """
    width = min(_WIDEST, max((len(run) for name in names for run in _DIGITS.findall(name)), default=0))
    names.sort()  # decides between names that are naturally equal: a1, a01
    names.sort(key=lambda name: _DIGITS.sub(lambda run: run[0].zfill(width), name))


def naturally_sorted(names: Iterable[str]) -> list[str]:
    """Return the names in natural order.

    Example:
        >>> naturally_sorted(["a10", "a9", "b"])
        ['a9', 'a10', 'b']
    """
    ordered = list(names)
    sort_naturally(ordered)
    return ordered
