"""Counterfactual pairs: two clips of the same sprites over the same ground that differ in their motion program alone.

A model that edits motion sees the source and is to make the target. The families of programs:

    path       one sprite goes another way              time    one sprite, or all, at another speed, later, backward
    camera     it pans, zooms or rolls otherwise        late    a sprite that frame 0 lacks comes otherwise
    identical  nothing differs

Half the pairs of a family that allows it begin and end alike; in the others a window may slide over either clip. What a
sprite looks like and where its front points say nothing of its motion here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retake.errors import ConfigError, did_you_mean
from retake.synthetic import programs
from retake.synthetic.grounds import GROUNDS
from retake.synthetic.motion import Pose
from retake.synthetic.scene import Scene, Sprite
from retake.synthetic.shapes import SHAPES
from retake.synthetic.texture import PALETTES, SKINS
from retake.synthetic.world import BACKGROUND, World

VERSION = 1
Rng = np.random.Generator
Tracks = tuple[NDArray[np.float32], NDArray[np.bool_]]

FAMILIES = {"path": 0.3, "camera": 0.2, "time": 0.2, "late": 0.1, "identical": 0.2}
"""Shares of the families when none is asked for."""
ALIKE = 0.5  # share of pairs that begin and end alike
CROPPED = 0.4  # share of the other pairs' clips that a window slides over: a fifth of all, as in the literature
PACES = ((1, 3), (3, 1), (1, 4, 1), (4, 1, 4), (0, 1), (1, 0))  # speeds of equal parts of the clip
VIEWS = 4  # frames that points are drawn from


@dataclass(frozen=True, eq=False)
class Pair:
    """Two scenes and points that both have.

    edited: the sprites whose program differs, and `BACKGROUND` (-1) where the camera's does. alike: first and last
    frames are the same. surfaces: int16 [P], what each point lies on; body: float64 [P, 2], where, in its coordinates.
    """

    family: str
    target: Scene
    source: Scene
    alike: bool
    surfaces: NDArray[np.int16]
    body: NDArray[np.float64]

    @property
    def edited(self) -> tuple[int, ...]:
        apart = zip(self.target.sprites, self.source.sprites, strict=True)
        moved = tuple(k for k, (a, b) in enumerate(apart) if a.poses != b.poses)
        return moved if self.target.camera == self.source.camera else (BACKGROUND, *moved)

    def tracks(self) -> tuple[Tracks, Tracks]:
        """Where the points are in the target and in the source: positions float32 [F, P, 2] (x, y) in pixels and
        visibility bool [F, P], each. Exact."""
        target, source = World(self.target), World(self.source)
        return target.follow(self.surfaces, self.body), source.follow(self.surfaces, self.body)


def pair(
    seed: int,
    family: str | None = None,
    *,
    width: int = 64,
    height: int = 64,
    frames: int = 16,
    fps: float = 8.0,
    points: int = 64,
) -> Pair:
    """The pair of that seed. family: a name of `FAMILIES`, drawn by its shares if None. There is no sensor noise, which
    would be the same in both clips.

    Raises ConfigError E240 for an unknown family, E241 for numbers that make no clip (16x16 pixels and 4 frames at
    least) and a negative seed or number of points.
    """
    if seed < 0:
        raise ConfigError("E241", f"No pair has the seed {seed}.", "Give 0 or more.")
    rng = np.random.default_rng([seed, 7])
    drawn = str(rng.choice(list(FAMILIES), p=list(FAMILIES.values())))
    family = family or drawn
    whole = stage(rng, width, height, 2 * frames - 1, fps, hiding=family == "late")
    return counterfactual(rng, whole, family, points)


def counterfactual(rng: Rng, whole: Scene, family: str, points: int = 64) -> Pair:
    """A pair of that family made from a scene of 2 F - 1 frames, in which sprite 0 should move; F is 4 at least.

    Each clip is F frames of it, changed. Takes from `rng` what it needs. Raises ConfigError E240 for an unknown family,
    E241 for a scene without sprites or of fewer than 7 frames, and a negative number of points.
    """
    if family not in MAKERS:
        raise ConfigError("E240", f"There is no family of pairs '{family}'.", did_you_mean(family, list(MAKERS)))
    if whole.frames < 7 or not whole.sprites or points < 0:
        found = f"No pair comes from {whole.frames} frames and {len(whole.sprites)} sprites, with {points} points."
        raise ConfigError("E241", found, "Give 7 frames or more (a clip of 4), a sprite, and 0 points or more.")
    alike = family == "identical" or bool(rng.random() < ALIKE)
    clips = list(MAKERS[family](rng, whole, alike))
    if not alike:
        clips = [programs.crop(c, _window(rng, c)) if rng.random() < CROPPED else c for c in clips]
    if rng.random() < 0.5:
        clips.reverse()
    return Pair(family, clips[0], clips[1], alike, *_points(rng, clips, points))


def stage(
    rng: Rng, width: int, height: int, frames: int, fps: float, sprites: int | None = None, hiding: bool = False
) -> Scene:
    """A scene of 1 to 3 sprites, told apart by hue, on smooth paths over any ground, under a slow camera or none.

    hiding: there are two at least, and the last, nearest, can hide the first.
    """
    count = sprites or int(rng.integers(2 if hiding else 1, 4))
    size = min(width, height)
    hues = (rng.random() + np.arange(count) / count + rng.uniform(-0.06, 0.06, count)) % 1
    cast = []
    for k in range(count):
        radius = size * float(rng.uniform(0.1, 0.16))
        shape = str(rng.choice(SHAPES))
        if hiding and k in (0, count - 1):
            radius, shape = (0.09 * size, shape) if k == 0 else (0.21 * size, str(rng.choice(("disc", "box"))))
        poses = _path(rng, width, height, frames, rests=k > 0 and rng.random() < 0.2)
        texture, nose = str(rng.choice(list(SKINS))), float(rng.random() < 0.5)
        seed = int(rng.integers(1 << 31))
        cast.append(Sprite(shape, radius, float(hues[k]), seed, k + 1, poses, texture=texture, nose=nose))
    camera = (Pose(),) * frames
    if rng.random() < 0.5:
        camera = programs.tween(_look(rng, size, 0.5), _look(rng, size, 0.5), frames)
    palette, ground = str(rng.choice(list(PALETTES))), str(rng.choice(list(GROUNDS)))
    seed = int(rng.integers(1 << 31))
    return Scene(width, height, frames, fps, tuple(cast), camera, palette, seed, ground=ground)


def _path(rng: Rng, width: int, height: int, frames: int, rests: bool) -> programs.Poses:
    """A smooth curve through three or four places in the frame, with a steady turn and slow growth."""
    count = int(rng.integers(3, 5))
    places = np.empty((count, 2))
    for n in range(count):
        # The farthest of three from the last: what hardly moves is no motion to edit.
        tries = rng.uniform((0.15 * width, 0.15 * height), (0.85 * width, 0.85 * height), (3, 2))
        places[n] = tries[0] if n == 0 else tries[np.argmax(np.hypot(*(tries - places[n - 1]).T))]
    if rests:
        places[:] = places[0]
    # Catmull-Rom: the curve passes through every place, and goes straight on at its ends.
    knots = np.concatenate([[2 * places[0] - places[1]], places, [2 * places[-1] - places[-2]]])
    turn, spin = rng.uniform(0, 2 * math.pi), 0.0 if rests else rng.normal(0, 1.6)
    grow = rng.uniform(-0.15, 0.15, 2)
    u = np.arange(frames) / max(frames - 1, 1)
    n = np.minimum((u * (count - 1)).astype(int), count - 2)
    v = (u * (count - 1) - n)[:, None]
    a, b, c, d = (knots[n + i] for i in range(4))
    xy = 0.5 * (2 * b + v * (c - a) + v**2 * (2 * a - 5 * b + 4 * c - d) + v**3 * (3 * b - a - 3 * c + d))
    scale = np.exp(grow[0] + u * (grow[1] - grow[0]))
    return tuple(map(Pose, *xy.T.tolist(), (turn + u * spin).tolist(), scale.tolist()))


def _look(rng: Rng, size: int, strength: float) -> Pose:
    """A camera's pose: any of a pan, a zoom and a roll, at least one."""
    has = rng.random(3) < 0.5
    has[rng.integers(3)] = True
    x, y = _signed(rng, 0.06, 0.25, 2) * size * strength * has[0]
    zoom, roll = _signed(rng, 0.15, 0.4, 2) * strength * has[1:]
    return Pose(float(x), float(y), float(roll), math.exp(zoom))


def _signed(rng: Rng, low: float, high: float, count: int) -> NDArray[np.float64]:
    return rng.uniform(low, high, count) * rng.choice((-1, 1), count)


def _clip(rng: Rng, whole: Scene) -> tuple[Scene, programs.Times]:
    """F successive frames of a scene of 2 F - 1, and their numbers."""
    frames = (whole.frames + 1) // 2
    times = programs.shifted(frames, float(rng.integers(frames)))
    return programs.retime(whole, times), times


def _paths(rng: Rng, whole: Scene, alike: bool) -> tuple[Scene, Scene]:
    base, _ = _clip(rng, whole)
    k = int(rng.integers(len(base.sprites)))
    return base, programs.move(base, k, _elsewhere(rng, base, k, "both" if alike else _ends(rng)))


def _elsewhere(rng: Rng, scene: Scene, sprite: int, keep: str) -> programs.Poses:
    """A detour that stays in the frame as far as eight tries find one."""
    width, height, best, held = scene.width, scene.height, scene.sprites[sprite].poses, -1
    for _ in range(8):
        angle, far = rng.uniform(0, 2 * math.pi), rng.uniform(0.25, 0.6) * min(width, height)
        by = Pose(far * math.cos(angle), far * math.sin(angle), rng.normal(0, 1.0), math.exp(rng.uniform(-0.25, 0.25)))
        poses = programs.detour(scene.sprites[sprite].poses, by, keep)
        inside = sum(0.1 * width < p.x < 0.9 * width and 0.1 * height < p.y < 0.9 * height for p in poses)
        if inside > held:
            best, held = poses, inside
    return best


def _cameras(rng: Rng, whole: Scene, alike: bool) -> tuple[Scene, Scene]:
    base, _ = _clip(rng, whole)
    by, keep = _look(rng, min(base.width, base.height), 1.0), "both" if alike else _ends(rng)
    return base, programs.film(base, programs.detour(base.camera, by, keep))


def _times(rng: Rng, whole: Scene, alike: bool) -> tuple[Scene, Scene]:
    base, times = _clip(rng, whole)
    frames = base.frames
    alone = 0 if rng.random() < 0.5 else None
    kind = "pace" if alike else str(rng.choice(("pace", "shift", "backward", "halves")))
    pace = PACES[int(rng.integers(len(PACES)))]
    if kind == "halves":
        # Both begin at the middle of the whole, one goes back from there.
        back, times = programs.halves(whole.frames)
        base, other = programs.retime(whole, times), back
    elif kind == "backward":
        other = times[::-1]
    elif kind == "shift":
        room = np.array([-times[0], whole.frames - 1 - times[-1]])
        by = float(room[np.argmax(np.abs(room))]) * float(rng.uniform(0.4, 1))
        other = tuple(t + by for t in times)
    else:
        end = times[-1] if alike else float(times[0] + (frames - 1) * rng.uniform(0.4, 0.7))
        other = programs.paced(frames, pace, times[0], end)
    if alone is None:
        return base, programs.retime(whole, other)
    return base, programs.move(base, alone, programs.retimed(whole.sprites[alone].poses, other))


def _lates(rng: Rng, whole: Scene, alike: bool) -> tuple[Scene, Scene]:
    base, _ = _clip(rng, whole)
    other = base if alike else programs.move(base, 0, _elsewhere(rng, base, 0, "none"))
    # From two sides at least a right angle apart, or in one of the two from behind another.
    angle = rng.uniform(0, 2 * math.pi)
    across = angle + rng.uniform(0.5, 1.5) * math.pi
    return _late(rng, base, angle, False), _late(rng, other, across, rng.random() < 0.6)


def _late(rng: Rng, scene: Scene, angle: float, behind: bool) -> Scene:
    """Sprite 0 comes from outside, or from behind the nearest where that hides it."""
    first = int(rng.integers(2, max(3, scene.frames // 3)))
    settled = first + int(rng.integers(scene.frames // 4, scene.frames // 2))
    if behind:
        try:
            return programs.emerge(scene, 0, len(scene.sprites) - 1, first, settled)
        except ConfigError:
            pass  # it is too small under this camera, or is the sprite itself
    return programs.enter(scene, 0, first, settled, angle)


def _identical(rng: Rng, whole: Scene, alike: bool) -> tuple[Scene, Scene]:
    base, _ = _clip(rng, whole)
    return base, base


def _ends(rng: Rng) -> str:
    return str(rng.choice(("first", "last", "none")))


def _window(rng: Rng, scene: Scene) -> programs.Poses:
    """A window that slides, turns and changes size inside the frame."""
    ends = []
    while len(ends) < 2:
        scale, angle = 1 - 0.5 * rng.random() ** 2, math.pi / 4 * rng.uniform(-1, 1) * rng.random() ** 2
        cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
        frame = np.array([scene.width, scene.height])
        room = (frame - scale * np.array([[cos, sin], [sin, cos]]) @ frame) / 2
        if room.min() >= 0:
            x, y = rng.uniform(-room, room)
            ends.append(Pose(float(x), float(y), angle, scale))
    return programs.tween(ends[0], ends[1], scene.frames)


def _points(rng: Rng, clips: list[Scene], count: int) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Points on what is visible in some frame of either clip, as many on every surface as on the next."""
    surfaces, body = np.empty(count, np.int16), np.empty((count, 2))
    for n, share in enumerate(np.array_split(np.arange(count), VIEWS)):
        world = World(clips[n % 2])
        t = int(rng.integers(world.frames))
        top = world.surfaces(t)
        present = [np.argwhere(top == k)[:, ::-1] for k in np.unique(top)]
        xy = rng.uniform(-0.5, 0.5, (len(share), 2))
        for i in range(len(share)):
            xy[i] += rng.choice(present[i % len(present)])
        surfaces[share], body[share] = world.anchors(t, xy)
    order = rng.permutation(count)
    return surfaces[order], body[order]


MAKERS = {"path": _paths, "camera": _cameras, "time": _times, "late": _lates, "identical": _identical}
