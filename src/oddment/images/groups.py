"""Which images show the same thing: a table, or a pattern over the path."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from oddment.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

__all__ = ["group_numbers", "read_groups"]


def read_groups(spec: str) -> Callable[[str], str | None]:
    r"""Return a function from an image's path to the name of its group, None where it has none.

    Args:
        spec: a CSV file whose first column names images (a path, or the end of one) and whose second column names their
            group, with a header line; or a regular expression searched for in the path, whose first parenthesis (or
            whole match) is the group: `part(\d+)` puts `part7_a.png` and `part7_b.png` together.

    Raises:
        ParameterError: if the file has no such columns or the expression is wrong.
    """
    if Path(spec).is_file():
        return _from_table(Path(spec))
    if spec.endswith(".csv"):
        msg = f"--groups {spec}: there is no such file."
        raise ParameterError(msg)
    try:
        pattern = re.compile(spec)
    except re.error as error:
        msg = f"--groups {spec!r} is neither a CSV file nor a regular expression ({error})."
        raise ParameterError(msg) from error

    def search(path: str) -> str | None:
        match = pattern.search(path)
        if not match:
            return None
        return match.group(1) if pattern.groups else match.group(0)

    return search


def _from_table(path: Path) -> Callable[[str], str | None]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (csv.Error, UnicodeDecodeError) as error:
        msg = f"--groups {path}: not a CSV file in UTF-8 ({error})."
        raise ParameterError(msg) from error
    if len(rows) < 2 or any(len(row) < 2 for row in rows):
        msg = f"--groups {path}: needs a header line and two columns, the image and its group."
        raise ParameterError(msg)
    table = {tuple(Path(row[0].replace("\\", "/")).parts): row[1] for row in rows[1:]}
    depths = sorted({len(key) for key in table}, reverse=True)

    def find(name: str) -> str | None:
        parts = Path(name.replace("!/", "/")).parts
        return next((table[parts[-n:]] for n in depths if n <= len(parts) and parts[-n:] in table), None)

    return find


def group_numbers(paths: Sequence[str], group_of: Callable[[str], str | None]) -> tuple[NDArray[np.int64], int]:
    """Return a group number for each path, int64 (N,), and how many paths belong to no group and stand alone."""
    numbers: dict[str, int] = {}
    groups, alone = [], 0
    for path in paths:
        name = group_of(path)
        alone += name is None
        groups.append(numbers.setdefault(f"alone:{alone}" if name is None else f"group:{name}", len(numbers)))
    return np.array(groups, dtype=np.int64), alone
