"""Clips in which one sprite passes, the same in each but for where it goes and heads: in the world that the small
models know, sprites head where they go. They say which channels of a network that knows sprites alone hold motion, as
pictures that pan do of others (panning.py); unlike these, a single frame tells something of the way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from retake.synthetic import grammar
from retake.synthetic.clips import Limits, scene_of
from retake.synthetic.grammar import Subject
from retake.synthetic.motion import Pose
from retake.synthetic.panning import WAYS
from retake.synthetic.world import World

Image = NDArray[np.uint8]


def passing(way: str, seed: int, size: int, frames: int, step: float) -> tuple[Image, NDArray[np.bool_]]:
    """A clip uint8 [frames, size, size, 3] and its sprite's masks bool [frames, size, size]. The sprite goes `step`
    pixels a frame, through the middle of the picture at the middle of the clip; `way` is a name of panning.WAYS. Clips
    of one seed show the same sprite over the same ground, seen by a camera that rests."""
    x, y = WAYS[way]
    rng = np.random.default_rng([seed, 25])
    subject = Subject(
        shape=grammar.SHAPES[seed % len(grammar.SHAPES)],
        hue=list(grammar.HUES)[seed % len(grammar.HUES)],
        texture="plain",
        direction=way if way in grammar.DIRECTIONS else "right",
        ground=str(rng.choice(list(grammar.GROUNDS))),
    )
    drawn = scene_of(subject, seed, np.random.default_rng([seed, 26]), Limits(size, frames))
    sprite, middle = drawn.sprites[0], (size - 1) / 2
    offs = [step * (t - (frames - 1) / 2) for t in range(frames)]
    poses = tuple(
        pose._replace(x=middle + off * x, y=middle + off * y) for pose, off in zip(sprite.poses, offs, strict=True)
    )
    rests = (Pose(),) * frames
    world = World(replace(drawn, sprites=(replace(sprite, poses=poses),), camera=rests, ground="sky"))
    return (
        np.stack([world.frame(t) for t in range(frames)]),
        np.stack([world.mask(t, 0) for t in range(frames)]),
    )
