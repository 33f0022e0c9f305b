"""The image autoencoder of the embedded models: diffusers' AutoencoderKL, trained on still pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from retake.diffusion.families.common import image_vae
from retake.imaging.signed import to_signed
from retake.synthetic import clips
from retake.training.fours import Encode
from retake.training.pictures import Data, Image, pool, varied

WIDTHS = (32, 48, 64)  # a quarter of the size, after two halvings
CHANNELS = 8


def network() -> Any:
    """AutoencoderKL of 0.84 M parameters: pixels [B, 3, H, W] to latents [B, 8, H/4, W/4]."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    settings: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * len(WIDTHS),
        "up_block_types": ("UpDecoderBlock2D",) * len(WIDTHS),
        "block_out_channels": WIDTHS,
        "layers_per_block": 1,
        "latent_channels": CHANNELS,
        "norm_num_groups": 8,
        "sample_size": 64,
    }
    return AutoencoderKL(**settings)


def loss(vae: Any, data: Data, device: str, kl: float = 1e-3) -> Callable[[int], tuple[Tensor, dict[str, float]]]:
    """(step) -> absolute and squared error of the reconstruction, with a weak pull of the latents to unit normal."""
    images = pool(data.seed, data.count, data.size)

    def of(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([data.seed, step, 13])
        picked = varied(rng, images[rng.integers(0, data.count, data.batch)])
        x = tensor(picked, device)
        with torch.autocast(device, torch.bfloat16):
            posterior = vae.encode(x).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(step)).to(device)
            y = vae.decode(posterior.mean + posterior.std * noise).sample.float()
        square = F.mse_loss(y, x)
        total = F.l1_loss(y, x) + square + kl * posterior.kl().float().mean() / posterior.mean[0].numel()
        return total, {"psnr": float(-10 * torch.log10(square.detach() / 4))}

    return of


def tensor(images: np.ndarray, device: str = "cpu") -> Tensor:
    """Pixels float32 [N, 3, H, W] in -1..1 of uint8 [N, H, W, 3]."""
    x = to_signed(torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2))
    return x.contiguous(memory_format=torch.channels_last)


def frame_by_frame(vae: Any) -> Encode:
    """Latents by the image autoencoder."""

    def encode(frames: Image) -> Tensor:
        return image_vae.encode(vae, to_signed(torch.from_numpy(frames)).permute(0, 1, 4, 2, 3))

    return encode


def measured(vae: Any, limits: clips.Limits, count: int = 64, seed: int = 1 << 30) -> float:
    """The factor that brings the latents of clips to unit variance."""
    short, code, square = replace(limits, frames=2), frame_by_frame(vae), 0.0
    for n in range(count):
        with torch.inference_mode():
            z = code(clips.render(clips.draw(seed + n, short).scene)[None]) / vae.config.scaling_factor
        square += float(z.double().square().mean()) / count
    return square**-0.5
