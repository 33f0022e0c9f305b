"""MoCA-Video's step: mask, inject the reference, correct by momentum, denoise, add residual noise.

Symbols as in the paper: x_t the latents of a slot, x0 and eps what the network predicts of them, m the mask, lambda the
weight of the injection, v the momentum, beta, kappa and gamma its constants. `dir` is DDIM's second term. Everything
is [n, C, h, w], a row a slot, and every slot has its own t. T is 1000.

Text and code of MoCA-Video disagree; the three presets are three functions. With lambda, kappa and gamma 0 each is the
plain step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from retake.diffusion.sampling.fifo_queue import Slots, Step
from retake.diffusion.schedule import END
from retake.methods.moca.presets import TIMESTEPS, Preset, Rule

Masked = Callable[[Tensor, Tensor, Slots], Tensor]
"""(which slots are mixed bool [n], x0, slots) -> m [n, 1, h, w]."""
Reference = Callable[[range], Tensor]
"""frames -> the reference's clean latents [n, C, h, w]."""

CLAMP = 2.0  # of the momentum: CODE_OF's default (presets.py); in `recommended` and `paper` it is ours


def mixing(preset: Preset, rule: Rule, masked: Masked, reference: Reference) -> Step:
    """The step of a preset."""
    return {"recommended": recommended, "paper": paper, "code": code}[preset](rule, masked, reference)


def recommended(rule: Rule, masked: Masked, reference: Reference) -> Step:
    """The paper's parts with their units made to agree.

    x' = x0 + lambda m (x_ref - x0), a blend, so that a falling lambda does not empty the mask. Momentum is the average
    over levels of what the injection moved, and of `dir`, inside the mask: g = (x' - x0) + c m dir, v = beta v +
    (1 - beta) g, x0 <- x' + kappa (1 - t/T) v. Residual noise gamma sigma_t n is drawn anew, and stays in a band around
    the mask's edge, where flicker is.
    """

    def step(x0: Tensor, eps: Tensor, slots: Slots) -> Tensor:
        share = timestep(slots) / TIMESTEPS
        m = masked(slots_below(rule, slots), x0, slots)
        weight = injection(rule, slots)
        mixed = x0 + weight * m * (reference(slots.frames).to(x0) - x0) if rule.weight else x0
        drift = share if rule.drift is None else rule.drift
        v = momentum(rule, slots, (mixed - x0) + drift * m * direction(eps, slots))
        z = slots.step(mixed + rule.kappa * (1 - share) * v, eps)
        return z + residual(rule, m, slots) if rule.gamma else z

    return step


def paper(rule: Rule, masked: Masked, reference: Reference) -> Step:
    """The text as it stands: x_mix = x_t (1 - m) + lambda x_ref m takes the place of x_t, and g = x_t - x_{t-1} +
    lambda dir, where x_{t-1} is what the plain step makes of x_mix. All of the frame has momentum from t' on. Of the
    residual noise the text gives no formula; it is `recommended`'s. Where the source's levels come from is a setting of
    its own: the text inverts (source=inversion)."""

    def step(x0: Tensor, eps: Tensor, slots: Slots) -> Tensor:
        t, below = timestep(slots), slots_below(rule, slots)
        m = masked(below, x0, slots)
        weight = injection(rule, slots)
        x0_mix = x0
        if rule.weight:
            alpha, sigma = (column(of(slots.t)) for of in (slots.schedule.alpha, slots.schedule.sigma))
            x_mix = slots.z * (1 - m) + weight * reference(slots.frames).to(x0) * m
            x0_mix = torch.where(m > 0, (x_mix - sigma * eps) / alpha.clamp(min=1e-3), x0)
        drift = t / TIMESTEPS if rule.drift is None else rule.drift
        moved = slots.z - slots.step(x0_mix, eps) + drift * direction(eps, slots)
        v = momentum(rule, slots, moved * column(below))
        z = slots.step(x0_mix + rule.kappa * (1 - t / TIMESTEPS) * v, eps)
        return z + residual(rule, m, slots) if rule.gamma else z

    return step


def code(rule: Rule, masked: Masked, reference: Reference) -> Step:
    """What the published revision CODE_OF computes (presets.py). Momentum runs along the frames of one iteration, not
    along levels: g_i = x0_i - prev_{i-1} + c dir_i, v_i = beta v_{i-1} + (1 - beta) g_i, x0'_i = x0_i + kappa (1 - t/T)
    v_i, and nothing of it is kept. The step is made of x0' before anything is injected; prev is x0' with what is
    injected (lambda x_ref inside the mask, and gamma times the step's own noise), and is seen by the next frame's
    momentum alone. There its sign is reversed: it drives the object away from the reference. Ours: the chain runs over
    all frames that take a step, where the published one begins anew in every window."""

    def step(x0: Tensor, eps: Tensor, slots: Slots) -> Tensor:
        t, below = timestep(slots), column(slots_below(rule, slots))
        m = masked(below.flatten() > 0, x0, slots)
        injected = injection(rule, slots) * reference(slots.frames).to(x0) if rule.weight else x0
        spread = slots.eta * column(slots.schedule.spread(slots.t, slots.to))
        added = rule.gamma * below * spread * slots.noise(0) if rule.gamma else torch.zeros_like(x0)
        ahead, pull = direction(eps, slots), rule.kappa * (1 - t / TIMESTEPS)
        drift = t / TIMESTEPS if rule.drift is None else torch.full_like(t, rule.drift)
        corrected, v, prev = x0.clone(), torch.zeros_like(x0[0]), x0[0]
        for i in range(len(x0)):
            if i > 0:
                g = x0[i] - prev + drift[i] * ahead[i]
                v = (rule.beta * v + (1 - rule.beta) * g).clamp(-CLAMP, CLAMP)
                corrected[i] += pull[i] * v
            inside = m[i] > 0.5 if rule.weight else torch.zeros_like(m[i], dtype=torch.bool)
            prev = torch.where(inside, injected[i], corrected[i]) + added[i]
        return slots.step(corrected, eps)

    return step


# ---- parts -----------------------------------------------------------------------------------------------------------


def injection(rule: Rule, slots: Slots) -> Tensor:
    """lambda, float32 [n, 1, 1, 1]."""
    share = timestep(slots) / TIMESTEPS
    return rule.weight * (share if rule.falling else torch.ones_like(share))


def momentum(rule: Rule, slots: Slots, moved: Tensor) -> Tensor:
    """v, kept in the slots: the running average of what moved, [n, C, h, w]."""
    v = slots.rows("momentum", *moved.shape[1:])
    v.mul_(rule.beta).add_(moved, alpha=1 - rule.beta).clamp_(-CLAMP, CLAMP)
    return v


def residual(rule: Rule, m: Tensor, slots: Slots) -> Tensor:
    """gamma sigma_t n in a band of a cell on either side of the mask's edge, sigma_t being that of eta=1 whatever eta
    is. None in the step that ends clean."""
    band = F.max_pool2d(m, 3, 1, 1) + F.max_pool2d(1 - m, 3, 1, 1) - 1
    there = column((m.flatten(1).amax(1) > 0) & (slots.to != END))
    return rule.gamma * column(slots.schedule.spread(slots.t, slots.to)) * band * there * slots.noise()


def direction(eps: Tensor, slots: Slots) -> Tensor:
    """`dir`: the second term of the DDIM step, sqrt(1 - abar - sigma^2) eps."""
    spread = slots.eta * slots.schedule.spread(slots.t, slots.to)
    return column((slots.schedule.sigma(slots.to) ** 2 - spread**2).clamp(min=0).sqrt()) * eps


def timestep(slots: Slots) -> Tensor:
    """t of 1000, float32 [n, 1, 1, 1]."""
    return column(slots.t.float() * (TIMESTEPS / slots.schedule.length))


def slots_below(rule: Rule, slots: Slots) -> Tensor:
    """Which slots are mixed: bool [n]."""
    return timestep(slots).flatten() <= rule.below


def column(values: Tensor) -> Tensor:
    """[n] as float32 [n, 1, 1, 1]."""
    return values.float()[:, None, None, None]
