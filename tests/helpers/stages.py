"""Passes over the graph that remember how each stage was called, observers that interrupt them, and small clips."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flows import graph
from flows.places import CODE
from flows.runners import Chosen, Local
from flows.settings.compose import Settings
from retake import video
from retake.artifact import Artifact
from retake.clip import Clip, open_clip
from retake.stage import Silent, Stage
from retake.store import Store
from retake.synthetic import scenes
from retake.synthetic.world import World

STAGES = tuple(
    name for name in graph.STAGES if name not in ("depth", "edited_tracks", "latents", "inversion", "motion_channels")
)  # not needed here
CHUNKED = ("frames", "optical_flow", "masks", "region", "tracks", "edit", "decode")
BALL = f"edit.reference={CODE}/params/dataset/ball.png"
QUICK = [BALL, "report.tile=64", "report.columns=2", "decode.preset=veryfast"]
DRIFT = ["masks.box=[40,40,130,130]", *QUICK]  # around the disc of sprites:drift on frame 0


@dataclass
class Calls(Local):
    """Local, remembering how each stage was called."""

    calls: dict[str, tuple[Stage, Any, Chosen, dict[str, Any]]] = field(default_factory=dict)

    def __call__(
        self, stage: Stage, params: Any, *, implementation: str = "", weights: Mapping[str, str] = {}, **inputs: Any
    ) -> Artifact:
        self.calls[stage.name] = stage, params, Chosen(implementation, weights), inputs
        return super().__call__(stage, params, implementation=implementation, weights=weights, **inputs)

    def again(self, name: str, observer: Any = None) -> Artifact:
        stage, params, chosen, inputs = self.calls[name]
        return Local(self.store, observer or Silent()).outcome(stage, params, chosen, inputs).artifact

    @property
    def ran(self) -> list[str]:
        return [o.stage for o in self.outcomes if o.status == "ran"]

    @property
    def made(self) -> dict[str, Artifact]:
        return {o.stage: o.artifact for o in self.outcomes}

    def record(self, name: str) -> Path:
        return self.store.record_path(name, next(o.key for o in self.outcomes if o.stage == name))


def run(root: Path, clip: str | Clip, p: Settings, until: str = "report") -> Calls:
    """A pass over the graph."""
    calls = Calls(Store(root, lambda line: None))
    graph.edit_graph(calls, open_clip(clip) if isinstance(clip, str) else clip, p, until)
    return calls


def digests(calls: Calls) -> dict[str, str]:
    return {name: artifact.digest for name, artifact in calls.made.items()}


def small_clip(path: Path, frames: int = 18, size: tuple[int, int] = (64, 48)) -> tuple[Path, list[str]]:
    """An MP4 of the drifting disc and settings that follow the disc."""
    world = World(scenes.scene("drift", width=size[0], height=size[1], frames=frames))
    video.encode(path, (world.frame(t) for t in range(frames)), 24, crf=12)
    found = world.box(0, 0)
    assert found is not None
    return path, [f"masks.box=[{found[0] - 3},{found[1] - 3},{found[2] + 3},{found[3] + 3}]", *QUICK]


class StopAfter(Silent):
    """Ctrl-C once so many chunks are committed."""

    def __init__(self, chunks: int) -> None:
        self.left = chunks

    def progress(self, stage: str, done: int, total: int) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


class Then(Silent):
    """Does something, once, after the first chunk."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self.act: Callable[[], Any] | None = act

    def progress(self, stage: str, done: int, total: int) -> None:
        act, self.act = self.act, None
        if act is not None:
            act()


class ProgressLog(Silent):
    """Keeps the progress reported."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []

    def progress(self, stage: str, done: int, total: int) -> None:
        self.steps.append((done, total))


def seen(alpha: np.ndarray, box: np.ndarray, working: tuple[int, int], full: tuple[int, int]) -> tuple[Any, Any]:
    """Where a linear resampling of an alpha crop can be above 0, and where all it reads is 255: bool [H, W] each."""
    whole = np.zeros((working[1] + 2, working[0] + 2), int)  # a border of one pixel
    whole[box[1] + 1 : box[3] + 1, box[0] + 1 : box[2] + 1] = alpha
    corners = []
    for n, small in ((full[1], working[1]), (full[0], working[0])):
        at = (np.arange(n) + 0.5) * small / n - 0.5
        low = np.floor(at).astype(int)
        corners.append((low + 1, np.minimum(low + 2, small + 1)))
    read = np.stack([whole[np.ix_(rows, columns)] for rows in corners[0] for columns in corners[1]])
    return read.max(axis=0) > 0, read.min(axis=0) == 255
