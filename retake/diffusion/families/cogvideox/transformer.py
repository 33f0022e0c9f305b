"""One evaluation of CogVideoXTransformer3DModel with a timestep for every latent frame.

diffusers' own forward takes one timestep a clip. This one runs the very same modules and gives the tokens of each
frame the modulation of their own frame; the text, which belongs to no frame, gets that of the frames' mean embedding.
Where all frames share a timestep this is diffusers' forward, up to rounding. Attention processors, LoRA layers, module
hooks and gradient checkpointing of the transformer work as they do there, and gradients reach every input.

Source: CogVideoX (Yang et al. 2025, sec. 2.2: expert adaptive LayerNorm, 3D attention over text and video).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Rotary = tuple[Tensor, Tensor]
Positions = Tensor | Rotary | None


def evaluate(
    transformer: Any,
    z: Tensor,
    t: Tensor,
    text: Tensor,
    places: Positions = None,
    branch: Any = None,
    control: Tensor | None = None,
) -> Tensor:
    """The network's output [B, F, C, h, w] for latents z [B, F, C, h, w], timesteps t float32 [B, F] and text states
    [B, L, D] in z's dtype. `places` is what `positions` gives for the grid; None works it out. branch: a ControlBranch
    (control.py) with its control latents [B, F, channels, h, w]."""
    embedding = time_embedding(transformer, t, z.dtype)
    (video,) = deque(blocks(transformer, z, embedding, text, places, branch, control), maxlen=1)
    return _output(transformer, video, embedding, z)


def evaluate_and_read(
    transformer: Any, z: Tensor, t: Tensor, text: Tensor, block: int, places: Positions = None
) -> tuple[Tensor, Tensor]:
    """What `evaluate` gives, and what leaves a block on the way, without the text: [B, F, h / patch, w / patch, width].
    Gradients go through both."""
    patch = transformer.config.patch_size
    embedding = time_embedding(transformer, t, z.dtype)
    left = list(blocks(transformer, z, embedding, text, places))
    read = left[block].unflatten(1, (z.shape[1], z.shape[3] // patch, z.shape[4] // patch))
    return _output(transformer, left[-1], embedding, z), read


def _output(transformer: Any, video: Tensor, embedding: Tensor, z: Tensor) -> Tensor:
    video = transformer.norm_final(video)
    last = transformer.norm_out
    shift, scale = last.linear(last.silu(embedding[:, :-1])).chunk(2, dim=-1)
    video = transformer.proj_out(_modulated(last.norm(video), shift, scale))
    return _unpatched(video, z, transformer.config.patch_size)


def states(
    transformer: Any, z: Tensor, t: Tensor, text: Tensor, wanted: Collection[int], places: Positions = None
) -> dict[int, Tensor]:
    """What leaves the wanted blocks, without the text: [B, F, width, h / patch, w / patch]. Later blocks do not run."""
    patch = transformer.config.patch_size
    grid = (z.shape[1], z.shape[3] // patch, z.shape[4] // patch)
    running = blocks(transformer, z, time_embedding(transformer, t, z.dtype), text, places)
    reached = islice(enumerate(running), max(wanted) + 1)
    return {n: video.unflatten(1, grid).permute(0, 1, 4, 2, 3) for n, video in reached if n in wanted}


def blocks(
    transformer: Any,
    z: Tensor,
    embedding: Tensor,
    text: Tensor,
    places: Positions = None,
    branch: Any = None,
    control: Tensor | None = None,
) -> Iterator[Tensor]:
    """Video tokens [B, F h' w', width] after each block, which runs when it is asked for."""
    if places is None:
        places = positions(transformer, z.shape[1], z.shape[3], z.shape[4], z.device)
    rotary = places if isinstance(places, tuple) else None
    embed = transformer.patch_embed
    text = embed.text_proj(text)
    video = embed.proj(z.flatten(0, 1)).flatten(2).transpose(1, 2)  # [B F, h' w', width]
    video = video.reshape(z.shape[0], -1, video.shape[-1])
    if isinstance(places, Tensor):
        video = video + places.to(video.dtype)
    video, text = transformer.embedding_dropout(video), transformer.embedding_dropout(text)
    again = transformer.gradient_checkpointing and torch.is_grad_enabled()
    c, copies = (branch.begun(control, video), len(branch.copies)) if branch is not None else (None, 0)
    for n, block in enumerate(transformer.transformer_blocks):
        if again:
            video, text = cast(Any, checkpoint)(block_of, block, video, text, embedding, rotary, use_reentrant=False)
        else:
            video, text = block_of(block, video, text, embedding, rotary)
        if branch is not None and n < copies:
            c, added = branch.stepped(n, c, text, embedding, rotary, again)
            video = video + added
        yield video


def block_of(
    block: Any, video: Tensor, text: Tensor, embedding: Tensor, rotary: Rotary | None
) -> tuple[Tensor, Tensor]:
    """One CogVideoXBlock: video tokens [B, F h' w', C], text tokens [B, L, C], embedding [B, F + 1, D]."""
    length = text.shape[1]
    video_in, text_in, gate, text_gate = _normed(block.norm1, video, text, embedding)
    video_out, text_out = block.attn1(hidden_states=video_in, encoder_hidden_states=text_in, image_rotary_emb=rotary)
    video, text = _added(video, gate, video_out), torch.addcmul(text, text_gate, text_out)

    video_in, text_in, gate, text_gate = _normed(block.norm2, video, text, embedding)
    out = block.ff(torch.cat([text_in, video_in], dim=1))
    return _added(video, gate, out[:, length:]), torch.addcmul(text, text_gate, out[:, :length])


def _normed(norm: Any, video: Tensor, text: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a CogVideoXLayerNormZero makes of both streams, and their gates: [B, F, C] and [B, 1, C]."""
    values = norm.linear(norm.silu(embedding))
    shift, scale, gate = values[:, :-1].chunk(6, dim=-1)[:3]
    text_shift, text_scale, text_gate = values[:, -1:].chunk(6, dim=-1)[3:]
    return (
        _modulated(norm.norm(video), shift, scale),
        torch.addcmul(text_shift, norm.norm(text), 1 + text_scale),
        gate,
        text_gate,
    )


def _modulated(video: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """video (1 + scale) + shift, with shift and scale [B, F, C] for the tokens [B, F n, C] of F frames."""
    tokens = video.unflatten(1, (shift.shape[1], -1))
    return torch.addcmul(shift[:, :, None], tokens, 1 + scale[:, :, None]).flatten(1, 2)


def _added(video: Tensor, gate: Tensor, change: Tensor) -> Tensor:
    """video + gate change, with gate [B, F, C] for the tokens [B, F n, C] of F frames."""
    frames = (gate.shape[1], -1)
    return torch.addcmul(video.unflatten(1, frames), gate[:, :, None], change.unflatten(1, frames)).flatten(1, 2)


def _unpatched(tokens: Tensor, z: Tensor, patch: int) -> Tensor:
    """Tokens [B, F h' w', C p p] as latents of the frames and size of z."""
    batch, frames, _, height, width = z.shape
    tiles = tokens.reshape(batch, frames, height // patch, width // patch, -1, patch, patch)
    return tiles.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, frames, -1, height, width)


def time_embedding(transformer: Any, t: Tensor, dtype: torch.dtype) -> Tensor:
    """Embeddings [B, F + 1, D] of timesteps [B, F]: one a frame, and last their mean, which modulates the text. Of
    timesteps that are one number expanded over the frames, [B, 2, D]: one for all frames."""
    if t.stride(1) == 0:  # one timestep a clip: every block works its modulation out once, not for every frame
        t = t[:, :1]
    flat = transformer.time_embedding(transformer.time_proj(t.reshape(-1)).to(dtype))
    frames = flat.unflatten(0, t.shape)
    return torch.cat([frames, frames.mean(1, keepdim=True)], dim=1)


def positions(transformer: Any, frames: int, height: int, width: int, device: torch.device) -> Tensor | Rotary:
    """Where the tokens of a latent grid stand: sines to add [1, F h' w', width], or rotary (cos, sin) [F h' w', head]
    each, as the configuration says; float32. Prepared as diffusers' pipeline and CogVideoXPatchEmbed prepare them."""
    from diffusers.models.embeddings import get_3d_rotary_pos_embed, get_3d_sincos_pos_embed

    config = transformer.config
    rows, columns = height // config.patch_size, width // config.patch_size
    if config.use_rotary_positional_embeddings:
        crop = crop_region(
            rows, columns, config.sample_height // config.patch_size, config.sample_width // config.patch_size
        )
        cos, sin = get_3d_rotary_pos_embed(config.attention_head_dim, crop, (rows, columns), frames, device=device)
        return cos, sin
    sines = get_3d_sincos_pos_embed(
        config.num_attention_heads * config.attention_head_dim,
        (columns, rows),
        frames,
        config.spatial_interpolation_scale,
        config.temporal_interpolation_scale,
        device=device,
    )
    return sines.flatten(0, 1)[None]  # type: ignore[union-attr]


def crop_region(rows: int, columns: int, base_rows: int, base_columns: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """((top, left), (bottom, right)) of a grid scaled to fit, centred, into the grid that the network was trained on:
    rotary positions of another size are those of that region."""
    if rows / columns > base_rows / base_columns:
        height, width = base_rows, round(base_rows / rows * columns)
    else:
        height, width = round(base_columns / columns * rows), base_columns
    top, left = round((base_rows - height) / 2), round((base_columns - width) / 2)
    return (top, left), (top + height, left + width)
