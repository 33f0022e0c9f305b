"""Clips of which something is hidden, made anew by an editing network in training: to look at, and to judge."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from retake.diffusion.families.ivediff.network import EditingNetwork
from retake.diffusion.schedule import Schedule
from retake.imaging.signed import to_signed
from retake.training import ivediff
from retake.training.editing_clips import Clip, blacked_out
from retake.training.lessons import SCHEDULE


class Hidden(NamedTuple):
    """Clips and what is hidden of them: area uint8 [B, F, H, W], not 0 where; shown: pixels without it, float32
    [B, F, 3, H, W] in -1..1; inputs of the network but for the picture; and the pictures, [B, 3, S, S]."""

    area: Tensor
    shown: Tensor
    inputs: dict[str, Tensor]
    pictures: Tensor


@torch.inference_mode()
def hidden(network: EditingNetwork, eyes: ivediff.Eyes, some: Clip, kind: str, grown: int = 2) -> Hidden:
    """kind: "object", with depth, or "rectangle", without. The picture is the object alone."""
    area = torch.stack([ivediff.area(kind, mask, grown) for mask in some.mask])
    shown = blacked_out(some.frames, area)
    masked = eyes.latents(shown)
    inputs = {
        "mask": F.interpolate((area > 0).float(), masked.shape[-2:])[:, :, None].to(masked),
        "masked": masked,
        "flow": some.flow.float().to(eyes.device),
        "depth": ivediff.depths(network, some.depth, torch.full((len(area),), kind == "object", device=eyes.device)),
    }
    return Hidden(area, shown, inputs, to_signed(some.pictures[:, 0]).movedim(-1, 1))


@torch.inference_mode()
def filled(
    network: EditingNetwork, eyes: ivediff.Eyes, given: Hidden, steps: int, guidance: float, seed: int = 0
) -> Tensor:
    """Latents [B, F, C, h, w] of the clips, made anew from noise."""
    schedule = Schedule.from_config(SCHEDULE)
    count = len(given.area)
    told = [ivediff.told_of(network, eyes, given.pictures, torch.full((count,), yes)) for yes in (True, False)]
    z = torch.randn(given.inputs["masked"].shape, generator=torch.Generator().manual_seed(seed)).to(eyes.device)
    for t, to in schedule.step_pairs(steps):
        times = torch.full(z.shape[:2], float(t), device=eyes.device)
        with_, without = (network(z, times, {**given.inputs, **one}) for one in told)
        z = schedule.step(*schedule.to_x0_eps(without + guidance * (with_ - without), z, times), t, to)
    return z
