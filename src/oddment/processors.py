"""How many processors there are to share work among, and whether others use them."""

from __future__ import annotations

import os
import time
from pathlib import Path

__all__ = ["Neighbours", "cores"]

_STAT = Path("/proc/stat")
_COUNTED = (0, 1, 2, 5, 6, 7)  # user, nice, system, irq, softirq, stolen; not idle and waiting for disks
_SECONDS = 0.1  # the clock of /proc/stat ticks a hundred times a second
_SHARE = 0.25  # of one processor


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Neighbours:
    """What other processes make of the processors from now on; Linux tells, elsewhere nobody does."""

    def __init__(self) -> None:
        self._started, self._own, self._all = time.monotonic(), time.process_time(), _busy()

    def are_quiet(self) -> bool:
        """Return whether others took less than a quarter of one processor, seen over at least a tenth of a second."""
        if self._all is None:
            return False
        time.sleep(max(0.0, _SECONDS - (time.monotonic() - self._started)))
        own, seconds, every = time.process_time() - self._own, time.monotonic() - self._started, _busy()
        return every is not None and every - self._all - own < _SHARE * seconds


def _busy() -> float | None:
    """Seconds that all processors have worked since the machine was started."""
    try:
        fields = _STAT.read_text(encoding="ascii").split(maxsplit=9)[1:9]
        return sum(int(fields[place]) for place in _COUNTED) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return None
