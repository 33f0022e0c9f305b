"""An edit with a diffusion model alone, and beside processes that keep two threads each busy: seconds from the command
to its end, models loaded included.

*Now*: threads by the share of the machine, asleep while they wait (retake/machine/share.py). The peer is *as torch
comes*: as many threads as processors, which spin before they sleep, for as long as libgomp does by default (300,000
rounds); so Retake ran before. Both in one run, in turn, each with a store of its own.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flows.places import CODE

EDIT = (
    "sprites:captioned:7",
    "edit=moca",
    "model=embedded_dit",
    f"edit.reference={CODE}/params/dataset/ball.png",
    "masks.box=[10,10,40,40]",
)
ARMS = {"now": {}, "as torch comes": {"GOMP_SPINCOUNT": "300000", "OMP_NUM_THREADS": str(os.cpu_count() or 1)}}
NAMES = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
SMOKE: dict[str, Any] = {
    "words": (EDIT[0], *EDIT[3:], "frames.last=1"),
    "beside": (0,),
    "repeats": 1,
}


def run(words: Sequence[str] = EDIT, beside: Sequence[int] = (0, 1, 2), repeats: int = 1) -> list[dict[str, Any]]:
    """A row for each arm and number of busy processes."""
    seconds: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="retake-beside-") as folder:
        for repeat in range(repeats):
            for count in beside:
                for arm, threads in ARMS.items():
                    with busy(count):
                        place = Path(folder) / f"{arm}-{count}-{repeat}"
                        seconds.setdefault((arm, count), []).append(edit(words, place, threads))
    alone = statistics.median(seconds["as torch comes", beside[0]])
    return [
        {
            "table": f"Seconds of one edit, {repeats} of each",
            "threads": arm,
            "beside": f"{count} busy processes" if count else "nothing",
            "seconds": round(statistics.median(found), 1),
            "to as torch comes, alone": round(statistics.median(found) / alone, 2),
        }
        for (arm, count), found in sorted(seconds.items(), key=lambda item: (item[0][1], item[0][0]))
    ]


def edit(words: Sequence[str], place: Path, threads: dict[str, str]) -> float:
    """Seconds of one command with a store of its own."""
    kept = {name: value for name, value in os.environ.items() if name not in NAMES}
    where = {"RETAKE_STORE": str(place / "store"), "RETAKE_EDITS": str(place / "edits"), "PYTHONPATH": str(CODE)}
    begun = time.perf_counter()
    command = [sys.executable, "-m", "flows", "edit", *words, "metrics.names=[]", "--until", "decode"]
    done = subprocess.run(command, env={**kept, **where, **threads}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return time.perf_counter() - begun


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many programs of two threads that never wait; each is two processes, since Python's threads take turns."""
    spin = "import os\nos.fork()\nwhile True:\n    pass"
    others = [subprocess.Popen([sys.executable, "-c", spin], start_new_session=True) for _ in range(count)]
    try:
        time.sleep(0.5 * bool(count))
        yield
    finally:
        for other in others:
            os.killpg(other.pid, 9)
            other.wait()
