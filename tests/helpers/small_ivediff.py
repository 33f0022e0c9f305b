"""A tiny editing network with random weights, as a folder that loading reads: the classes of small_diffusion.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, MotionAdapter, UNetMotionModel

from helpers import small_diffusion as small
from retake.diffusion.families.ivediff.guides import DepthGuider, ImageProjection
from retake.diffusion.families.ivediff.motion_reference import MotionReference
from retake.diffusion.families.ivediff.network import EditingNetwork, widened

CHANNELS, DEPTHS = 4, 3
READS = 2 * CHANNELS + 1 + DEPTHS


def unet(seed: int = 3) -> Any:
    """Of pictures; it reads mask, masked clip and depth with weights that matter."""
    made = widened(small.unet2d(seed), READS)
    torch.nn.init.normal_(made.conv_in.weight, std=0.05, generator=torch.Generator().manual_seed(seed))
    return made.eval()


def adapter(seed: int = 4, silent: bool = False) -> MotionAdapter:
    """silent: its last layers are zero, as at the start of a training."""

    def build() -> MotionAdapter:
        return MotionAdapter(
            block_out_channels=(16, 32),
            motion_layers_per_block=1,
            motion_num_attention_heads=2,
            motion_norm_num_groups=4,
            motion_max_seq_length=16,
            use_motion_mid_block=False,
        )

    made = small.seeded(build, seed)
    for name, module in made.named_modules():
        if silent and name.endswith("proj_out"):
            torch.nn.init.zeros_(module.weight)
            torch.nn.init.zeros_(module.bias)
    return made


def guider() -> DepthGuider:
    return small.seeded(lambda: DepthGuider(DEPTHS, (4, 8, 8), unit=True), 6)


def projection() -> ImageProjection:
    return small.seeded(lambda: ImageProjection(small.WIDTH, small.WIDTH, penultimate=False), 7)


def of_pictures() -> EditingNetwork:
    return EditingNetwork(unet(), small.unet2d(8), projection(), guider()).eval()


def of_clips(silent: bool = True, motion: bool = True) -> EditingNetwork:
    """Around the same network of pictures; not silent: motion modules and propagation say something."""
    whole = UNetMotionModel.from_unet2d(unet(), adapter(silent=silent)).eval()
    reference = MotionReference.of(whole) if silent else small.seeded(lambda: MotionReference.of(whole), 9)
    for site in reference.sites if not silent else ():
        site.gate.data.fill_(0.5)
    one = of_pictures()
    parts = one.reference_unet, one.image_projection, one.depth_guider
    return EditingNetwork(whole, *parts, reference if motion else None).eval()


def inputs(batch: int = 2, frames: int = 3, side: int = 8, seed: int = 0) -> dict[str, torch.Tensor]:
    """Of a network of clips."""
    random = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random)

    return {
        "mask": (drawn(batch, frames, 1, side, side) > 0).float(),
        "masked": drawn(batch, frames, CHANNELS, side, side),
        "depth": drawn(batch, frames, DEPTHS, side, side),
        "flow": drawn(batch, frames, 2, side, side),
        "states": drawn(batch, 17, small.WIDTH),
        "reference": drawn(batch, CHANNELS, side, side),
        "told": torch.arange(batch) % 2 == 0,
    }


def save(path: Path, silent: bool = False) -> Path:
    """A folder that model.weights takes."""
    clips = of_clips(silent)
    return small.save(
        path,
        unet=unet(),
        reference_unet=clips.reference_unet,
        image_projection=clips.image_projection,
        depth_guider=clips.depth_guider,
        motion_adapter=adapter(silent=silent),
        motion_reference=clips.motion_reference,
        vae=small.vae(),
        image_encoder=small.image_encoder(projected=True),
        scheduler=DDIMScheduler(**small.SCHEDULE, prediction_type="v_prediction"),
    )
