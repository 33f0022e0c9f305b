"""Peak memory of the stages frames and optical_flow, on clips of 1080p: long ones against one of 60 frames.

Peer: the same stage on the short clip. Working size = source. Every measurement is a fresh process that runs one
stage on an empty key; a supervisor adds up the resident bytes of that process and of its decoder child (pages that both
map count twice) every 20 ms, and the system's own high-water mark of the parent is kept as well. The bars: the long
clip within 10 % of the short one, and under 2 GB.

Needs 17 GB of free disk in TMPDIR (frames and flow of 600 frames take 14 GB); what is written is removed after each
clip's measurements.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.watched import watched

SHORT = 60
LONG = 600
SIZE = 1920, 1080
STAGES = "frames", "optical_flow"
LIMIT = 2e9
BYTES_A_PIXEL = 3 + 2 * 2 * 2 + 0.25  # frames, flow both ways, occlusion
SMOKE = {"short": 2, "long": 3, "size": (64, 48)}


def run(short: int = SHORT, long: int = LONG, size: tuple[int, int] = SIZE) -> list[dict[str, Any]]:
    """One row a stage and length."""
    found = {frames: measured(frames, size) for frames in (short, long)}
    return [
        {
            "table": f"Peak resident memory at {size[0]}x{size[1]}",
            "stage": stage,
            "frames": frames,
            "parent and decoder, MB": peaks["both"] / 1e6,
            "parent alone, MB": peaks["parent"] / 1e6,
            "parent, system's mark, MB": peaks["mark"] / 1e6,
            "ratio to the short clip": peaks["both"] / found[short][stage]["both"],
            "within 10 %": peaks["both"] <= 1.1 * found[short][stage]["both"],
            "under 2 GB": peaks["both"] < LIMIT,
            "seconds (context)": peaks["seconds"],
        }
        for stage in STAGES
        for frames, peaks in ((frames, found[frames][stage]) for frames in found)
    ]


def measured(frames: int, size: tuple[int, int]) -> dict[str, dict[str, float]]:
    """Peaks in bytes of each stage, in a process of its own; the second reads what the first has stored."""
    with tempfile.TemporaryDirectory(prefix="retake-bench-") as folder:
        need, free = frames * size[0] * size[1] * BYTES_A_PIXEL, shutil.disk_usage(folder).free
        if free < 1.2 * need:
            raise SystemExit(f"{folder} has {free / 1e9:.1f} GB free, this benchmark needs {1.2 * need / 1e9:.1f}")
        clip = Path(folder) / "clip.mp4"
        watched(__name__, [write_clip.__name__, str(clip), str(frames), str(size[0]), str(size[1])])
        order = [run_stage.__name__, str(clip), str(Path(folder) / "store")]
        return {stage: watched(__name__, [*order, stage]) for stage in STAGES}


def run_stage(clip: str, store: str, name: str) -> None:
    """One stage, on frames that are stored already; prints this process's high-water mark within it, in bytes."""
    from flows import graph
    from flows.runners import Local
    from flows.settings.compose import settings
    from retake.clip import open_clip
    from retake.store import Store

    runner, p = Local(Store(store)), settings(["frames.short_side=null"])
    frames = runner(graph.STAGES["frames"], p.frames, clip=open_clip(clip))
    if name != "frames":
        label = p.choices[name].label
        runner(graph.STAGES[name], getattr(p, name), implementation=label, frames=frames)
    last = runner.outcomes[-1]
    assert (last.stage, last.status) == (name, "ran")
    record = runner.store.find(name, last.key)
    assert record is not None
    print(json.dumps({"mark": record.cost["peak_memory"]}))


def write_clip(path: str, frames: str, width: str, height: str) -> None:
    """A large random texture that glides past a window."""
    from retake.video import encode

    encode(path, glide(int(frames), int(width), int(height)), 24.0, preset="veryfast", crf=23)


def glide(frames: int, width: int, height: int, seed: int = 0) -> Iterator[np.ndarray]:
    """uint8 [height, width, 3]: smooth noise that moves 3 px right and 1 px down a frame, round and round."""
    import cv2

    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    tile = np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))
    for t in range(frames):
        yield np.roll(tile, (t, 3 * t), axis=(0, 1))


if __name__ == "__main__":
    {"run_stage": run_stage, "write_clip": write_clip}[sys.argv[1]](*sys.argv[2:])
