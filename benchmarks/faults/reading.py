"""What it costs never to serve doubt: the share of an edit's time that goes into hashing what its stages read.

A cold edit (`propagate`, every default) of the sprite scene drift, and of the real clips where they lie beside the
checkout, in this process and its children, which decode and encode. *Hashing* is the time of sha256 over every byte
that a stage or the hand-out takes from the store; *edit* is all of it. Both are seconds of the processor, which other
work on the machine disturbs less.
"""

from __future__ import annotations

import hashlib
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.embedded import REAL
from flows.editing import edit
from flows.places import CODE
from flows.runners import Local
from retake.artifact import File
from retake.store import Store

BOXES = {
    "sprites:drift": "[50,44,142,136]",
    "01_dog": "[500,150,900,600]",
    "03_blocks": "[400,200,800,600]",
    "apple": "[300,150,700,500]",
    "cat": "[70,40,300,460]",
    "paragliding": "[250,100,600,400]",
}


class Clocked(Store):
    """A store that knows how long it hashed what was read."""

    seconds = 0.0
    bytes = 0
    again = 0.0  # spent on hashing once more, to have a time of it alone

    def read(self, file: File) -> bytes:
        data = super().read(file)
        begun = time.process_time()
        hashlib.sha256(data).hexdigest()
        took = time.process_time() - begun
        self.seconds, self.again, self.bytes = self.seconds + took, self.again + took, self.bytes + len(data)
        return data

    def verify(self, file: File) -> None:
        begun = time.process_time()
        super().verify(file)
        self.seconds += time.process_time() - begun
        self.bytes += file.size


def spent_so_far() -> float:
    """Seconds of the processor, of this process and of its children that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


SMOKE = {"clips": {"sprites:captioned:7": "[10,10,40,40]"}}  # 16 frames of 64x64


def run(clips: dict[str, str] = BOXES) -> list[dict[str, Any]]:
    """A row for each clip that is there."""
    rows = []
    for name, box in clips.items():
        spec = name if ":" in name else str(REAL / f"{name}.mp4")
        if ":" not in name and not Path(spec).exists():
            continue
        with tempfile.TemporaryDirectory(prefix="retake-faults-") as folder:
            store = Clocked(Path(folder) / "store")
            overrides = [f"masks.box={box}", f"edit.reference={CODE}/params/dataset/ball.png"]
            begun = spent_so_far()
            edit.edit(spec, overrides, runner=Local(store), folder=Path(folder) / "out")
            spent = spent_so_far() - begun - store.again
        print(f"reading: {name} {store.seconds:.2f} of {spent:.1f}", file=sys.stderr, flush=True)
        rows.append(
            {
                "table": "Hashing of what is read, as a share of the edit",
                "clip": name,
                "edit, CPU-s": spent,
                "read, MB": store.bytes / 1e6,
                "hashing, CPU-s": store.seconds,
                "share, %": 100 * store.seconds / spent,
            }
        )
    return rows
