"""The motion U-Net of the embedded models, taught on fours of clips, its text tower with it.

First single frames, as AnimateDiff's U-Net is (Guo et al. 2024, sec. 4): large plain sprites, then the world as it is.
Then clips, with motion modules at every size. The U-Net does not rest then, as AnimateDiff's does: single frames say
nothing of a direction, so it has learnt to pass the word over, and motion modules, which read no text, hardly hear it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from retake.training.autoencoder import CHANNELS
from retake.training.encoders import WIDTH, ids, tokenizer
from retake.training.fours import PLAIN, Kind

SIDE = 16  # of a latent frame
FRAMES = 16
WIDTHS = (48, 96, 96)

ADAPTER: dict[str, Any] = {
    "block_out_channels": WIDTHS,
    "motion_layers_per_block": 1,
    "motion_num_attention_heads": 4,
    "motion_norm_num_groups": 8,
    "motion_max_seq_length": 32,
    "use_motion_mid_block": True,
}

STILL = {"shape": 0.5, "direction": 0.25, "hue": 0.15, "texture": 0.1}
MOVING = {"shape": 0.25, "direction": 0.3, "speed": 0.3, "hue": 0.1, "texture": 0.05}
KINDS = {**PLAIN, "world": Kind(STILL, 20_000_000, frames=2), "clips": Kind(MOVING, 30_000_000)}
TOLD = (0.1, 0.55, 0.1, 0.25)
"""Shares of clips conditioned on nothing, the caption alone, the reference picture alone, both."""


def of_frames() -> Any:
    """UNet2DConditionModel of 3.7 M parameters over latent frames [N, 8, 16, 16]."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=SIDE,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        block_out_channels=WIDTHS,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def of_clips(frames: Any) -> Any:
    """The motion U-Net around one of frames, with 1.6 M parameters of motion modules; all of them train.

    The modules' last layers start at zero, so that training starts from the U-Net's own pictures.
    """
    from diffusers.models.unets.unet_motion_model import MotionAdapter, UNetMotionModel

    adapter = MotionAdapter(**ADAPTER)
    for name, module in adapter.named_modules():
        if name.endswith("proj_out"):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    model: Any = UNetMotionModel.from_unet2d(frames, adapter)
    return model.requires_grad_(True)


class Student(nn.Module):
    """A U-Net, of frames or of clips, and the text tower that learns with it."""

    def __init__(self, unet: Any, text: Any) -> None:
        super().__init__()
        self.unet: Any = unet
        self.text: Any = text

    def forward(self, drawn: Mapping[str, Tensor]) -> Tensor:
        """v [B, f, C, h, w] of what `lessons.Teacher` draws; a U-Net of frames takes each frame by itself."""
        z, t, frames = drawn["z"], drawn["t"], drawn["z"].shape[1]
        condition = torch.cat([self.text(drawn["tokens"]).last_hidden_state, drawn["references"]], 1)
        condition = condition.repeat_interleave(frames, 0)
        if type(self.unet).__name__ == "UNet2DConditionModel":
            out = self.unet(z.flatten(0, 1), t.repeat_interleave(frames), condition, return_dict=False)[0]
            return out.unflatten(0, z.shape[:2])
        with placed(self.unet, drawn["at"]):
            return self.unet(z.transpose(1, 2), t, condition, return_dict=False)[0].transpose(1, 2)


def tokenised(captions: Sequence[str]) -> Tensor:
    """Ids [N, 16] of captions."""
    return ids(tokenizer(), captions)


@contextmanager
def placed(model: Any, at: Tensor) -> Iterator[None]:
    """Within it, the motion modules take the frames that they are given for those with the numbers `at` [f]."""
    from diffusers.models.embeddings import SinusoidalPositionalEmbedding

    def place(module: Any, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
        return given[0] + module.pe[:, at]

    clocks = [module for module in model.modules() if isinstance(module, SinusoidalPositionalEmbedding)]
    hooks = [module.register_forward_hook(place) for module in clocks]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
