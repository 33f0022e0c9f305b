"""A long clip edited by the queue of `edit=moca edit.diagonal=true`: memory, time, and what a kill costs.

Memory and time are of fresh processes, as in `stages`; a quarter is one of the clip, read off the times at which frames
came out of the queue. The edit is also killed by the system (SIGKILL) at frames drawn at random, and run again:
*repeated* counts frames that came out of the queue twice.
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.stages import passed
from benchmarks.watched import watched

FRAMES = 75, 300
MODEL = ("model=embedded_dit",)
EDIT = (
    "edit=moca",
    "edit.diagonal=true",
    "edit.reference=params/dataset/ball.png",
    "edit.source_prompt=a red disc moves right",
    "masks.box=[20,21,74,76]",  # around the disc of sprites:drift at this size
)
SEED, KILLS = 3, 3
SMOKE = {"frames": (4, 8), "kills": 1}


def run(frames: tuple[int, int] = FRAMES, kills: int = KILLS, model: Sequence[str] = MODEL) -> list[dict[str, Any]]:
    """Rows of two tables: memory and time of an edit, and what a kill costs. model: what is typed to choose it."""
    short, long = frames
    with tempfile.TemporaryDirectory(prefix="retake-bench-") as folder:
        clip = Path(folder) / "clip.mp4"
        watched(__name__, ["write_clip", str(clip), str(long)])
        orders = {count: prepared(Path(folder) / f"store-{count}", clip, count, model) for count in frames}
        fresh = [other_store(orders[long], Path(folder) / name) for name in ("watched", "killed")]
        peaks = {count: watched("benchmarks.stages", ["measure", *order])["both"] for count, order in orders.items()}
        times = measure(fresh[0])
        rows = list(killed(fresh[1], long, kills))
    quarter = long // 4
    whole = {
        "table": f"edit=moca on a clip of {long} frames, against {short}",
        "frames": long,
        "ms a frame, second quarter": 1000 * (times[2 * quarter] - times[quarter]) / quarter,
        "last quarter": 1000 * (times[4 * quarter] - times[3 * quarter]) / quarter,
        "peak, MB": peaks[long] / 1e6,
        f"peak on {short} frames, MB": peaks[short] / 1e6,
        "ratio": peaks[long] / peaks[short],
    }
    return [whole, *rows]


def prepared(store: Path, clip: Path, count: int, model: Sequence[str]) -> list[str]:
    """Everything before the edit in a store of its own; what stages.py is told to run it."""
    order = ["edit", str(clip), str(store), str(count), *model, *EDIT]
    watched("benchmarks.stages", ["prepare", *order])
    return order


def other_store(order: list[str], store: Path) -> list[str]:
    """The same order on a copy of its store."""
    stage, clip, of, *rest = order
    shutil.copytree(of, store)
    return [stage, clip, str(store), *rest]


def started(order: list[str]) -> Any:
    """A process that runs the edit and tells of every frame."""
    command = [sys.executable, "-m", __name__, "tell", *order]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1)


def measure(order: list[str]) -> dict[int, float]:
    """When each frame came out of the queue, in seconds."""
    process = started(order)
    assert process.stdout is not None
    times = {int(line): time.perf_counter() for line in process.stdout}
    process.wait()
    return times


def killed(order: list[str], count: int, kills: int) -> Iterator[dict[str, Any]]:
    """Kill the edit at frames drawn at random, each time going on in a store of what the one before left behind."""
    chosen, keep = sorted(random.Random(SEED).sample(range(1, count), kills)), 16
    reached = None
    for at in [*chosen, 0]:  # the last only shows where it goes on
        process = started(order)
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(int(line))
            if seen[-1] >= at:
                process.send_signal(signal.SIGKILL)
                break
        seen += [int(line) for line in process.stdout]
        process.wait()
        if reached is not None:
            yield {
                "table": f"Killed while it edits {count} frames, a state every {keep}",
                "killed behind frame": reached,
                "went on behind frame": seen[0] - 1,
                "repeated": reached - (seen[0] - 1),
            }
        reached = seen[-1]


def tell(stage: str, *order: str) -> None:
    """Run a stage, and print every frame that comes out of the queue."""
    from retake.stage import Work

    plain = Work.progress

    def progress(self: Work, done: int, total: int) -> None:
        plain(self, done, total)
        print(done, flush=True)

    Work.progress = progress  # type: ignore[method-assign]
    passed(stage, False, *order)


def write_clip(path: str, frames: str) -> None:
    """So many frames of sprites:drift at the models' size."""
    from retake.synthetic import scenes
    from retake.synthetic.world import World
    from retake.video import encode

    world = World(scenes.scene("drift", width=128, height=128, frames=int(frames), fps=30))
    encode(path, (world.frame(t) for t in range(world.frames)), 30, preset="veryfast", crf=12)


if __name__ == "__main__":
    {"write_clip": write_clip, "tell": tell}[sys.argv[1]](*sys.argv[2:])
