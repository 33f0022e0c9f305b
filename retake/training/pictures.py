"""Still pictures for the autoencoder: frames of clips, portraits and pictures with the statistics of photographs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from retake.synthetic import clips
from retake.synthetic.grounds import GROUNDS, natural_image
from retake.synthetic.world import World

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Data:
    """Pictures that a part learns from: `count` of them, `size` pixels wide and high, rendered before training and
    drawn again and again, `batch` at a time."""

    count: int
    size: int
    batch: int
    seed: int


def pool(seed: int, count: int, size: int) -> Image:
    """`count` pictures uint8 [count, size, size, 3]: two in five frames of clips, one in twenty a portrait, the rest
    natural_image. The same arguments give the same bytes."""
    made = np.empty((count, size, size, 3), np.uint8)
    for n in range(count):
        rng = np.random.default_rng([seed, n, 12])
        kind = rng.uniform()
        if kind < 0.45:
            scene = clips.draw(int(rng.integers(1 << 31)), clips.Limits(size)).scene
            if kind < 0.4:
                scene = replace(scene, ground=str(rng.choice(list(GROUNDS))))
                made[n] = World(scene).frame(int(rng.integers(scene.frames)))
            else:
                made[n] = clips.portrait(scene, size=size)
        else:
            made[n] = natural_image(rng, size)
    return made


def varied(rng: np.random.Generator, images: Image) -> Image:
    """Pictures [N, S, S, 3] mirrored, turned by quarters, their colour channels in another order, each by chance."""
    out = np.empty_like(images)
    for n, image in enumerate(images):
        turned = np.rot90(image, int(rng.integers(4)))
        turned = turned[:, ::-1] if rng.uniform() < 0.5 else turned
        out[n] = turned[..., rng.permutation(3)] if rng.uniform() < 0.3 else turned
    return out
