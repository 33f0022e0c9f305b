"""The causal video autoencoder of the embedded transformer: diffusers' AutoencoderKLCogVideoX at a small size.

The first frame is coded alone, every four after it together; cells are four pixels wide.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from retake.diffusion.families.cogvideox.vae import encode
from retake.imaging.signed import to_signed
from retake.synthetic import clips
from retake.training.fours import Encode
from retake.training.moving import Image, window

WIDTHS = (16, 32, 64)
CHANNELS = 16
SIDE = 16  # of a latent frame
FRAMES, LATENT = 17, 5
WINDOW = 9  # frames of a clip in training: a first one, and two fours


def network() -> Any:
    """AutoencoderKLCogVideoX of 1.9 M parameters: pixels [B, 3, 1 + 4k, H, W] to latents [B, 16, 1 + k, H/4, W/4]."""
    from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX

    settings: dict[str, Any] = {
        "down_block_types": ("CogVideoXDownBlock3D",) * len(WIDTHS),
        "up_block_types": ("CogVideoXUpBlock3D",) * len(WIDTHS),
        "block_out_channels": WIDTHS,
        "layers_per_block": 1,
        "latent_channels": CHANNELS,
        "norm_num_groups": 8,
        "temporal_compression_ratio": 4,
        "sample_height": 4 * SIDE,
        "sample_width": 4 * SIDE,
    }
    return AutoencoderKLCogVideoX(**settings)


Loss = Callable[[int], tuple[Tensor, dict[str, float]]]


def loss(vae: Any, pool: Image, batch: int, seed: int, device: str, kl: float = 1e-3) -> Loss:
    """(step) -> absolute and squared error of the reconstruction, with a weak pull of the latents to unit normal."""

    def of(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([seed, step, 19])
        picked = [window(rng, pool[n], WINDOW) for n in rng.integers(0, len(pool), batch)]
        x = tensor(np.stack(picked), device)
        posterior = vae.encode(x).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(step)).to(device)
        y = vae.decode(posterior.mean + posterior.std * noise).sample
        square = F.mse_loss(y, x)
        total = F.l1_loss(y, x) + 2 * square + kl * posterior.kl().mean() / posterior.mean[0].numel()
        return total, {"psnr": float(-10 * torch.log10(square.detach() / 4))}

    return of


def tensor(frames: Image, device: str = "cpu") -> Tensor:
    """Pixels float32 [B, 3, F, H, W] in -1..1 of uint8 [B, F, H, W, 3]."""
    return to_signed(torch.from_numpy(np.ascontiguousarray(frames)).to(device).permute(0, 4, 1, 2, 3)).contiguous()


def clip_by_clip(vae: Any) -> Encode:
    """Latents by the video autoencoder."""

    def code(frames: Image) -> Tensor:
        return encode(vae, tensor(frames).transpose(1, 2), device=vae.device)

    return code


def measured(vae: Any, limits: clips.Limits, count: int = 64, seed: int = 1 << 30) -> float:
    """The factor that brings the latents of clips to unit variance."""
    code, square = clip_by_clip(vae), 0.0
    for n in range(count):
        z = code(clips.render(clips.draw(seed + n, limits).scene)[None]) / vae.config.scaling_factor
        square += float(z.double().square().mean()) / count
    return square**-0.5
