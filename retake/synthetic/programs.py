"""Motion programs: pure functions that change when and where the bodies of a scene go, and nothing else.

Some work on poses (one a frame), some on frame numbers, some on scenes. What comes out is a scene as any other, so
`World` knows its flow, occlusion, masks and tracks exactly.

    move      one sprite goes elsewhere             film      the camera goes elsewhere
    retime    all, or one sprite, at other times    crop      a window slides over the clip
    enter     a sprite comes from outside           emerge    a sprite comes from behind another
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from retake.errors import ConfigError
from retake.synthetic import motion, shapes
from retake.synthetic.motion import Pose
from retake.synthetic.scene import Scene, Sprite

Poses = tuple[Pose, ...]
Times = tuple[float, ...]

EDGE = 1.0  # pixels: half for each of two soft edges that meet


def between(a: Pose, b: Pose, share: float) -> Pose:
    """The pose at a share 0..1 of the way from a to b: angle the shorter way round, scale by equal factors."""
    turn = math.remainder(b.angle - a.angle, 2 * math.pi)
    return Pose(
        a.x + share * (b.x - a.x),
        a.y + share * (b.y - a.y),
        a.angle + share * turn,
        a.scale * (b.scale / a.scale) ** share,
        a.shear + share * (b.shear - a.shear),
    )


def at(poses: Sequence[Pose], time: float) -> Pose:
    """The pose at a frame number that may lie between two frames; the first and the last hold beyond the ends."""
    time = min(max(time, 0.0), len(poses) - 1.0)
    near = round(time)
    # Times are sums of fractions: what was meant to be a frame is that frame's own pose, bit for bit.
    if abs(time - near) < 1e-9:
        return poses[near]
    before = math.floor(time)
    return between(poses[before], poses[before + 1], time - before)


def tween(a: Pose, b: Pose, frames: int) -> Poses:
    """Poses from a (first frame) to b (last frame), evenly."""
    return tuple(at((a, b), t / max(frames - 1, 1)) for t in range(frames))


def retimed(poses: Sequence[Pose], times: Sequence[float]) -> Poses:
    """The poses at those frame numbers, one for each new frame."""
    return tuple(at(poses, time) for time in times)


def detour(poses: Sequence[Pose], by: Pose, keep: str = "both") -> Poses:
    """A path that leaves the old one by as much as `by`: pixels, radians, a factor of scale, shear.

    keep: "both" ends of the path stay, or "first", or "last", or "none" (all is moved alike). Raises ConfigError
    E246 for another word.
    """
    _fits(keep in RAMPS, f"a detour cannot keep '{keep}'", f"Keep one of {', '.join(RAMPS)}.")
    shares = [RAMPS[keep](t / max(len(poses) - 1, 1)) for t in range(len(poses))]
    return tuple(
        Pose(p.x + w * by.x, p.y + w * by.y, p.angle + w * by.angle, p.scale * by.scale**w, p.shear + w * by.shear)
        for p, w in zip(poses, shares, strict=True)
    )


# How much of a detour there is at a share of the clip; exactly nothing at the ends that stay.
RAMPS = {
    "both": lambda u: 16 * u * u * (1 - u) * (1 - u),
    "first": lambda u: u * u * (3 - 2 * u),
    "last": lambda u: 1 - u * u * (3 - 2 * u),
    "none": lambda u: 1.0,
}


def paced(frames: int, speeds: Sequence[float], start: float = 0.0, end: float | None = None) -> Times:
    """Frame numbers from `start` to `end` (the last, by default) at a speed that changes on the way.

    speeds: of equal parts of the new clip, to each other; 0 stands still. `paced(16, (2, 1))` goes twice as fast in
    its first half as in its second. Raises ConfigError E246 for a negative speed, and where nothing moves.
    """
    moves = len(speeds) > 0 and min(speeds) >= 0 and sum(speeds) > 0
    _fits(moves, f"no clip has the speeds {list(speeds)}", "Give speeds of 0 or more, not all 0.")
    gone = np.concatenate([[0.0], np.cumsum(speeds)]) / sum(speeds)
    share = np.interp(np.arange(frames) / max(frames - 1, 1), np.linspace(0, 1, len(gone)), gone)
    last = frames - 1.0 if end is None else end
    return tuple(float(start * (1 - u) + last * u) for u in share)


def shifted(frames: int, by: float) -> Times:
    """The frame numbers `by` frames later (earlier, where negative)."""
    return tuple(t + float(by) for t in range(frames))


def backward(frames: int) -> Times:
    """The last frame first."""
    return tuple(float(t) for t in reversed(range(frames)))


def halves(frames: int) -> tuple[Times, Times]:
    """A clip cut at its middle: the first half backward, the second forward. Both begin at the same frame and have
    the same number of frames, one more than half of an odd number."""
    middle = frames // 2
    length = frames - middle
    return tuple(float(middle - t) for t in range(length)), tuple(float(middle + t) for t in range(length))


def retime(scene: Scene, times: Sequence[float], sprite: int | None = None) -> Scene:
    """The scene at those frame numbers, one for each new frame; beyond its ends it stands still.

    sprite: the only one that follows them, while the camera, the others and every light keep the clock; there must be
    as many as before. Raises ConfigError E242 for a sprite that does not exist, E241 for another number of frames.
    """
    if sprite is not None:
        return move(scene, sprite, retimed(scene.sprites[_known(scene, sprite)].poses, times))

    def lit(light: tuple[float, ...] | None) -> tuple[float, ...] | None:
        return None if light is None else tuple(map(float, np.interp(times, range(scene.frames), light)))

    sprites = tuple(replace(s, poses=retimed(s.poses, times), light=lit(s.light)) for s in scene.sprites)
    camera = retimed(scene.camera, times)
    return replace(scene, frames=len(times), sprites=sprites, camera=camera, light=lit(scene.light))


def move(scene: Scene, sprite: int, poses: Sequence[Pose]) -> Scene:
    """The scene with one sprite on another path; all else stays. Raises as `retime`."""
    moved = replace(scene.sprites[_known(scene, sprite)], poses=tuple(poses))
    return replace(scene, sprites=(*scene.sprites[:sprite], moved, *scene.sprites[sprite + 1 :]))


def film(scene: Scene, camera: Sequence[Pose]) -> Scene:
    """The scene under another camera. Raises ConfigError E241 where its poses are not one for each frame."""
    return replace(scene, camera=tuple(camera))


def crop(scene: Scene, windows: Sequence[Pose]) -> Scene:
    """The clip as seen through a window that fills the frame, one for each frame.

    x, y: pixels from the middle of the frame to the window's; angle: its turn; scale: its size as a share of the
    frame's. The window may reach beyond the frame: the world goes on there. Raises ConfigError E246 where there are
    not as many windows as frames.
    """
    _fits(len(windows) == scene.frames, f"there are {len(windows)} windows", f"Give {scene.frames}, one a frame.")
    camera = []
    for view, window in zip(scene.camera, windows, strict=True):
        cos, sin, dx, dy = math.cos(window.angle), math.sin(window.angle), view.x - window.x, view.y - window.y
        x, y = (cos * dx + sin * dy) / window.scale, (cos * dy - sin * dx) / window.scale
        camera.append(Pose(x, y, view.angle - window.angle, view.scale / window.scale))
    return film(scene, camera)


def enter(scene: Scene, sprite: int, first: int, settled: int, angle: float) -> Scene:
    """The sprite comes from outside: on no frame before `first`, and from frame `settled` on where it was to be.

    angle: the side it comes from, radians clockwise from the right of the screen. Raises ConfigError E242 for a sprite
    that does not exist, E246 unless 1 <= first <= settled.
    """
    body = scene.sprites[_known(scene, sprite)]
    _fits(1 <= first <= settled, f"no sprite enters at {first} to be there at {settled}", "Take 1 or later, in order.")
    way, views = np.array([math.cos(angle), math.sin(angle)]), _views(scene)
    absent = range(min(first, scene.frames))
    far = max(_way_out(scene, motion.compose(views[t], motion.matrix(body.poses[t])), body, way) for t in absent)
    poses = []
    for t, pose in enumerate(body.poses):
        dx, dy = np.linalg.solve(views[t][:, :2], way * far * _awaited(t, first, settled))
        poses.append(pose._replace(x=float(pose.x + dx), y=float(pose.y + dy)))
    return move(scene, sprite, poses)


def emerge(scene: Scene, sprite: int, front: int, first: int, settled: int) -> Scene:
    """The sprite comes from behind another: on no frame before `first`, and from `settled` on where it was to be.

    Raises ConfigError E242 for a sprite that does not exist, E246 unless 1 <= first <= settled and unless `front` is
    nearer and large enough to hide it.
    """
    body, screen = scene.sprites[_known(scene, sprite)], scene.sprites[_known(scene, front)]
    _fits(1 <= first <= settled, f"no sprite enters at {first} to be there at {settled}", "Take 1 or later, in order.")
    shares = [_awaited(t, first, settled) for t in range(scene.frames)]
    poses = [
        own._replace(x=own.x + w * (hidden.x - own.x), y=own.y + w * (hidden.y - own.y))
        for own, hidden, w in zip(body.poses, screen.poses, shares, strict=True)
    ]
    nearer = (screen.order, front) > (body.order, sprite)
    covered = all(_covers(scene, t, front, sprite, poses[t]) for t in range(min(first, scene.frames)))
    _fits(nearer and covered, f"sprite {front} does not hide sprite {sprite}", "Take a larger one of a higher order.")
    return move(scene, sprite, poses)


def _way_out(scene: Scene, pose: motion.Matrix, body: Sprite, way: NDArray) -> float:
    """How many pixels along a direction a sprite must go to be out of the frame, soft edge included."""
    x0, y0, x1, y1 = shapes.bounds(body.shape, body.radius)
    corners = motion.apply(pose, np.array([[x0, y0], [x1, y0], [x0, y1], [x1, y1]]))
    # It is out as soon as it is past one of the four sides.
    sides = []
    for n, size in enumerate((scene.width, scene.height)):
        gap = size - 0.5 - corners[:, n].min() if way[n] > 0 else corners[:, n].max() + 0.5
        if abs(way[n]) > 1e-9:
            sides.append((gap + EDGE) / abs(way[n]))
    return max(0.0, float(min(sides)))


def _awaited(t: int, first: int, settled: int) -> float:
    """How far a late sprite is from its path, 1..0: all the way before `first`, and with a soft landing."""
    u = min(max((t - (first - 1)) / (settled - (first - 1)), 0.0), 1.0)
    return 1 - math.sin(math.pi / 2 * u)


def _covers(scene: Scene, t: int, front: int, sprite: int, pose: Pose) -> bool:
    """Whether one sprite hides all of another, soft edges included, that has that pose in frame `t`."""
    body, screen = scene.sprites[sprite], scene.sprites[front]
    camera = scene.camera[t].scale
    x0, y0, x1, y1 = shapes.bounds(body.shape, body.radius)
    x, y = np.meshgrid(np.linspace(x0, x1, 41), np.linspace(y0, y1, 41))
    points = np.stack([x, y], -1)
    points = points[shapes.distance(body.shape, body.radius, points) <= 0]
    place, seen = motion.matrix(pose), motion.matrix(screen.poses[t])
    below = motion.apply(motion.compose(motion.invert(seen), place), points)
    depth = shapes.distance(screen.shape, screen.radius, below) * motion.magnification(seen) * camera
    return bool(depth.max() <= -EDGE)


def _views(scene: Scene) -> list[motion.Matrix]:
    return [motion.about(view, (scene.width - 1) / 2, (scene.height - 1) / 2) for view in scene.camera]


def _known(scene: Scene, sprite: int) -> int:
    count = len(scene.sprites)
    if not 0 <= sprite < count:
        raise ConfigError("E242", f"The scene has no sprite {sprite}.", f"It has {count}, counted from 0.")
    return sprite


def _fits(holds: bool, found: str, step: str) -> None:
    if not holds:
        raise ConfigError("E246", f"The motion program does not fit: {found}.", step)
