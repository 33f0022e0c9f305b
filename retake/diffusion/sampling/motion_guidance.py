"""Denoising steered towards a motion: a few steps of gradient descent on the noisy latents, early on.

Source: MOFT (Xiao et al., NeurIPS 2024, sec. 4.2, eq. 3 and 8); defaults of its published pipeline
(animatediff/pipelines/pipeline.py at f57184b) where the paper is silent. Unlike it, only the conditioned row goes
through the network, and no further than the site; blocks are run again for their gradients; masks are averaged on the
features' own grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from retake.diffusion.backbone import Backbone, Condition
from retake.diffusion.motion_feature import content_removed
from retake.diffusion.shared_attention import SharedAttention


@dataclass(frozen=True)
class Target:
    """What an object's motion feature shall be. mask: float32 [F, h, w], 0..1, the object's cells of the latent grid;
    channels: int64 [K]; curve: float32 [F, K]."""

    mask: Tensor
    channels: Tensor
    curve: Tensor


@dataclass(frozen=True)
class Guide:
    """How motion is steered. site: a name of `Backbone.sites`. first, last: steps that are guided, as shares of all.
    updates: of the latents in each. rate: of gradient descent; weight: of the loss. clip: frames, from the first on,
    whose gradient is zero outside the masks; None: all. shared: pattern of the self-attention layers that take keys and
    values from an unguided clip, or None."""

    site: str
    first: float = 0.12
    last: float = 0.48
    updates: int = 2
    rate: float = 0.5
    weight: float = 6.0
    clip: int | None = None
    shared: str | None = None

    def steers(self, step: int, steps: int) -> bool:
        return self.weight > 0 and round(self.first * steps) <= step < round(self.last * steps)


def averaging(mask: Tensor, height: int, width: int) -> Tensor:
    """Weights [F, height, width] whose sum over a map of that grid is the mean of the map, enlarged bilinearly to the
    mask's grid, over the mask [F, H, W]: the mean without the enlarged map. Frames without a mask weigh nothing."""
    with torch.enable_grad():
        small = torch.zeros(len(mask), 1, height, width, dtype=mask.dtype, device=mask.device, requires_grad=True)
        large = F.interpolate(small, mask.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        mean = (large * mask).sum((-2, -1)) / mask.sum((-2, -1)).clamp(min=1e-6)
        (weights,) = torch.autograd.grad(mean.sum(), small)
    return weights[:, 0]


def motion(features: Tensor, mask: Tensor) -> Tensor:
    """The motion feature float32 [F, C] of an object: features [1, F, C, h, w], their content taken off, over a mask
    [F, H, W]."""
    weights = averaging(mask, features.shape[-2], features.shape[-1]).to(features.device)
    return (content_removed(features.float())[0] * weights[:, None]).sum((-2, -1))


def loss(features: Tensor, targets: Sequence[Target], weight: float) -> Tensor:
    """Mean squared distance from each target's curve, over frames and channels, summed over the targets."""
    total = features.new_zeros((), dtype=torch.float32)
    for target in targets:
        found = motion(features, target.mask)[:, target.channels.to(features.device)]
        total = total + weight * F.mse_loss(found, target.curve.to(found))
    return total


def steered(
    backbone: Backbone, z: Tensor, t: float, condition: Condition, targets: Sequence[Target], guide: Guide, shared: Any
) -> tuple[Tensor, float]:
    """Latents [1, F, C, h, w] after the guide's updates at timestep t, and the loss before the last of them."""
    masks = torch.stack([target.mask for target in targets]).amax(0)
    free = (masks > 0.5).to(z)[None, :, None]  # [1, F, 1, h, w]
    if guide.clip is not None:
        free[:, guide.clip :] = 1
    value = 0.0
    for _ in range(guide.updates):
        z = z.detach().requires_grad_(True)
        with torch.enable_grad(), shared.used() if shared is not None else nullcontext():
            features = backbone.features(z, t, condition, [guide.site])[guide.site]
            distance = loss(features, targets, guide.weight)
            (gradient,) = torch.autograd.grad(distance, z)
        z, value = (z - guide.rate * gradient * free).detach(), float(distance.detach())
    return z, value


@torch.no_grad()
def sample(
    backbone: Backbone,
    z: Tensor,
    condition: Condition,
    targets: Sequence[Target],
    guide: Guide,
    *,
    steps: int,
    guidance: float,
    start: int | None = None,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> Tensor:
    """Denoise z [1, F, C, h, w] from level `start` (all `steps` by default), steering it. With weight 0 it is sampling
    as it ever was, to the bit. progress: (step, loss) after each guided step."""
    pairs = backbone.schedule.step_pairs(steps)
    pairs = pairs[steps - (steps if start is None else start) :]
    shared = SharedAttention(backbone, guide.shared) if guide.shared is not None else None
    plain = z
    for step, (t, to) in enumerate(pairs, steps - len(pairs)):
        steers = bool(targets) and guide.steers(step, steps)
        if shared is not None and any(guide.steers(later, steps) for later in range(step, steps)):
            with shared.remembered(halves=guidance != 1.0):
                guess = backbone.predict(plain, t, condition, guidance)
            plain = backbone.schedule.step(guess.x0, guess.eps, t, to)
        if steers:
            z, value = steered(backbone, z, t, condition, targets, guide, shared)
            progress(step, value)
        x0, eps = backbone.predict(z, t, condition, guidance)
        z = backbone.schedule.step(x0, eps, t, to)
    return z
