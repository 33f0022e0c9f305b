"""Named scenes. `World(scene("drift"))` is a clip whose motion is known exactly.

Sprite 0 is the main one: at frame 0 it is whole, upright, at scale 1 and comfortably inside the frame, its
centre on the corner of four pixels (so that its box has whole-pixel sides); its radius is a fifth of the
frame's shorter side. Lengths follow the frame's size; times follow the clip's seconds, except "cross", whose
meeting always falls on the middle of the clip, and "still" and "fast", which move by frames. The scenes of `TRAVELS`
are those of travels.py, for depth; in "crowd" and "turn" depth cannot be told from motion.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from retake.errors import ConfigError, did_you_mean
from retake.synthetic import travels
from retake.synthetic.motion import Pose, reflected
from retake.synthetic.pictures import reference_image
from retake.synthetic.scene import Scene, Sprite

__all__ = ["SCENES", "TRAVELS", "VERSION", "reference_image", "scene"]

VERSION = 1  # the pixels of a scene are part of cache keys: raise it when they change
GOLDEN = 0.381966  # a step round the colour circle that keeps hues apart


class Stage(NamedTuple):
    """What a scene is built for: size, length and a generator for the seed's choices."""

    width: int
    height: int
    frames: int
    fps: float
    rng: np.random.Generator

    @property
    def unit(self) -> float:
        """Pixels per pixel of a frame whose shorter side is 180."""
        return min(self.width, self.height) / 180

    @property
    def radius(self) -> int:
        return round(0.2 * min(self.width, self.height))

    def spot(self, x: float, y: float) -> tuple[float, float]:
        """The pixel corner nearest to a place given in fractions of the frame."""
        return round(x * self.width) - 0.5, round(y * self.height) - 0.5

    def seconds(self) -> list[float]:
        return [t / self.fps for t in range(self.frames)]


class Motion(NamedTuple):
    """The moving part of a scene: outlines with radius, order and poses, the camera, and the noise."""

    sprites: list[tuple[str, float, int, list[Pose]]]
    camera: list[Pose]
    noise: float = 1.0


def scene(name: str, seed: int = 0, width: int = 320, height: int = 180, frames: int = 48, fps: float = 24.0) -> Scene:
    """The scene of that name. The seed chooses textures, colours and directions, not the kind of motion.

    Raises ConfigError E240 for an unknown name, E241 for numbers that make no clip.
    """
    known = SCENES | TRAVELS
    if name not in known:
        also = "Of the training world: captioned; of pairs: path_source, camera_source, time_source, late_source."
        raise ConfigError("E240", f"There is no scene '{name}'.", f"{did_you_mean(name, list(known))} {also}")
    if seed < 0 or frames < 1 or min(width, height) < 16 or not 0 < fps < np.inf:
        raise ConfigError(
            "E241",
            f"No clip has seed {seed}, {width}x{height} pixels, {frames} frames and {fps} fps.",
            "Give a seed of 0 or more, 16x16 pixels or more, 1 frame or more and a positive fps.",
        )
    rng = np.random.default_rng([seed, 5])
    palette = ("lagoon", "dune", "moss", "slate", "clay")[seed % 5]
    # The first hue keeps away from the ground's own: warm over the cool palettes, cool over the warm ones.
    hue = rng.uniform(-0.03, 0.1) if palette in ("lagoon", "moss", "slate") else rng.uniform(0.5, 0.62)
    moves = known[name](Stage(width, height, frames, fps, rng))
    sprites = tuple(
        Sprite(shape, radius, (hue + GOLDEN * k) % 1, 10 * seed + k, order, tuple(poses))
        for k, (shape, radius, order, poses) in enumerate(moves.sprites)
    )
    camera = tuple(moves.camera)
    return Scene(width, height, frames, fps, sprites, camera, palette, seed, moves.noise)


def _drift(stage: Stage) -> Motion:
    """One disc on a slow curve, turning slowly, over a slowly panning ground."""
    x, y = stage.spot(0.3, 0.5)
    way = float(stage.rng.choice([-1, 1]))
    poses, camera = [], []
    for s in stage.seconds():
        # Out and back in six seconds: any length of clip stays inside the frame.
        far = (1 - np.cos(2 * np.pi * s / 6)) / 2
        shift = 9 * stage.unit * np.sin(2 * np.pi * s / 8)
        dx = 0.36 * stage.width * far
        dy = way * 0.11 * stage.height * np.sin(2 * np.pi * s / 4)
        poses.append(Pose(x + dx, y + dy, 0.5 * np.sin(2 * np.pi * s / 7)))
        camera.append(Pose(-shift, way * 0.4 * shift))
    return Motion([("disc", stage.radius, 1, poses)], camera)


def _cross(stage: Stage) -> Motion:
    """A larger box passes in front of a disc that goes the other way, and hides it at mid-clip."""
    left, y = stage.spot(0.33, 0.52)
    way = float(stage.rng.choice([-1, 1]))
    back, front, camera = [], [], []
    for t in range(stage.frames):
        u = t / max(stage.frames - 1, 1)
        sway = np.sin(np.pi * u)
        back.append(Pose(left + 0.2 * stage.width * u, y, way * 0.5 * u))
        x = (0.86 - 0.86 * u) * stage.width
        front.append(Pose(x, y - way * 0.2 * stage.height * (1 - 2 * u), -way * 0.5 * (u - 0.5), 1.0, 0.15 * sway))
        camera.append(Pose(-6 * stage.unit * sway, 2 * stage.unit * sway))
    disc, box = ("disc", stage.radius, 1, back), ("box", 1.45 * stage.radius, 2, front)
    return Motion([disc, box], camera)


def _zoom(stage: Stage) -> Motion:
    """A star that grows to 1.4, shrinks to 0.7 and turns, while the camera zooms in and out."""
    x, y = stage.spot(0.48, 0.52)
    way = float(stage.rng.choice([-1, 1]))
    poses, camera = [], []
    for s in stage.seconds():
        beat = np.sin(2 * np.pi * s / 2)
        scale = np.exp(0.345 * beat)
        dx = 0.1 * stage.width * np.sin(2 * np.pi * s / 4)
        poses.append(Pose(x + dx, y, way * 0.8 * s, scale))
        slow = (1 - np.cos(2 * np.pi * s / 4)) / 2
        camera.append(Pose(0, 0, -way * 0.06 * slow, 1 + 0.16 * slow))
    return Motion([("star", stage.radius, 1, poses)], camera)


def _still(stage: Stage) -> Motion:
    """A disc that moves by whole pixels, 2 across and 1 down, over a ground at rest; no noise."""
    x, y = stage.spot(0.3, 0.4)
    r = stage.radius
    poses = [
        Pose(
            reflected(x, 2 * t, r + 1.5, stage.width - r - 2.5),
            reflected(y, t, r + 1.5, stage.height - r - 2.5),
        )
        for t in range(stage.frames)
    ]
    return Motion([("disc", r, 1, poses)], [Pose()] * stage.frames, noise=0.0)


def _fast(stage: Stage) -> Motion:
    """A disc that crosses the frame in a few frames, 24 pixels each at width 320, hopping and rolling."""
    r = stage.radius
    low = stage.spot((r + 8 * stage.unit) / stage.width, 0)[0]
    across = stage.width - 2 * low - 1
    # A whole number of steps from wall to wall: every step is a full one, those at the walls, too.
    steps = max(1, int(across / (0.075 * stage.width)))
    step = across / steps
    floor = stage.spot(0, 0.72)[1]
    way = float(stage.rng.choice([-1, 1]))
    poses, camera = [], []
    for t in range(stage.frames):
        n = reflected(0, t, 0, steps)
        hop = abs(np.sin(np.pi * t / 8)) * 0.42 * stage.height
        poses.append(Pose(low + n * step, floor - hop, n * step / r * 0.3))
        camera.append(Pose(way * 10 * stage.unit * np.sin(2 * np.pi * t / 32), 0))
    return Motion([("disc", r, 1, poses)], camera)


def _travel(name: str, stage: Stage) -> Motion:
    """Layers at rest, seen by a camera of travels.VIEWS."""
    way = float(stage.rng.choice([-1, 1]))
    places = [stage.spot(*place) for _, _, place, _ in travels.LAYERS]
    views = travels.VIEWS[name](stage.seconds(), stage.unit, way)
    poses, camera = travels.layered(views, places, ((stage.width - 1) / 2, (stage.height - 1) / 2))
    return Motion(_layers(stage, poses), camera)


def _crowd(stage: Stage) -> Motion:
    """The camera rests; every sprite sways by itself, no matter how near it is."""
    poses = []
    for k, (_, _, place, _) in enumerate(travels.LAYERS):
        x, y = stage.spot(*place)
        far = stage.unit * (14, 22, 10, 6, 4)[k]  # the nearest move least: motion says the opposite of depth
        turn, beat = stage.rng.uniform(0, 2 * np.pi), 2.5 + 0.4 * k
        sway = [far * np.sin(2 * np.pi * s / beat) for s in stage.seconds()]
        poses.append([Pose(x + np.cos(turn) * a, y + np.sin(turn) * a) for a in sway])
    return Motion(_layers(stage, poses), [Pose()] * stage.frames)


def _layers(stage: Stage, poses: list[list[Pose]]) -> list[tuple[str, float, int, list[Pose]]]:
    order = travels.orders()
    return [(shape, size * stage.radius, order[k], poses[k]) for k, (shape, size, _, _) in enumerate(travels.LAYERS)]


SCENES: dict[str, Callable[[Stage], Motion]] = {
    "drift": _drift,
    "cross": _cross,
    "zoom": _zoom,
    "still": _still,
    "fast": _fast,
}

TRAVELS: dict[str, Callable[[Stage], Motion]] = {
    **{name: partial(_travel, name) for name in travels.VIEWS},
    "crowd": _crowd,
}
