"""What every stage costs on this machine for ten seconds of 720p, and whether its memory grows with the clip.

The clip is `sprites:drift` at 1280x720, 30 frames a second; stages work at 480p, as they do by default, and decode at
720p. Every measurement is a fresh process that runs one stage on an empty key, everything before it being in the store;
a supervisor adds up the resident bytes of that process and of its decoder child every 20 ms. Peer: the same stage on a
quarter of the clip; the bar is 10 % more memory at most.

Networks run with random weights at their real configuration: what they cost does not depend on what they know. On two
cores they are slow, so they see few frames; the peak of the longer run against the shorter one is what tells.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import networks
from benchmarks.watched import watched

SIZE, FPS, SECONDS = (1280, 720), 30, 10
BOX = "masks.box=[140,150,510,520]"  # around the disc of sprites:drift at this size
EDIT = "edit.reference=params/dataset/ball.png"


class Case(NamedTuple):
    """A stage with settings, on so many frames of the clip, short and long."""

    stage: str
    choice: str
    overrides: tuple[str, ...] = ()
    frames: tuple[int, int] = (FPS * SECONDS // 4, FPS * SECONDS)


CASES = (
    Case("frames", "decord"),
    Case("optical_flow", "dis"),
    Case("depth", "parallax"),
    Case("masks", "grabcut"),
    Case("region", "union"),
    Case("tracks", "lucas_kanade"),
    Case("edit", "propagate"),
    Case("decode", "H.264, medium"),
    Case("metrics", "pixels"),
    Case(
        "metrics",
        "pixels, dynamics, smoothness (flow)",
        (
            "metrics.names=[warp_error,region,flicker,motion_fidelity,dynamics,smoothness]",
            "metrics.smoothness.interpolator=flow",
        ),
    ),
    Case("report", "four layers"),
)
SMOKE = {
    "cases": (Case("optical_flow", "dis", frames=(2, 3)), Case("edit", "propagate", frames=(2, 3))),
    "with_networks": False,
}


def run(cases: tuple[Case, ...] = CASES, with_networks: bool = True) -> list[dict[str, Any]]:
    """One row a stage."""
    with tempfile.TemporaryDirectory(prefix="retake-bench-") as folder:
        clip = Path(folder) / "clip.mp4"
        watched(__name__, ["write_clip", str(clip), str(max(case.frames[1] for case in cases))])
        rows = [row(case, clip, Path(folder), "Ten seconds of 720p, 300 frames, against 75") for case in cases]
        if with_networks:
            for made in networks.all_of(Path(folder) / "weights"):
                cost = row(Case(made.stage, made.choice, made.overrides, made.frames), clip, Path(folder), "Networks")
                rows.append(
                    {**cost, "table": "Networks at their real size, random weights, float32", "M": made.millions}
                )
    return rows


def row(case: Case, clip: Path, folder: Path, table: str) -> dict[str, Any]:
    """Time and peaks of a stage on the short and on the long clip."""
    found = {}
    for frames in case.frames:
        order = [case.stage, str(clip), str(folder / f"store-{frames}"), str(frames), *case.overrides]
        watched(__name__, ["prepare", *order])
        found[frames] = watched(__name__, ["measure", *order])
    short, long = (found[n] for n in case.frames)
    return {
        "table": table,
        "stage": case.stage,
        "with": case.choice,
        "frames": case.frames[1],
        "seconds": long["seconds_in_stage"],
        "ms a frame": 1000 * (long["seconds_in_stage"] - short["seconds_in_stage"]) / (case.frames[1] - case.frames[0]),
        "CPU ms a frame": 1000 * (long["cpu"] - short["cpu"]) / (case.frames[1] - case.frames[0]),
        "stored, MB": long["bytes"] / 1e6,
        "peak, MB": long["both"] / 1e6,
        f"peak on {case.frames[0]} frames, MB": short["both"] / 1e6,
        "ratio": long["both"] / short["both"],
        "within 10 %": long["both"] <= 1.1 * short["both"],
    }


class Reached(Exception):
    """The stage that a pass was meant to end at."""


def passed(stage: str, before: bool, clip: str, store: str, frames: str, *overrides: str) -> list[Any]:
    """The outcomes of a pass over the graph that ends with a stage, or just before it."""
    from flows import graph
    from flows.runners import Local
    from flows.settings.compose import settings
    from retake.clip import open_clip
    from retake.store import Store

    class UpTo(Local):
        def __call__(self, this: Any, params: Any, **inputs: Any) -> Any:
            if this.name == stage and before:
                raise Reached
            made = super().__call__(this, params, **inputs)
            if this.name == stage:
                raise Reached
            return made

    runner = UpTo(Store(store))
    p = settings([f"frames.last={int(frames) - 1}", BOX, EDIT, *overrides])
    with contextlib.suppress(Reached):
        graph.edit_graph(runner, open_clip(clip), p, stage)
    return runner.outcomes


def prepare(stage: str, *rest: str) -> None:
    """Everything before the stage."""
    passed(stage, True, *rest)


def measure(stage: str, *rest: str) -> None:
    """The stage alone, on what is stored; prints what it took, as JSON."""
    import psutil

    begun = psutil.Process().cpu_times()
    *others, last = passed(stage, False, *rest)
    ended = psutil.Process().cpu_times()
    assert last.stage == stage
    assert last.status == "ran"
    assert all(outcome.status == "cached" for outcome in others)
    spent = sum(getattr(ended, n) - getattr(begun, n) for n in ("user", "system", "children_user", "children_system"))
    print(json.dumps({"seconds_in_stage": last.seconds, "bytes": last.artifact.bytes, "cpu": spent}))


def write_clip(path: str, frames: str) -> None:
    from retake.synthetic import scenes
    from retake.synthetic.world import World
    from retake.video import encode

    world = World(scenes.scene("drift", width=SIZE[0], height=SIZE[1], frames=int(frames), fps=FPS))
    encode(path, (world.frame(t) for t in range(world.frames)), FPS, preset="veryfast", crf=18)


if __name__ == "__main__":
    {"prepare": prepare, "measure": measure, "write_clip": write_clip}[sys.argv[1]](*sys.argv[2:])
