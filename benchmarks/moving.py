"""`move` against the exact render of the world in which the sprite moves as its edited tracks say; and its time beside
that of `propagate`.

Clips: the scenes still, drift, cross and fast, 320x180, 48 frames, two seeds each; every figure is the mean over
scenes and seeds. Measured in dB of PSNR: where the object shall be, and where it was and another frame of the clip
shows what is behind it. `true masks` are the world's, `our masks` GrabCut's from the true box, moved outwards by 10 %.
`source` is the clip left as it is. The second table: an 854x480 clip of 60 frames, both methods with the same masks and
tracks, in one run. The third: an edit of known tracks, the best of five. Last, where real clips lie beside the checkout
(../shared/clips): how much of the background behind the object no frame shows, so that it is made up.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.embedded import REAL
from benchmarks.ground_truth import loosened
from flows import graph
from flows.runners import Local
from flows.settings.compose import settings
from retake import video
from retake.clip import SpriteClip, open_clip
from retake.formats import open_series
from retake.methods.move import UNSEEN
from retake.store import Store
from retake.synthetic import World, reference_image, scene
from retake.synthetic.motion import Pose
from retake.track_edits.evaluate import Edit
from retake.track_edits.program import parse

SCENES = ("still", "drift", "cross", "fast")
SEEDS = (0, 1)
CLIPS = {  # name: box around the object on the first frame, and the side to which it is moved
    "01_dog": ((440, 365, 710, 555), -1),
    "03_blocks": ((532, 452, 632, 555), 1),
    "apple": ((310, 125, 650, 460), -1),
    "cat": ((40, 130, 250, 430), 1),
    "paragliding": ((560, 115, 700, 250), -1),
}
EVERY = 6  # frames between those that are looked at

Posed = Callable[[tuple[Pose, ...], int], Pose]
EDITS: dict[str, tuple[str, Callable[[int], int], Callable[[Pose], Pose]]] = {
    "moved by a fifth of the width": ("{do: move, by: [64, 0]}", lambda t: t, lambda p: p._replace(x=p.x + 64)),
    "turned by 60 degrees": ("{do: rotate, by: 60}", lambda t: t, lambda p: p._replace(angle=p.angle + np.pi / 3)),
    "half as large again": ("{do: scale, by: 1.5}", lambda t: t, lambda p: p._replace(scale=1.5 * p.scale)),
    "at half speed": ("{do: retime, speed: 0.5}", lambda t: t // 2, lambda p: p),
    "backwards": ("{do: reverse}", lambda t: 47 - t, lambda p: p),
    "hidden": ("{do: hide}", lambda t: t, lambda p: p._replace(x=p.x - 10_000)),
}
"""What is done, which source frame stands at t, and what becomes of the pose."""
SMOKE = {
    "scenes": ("still",),
    "seeds": (0,),
    "size": (160, 96),
    "frames": 8,
    "points": 50,
    "real": None,
    "edits": ("at half speed",),
}


def run(
    scenes: Sequence[str] = SCENES,
    seeds: Sequence[int] = SEEDS,
    size: tuple[int, int] = (854, 480),
    frames: int = 60,
    points: int = 1000,
    real: Path | None = REAL,
    edits: Sequence[str] = tuple(EDITS),
) -> list[dict[str, Any]]:
    """Rows of all tables. real: the folder of real clips."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="retake-bench-") as folder:
        for what in edits:
            edit, moment, pose = EDITS[what]
            found = [
                scores(f"sprites:{name}:{seed}", edit, moment, pose, Path(folder)) for name in scenes for seed in seeds
            ]
            means = {key: mean(one[key] for one in found) for key in found[0]}
            rows.append({"table": "Against the exact render", "edit": what, **means})
        rows += timed(Path(folder), size, frames)
        rows.append(tracked(points))
        if real is not None and real.is_dir():
            rows += [of_clip(real / f"{name}.mp4", *of, Path(folder)) for name, of in CLIPS.items()]
    return rows


def scores(
    spec: str, edit: str, moment: Callable[[int], int], pose: Callable[[Pose], Pose], folder: Path
) -> dict[str, float]:
    """PSNR of one clip under one edit."""
    source: World = SpriteClip(spec).world
    truth = World(edited_scene(source, moment, pose))
    found: dict[str, float] = {}
    for name, masks in (("true masks", "masks.own=true"), ("our masks", f"masks.box={loosened(source)}")):
        words = [masks, "edit=move", f"edited_tracks.edits=[{edit}]", "metrics.names=[]"]
        words += ["masks=given", "masks.object=1"] if name == "true masks" else []
        run = Local(Store(folder / "store"))
        made = graph.edit_graph(run, open_clip(spec), settings(words, spec), "decode")
        result = open_series(run.store, made["decode"])
        times = [t for t in range(0, source.frames, EVERY) if moment(t) % 2 == 0 or "retime" not in edit]
        there = [psnr(result[t], truth, t, truth.mask(t, 0)) for t in times]
        left = [psnr(result[t], truth, t, seen_elsewhere(source, t) & ~truth.mask(t, 0)) for t in times]
        found[f"object, {name}"], found[f"behind it, {name}"] = mean(there), mean(left)
    found["object, source"] = mean(
        psnr(source.frame(t), truth, t, truth.mask(t, 0)) for t in range(0, source.frames, EVERY)
    )
    return found


def edited_scene(world: World, moment: Callable[[int], int], pose: Callable[[Pose], Pose]) -> Any:
    """The scene whose first sprite stands, on the screen, where the edit has it."""
    given = world.scene
    camera, first = given.camera, given.sprites[0]
    poses = []
    for t in range(given.frames):
        s = moment(t)
        at = pose(first.poses[s])
        poses.append(at._replace(x=at.x + camera[s].x - camera[t].x, y=at.y + camera[s].y - camera[t].y))
    front = max(sprite.order for sprite in given.sprites) + 1  # what is moved lies in front
    return replace(given, sprites=(replace(first, poses=tuple(poses), order=front), *given.sprites[1:]))


def seen_elsewhere(world: World, t: int) -> np.ndarray:
    """Where the sprite hides the background on frame t that another frame shows: bool [H, W]."""
    mask, seen = world.mask(t, 0), np.zeros((world.height, world.width), bool)
    rows, columns = np.nonzero(mask)
    for s in range(0, world.frames, 2):
        x = np.rint(columns + world.scene.camera[s].x - world.scene.camera[t].x).astype(int)
        y = np.rint(rows + world.scene.camera[s].y - world.scene.camera[t].y).astype(int)
        inside = (x >= 0) & (y >= 0) & (x < world.width) & (y < world.height)
        free = world.surfaces(s)[y.clip(0, world.height - 1), x.clip(0, world.width - 1)] < 0
        seen[rows[inside & free], columns[inside & free]] = True
    return seen


def psnr(frame: np.ndarray, truth: World, t: int, where: np.ndarray) -> float | None:
    """In dB, at most 60; None where there is too little to look at."""
    if where.sum() < 50:
        return None
    error = np.square((frame[where].astype(float) - truth.frame(t)[where]) / 255).mean()
    return float(-10 * np.log10(max(error, 1e-6)))


def mean(values: Iterator[float | None] | list[float | None]) -> float:
    known = [value for value in values if value is not None and value == value]
    return statistics.fmean(known) if known else float("nan")


def timed(folder: Path, size: tuple[int, int], frames: int) -> list[dict[str, Any]]:
    """Seconds of the stage and of the whole edit, cold, by each method."""
    world = World(scene("drift", width=size[0], height=size[1], frames=frames))
    clip = folder / "clip.mp4"
    video.encode(clip, (world.frame(t) for t in range(frames)), 24, crf=12)
    video.write_png(folder / "picture.png", reference_image("patchwork", 96)[..., :3])
    edits = {
        "propagate": [f"edit.reference={folder / 'picture.png'}"],
        "move": [
            "edit=move",
            f"edited_tracks.edits=[{{do: move, by: [{size[0] // 4}, 0], frames: [0, {frames // 3}]}}]",
        ],
    }
    rows: list[dict[str, Any]] = []
    for n, (name, words) in enumerate(edits.items()):
        run = Local(Store(folder / f"store-{n}"))
        chosen = settings([f"masks.box={loosened(world)}", *words])
        graph.edit_graph(run, open_clip(str(clip)), chosen)
        took = {outcome.stage: outcome.seconds for outcome in run.outcomes}
        row = {
            "method": name,
            "edit stage, ms a frame": 1000 * took["edit"] / frames,
            "whole edit, s": sum(took.values()),
        }
        rows.append({"table": f"Time, {size[0]}x{size[1]}, {frames} frames", **row})
    for row in rows:
        row["edit stage, of propagate"] = row["edit stage, ms a frame"] / rows[0]["edit stage, ms a frame"]
        row["whole edit, of propagate"] = row["whole edit, s"] / rows[0]["whole edit, s"]
    return rows


def of_clip(clip: Path, box: tuple[int, int, int, int], side: int, folder: Path) -> dict[str, Any]:
    """How much of what is behind the object of a real clip no frame shows, where it is moved by a quarter of the width:
    percent of the pixels asked for, as the edit's note says it; 0 where there is no note."""
    by = side * open_clip(str(clip)).info(24.0).width // 4
    edit = f"edited_tracks.edits=[{{do: move, by: [{by}, 0], frames: [0, 20]}}]"
    run = Local(Store(folder / "store-real"))
    chosen = settings([f"masks.box={list(box)}", "frames.last=59", "edit=move", edit])
    notes = graph.edit_graph(run, open_clip(str(clip)), chosen, "edit", report=False)["edit"].meta.get("notes", [])
    share = next((note.partition("%")[0] for note in notes if UNSEEN in note), 0)
    return {"table": "Real clips, 60 frames", "clip": clip.stem, "of the background made up, %": float(share)}


class Known:
    """Points that drift."""

    def __init__(self, points: int, count: int) -> None:
        rng = np.random.default_rng(0)
        self.count, self.size = count, (854, 480)
        self._ids, self._seen, self._objects = np.arange(points), np.ones(points, bool), np.ones(points, np.int64)
        self._xy = rng.uniform(0, 400, (1, points, 2)) + np.arange(count)[:, None, None] * rng.normal(0, 1, (points, 2))

    def points(self, t: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        return self._ids, self._xy[t], self._seen, self._objects

    def middles(self, t: int) -> dict[int, tuple[float, float]]:
        return {1: (float(self._xy[t, 0, 0]), float(self._xy[t, 0, 1]))}


def tracked(points: int, count: int = 300) -> dict[str, Any]:
    """Milliseconds to move so many points over so many frames."""
    program = parse({"edits": [{"do": "move", "by": [100, 0], "frames": [0, 40]}]}, "benchmark")
    known, best = Known(points, count), float("inf")
    for _ in range(5):
        begun = time.perf_counter()
        edit = Edit(program, known)
        for t in range(count):
            edit.at(t)
        best = min(best, time.perf_counter() - begun)
    return {"table": "An edit of tracks", "points": points, "frames": count, "ms": 1000 * best}
