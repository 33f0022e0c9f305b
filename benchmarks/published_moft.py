"""The guidance loop of MOFT as it is published (Xiao et al. 2024; animatediff/pipelines/pipeline.py at f57184b): both
rows of the batch go through the whole network for every gradient, whose blocks are run again for it, weights take
gradients too, features are enlarged to the latent grid before anything else, and the clip that is not steered is
sampled to its end. It is what `retake.diffusion.sampling.motion_guidance` is measured against, and gives the same clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from retake.diffusion.backbone import Backbone, Condition, times, twice
from retake.diffusion.checkpointing import checkpointed
from retake.diffusion.sampling.motion_guidance import Guide, Target, free_cells
from retake.diffusion.shared_attention import SharedAttention


def sample(
    backbone: Backbone,
    z: Tensor,
    condition: Condition,
    targets: Sequence[Target],
    guide: Guide,
    steps: int,
    guidance: float,
) -> Tensor:
    """Latents [1, F, C, h, w] of a U-Net, denoised from z and steered."""
    network: Any = backbone.parts.use("network")  # type: ignore[attr-defined]
    network.requires_grad_(True)
    block, plain = network.get_submodule(guide.site), z
    both = {name: torch.cat([condition.negative[name], value]) for name, value in condition.positive.items()}
    free = free_cells(targets).to(z)[None, :, None]
    for step, (t, to) in enumerate(backbone.schedule.step_pairs(steps)):
        shared = SharedAttention(backbone, str(guide.shared))
        with torch.no_grad(), shared.remembered():
            x0, eps = backbone.predict(plain, t, condition, guidance)
        plain = backbone.schedule.step(x0, eps, t, to)
        for _ in range(guide.updates if guide.steers(step, steps) else 0):
            z = z.detach().requires_grad_(True)
            with torch.enable_grad(), shared.used(), checkpointed(network):
                features = passed(backbone, block, torch.cat([z, z]), twice(times(t, z)), both)
                distance(features, targets, guide.weight).backward()
            assert z.grad is not None
            z = z.detach() - guide.rate * z.grad * free
            network.zero_grad()
        with torch.no_grad():
            x0, eps = backbone.predict(z.detach(), t, condition, guidance)
        z = backbone.schedule.step(x0, eps, t, to)
    network.requires_grad_(False)
    return z.detach()


def passed(backbone: Backbone, block: Any, z: Tensor, t: Tensor, inputs: dict[str, Tensor]) -> Tensor:
    """What a block of the network makes of the conditioned row, [F, C, h, w], while all of it runs."""
    found: list[Tensor] = []
    handle = block.register_forward_hook(lambda module, given, made: found.append(made))
    try:
        backbone.forward(z, t, inputs)
    finally:
        handle.remove()
    return found[0].unflatten(0, z.shape[:2])[1]


def distance(features: Tensor, targets: Sequence[Target], weight: float) -> Tensor:
    """Mean squared distance of enlarged features' means over each mask from its curve."""
    total = features.new_zeros(())
    for target in targets:
        large = F.interpolate(features.float(), target.mask.shape[-2:], mode="bilinear", align_corners=False)
        moving = large - large.mean(0)
        mask = target.mask[:, None]
        mean = (moving * mask).sum((-2, -1)) / mask.sum((-2, -1)).clamp(min=1e-6)
        total = total + weight * F.mse_loss(mean[:, target.channels], target.curve)
    return total
