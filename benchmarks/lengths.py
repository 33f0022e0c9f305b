"""Peak memory of the stages that `stages` finds above 10 %, on clips long enough to tell growth from warming up.

A clip of 854x480 that goes forth and back; every stage in a fresh process, as in `stages`, on 600 frames against 300.
glibc's threshold for returning large blocks is held at 1 MB (MALLOC_MMAP_THRESHOLD_): left alone it rises as blocks
come and go, and the peak creeps for some hundred frames without anything being kept. That makes stages slower, so the
times here are no costs.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.stages import Case, row

FRAMES = 300, 600
BOX = "masks.box=[93,100,340,347]"  # around the disc of sprites:drift at this size
CASES = ("depth", "masks", "tracks", "edit")
SMOKE = {"frames": (2, 3), "cases": ("depth",)}


def run(frames: tuple[int, int] = FRAMES, cases: Sequence[str] = CASES) -> list[dict[str, Any]]:
    """One row a stage."""
    with tempfile.TemporaryDirectory(prefix="retake-bench-") as folder:
        clip = Path(folder) / "clip.mp4"
        write_clip(clip, frames[1])
        title = f"Peak memory, {frames[1]} frames of 854x480 against {frames[0]}, allocator's threshold fixed"
        with mock.patch.dict(os.environ, {"MALLOC_MMAP_THRESHOLD_": "1000000"}):
            return [row(Case(stage, "", (BOX,), frames), clip, Path(folder), title) for stage in cases]


def write_clip(path: Path, frames: int) -> None:
    """Forty frames of sprites:drift, forth and back."""
    from retake.synthetic import scenes
    from retake.synthetic.world import World
    from retake.video import encode

    world = World(scenes.scene("drift", width=854, height=480, frames=40, fps=30))
    kept = [world.frame(t) for t in range(min(world.frames, frames))]
    turn = kept + kept[-2:0:-1]
    encode(path, (turn[t % len(turn)] for t in range(frames)), 30, preset="veryfast", crf=18)
