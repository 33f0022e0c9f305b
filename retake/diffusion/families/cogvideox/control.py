"""A control branch beside a CogVideoX transformer: its first blocks copied, reading other videos, added block by block.

    c = embed(control) + h                  h: tokens of the noisy latents; control: videos on the channels
    after block i of the base               c = copy_i(c, text after block i);  h = h + project_i(c)

Projections begin at zero: the branch begins as if it were not there. The base does not learn. In the `published`
wiring another zero projection stands before the first copy, and each copy is given the projected c of the one before:
at the start no gradient reaches the copies, and it learns late. `classic` is ControlNet's (Zhang et al. 2023).

Sources: MotionV2V (Burgert et al. 2025, sec. 4: the branch copies the first 18 blocks of CogVideoX-5B); the published
wiring as in its development code, which follows DiffusionAsShader (models/cogvideox_tracking.py at 5303302).
"""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from retake.diffusion.families.cogvideox.transformer import Rotary, block_of

Wiring = Literal["classic", "published"]
SHARE = 3 / 7  # of the base's blocks: 18 of 42


class ControlBranch(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """The branch of a transformer with so many heads. channels: of the control, all its videos together. depth: copied
    blocks. Saved and read as any model of diffusers."""

    @register_to_config
    def __init__(
        self,
        channels: int,
        depth: int,
        num_attention_heads: int,
        attention_head_dim: int,
        time_embed_dim: int,
        patch_size: int = 2,
        attention_bias: bool = True,
        wiring: Wiring = "classic",
    ) -> None:
        super().__init__()
        width = num_attention_heads * attention_head_dim
        self.wiring, self.scale = wiring, 1.0
        self.embed = nn.Conv2d(channels, width, patch_size, patch_size)
        self.copies = nn.ModuleList(
            CogVideoXBlock(
                dim=width,
                num_attention_heads=num_attention_heads,
                attention_head_dim=attention_head_dim,
                time_embed_dim=time_embed_dim,
                attention_bias=attention_bias,
            )
            for _ in range(depth)
        )
        self.projections = nn.ModuleList(zero(width) for _ in range(depth))
        self.entry = zero(width) if wiring == "published" else nn.Identity()

    @staticmethod
    def of(transformer: Any, videos: int, depth: int | None = None, wiring: Wiring = "classic") -> ControlBranch:
        """A fresh branch of a transformer, for so many control videos: its blocks are the base's own, its embedding the
        base's for each of the videos, divided by how many there are."""
        config, blocks = transformer.config, transformer.transformer_blocks
        with transformer.device:
            branch = ControlBranch(
                channels=videos * config.in_channels,
                depth=max(1, round(SHARE * len(blocks))) if depth is None else depth,
                num_attention_heads=config.num_attention_heads,
                attention_head_dim=config.attention_head_dim,
                time_embed_dim=config.time_embed_dim,
                patch_size=config.patch_size,
                attention_bias=config.attention_bias,
                wiring=wiring,
            ).to(transformer.dtype)
        for copy, block in zip(branch.copies, blocks, strict=False):
            copy.load_state_dict(block.state_dict())
        base = transformer.patch_embed.proj
        with torch.no_grad():
            branch.embed.weight.copy_(base.weight.repeat(1, videos, 1, 1) / videos)
            branch.embed.load_state_dict({"weight": branch.embed.weight, "bias": base.bias})
        return branch

    def begun(self, control: Tensor, video: Tensor) -> Tensor:
        """Tokens [B, F h' w', width] of control latents [B, F, channels, h, w], and of the base's before its first
        block."""
        tokens = self.embed(control.flatten(0, 1)).flatten(2).transpose(1, 2)
        return self.entry(tokens.reshape(video.shape) + video)

    def stepped(
        self, n: int, c: Tensor, text: Tensor, embedding: Tensor, rotary: Rotary | None, again: bool
    ) -> tuple[Tensor, Tensor]:
        """(c for the next copy, what is added to the base's tokens after block n). again: run the copy again for its
        gradient in place of keeping what it made."""
        if again:
            c, _ = cast(Any, checkpoint)(block_of, self.copies[n], c, text, embedding, rotary, use_reentrant=False)
        else:
            c, _ = block_of(self.copies[n], c, text, embedding, rotary)
        added = self.projections[n](c)
        return (added if self.wiring == "published" else c), self.scale * added


def zero(width: int) -> nn.Linear:
    """A projection that gives nothing at first."""
    linear = nn.Linear(width, width)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
