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

from retake.errors import ConfigError

# CLIP's own mean and deviation of pixels in 0..1 (Radford et al. 2021, the published code).
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def prompts(text: Sequence[str] | None, image: Tensor | None) -> list[str]:
    """One prompt a clip, "" where only images are given. Raises ConfigError E273 for neither text nor image, and for
    another number of one than of the other."""
    if text is None and image is None:
        raise ConfigError("E273", "a condition of neither text nor image", 'Give text=[""] for none.')
    count = len(text) if text is not None else len(image if image is not None else ())
    if image is not None and len(image) != count:
        raise ConfigError("E273", f"{count} prompts for {len(image)} images", "Give one of each a clip.")
    return list(text) if text is not None else [""] * count


def joined(positive: Tensor, negative: Tensor, encoder: Any, image: Tensor | None) -> tuple[Tensor, Tensor]:
    """States of text [B, L, D], positive and negative, followed by those of images [B, 3, H, W]: [B, L + N, D]
    each. No image, and the negative one, are zeros."""
    tokens = (encoder.config.image_size // encoder.config.patch_size) ** 2 + 1  # patches and the class token
    blank = positive.new_zeros(len(positive), tokens, positive.shape[-1])
    seen = blank if image is None else image_states(encoder, image).to(blank)
    return torch.cat([positive, seen], dim=1), torch.cat([negative, blank], dim=1)


def text_states(encoder: Any, tokenizer: Any, prompts: Sequence[str], extra: Sequence[str] = ()) -> Tensor:
    """States [B, L, D] of B prompts; L is the tokenizer's full length, longer prompts are cut. The states of K prompts
    `extra` follow those of every one: [B, (1 + K) L, D]."""
    tokens = tokenizer(
        [*prompts, *extra],
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    states = encoder(tokens.input_ids.to(next(encoder.parameters()).device)).last_hidden_state
    more = states[len(prompts) :].flatten(0, 1).expand(len(prompts), -1, -1)
    return torch.cat([states[: len(prompts)], more], dim=1)


def tokens_of(tokenizer: Any, prompt: str, part: str) -> list[int]:
    """Where the tokens of a part of the prompt stand among the prompt's. Raises ConfigError E294 where they do not
    stand there one behind the other, or are cut off."""
    whole = tokenizer(prompt, truncation=True, max_length=tokenizer.model_max_length).input_ids
    some = tokenizer(part, add_special_tokens=False).input_ids
    for first in range(len(whole) - len(some) + 1):
        if some and whole[first : first + len(some)] == some:
            return list(range(first, first + len(some)))
    raise ConfigError("E294", f"{part!r} is not in the prompt {prompt!r}", "Give words of the prompt.")


def image_states(encoder: Any, pixels: Tensor) -> Tensor:
    """States [B, N, D] of images [B, 3, H, W] in -1..1, resized to the encoder's own size."""
    weights = next(encoder.parameters())
    size = encoder.config.image_size
    pixels = pixels.to(weights.device, weights.dtype)
    if pixels.shape[-2:] != (size, size):
        pixels = torch.nn.functional.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
    tower = getattr(encoder, "vision_model", encoder)
    return tower.post_layernorm(encoder(pixels).last_hidden_state)


def clip_pixels(image: Tensor, encoder: Any) -> Tensor:
    """Images [B, 3, H, W] in -1..1 as a published CLIP vision tower reads them: at its size, by its mean and deviation,
    in its dtype."""
    size, pixels = encoder.config.image_size, image.float()
    if pixels.shape[-2:] != (size, size):
        pixels = torch.nn.functional.interpolate(pixels, (size, size), mode="bicubic", antialias=True).clamp(-1, 1)
    mean, deviation = (torch.tensor(row, device=image.device)[:, None, None] for row in (MEAN, DEVIATION))
    return ((pixels / 2 + 0.5 - mean) / deviation).to(encoder.dtype)
