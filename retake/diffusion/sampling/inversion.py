"""From a clip's latents up to noise, so that sampling comes back: DDIM inversion, made exact by fixed-point iteration.

The level above z, at timestep t', is the z' whose denoising step is z. That step reads the network at z', which is not
known yet. Plain DDIM inversion (Dhariwal & Nichol 2021, app. F) asks the network about z instead, and errs by how much
its answer changes in between; asking again about the z' that came out, a few times, removes the error (Pan et al. 2023,
AIDI, sec. 3.2; Garibi et al. 2024, ReNoise, alg. 1).

With the network's answer held fixed the step is linear, and solved for z'. What is held is what the network says
itself, noise or velocity. For velocity the solution exists at every level, also where a schedule with zero terminal SNR
leaves nothing of the clip (alpha = 0); a noise prediction cannot be sampled from there at all (E277).

Every level is rounded as it is stored, to float16, before the next one is made: what has been stored is all that an
interrupted inversion needs, and sampling from any stored level passes through the stored ones below it. Denoising makes
small errors larger, most where a clip is unlike what the network has learnt; where rounding alone is too much, levels
can be kept in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from retake.diffusion.backbone import Backbone, Condition
from retake.diffusion.sampling.ddim import predicted
from retake.diffusion.sampling.windows import Latents, Windows, gathered, swept
from retake.diffusion.schedule import Schedule

New = Callable[[torch.dtype], Latents]


class Level(NamedTuple):
    """One level of an inversion: its latents [F, C, h, w] as stored, how often the network saw each window on the way
    to it, and by how much the last refinement still moved them (largest root mean square of a frame; None without)."""

    number: int
    latents: Latents
    evaluations: int
    residual: float | None


@torch.no_grad()
def invert(
    backbone: Backbone,
    z: Latents,
    condition: Condition,
    *,
    steps: int,
    first: int = 0,
    iterations: int = 10,
    tolerance: float = 1e-3,
    stored: torch.dtype = torch.float16,
    windows: Windows | None = None,
    batch: int = 1,
    new: New | None = None,
) -> Iterator[Level]:
    """Levels first + 1, ..., steps above latents z [F, C, h, w] of level `first`, as sampling without guidance
    (guidance 1) and with the same steps, windows and condition passes them on its way down.

    iterations: refinements of each level after plain DDIM inversion, at most; 0 leaves it plain. They end once asking
    again moves the level by no more than `tolerance` (root mean square of a frame; latents have about unit variance).
    stored: what levels are rounded to.
    new: makes latents for a whole clip, in memory by default: one in float32, and every level, which the caller keeps
    or not. Only the last one is read again.

    Raises ConfigError E275 for steps that the schedule does not have.
    """
    count, schedule = z.shape[0], backbone.schedule
    windows = windows or Windows(count, count)
    make = new or (lambda dtype: torch.empty(tuple(z.shape), dtype=dtype))
    guess, below = make(torch.float32), z
    for number, (t, to) in enumerate(reversed(schedule.step_pairs(steps)), 1):
        if number <= first:
            continue

        def rise(spans: Sequence[range], asked: Latents, z: Latents = below, t: float = t, to: float = to) -> Tensor:
            x0, eps = predicted(backbone, asked, spans, t, condition)
            return inverse_ddim_step(schedule, gathered(z, spans, backbone.device), x0, eps, t, to)

        asked, moved, evaluations = below, 0.0, 0
        while evaluations <= iterations:
            moved = 0.0
            for frames, made in swept(windows, batch, partial(rise, asked=asked)):
                span = slice(frames.start, frames.stop)
                if iterations:  # nobody asks how far plain inversion moved; on a GPU it would wait for the answer
                    change = made - asked[span].to(made.device, torch.float32)
                    moved = max(moved, float(change.square().mean((1, 2, 3)).max().sqrt()))
                guess[span] = made  # no later window reads these frames
            asked, evaluations = guess, evaluations + 1
            if moved <= tolerance:
                break
        level = make(stored)
        for frames in blocks(count):
            level[frames.start : frames.stop] = guess[frames.start : frames.stop].to(stored)
        below = level
        yield Level(number, level, evaluations, moved if evaluations > 1 else None)


def inverse_ddim_step(schedule: Schedule, z: Tensor, x0: Tensor, eps: Tensor, t: float, to: float) -> Tensor:
    """z' at t whose denoising step to `to` is z, where the network answers about z' what it said of (x0, eps) at t."""
    if schedule.prediction == "epsilon":
        return schedule.step((z - schedule.sigma(to) * eps) / schedule.alpha(to), eps, to, t)
    times = schedule.alpha(to), schedule.sigma(to), schedule.alpha(t), schedule.sigma(t)
    alpha, sigma, above, noise = (float(value) for value in times)
    # x0 = above z' - noise v and eps = above v + noise z' in the step alpha x0 + sigma eps = z: a rotation by an angle
    # whose cosine stays near 1. And v = above eps - noise x0 (Salimans & Ho 2022, app. D).
    sine, cosine = sigma * above - alpha * noise, alpha * above + sigma * noise
    return (z / cosine).add_(eps, alpha=-sine * above / cosine).add_(x0, alpha=sine * noise / cosine)


def blocks(count: int, length: int = 16) -> Iterator[range]:
    """Ranges of frames, one after the other."""
    return (range(at, min(at + length, count)) for at in range(0, count, length))
