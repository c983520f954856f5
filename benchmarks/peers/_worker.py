"""How the processes of a benchmark speak: a line of JSON asks on standard input, a line of JSON answers.

Needs nothing but Python, since it runs in the environment of each peer.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# Whatever a library prints goes to standard error.
_ANSWERS = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)


def ask() -> dict[str, Any]:
    """Return the next request; ends the process when there is none."""
    line = sys.stdin.readline()
    if not line:
        raise SystemExit
    request: dict[str, Any] = json.loads(line)
    return request


def answer(**values: Any) -> None:  # noqa: ANN401 - anything that JSON takes
    """Answer a request."""
    _ANSWERS.write(json.dumps(values) + "\n")


class Clock:
    """Wall and processor seconds since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """Return `seconds` and `cpu`, of all threads of this process."""
        return {"seconds": time.perf_counter() - self._wall, "cpu": time.process_time() - self._cpu}


def serve(**handlers: Callable[..., dict[str, Any]]) -> None:
    """Answer requests {"do": name, ...arguments} until standard input ends."""
    answer(ready=True)
    while True:
        request = ask()
        answer(**handlers[request.pop("do")](**request))
