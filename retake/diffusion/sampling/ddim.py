"""From noisy latents to clean ones: DDIM over the timesteps of a schedule, for clips of any length.

Levels count steps away from the clean clip: level 0 is the clip's latents, level `steps` the noisiest that the schedule
has. Sampling goes down from any level; inversion.py goes up over the very same pairs of timesteps.

Sources: DDIM (Song et al. 2021, eq. 12), classifier-free guidance (Ho & Salimans 2022, eq. 6), editing from a middle
level (SDEdit, Meng et al. 2022, alg. 1), the source put back outside a mask (RePaint, Lugmayr et al. 2022, eq. 8).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from retake.diffusion.backbone import Backbone
from retake.diffusion.sampling.windows import Conditions, Latents, Windows, conditions_of, gathered, swept
from retake.diffusion.schedule import END, Schedule

Source = Callable[[int, range], Tensor]
"""(level, frames) -> the source clip's latents at that level, [n, C, h, w]."""
Mask = Callable[[range], Tensor]
"""frames -> where they may change, [n, 1, h, w] in 0..1."""


def timesteps(schedule: Schedule, steps: int) -> list[float]:
    """The training timestep of every level: `END` at level 0, the noisiest at level `steps`."""
    return [END, *(t for t, _ in reversed(schedule.step_pairs(steps)))]


def noise(seed: int, frames: Sequence[int], shape: Sequence[int], stream: int = 0) -> Tensor:
    """Gaussian noise float32 [n, *shape] on the CPU, of one generator for each frame.

    A frame's noise depends on `seed`, `stream` and its number alone: it is bit-equal whatever the window, the batch,
    the device or the number of workers.
    """
    drawn = torch.empty((len(frames), *shape))
    for row, frame in zip(drawn, frames, strict=True):
        state = np.random.SeedSequence([seed, stream, frame]).generate_state(1, np.uint64)[0]
        row.normal_(generator=torch.Generator().manual_seed(int(state)))
    return drawn


def forward(schedule: Schedule, clean: Callable[[range], Tensor], steps: int, seed: int) -> Source:
    """The source at every level by adding noise, of each frame the same at all levels. Nothing is computed ahead.

    clean: frames -> the clip's latents [n, C, h, w]. Raises ConfigError E275 for steps that the schedule does not have.
    """
    times = timesteps(schedule, steps)

    def at(level: int, frames: range) -> Tensor:
        z = clean(frames).float()
        return schedule.noised(z, noise(seed, frames, z.shape[1:]).to(z.device), times[level]) if level else z

    return at


@torch.no_grad()
def sample(
    backbone: Backbone,
    z: Latents,
    condition: Conditions,
    *,
    steps: int,
    start: int | None = None,
    stop: int = 0,
    guidance: float = 1.0,
    windows: Windows | None = None,
    batch: int = 1,
    eta: float = 0.0,
    seed: int = 0,
    source: Source | None = None,
    mask: Mask | None = None,
    before: Callable[[int, float], None] = lambda level, t: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Latents:
    """Denoise latents z [F, C, h, w] from level `start` to level `stop`, in place; returns z.

    condition: of the clip (B = 1), or of windows. steps: from pure noise to the clean clip; by default all are made.
    windows: how a long clip is cut, one window by default; `batch` of them go through the network at once. eta: 0 is
    deterministic, 1 DDPM's variance, from the noise of `seed`. source, mask: after every step, what the mask leaves
    out is the source's at that level. before: (level, its timestep), called before each step; it may change z.
    progress: (steps done, steps to do).

    Memory: the network's for `batch` windows, and z. Results for different batches agree to a convolution's rounding.
    Raises ConfigError E275 for steps that the schedule does not have.
    """
    count, schedule = z.shape[0], backbone.schedule
    windows = windows or Windows(count, count)
    pairs = schedule.step_pairs(steps)
    start = steps if start is None else start

    for done, (t, to) in enumerate(pairs[steps - start : steps - stop], 1):
        level = start - done
        before(level + 1, t)

        def step(spans: Sequence[range], t: float = t, to: float = to, level: int = level) -> Tensor:
            x0, eps = predicted(backbone, z, spans, t, condition, guidance)
            fresh = None
            if eta:
                drawn = [noise(seed, span, z.shape[1:], stream=level + 1) for span in spans]  # stream 0 began the clip
                fresh = torch.stack(drawn).to(x0.device)
            return schedule.step(x0, eps, t, to, eta, fresh)

        for frames, made in swept(windows, batch, step):
            if source is not None and mask is not None:
                free = mask(frames).to(made.device)
                made = free * made + (1 - free) * source(level, frames).to(made.device)
            z[frames.start : frames.stop] = made
        progress(done, start - stop)
    return z


def predicted(
    backbone: Backbone, z: Latents, spans: Sequence[range], t: float, condition: Conditions, guidance: float = 1.0
) -> tuple[Tensor, Tensor]:
    """(x0, eps) of several windows of z in one batch: float32 [W, length, C, h, w] each."""
    return backbone.predict(gathered(z, spans, backbone.device), t, conditions_of(condition, spans), guidance)
