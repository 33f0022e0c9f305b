"""A fresh process, watched from outside: what it and its children held in memory at most."""

from __future__ import annotations

import json
import subprocess
import sys
import time


def watched(module: str, order: list[str]) -> dict[str, float]:
    """Run `python -m MODULE *order` and watch it and its children: peaks in bytes, seconds, and the JSON it prints."""
    import psutil

    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", module, *order], stdout=subprocess.PIPE)
    seen = psutil.Process(process.pid)
    peaks = {"both": 0.0, "parent": 0.0}
    while process.poll() is None:
        try:
            own = seen.memory_info().rss
            peaks["parent"] = max(peaks["parent"], own)
            peaks["both"] = max(peaks["both"], own + sum(c.memory_info().rss for c in seen.children(True)))
        except psutil.NoSuchProcess:
            continue  # it, or a child of it, has just ended
        time.sleep(0.02)
    assert process.stdout is not None
    output = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"{order} ended with status {process.returncode}")
    return peaks | {"seconds": time.perf_counter() - begun} | json.loads(output or b"{}")
