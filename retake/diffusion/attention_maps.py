"""Where in its frames a network looks for some words: what cross-attention says of them, as masks.

Every layer in which the video attends to the text gives a map: of each place, the share of attention that the words
get among all that is said. Maps of the layers are averaged, the finer ones counting more, and stretched to 0..1 frame
by frame. A U-Net's layers of less than a quarter of the latent cells say too little of where, and are left out.

Source: cross-attention maps as in Prompt-to-Prompt (Hertz et al. 2022, sec. 3.1); averaged per frame over heads and
words as MoCA-Video's code does, which averages over frames too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from retake.diffusion.sampling.fifo_queue import Span

NOT_GIVEN: Any = object()


class Concepts:
    """A processor for `Backbone.attention({"*": concepts})`: every layer computes what it did, and is listened to.

    places: of the words among the text's states. grid: (frames of a window, height, width) of the latents. guided:
    whether the network sees a batch twice, the second time with the words (`Backbone.predict`).
    """

    def __init__(self, places: Sequence[int], grid: tuple[int, int, int], guided: bool) -> None:
        self.places, self.grid, self.guided = list(places), grid, guided
        self._sums: list[Tensor] = []  # of every pass, [windows, frames, h, w]
        self._layer: object = None  # the first that is listened to begins a pass

    def around(self, before: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The processor of one layer."""
        return Listener(self, before)

    def masks(self, spans: Sequence[Span]) -> Tensor:
        """Maps 0..1 of the frames that the windows write, float32 [n, 1, h, w], since they were asked for last."""
        found = torch.cat(self._sums)
        self._sums = []
        rows = [
            maps[span.writes.start - span.reads.start : span.writes.stop - span.reads.start]
            for span, maps in zip(spans, found, strict=True)
        ]
        maps = torch.cat(rows)
        low, high = maps.amin((1, 2), True), maps.amax((1, 2), True)
        return ((maps - low) / (high - low).clamp(min=1e-12))[:, None]

    @torch.no_grad()
    def take(self, attn: Any, video: Tensor, said: Tensor, joint: bool, rotary: Any) -> None:
        frames, height, width = self.grid
        rows = video.shape[0] // 2 if self.guided else video.shape[0]
        video, said = video[-rows:], said[-rows:]
        tokens = video.shape[1] // (frames if joint else 1)
        if 4 * tokens < height * width and not joint:
            return
        query: Any = split_heads(attn.to_q(video), attn.heads)
        key: Any = split_heads(attn.to_k(said), attn.heads)
        query = attn.norm_q(query) if getattr(attn, "norm_q", None) is not None else query
        key = attn.norm_k(key) if getattr(attn, "norm_k", None) is not None else key
        if rotary is not None:
            from diffusers.models.embeddings import apply_rotary_emb

            query = apply_rotary_emb(query, rotary)
        looked = (query.float() @ key.float().transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)
        maps = looked[..., self.places].mean(-1).mean(1)  # over words, over heads
        maps = maps.reshape(-1, 1, *halved(height, width, tokens))
        maps = F.interpolate(maps, (height, width), mode="bilinear").reshape(-1, frames, height, width)
        if self._layer is None or attn is self._layer:
            self._layer = attn
            self._sums.append(torch.zeros_like(maps))
        self._sums[-1] += tokens * maps


def halved(height: int, width: int, tokens: int) -> tuple[int, int]:
    """The grid of so many tokens that halving (height, width), rounding up, leads to."""
    while height * width > tokens:
        height, width = -(-height // 2), -(-width // 2)
    return height, width


def split_heads(states: Tensor, heads: int) -> Tensor:
    """[N, L, D] as [N, heads, L, D / heads]."""
    return states.unflatten(-1, (heads, -1)).transpose(1, 2)


class Listener:
    """One layer's processor. diffusers hands on only what a processor names, so it names all that any of them takes;
    `image_rotary_emb` is given by CogVideoX alone, whose tokens of all frames stand in one row."""

    def __init__(self, concepts: Concepts, before: Callable[..., Tensor]) -> None:
        self.concepts, self.before = concepts, before

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Any = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Any = NOT_GIVEN,
        ip_adapter_masks: Any = NOT_GIVEN,
    ) -> Any:
        named = {"image_rotary_emb": image_rotary_emb, "ip_adapter_masks": ip_adapter_masks}
        named = {name: value for name, value in named.items() if value is not NOT_GIVEN}
        if encoder_hidden_states is not None:
            said = encoder_hidden_states[0] if isinstance(encoder_hidden_states, tuple) else encoder_hidden_states
            joint = image_rotary_emb is not NOT_GIVEN
            self.concepts.take(attn, hidden_states, said, joint, image_rotary_emb if joint else None)
        return self.before(attn, hidden_states, encoder_hidden_states, attention_mask, **named)
