"""FIFO-Diffusion as published (Kim et al. 2024, https://arxiv.org/abs/2405.11473): its timesteps, and its
generation from noise. `retake.diffusion.sampling.fifo` runs both queues."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from retake.diffusion.backbone import Backbone
from retake.diffusion.sampling.ddim import Source
from retake.diffusion.sampling.fifo import Diagonal
from retake.diffusion.sampling.fifo_queue import Pairs, drawn
from retake.diffusion.schedule import END, Schedule, StepPair, undefined_x0
from retake.errors import ConfigError


def published(backbone: Backbone, partitions: int = 4, lookahead: int | None = None) -> Diagonal:
    """As many levels as `partitions` windows hold, and their own timesteps (`evenly`)."""
    window = backbone.length
    pairs = evenly(backbone.schedule, partitions * window)
    return Diagonal(tuple(pairs), window, window // 2 if lookahead is None else lookahead)


def loop_evaluations(diagonal: Diagonal, count: int) -> int:
    """Frames that the published loop asks the network about for `count` frames, guided ones counting twice.

    Every iteration runs all windows over a full queue: before the first frame those that are thrown away, and behind
    the last a tail of frames that enter and are never shown. One frame comes out an iteration, after as many as the
    queue is longer than the base clip."""
    iterations = count + diagonal.levels - diagonal.window
    windows = diagonal.levels // (diagonal.window - diagonal.lookahead)
    return 2 * iterations * windows * diagonal.window


def evenly(schedule: Schedule, levels: int) -> list[StepPair]:
    """(t, t of the next step) of the published queue, cleanest first: timesteps spread evenly over 0 .. T-1, rounded.

    The first goes from 0 to 0: it changes nothing, and what comes out is left with the noise of timestep 0. Raises
    ConfigError E275 unless 1 <= levels <= T, E277 where the noisiest has no x0 (`undefined_at_terminal`).
    """
    if not 1 <= levels <= schedule.length:
        raise ConfigError("E275", f"a queue of {levels} levels", f"This schedule takes 1 to {schedule.length}.")
    times = np.linspace(0, schedule.length - 1, levels).round().tolist()
    if schedule.undefined_at_terminal and times[-1] == schedule.length - 1:
        raise undefined_x0(times[-1])
    return list(zip(times, [0.0, *times[:-1]], strict=True))


def generated(schedule: Schedule, pairs: Pairs, base: Tensor, seed: int) -> Source:
    """What a generation draws on: base clip [f, C, h, w] for its first frames, at any level of `pairs`, and noise after
    it. Its first frame stands for those before it. Every frame has noise of its own, the same at all levels."""
    times = [pairs[0][1], *(t for t, _ in pairs)]

    def at(level: int, frames: range) -> Tensor:
        eps = drawn(seed, frames, base.shape[1:]).to(base.device, torch.float32)
        known = [row for row, number in enumerate(frames) if number < len(base)]
        clean = base[[max(0, frames[row]) for row in known]].float()
        found = eps.clone()
        found[known] = clean if times[level] == END else schedule.noised(clean, eps[known], times[level])
        return found

    return at
