"""What a prompt and a reference image become before a network reads them: sequences of states.

Text follows diffusers' pipelines: the encoder's last hidden states over the tokenizer's full length, without a mask.
An image becomes the tokens of a CLIP vision tower (class token and patches, after its last normalisation), in the same
width, so that networks that were trained on both read them as one sequence: text first, then the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def text_states(encoder: Any, tokenizer: Any, prompts: Sequence[str]) -> Tensor:
    """States [B, L, D] of B prompts; L is the tokenizer's full length, longer prompts are cut."""
    tokens = tokenizer(
        list(prompts),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    return encoder(tokens.input_ids.to(next(encoder.parameters()).device)).last_hidden_state


def image_states(encoder: Any, pixels: Tensor) -> Tensor:
    """States [B, N, D] of images [B, 3, H, W] in -1..1, resized to the encoder's own size."""
    weights = next(encoder.parameters())
    size = encoder.config.image_size
    pixels = pixels.to(weights.device, weights.dtype)
    if pixels.shape[-2:] != (size, size):
        pixels = torch.nn.functional.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
    tower = getattr(encoder, "vision_model", encoder)
    return tower.post_layernorm(encoder(pixels).last_hidden_state)
