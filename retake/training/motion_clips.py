"""What MoAlign learns from: clips as their latents, the features that a frozen video encoder has of them, and how they
move.

Made once, shard by shard; both stages read the same. The first frame is left out of features and flow: the causal
autoencoder codes it alone. Tubes of two frames are the unit of time then, and flow goes from the first frame of one
tube to that of the next.

Source: MoAlign (Bhowmik et al., ICLR 2026, appendix A.3), whose flow is RAFT's; clips of the sprite world have the true
one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from retake.machine.disk import atomic_path
from retake.synthetic import clips, walls
from retake.synthetic.world import World
from retake.training.fours import Encode
from retake.training.shards import missing

SHARD = 250
SEED = 70_000_000  # of the first clip
LIMITS = clips.Limits(frames=17)
WALLED = 3  # one clip of so many
TUBE = 2
SCALE = 19.2  # of flow: a frame's width is so many units (10 pixels of a frame 192 wide are one)
FINER = 2  # pixels a cell of the flow that is learnt

Features = Callable[[NDArray[np.uint8]], Tensor]
"""Clips uint8 [N, F, H, W, 3] to features [N, F / 2, h, w, D]."""


class Study(NamedTuple):
    """A clip, or with a first axis more a batch of them: latents float16 [f, C, h, w]; features float16 [T, h', w', D];
    flow float16 [T - 1, 2, H, W], (dx, dy) in units of SCALE; seen bool [T - 1, H, W]: what the next tube shows,
    too."""

    latents: Tensor
    features: Tensor
    flow: Tensor
    seen: Tensor


class Clips:
    """Many of them, in files that are read as clips are asked for: memory does not grow with their number."""

    def __init__(self, files: Iterable[tuple[Path, Sequence[str]]]) -> None:
        """files: each with the captions of its clips. Raises FileNotFoundError where one is missing."""
        self._files, self._at = [], []
        self.captions: list[str] = []
        for path, captions in files:
            self._at += [(len(self._files), row) for row in range(len(captions))]
            self._files.append(safe_open(path, "pt"))
            self.captions += captions

    def __len__(self) -> int:
        return len(self.captions)

    def take(self, picked: Iterable[int]) -> Study:
        """The clips of some numbers."""
        places = [self._at[n] for n in picked]
        return Study(*(torch.stack([self._read(name, *place) for place in places]) for name in Study._fields))

    def _read(self, name: str, file: int, row: int) -> Tensor:
        return self._files[file].get_slice(name)[row]

    @property
    def width(self) -> int:
        """Channels of the features."""
        return self._files[0].get_slice("features").get_shape()[-1]


def drawn(seed: int) -> clips.Drawn:
    """The sprite clip of a seed; in every third one the sprite meets elastic walls."""
    return (walls if seed % WALLED == 0 else clips).draw(seed, LIMITS)


def one(seed: int, encode: Encode, features: Features) -> Study:
    """What is learnt from the clip of a seed."""
    world = World(drawn(seed).scene)
    frames = np.stack([world.frame(t) for t in range(world.frames)])
    steps = [(t, t + TUBE) for t in range(1, world.frames - TUBE, TUBE)]
    flow = torch.from_numpy(np.stack([world.flow(*step) for step in steps])).movedim(-1, 1)
    seen = torch.from_numpy(np.stack([~world.occlusion(*step) for step in steps]))
    small, shown = pooled(flow * SCALE / world.width, seen, FINER)
    with torch.inference_mode():
        coded, read = encode(frames[None])[0].half().cpu(), features(frames[None, 1:])[0].half().cpu()
    return Study(coded, read, small.half(), shown)


def pooled(flow: Tensor, seen: Tensor, by: int) -> tuple[Tensor, Tensor]:
    """Flow [N, 2, H, W] on cells of so many pixels a side, the mean of what is seen [N, H, W] in each; and the cells in
    which more than half is."""
    share = F.avg_pool2d(seen.float()[:, None], by)
    mean = F.avg_pool2d(flow * seen[:, None], by) / share.clamp(min=1e-6)
    return mean, share[:, 0] > 0.5


def shards(folder: Path, count: int) -> list[Path]:
    return [folder / f"clips-{first:06d}.safetensors" for first in range(0, count, SHARD)]


def render(
    folder: Path,
    count: int,
    encode: Encode,
    features: Features,
    until: float = math.inf,
    share: tuple[int, int] = (0, 1),
    seed: int = SEED,
) -> bool:
    """Make `count` sprite clips shard by shard; those that are there are kept. Whether all are. until, share: as in
    shards.missing. seed: of the first clip."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = shards(folder, count)
    for path, numbers in missing(paths, count, SHARD, until, share):
        seeds = [seed + n for n in numbers]
        write(path, [one(n, encode, features) for n in seeds], [drawn(n).caption for n in seeds])
    return all(path.exists() for path in paths)


def write(path: Path, some: Sequence[Study], captions: Sequence[str]) -> None:
    """Write a shard."""
    with atomic_path(path) as part:
        tensors = {name: torch.stack([getattr(one, name) for one in some]).contiguous() for name in Study._fields}
        save_file(tensors, part, {"captions": json.dumps(list(captions))})


def read(paths: Iterable[Path], others: Iterable[tuple[Path, Sequence[str]]] = ()) -> Clips:
    """The clips of some shards, and of other files, each with its captions. Raises FileNotFoundError where one is
    missing."""

    def captions(path: Path) -> list[str]:
        with safe_open(path, "pt") as file:
            return json.loads(file.metadata()["captions"])

    return Clips([*((path, captions(path)) for path in paths), *others])
