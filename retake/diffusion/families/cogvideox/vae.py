"""The causal video autoencoder of CogVideoX, chunk by chunk.

Its convolutions look only backwards, so a chunk needs no more of the clip than what they saw last (the cache), and one
chunk at a time is on the device. Where chunks end is part of the result, because group normalisation sees one chunk:
the borders here are diffusers' own (8 frames or 2 latent frames at a time, and the remainder with the first), so a
clip comes out as it does there. Tiling, where the autoencoder has it on, is diffusers' own, over the whole clip.

Source: CogVideoX (Yang et al. 2025, sec. 2.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def encode(
    vae: Any, pixels: Tensor, generator: torch.Generator | None = None, device: torch.device | None = None
) -> Tensor:
    """Latents float32 [B, 1 + k, C, h, w], scaled, of pixels [B, 1 + 4 k, 3, H, W] in -1..1, on the pixels' device.

    The posterior's mean, or with a generator a sample: noise is drawn latent frame by latent frame. device: where the
    autoencoder runs, by default where its weights are.
    """
    device, dtype, cache = device or vae.device, vae.dtype, None
    if vae.use_tiling:
        clip = pixels.transpose(1, 2).to(device, dtype)
        moments = vae.encode(clip).latent_dist.parameters.to(pixels.device, torch.float32)
    else:
        parts = []
        for chunk in chunks(pixels.shape[1], vae.num_sample_frames_batch_size):
            part = pixels[:, chunk.start : chunk.stop].transpose(1, 2).to(device, dtype)
            part, cache = vae.encoder(part, conv_cache=cache)
            part = part if vae.quant_conv is None else vae.quant_conv(part)
            parts.append(part.to(pixels.device, torch.float32))
        moments = torch.cat(parts, dim=2)
    mean, logarithm = moments.transpose(1, 2).chunk(2, dim=2)
    if generator is not None:
        frames = mean.flatten(0, 1)
        noise = [torch.randn(frames.shape[1:], generator=generator, device=generator.device) for _ in frames]
        deviation = (0.5 * logarithm.clamp(-30, 20)).exp()  # the limits of diffusers' posterior
        mean = mean + deviation * torch.stack(noise).to(mean.device).view_as(mean)
    return mean * vae.config.scaling_factor


@torch.no_grad()
def decode(vae: Any, latents: Tensor, device: torch.device | None = None) -> Tensor:
    """Pixels float32 [B, 1 + 4 k, 3, H, W] in about -1..1 of latents [B, 1 + k, C, h, w], on the latents' device.

    The decoder doubles every chunk in time but for the first frame of an odd one. An even count of latent frames, which
    it would make 4 k + 4 frames of, is decoded with its last frame twice, and the frames of the copy are dropped.
    """
    count = latents.shape[1]
    if count % 2 == 0:
        latents = torch.cat([latents, latents[:, -1:]], dim=1)
    device, dtype, cache = device or vae.device, vae.dtype, None
    latents = latents / vae.config.scaling_factor
    if vae.use_tiling:
        clip = latents.transpose(1, 2).to(device, dtype)
        pixels = vae.decode(clip).sample.to(latents.device, torch.float32)
    else:
        parts = []
        for chunk in chunks(latents.shape[1], vae.num_latent_frames_batch_size):
            part = latents[:, chunk.start : chunk.stop].transpose(1, 2).to(device, dtype)
            part = part if vae.post_quant_conv is None else vae.post_quant_conv(part)
            part, cache = vae.decoder(part, conv_cache=cache)
            parts.append(part.to(latents.device, torch.float32))
        pixels = torch.cat(parts, dim=2)
    return pixels.transpose(1, 2)[:, : 1 + (count - 1) * int(vae.config.temporal_compression_ratio)]


def chunks(count: int, size: int) -> Iterator[range]:
    """Ranges of `size` that cover `count` frames; the first is longer by what remains."""
    end = count if count < 2 * size else size + count % size
    yield range(end)
    while end < count:
        yield range(end, end + size)
        end += size
