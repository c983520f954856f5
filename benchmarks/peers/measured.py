"""Run a command and write what it took as one line of JSON: python measured.py RESULT COMMAND...

A small process between: the system counts a child's memory from that of the process that started it.
"""

import json
import os
import sys
import time

started = time.perf_counter()
process = os.spawnv(os.P_NOWAIT, sys.argv[2], sys.argv[2:])
_, status, used = os.wait4(process, 0)
seconds = time.perf_counter() - started
with open(sys.argv[1], "w", encoding="utf-8") as file:  # noqa: PTH123 - nothing is imported that takes time
    json.dump([os.waitstatus_to_exitcode(status), seconds, used.ru_utime + used.ru_stime, used.ru_maxrss], file)
