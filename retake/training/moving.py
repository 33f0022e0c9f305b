"""Clips for the video autoencoder: of the sprite world, and natural stills that move.

The pool is one file of bytes, rendered ahead by as many processes as are given it and read as it is: a training
draws windows of it that are turned, mirrored and recoloured by chance.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from retake.machine.disk import atomic_path
from retake.synthetic import clips
from retake.synthetic.grounds import GROUNDS
from retake.synthetic.stills import travelling
from retake.synthetic.world import World

Image = NDArray[np.uint8]
NATURAL = 0.45  # share of the pool


def pool(path: Path, seed: int, count: int, frames: int, size: int) -> Image:
    """`count` clips uint8 [count, frames, size, size, 3], rendered into `path` unless they are there. The same
    arguments give the same bytes."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as part:
            made = open_memmap(part, "w+", np.uint8, (count, frames, size, size, 3))
            for n in range(count):
                made[n] = one(np.random.default_rng([seed, n, 18]), frames, size)
            made.flush()
    return np.load(path, mmap_mode="r")


def one(rng: np.random.Generator, frames: int, size: int) -> Image:
    """A clip of the pool: uint8 [frames, size, size, 3]."""
    if rng.uniform() < NATURAL:
        return travelling(rng, frames, size)
    scene = clips.draw(int(rng.integers(1 << 31)), clips.Limits(size, frames)).scene
    scene = replace(scene, ground=str(rng.choice(list(GROUNDS))))
    world = World(scene)
    return np.stack([world.frame(t) for t in range(frames)])


def window(rng: np.random.Generator, clip: Image, frames: int) -> Image:
    """`frames` frames of a clip: forwards or backwards, mirrored, turned by quarters, colours exchanged, by chance."""
    first = int(rng.integers(len(clip) - frames + 1))
    some = clip[first : first + frames]
    if rng.uniform() < 0.5:
        some = some[::-1]
    some = np.rot90(some, int(rng.integers(4)), (1, 2))
    if rng.uniform() < 0.5:
        some = some[:, :, ::-1]
    return some[..., rng.permutation(3)] if rng.uniform() < 0.3 else some
