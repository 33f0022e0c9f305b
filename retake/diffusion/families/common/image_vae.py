"""Frames through an image autoencoder, a few at a time, so that memory does not grow with the length of a clip.

Latents are (z - shift) * scale as the VAE's configuration says (Rombach et al. 2022, sec. 4.3.2; SD 3's shift), so that
they have about unit variance. A VAE of 3 k² channels reads pixels unshuffled by k.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from retake.diffusion.backbone import finite


def encode(vae: Any, pixels: Tensor, generator: torch.Generator | None = None, chunk: int = 8) -> Tensor:
    """Latents float32 [B, F, C, h, w] of pixels [B, F, 3, H, W] in -1..1, on the device of `pixels`.

    The posterior's mean, or with a generator a sample: noise is drawn frame by frame, so it does not depend on `chunk`.
    Raises ConfigError E278 where the VAE gives NaN or infinity.
    """
    found, device, dtype = [], vae.device, vae.dtype  # asked once: diffusers goes over all weights to say them
    for part in pixels.flatten(0, 1).split(chunk):
        with torch.no_grad():
            posterior = vae.encode(fold(part.to(device, dtype), folds(vae))).latent_dist
        latents = posterior.mean.float()
        if generator is not None:
            where = generator.device
            noise = [torch.randn(latents.shape[1:], generator=generator, device=where) for _ in latents]
            latents = latents + posterior.std.float() * torch.stack(noise).to(latents.device)
        found.append(latents.to(pixels.device))
    latents = (torch.cat(found) - shift(vae)) * vae.config.scaling_factor
    return finite(latents, "the VAE's encoder", dtype).unflatten(0, pixels.shape[:2])


def decode(vae: Any, latents: Tensor, chunk: int = 8) -> Tensor:
    """Pixels float32 [B, F, 3, H, W], clamped to -1..1, of latents [B, F, C, h, w], on their device.

    Raises ConfigError E278 where the VAE gives NaN or infinity.
    """
    found, device, dtype = [], vae.device, vae.dtype
    for part in latents.flatten(0, 1).split(chunk):
        part = part.float() / vae.config.scaling_factor + shift(vae)
        with torch.no_grad():
            pixels = unfold(vae.decode(part.to(device, dtype)).sample, folds(vae))
        found.append(finite(pixels.float(), "the VAE's decoder", dtype).clamp(-1, 1).to(latents.device))
    return torch.cat(found).unflatten(0, latents.shape[:2])


def stride(vae: Any) -> int:
    """Pixels a latent cell, per axis."""
    return folds(vae) * 2 ** (len(vae.config.block_out_channels) - 1)


def shift(vae: Any) -> float:
    """What is taken off latents before they are scaled."""
    return getattr(vae.config, "shift_factor", None) or 0.0


def folds(vae: Any) -> int:
    """k of a VAE with 3 k² channels."""
    return math.isqrt(vae.config.in_channels // 3)


def fold(pixels: Tensor, k: int) -> Tensor:
    return F.pixel_unshuffle(pixels, k) if k > 1 else pixels


def unfold(pixels: Tensor, k: int) -> Tensor:
    return F.pixel_shuffle(pixels, k) if k > 1 else pixels
