"""The video encoder of the embedded models, from which MoAlign learns motion: a small VideoMAE, taught to fill in what
it does not see of clips of the sprite world and of natural stills that move.

Source: VideoMAE (Tong et al., NeurIPS 2022): whole tubes of places are masked; fewer than the nine tenths published,
and pixels are told as they are, not normalised by patch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retake.networks.video_mae import MEAN, STD
from retake.synthetic.clips import Limits
from retake.training import moving
from retake.training.moving import Image

FRAMES = 16
PATCH, TUBE = 8, 2
MASKED = 0.75  # share of the places
WIDTH = 128  # of its features


def network() -> Any:
    """VideoMAEForPreTraining of 1.3 M parameters over clips of 16 frames of 64 pixels a side."""
    from transformers import VideoMAEConfig, VideoMAEForPreTraining

    return VideoMAEForPreTraining(
        VideoMAEConfig(
            image_size=Limits().size,
            num_frames=FRAMES,
            patch_size=PATCH,
            tubelet_size=TUBE,
            hidden_size=WIDTH,
            initializer_range=WIDTH**-0.5,
            num_hidden_layers=6,
            num_attention_heads=4,
            intermediate_size=512,
            decoder_hidden_size=96,
            decoder_num_hidden_layers=2,
            decoder_num_attention_heads=4,
            decoder_intermediate_size=384,
            use_mean_pooling=False,
            # Of patches that are a smooth ground, normalised pixels are what noise leaves.
            norm_pix_loss=False,
        )
    )


def masked(rng: np.random.Generator, batch: int, places: int, tubes: int) -> Tensor:
    """Which tokens are not seen, bool [batch, tubes * places]: the same places of a clip in all its tubes."""
    hidden = np.zeros((batch, places), bool)
    for row in hidden:
        row[rng.permutation(places)[: round(MASKED * places)]] = True
    return torch.from_numpy(np.repeat(hidden[:, None], tubes, 1).reshape(batch, -1))


def loss(
    model: Any, pool: Image, batch: int, seed: int, device: str
) -> Callable[[int], tuple[Tensor, dict[str, float]]]:
    """(step) -> mean squared error of the pixels (0..1) that a batch of clips hides. pool: uint8 [N, F, H, W,
    3]."""
    mean, std = (torch.tensor(some, device=device) for some in (MEAN, STD))
    side = pool.shape[2] // PATCH

    def of(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([seed, step])
        some = [moving.window(rng, pool[int(rng.integers(len(pool)))], FRAMES) for _ in range(batch)]
        pixels = torch.from_numpy(np.stack(some)).to(device).float() / 255
        pixels = ((pixels - mean) / std).movedim(-1, 2)  # [B, F, 3, H, W]
        hidden = masked(rng, batch, side * side, FRAMES // TUBE).to(device)
        return model(pixel_values=pixels, bool_masked_pos=hidden).loss, {}

    return of
