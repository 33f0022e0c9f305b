"""What the sprite world costs: clips of 16 frames rendered, with and without their truth, per second of one core.

Scenes are the training pairs' (one to three sprites, any ground); each clip is new, so its textures are made, too.
Peers, in the same run: the same frames decoded from H.264 by PyAV on one thread, and read as an uncompressed .npy from
the file cache: what a loader would do that had the clips on disk, without the truth. CPU time, one thread, median of
rounds.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

SIZES = (64, 64), (128, 128), (320, 180)
CLIPS = 8
ROUNDS = 5
POINTS = 64
PICTURES = 200
SMOKE: dict[str, Any] = {"clips": 1, "rounds": 1, "sizes": ((32, 32),), "pictures": 10}


def run(
    clips: int = CLIPS, rounds: int = ROUNDS, sizes: Iterable[tuple[int, int]] = SIZES, pictures: int = PICTURES
) -> list[dict[str, Any]]:
    """Rows of two tables: clips by size, and grounds and still pictures at 64x64."""
    import cv2

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        return [row for size in sizes for row in rendering(size, clips, rounds)] + grounds(rounds, pictures)
    finally:
        cv2.setNumThreads(threads)


def rendering(size: tuple[int, int], clips: int, rounds: int) -> Iterator[dict[str, Any]]:
    """One row for each thing that a loader may want, and one a peer."""
    from retake.synthetic import World, pair
    from retake.synthetic.scene import Scene

    made = [pair(seed, width=size[0], height=size[1], points=POINTS) for seed in range(clips)]
    scenes = [one.target for one in made]

    def frames(scene: Scene) -> World:
        world = World(scene)
        for t in range(scene.frames):
            world.frame(t)
        return world

    def flow(scene: Scene) -> None:
        world = frames(scene)
        for t in range(scene.frames - 1):
            world.flow(t, t + 1)

    def masks(scene: Scene) -> None:
        world = frames(scene)
        for t in range(scene.frames):
            world.surfaces(t)

    def both_clips(n: int) -> None:
        one = pair(n, width=size[0], height=size[1], points=POINTS)
        kept = frames(one.target), frames(one.source)  # together: they share their ground
        for world in kept:
            world.follow(one.surfaces, one.body)

    with tempfile.TemporaryDirectory(prefix="retake-bench-") as folder:
        stored = [store(Path(folder) / str(n), scene) for n, scene in enumerate(scenes)]
        work: dict[str, Callable[[int], object]] = {
            "frames": lambda n: frames(scenes[n]),
            "frames, flow": lambda n: flow(scenes[n]),
            "frames, surfaces (all masks)": lambda n: masks(scenes[n]),
            f"frames, tracks of {POINTS} points": lambda n: frames(scenes[n]).follow(made[n].surfaces, made[n].body),
            "pair drawn, both clips, both tracks": both_clips,
            "  peer: decode H.264": lambda n: decode(stored[n][0]),
            "  peer: read .npy": lambda n: np.load(stored[n][1]),
        }
        taken: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(rounds):  # in turn, so that all meet the same machine
            for name, one in work.items():
                begun = time.process_time()
                for n in range(clips):
                    one(n)
                taken[name].append((time.process_time() - begun) / clips)
    base = statistics.median(taken["frames"])
    for name, seconds in taken.items():
        middle = statistics.median(seconds)
        yield {
            "table": f"Clips of 16 frames, CPU time of one core, {clips} clips, median of {rounds} rounds",
            "size": f"{size[0]}x{size[1]}",
            "": name,
            "ms a clip": 1000 * middle,
            "clips/s": 1 / middle,
            "to frames alone": middle / base,
        }


def grounds(rounds: int, pictures: int) -> list[dict[str, Any]]:
    """What one ground costs, and one still picture of a mixture of them."""
    from retake.synthetic.grounds import GROUNDS, ground, natural_image

    def clocked(work: Callable[[int], object]) -> float:
        taken = []
        for k in range(rounds):
            begun = time.process_time()
            for n in range(pictures // rounds):
                work(pictures * k + n)
            taken.append((time.process_time() - begun) / (pictures // rounds))
        return statistics.median(taken)

    costs = {f"ground: {kind}": clocked(lambda n, kind=kind: ground(kind, 64, 64, "dune", n)) for kind in GROUNDS}
    costs["natural_image"] = clocked(lambda n: natural_image(np.random.default_rng(n), 64))
    table = "Grounds and still pictures at 64x64, CPU time of one core"
    return [{"table": table, "": name, "ms": 1000 * cost, "a second": 1 / cost} for name, cost in costs.items()]


def store(path: Path, scene: Any) -> tuple[Path, Path]:
    """A clip as mp4 and as npy."""
    from retake.synthetic import World
    from retake.video import encode

    world, video, raw = World(scene), path.with_suffix(".mp4"), path.with_suffix(".npy")
    shown = np.stack([world.frame(t) for t in range(scene.frames)])
    encode(video, iter(shown), scene.fps, preset="veryfast", crf=12)
    np.save(raw, shown)
    return video, raw


def decode(path: Path) -> np.ndarray:
    """All frames uint8 [F, H, W, 3], on one thread, in this process."""
    import av

    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
