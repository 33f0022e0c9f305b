"""Captioned clips between elastic walls: one sprite at a constant speed, reflected where it meets an edge of the frame.
Nothing else ever changes how it moves, so that what does so away from the edges is a model's own."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np

from retake.synthetic import grammar
from retake.synthetic.clips import Drawn, Limits, scene_of
from retake.synthetic.grammar import Subject
from retake.synthetic.motion import Pose, reflected

TRAVEL = (0.5, 1.0)
"""How far the sprite comes along its path from the first frame to the last, in widths of the frame."""


def draw(seed: int, limits: Limits) -> Drawn:
    """The clip of that seed, the same on every machine. The camera rests; the caption says nothing of the motion."""
    rng = np.random.default_rng([seed, 27])
    subject = Subject(
        shape=str(rng.choice(grammar.SHAPES)),
        hue=str(rng.choice(list(grammar.HUES))),
        texture=str(rng.choice(grammar.TEXTURES)),
        ground=str(rng.choice(list(grammar.GROUNDS))),
    )
    scene = scene_of(subject, seed, rng, limits)
    (sprite,) = scene.sprites
    low, high = sprite.radius, limits.size - 1 - sprite.radius
    angle, start = rng.uniform(0, 2 * math.pi), rng.uniform(low, high, 2)
    pace = rng.uniform(*TRAVEL) * limits.size / max(limits.frames - 1, 1)
    places = [
        tuple(
            reflected(at, pace * t * way, low, high)
            for at, way in zip(start, (math.cos(angle), math.sin(angle)), strict=True)
        )
        for t in range(limits.frames + 1)
    ]
    headings = [math.atan2(b[1] - a[1], b[0] - a[0]) for a, b in pairwise(places)]
    poses = tuple(Pose(x, y, turn) for (x, y), turn in zip(places, headings, strict=False))
    rests = (Pose(),) * limits.frames
    return Drawn(replace(scene, sprites=(replace(sprite, poses=poses),), camera=rests), subject, str(subject))
