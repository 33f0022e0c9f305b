"""Captioned clips of one sprite, drawn at random: what the embedded models are trained on.

A sprite heads where it moves, as animals and vehicles do: its nose points along its path, so that a single frame says
something of the motion to come. Pairs in which motion and appearance are independent are those of pairs.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retake.synthetic import grammar
from retake.synthetic.grammar import Subject
from retake.synthetic.motion import Pose
from retake.synthetic.scene import Scene, Sprite
from retake.synthetic.world import World

VERSION = 1  # the pixels of a clip are part of cache keys: raise it when they change
Image = NDArray[np.uint8]

TRAVEL = {"slowly": (0.16, 0.24), "": (0.27, 0.38), "quickly": (0.42, 0.56)}
"""How far the sprite comes from the first frame to the last, in widths of the frame."""
RADIUS = (0.15, 0.2)
"""Of the sprite, in widths of the frame."""
GREY = 128  # behind a portrait
RESTING = 0.06  # share of clips in which it does not move
PANNING = 0.25  # share of clips in which the camera pans
KINDS = {"sky": 0.85, "terrain": 0.15}  # of grounds.GROUNDS: broad bands leave a small network's eyes to the sprite
SAID = {"texture": 0.7, "direction": 0.9, "ground": 0.5}  # shares of captions that say it


@dataclass(frozen=True)
class Limits:
    """What clips are drawn of: square frames of `size` pixels and `frames` frames at `fps`."""

    size: int = 64
    frames: int = 16
    fps: float = 8.0


class Drawn(NamedTuple):
    """A clip: its scene, everything true of its sprite, and the caption, which may leave some of it out."""

    scene: Scene
    subject: Subject
    caption: str


def draw(seed: int, limits: Limits = Limits()) -> Drawn:
    """The clip of that seed, the same on every machine."""
    rng = np.random.default_rng([seed, 11])
    resting = rng.uniform() < RESTING
    subject = Subject(
        shape=str(rng.choice(grammar.SHAPES)),
        hue=str(rng.choice(list(grammar.HUES))),
        texture=str(rng.choice(grammar.TEXTURES)),
        direction="resting" if resting else str(rng.choice(grammar.DIRECTIONS)),
        speed="" if resting else str(rng.choice(grammar.SPEEDS)),
        ground=str(rng.choice(list(grammar.GROUNDS))),
    )
    said = {name: rng.uniform() < share for name, share in SAID.items()}
    caption = replace(
        subject,
        texture=subject.texture if said["texture"] else "",
        direction=subject.direction if said["direction"] else None,
        ground=subject.ground if said["ground"] else "",
    )
    return Drawn(scene_of(subject, seed, rng, limits), subject, str(caption))


def scene_of(subject: Subject, seed: int, rng: np.random.Generator, limits: Limits) -> Scene:
    """A scene in which the subject does what it says, the rest drawn from `rng`. The path passes near the middle of
    the frame at the middle of the clip."""
    size, frames = limits.size, limits.frames
    moving = subject.direction in grammar.DIRECTIONS
    angle = grammar.heading(str(subject.direction)) if moving else rng.uniform(0, 2 * math.pi)
    travel = rng.uniform(*TRAVEL[subject.speed]) * size if moving else 0.0
    along, aside = rng.uniform(-0.06, 0.06) * size, rng.uniform(-0.12, 0.12) * size
    cos, sin = math.cos(angle), math.sin(angle)
    middle = (size - 1) / 2
    pan = rng.uniform(-0.1, 0.1, 2) * size if rng.uniform() < PANNING else np.zeros(2)
    poses, camera = [], []
    for t in range(frames):
        u = t / max(frames - 1, 1) - 0.5
        x, y = middle + (along + u * travel) * cos - aside * sin, middle + (along + u * travel) * sin + aside * cos
        shift = pan * u
        camera.append(Pose(float(shift[0]), float(shift[1])))
        # Captions speak of the screen: what the camera adds is taken off.
        poses.append(Pose(x - shift[0], y - shift[1], angle))
    hue = grammar.HUES[subject.hue] + rng.uniform(-0.02, 0.02)
    sprite = Sprite(
        subject.shape,
        float(rng.uniform(*RADIUS) * size),
        hue % 1,
        seed,
        1,
        tuple(poses),
        texture=subject.texture or "plain",
        nose=1.0,
    )
    palette = grammar.GROUNDS[subject.ground or "sand"]
    ground = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    return Scene(size, size, frames, limits.fps, (sprite,), tuple(camera), palette, seed, ground=ground)


def joined(one: Scene, other: Scene, apart: tuple[float, float], scale: float = 0.75) -> Scene:
    """Two scenes of one sprite each as one of both, over the first one's ground: the first sprite moved by `apart`
    pixels (x, y), the second as far the other way, so that they meet seldom; both drawn `scale` times as large."""
    sprites = []
    for scene, way in ((one, 1), (other, -1)):
        sprite = scene.sprites[0]
        poses = tuple(
            # Where it is on the screen, less what the first scene's camera adds.
            pose._replace(x=pose.x + own.x - ours.x + way * apart[0], y=pose.y + own.y - ours.y + way * apart[1])
            for pose, own, ours in zip(sprite.poses, scene.camera, one.camera, strict=True)
        )
        sprites.append(replace(sprite, poses=poses, radius=scale * sprite.radius, order=len(sprites) + 1))
    return replace(one, sprites=tuple(sprites))


def portrait(scene: Scene, sprite: int = 0, size: int = 64) -> Image:
    """One sprite alone, uint8 [size, size, 3]: upright as it faces right, on grey. A reference image."""
    shown, _ = _alone(scene, sprite, size)
    return shown


def cutout(scene: Scene, sprite: int = 0, size: int = 64) -> Image:
    """The portrait with alpha in place of its grey, uint8 [size, size, 4]."""
    shown, inside = _alone(scene, sprite, size)
    share = inside[..., None].astype(np.float64)
    colour = (shown - GREY * (1 - share)) / np.maximum(share, 1 / 255)
    return np.concatenate([np.rint(colour).clip(0, 255), np.rint(255 * share)], -1).astype(np.uint8)


def _alone(scene: Scene, sprite: int, size: int) -> tuple[Image, NDArray[np.float64]]:
    """The portrait, and how much of each pixel the sprite covers, 0..1."""
    import cv2

    body = scene.sprites[sprite]
    twice = 2 * size
    pose = Pose(size - 0.5, size - 0.5, 0.0, 0.78 * size / body.radius)
    alone = replace(body, poses=(pose,), light=None)
    world = World(Scene(twice, twice, 1, 1.0, (alone,), (Pose(),), scene.palette, 0))
    mask = world.mask(0, 0)
    shown = np.where(mask[..., None], world.frame(0), np.uint8(GREY))
    small, covered = (cv2.resize(a, (size, size), interpolation=cv2.INTER_AREA) for a in (shown, mask.astype(float)))
    return np.asarray(small, np.uint8), np.asarray(covered, np.float64)


def render(scene: Scene) -> Image:
    """Every frame, uint8 [F, H, W, 3]."""
    world = World(scene)
    return np.stack([world.frame(t) for t in range(scene.frames)])
