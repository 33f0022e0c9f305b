"""This process's share of the machine: how many threads its libraries start, and how they wait for one another.

To be claimed before torch, OpenCV and NumPy are loaded: they read their environment once.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import MutableMapping
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_LOAD = Path("/proc/loadavg")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")


def claim(environment: MutableMapping[str, str]) -> None:
    """Set the number of threads to this process's share, and let threads soon sleep while they wait. What is set
    already stays, and whoever set OMP_NUM_THREADS has decided. Children that inherit the environment keep the share."""
    # Programs whose threads spin take each other's processors: see `beside` in docs/benchmarks.md.
    if "OMP_WAIT_POLICY" not in environment:
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
        # libgomp: some microseconds before they sleep, which waking would cost; its own count is thirty times as long.
        environment.setdefault("GOMP_SPINCOUNT", "10000")
    if "OMP_NUM_THREADS" not in environment:
        count = str(threads(processors(), others()))
        for name in _THREADS:
            environment.setdefault(name, count)


def threads(processors: int, others: int) -> int:
    """How many of `processors` a process should use beside `others` threads that want to run: its equal share, but at
    least one."""
    return max(1, min(processors, round(processors * processors / (processors + others))))


def processors(cgroup: Path = _CGROUP) -> int:
    """Processors that this process may use: by its affinity, and by the quota of its control group."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _quota(cgroup))))


def _quota(cgroup: Path) -> float:
    """Processors' worth of time that a control group grants (version 2, else 1); infinity where it sets no limit."""
    try:
        limit, period = (cgroup / "cpu.max").read_text().split()[:2]
        return math.inf if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        pass
    try:
        limit, period = (int((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        return limit / period if limit > 0 else math.inf
    except (OSError, ValueError):
        return math.inf


def others(load: Path = _LOAD, samples: int = 3, pause: float = 0.004) -> int:
    """Threads of other processes that want to run now, the least of some samples. 0 where this process may use a part
    of the machine only: what others do to the rest of it says nothing."""
    if processors() < (os.cpu_count() or 1):
        return 0
    seen = []
    for n in range(samples):
        if n:
            time.sleep(pause)
        try:
            running = int(load.read_text().split()[3].partition("/")[0])
        except (OSError, ValueError, IndexError):
            return 0
        seen.append(running - 1)  # this one reads
    return max(0, min(seen))
