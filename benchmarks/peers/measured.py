"""Run a command and write what it took as one line of JSON: python measured.py RESULT COMMAND...

A small process between: the system counts a child's memory from that of the process that started it. Where a command
works in several processes at a time, what they need together is looked at ten times a second, what they share counted
once.
"""

import json
import os
import sys
import threading
import time

EVERY = 0.1  # seconds


def together(number: int, most: list[int]) -> None:
    """Watch a process that has others below it, until there is no such process; `most` gets the largest sum in KiB."""
    while True:
        time.sleep(EVERY)
        try:
            with open(f"/proc/{number}/task/{number}/children", encoding="ascii") as file:  # noqa: PTH123
                below = file.read().split()
            if below:
                most.append(sum(map(proportional, [str(number), *below])))
        except OSError:
            return


def proportional(number: str) -> int:
    """Return the memory of a process in KiB, of what it shares its part; 0 when it has ended."""
    try:
        with open(f"/proc/{number}/smaps_rollup", encoding="ascii") as file:  # noqa: PTH123
            return next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return 0


started = time.perf_counter()
process = os.spawnv(os.P_NOWAIT, sys.argv[2], sys.argv[2:])
most = [0]
threading.Thread(target=together, args=(process, most), daemon=True).start()
_, status, used = os.wait4(process, 0)
seconds = time.perf_counter() - started
# The largest process by itself is exact; Linux counts it in KiB, as most does.
peak = max(used.ru_maxrss, *most)
with open(sys.argv[1], "w", encoding="utf-8") as file:  # noqa: PTH123 - nothing is imported that takes time
    json.dump([os.waitstatus_to_exitcode(status), seconds, used.ru_utime + used.ru_stime, peak], file)
