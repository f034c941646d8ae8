"""What every side does alike: read its work, time calls, report."""

import json
import resource
import statistics
import sys
import time
from pathlib import Path


def work() -> dict:
    """The work that the command line asks for."""
    return json.loads(sys.argv[1])


def seconds(call, repeats: int) -> float:
    """Median wall time of `call(index)`, which must wait for its result; the first call
    compiles and is not counted."""
    return statistics.median(row[0] for row in _timed(call, repeats, warm_up=1))


def rate(call, repeats: int) -> dict:
    """Median of what `call(index)` counts a second, and of what it counts; calls of
    ragged work compile several shapes, so the first three are not counted."""
    rows = _timed(call, repeats, warm_up=3)
    return {
        "tokens_per_s": statistics.median(count / took for took, count in rows),
        "tokens": statistics.median(count for _, count in rows),
    }


def _timed(call, repeats: int, *, warm_up: int) -> list[tuple[float, object]]:
    """(seconds, result) of each call after the warm-up."""
    rows = []
    for index in range(warm_up + repeats):
        started = time.perf_counter()
        result = call(index)
        rows.append((time.perf_counter() - started, result))
    return rows[warm_up:]


def report(**measured) -> None:
    """Prints the last line of a side, with the process's peak of resident memory."""
    print(json.dumps(measured | {"rss_mib": peak_mib()}))


def peak_mib() -> float:
    """The most that was resident since this program began. `ru_maxrss`, which systems
    without /proc are left with, is never under what the process that started it had."""
    status = Path("/proc/self/status")
    if status.is_file():
        (line,) = (x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
