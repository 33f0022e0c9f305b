"""Small clips of latents for the loops that work along a diagonal, and an edit of one."""

from __future__ import annotations

import torch

from helpers import small_diffusion as small
from retake.diffusion.sampling.ddim import forward
from retake.diffusion.sampling.fifo import Diagonal
from retake.diffusion.schedule import Schedule

FRAMES, CLIP, GRID = 8, 14, (4, 8, 8)
SCHEDULE = Schedule.from_config(small.SCHEDULE)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def editing(backbone, clip, steps=20, start=5, lookahead=4):
    """(diagonal, source) of an edit whose frames get their own noise."""
    source = forward(backbone.schedule, lambda frames: clip[frames.start : frames.stop], steps, seed=3)
    return Diagonal.of(backbone, steps, start, lookahead), source


def latents(frames) -> torch.Tensor:
    return torch.stack([one.z for one in frames])
