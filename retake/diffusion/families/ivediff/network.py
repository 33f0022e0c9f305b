"""The editing network: a U-Net of clips that reads mask, masked clip and depth beside the noisy latents, and a second
U-Net that reads the reference picture for it.

    editing U-Net     z | mask | masked clip | depth features on the channels -> what it predicts of z
    reference U-Net   the reference's clean latents, at the same time; of each self-attention in its middle and on its
                      way up, the tokens are kept, and the editing U-Net's attend to them, too: half of what they give
                      comes from their own tokens alone, half from both
    both attend to the reference's image states in place of a text's

Sources: MimicBrush's published code (ali-vilab/MimicBrush at 2ec7bc8: pipeline_mimicbrush.py,
ReferenceNet_attention.py), IVEDiff (Li et al. 2025, sec. 4.1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from retake.diffusion import attention
from retake.diffusion.families.common.unet import walk
from retake.diffusion.families.ivediff.guides import DepthGuider, ImageProjection
from retake.diffusion.families.ivediff.motion_reference import MotionReference, motion_modules, without_motion


class EditingNetwork(nn.Module):
    """Its networks, and how they work together. unet: UNetMotionModel, or UNet2DConditionModel, which takes frames one
    by one; reference_unet: UNet2DConditionModel of the same blocks; motion_reference: of the first kind only.

    frame_wise: motion modules rest. propagates: the motion reference network works."""

    def __init__(
        self,
        unet: Any,
        reference_unet: Any,
        image_projection: ImageProjection,
        depth_guider: DepthGuider,
        motion_reference: MotionReference | None = None,
    ) -> None:
        super().__init__()
        self.unet, self.reference_unet = unet, reference_unet
        self.image_projection, self.depth_guider = image_projection, depth_guider
        self.motion_reference = motion_reference
        self.frame_wise, self.propagates = False, True

    @property
    def config(self) -> Any:
        """The editing U-Net's."""
        return self.unet.config

    @property
    def dtype(self) -> torch.dtype:
        return self.unet.conv_in.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.unet.conv_in.weight.device

    def forward(self, z: Tensor, t: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """What is predicted of z, [B, F, C, h, w], at times t float32 [B, F].

        inputs: mask [B, F, 1, h, w], 1 where the picture goes; masked [B, F, C, h, w], latents of the clip without
        what lies there; depth [B, F, D, h, w], as `depth_guider` gives it; states [B, L, W], of the reference, as
        `image_projection` gives them; reference [B, C, h', w'], its latents; told bool [B], on the CPU: whether it is
        shown; flow [B, F, 2, h, w], (dx, dy) in latent cells, from each frame to the one before it.
        """
        x = torch.cat([z, *(inputs[name].to(z) for name in ("mask", "masked", "depth"))], 2)
        with ExitStack() as within:
            if bool((told := inputs["told"]).any()):
                rows = told.nonzero().flatten()
                shown = {name: inputs[name].index_select(0, rows.to(z.device)) for name in ("reference", "states")}
                tokens = self.tokens(t[:, 0].index_select(0, rows.to(t.device)), shown)
                within.enter_context(attention.replaced(self.unet, reading(tokens, told, z.shape[1])))
            if not motion_modules(self.unet):
                return self.by_frames(x, t, inputs["states"])
            if self.frame_wise:
                within.enter_context(without_motion(self.unet))
            elif self.motion_reference is not None and self.propagates:
                within.enter_context(self.motion_reference.before(self.unet, inputs["flow"].float()))
            return walk(self.unet, x, t, inputs)

    def by_frames(self, x: Tensor, t: Tensor, states: Tensor) -> Tensor:
        """The output of a U-Net of pictures for x [B, F, c, h, w]."""
        dtype, frames = self.dtype, x.shape[1]
        each = states.to(dtype).repeat_interleave(frames, 0)
        return self.unet(x.flatten(0, 1).to(dtype), t.flatten(), each, return_dict=False)[0].unflatten(0, x.shape[:2])

    def tokens(self, t: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the reference U-Net keeps at times t [B], by the path of the layer: [B, L, C]."""
        kept: dict[str, Tensor] = {}
        dtype = self.dtype
        with attention.replaced(
            self.reference_unet, {name: Keeping(kept, name) for name in sites(self.reference_unet)}
        ):
            self.reference_unet(inputs["reference"].to(dtype), t, inputs["states"].to(dtype), return_dict=False)
        return kept


def sites(unet: nn.Module) -> list[str]:
    """Self-attention within frames, in the middle and on the way up."""
    return [
        name
        for name in attention.layers(unet)
        if name.endswith(".attn1") and name.startswith(("mid_block.", "up_blocks.")) and "motion_modules" not in name
    ]


class Keeping:
    """Keeps the tokens that a layer is given."""

    def __init__(self, kept: dict[str, Tensor], name: str) -> None:
        self.kept, self.name = kept, name

    def around(self, before: Callable[..., Tensor], /) -> Callable[..., Tensor]:
        def process(attn: Any, hidden_states: Tensor, *args: Any, **options: Any) -> Tensor:
            self.kept[self.name] = hidden_states
            return before(attn, hidden_states, *args, **options)

        return process


class Reading:
    """Lets a layer attend to tokens as well, in the clips that are `told` [B] of their reference. tokens: of these,
    [N, L, C]."""

    def __init__(self, tokens: Tensor, told: Tensor, frames: int) -> None:
        self.tokens, self.told, self.frames = tokens, told, frames
        self.everyone = bool(told.all())

    def around(self, before: Callable[..., Tensor], /) -> Callable[..., Tensor]:
        def process(attn: Any, hidden_states: Tensor, *args: Any, **options: Any) -> Tensor:
            alone = before(attn, hidden_states, *args, **options)
            shown = self.tokens.repeat_interleave(self.frames, 0)
            if self.everyone:
                return 0.5 * alone + 0.5 * before(attn, hidden_states, torch.cat([hidden_states, shown], 1))
            rows = self.told.repeat_interleave(self.frames).to(hidden_states.device)
            own = hidden_states[rows]
            made = alone.clone()
            made[rows] = 0.5 * alone[rows] + 0.5 * before(attn, own, torch.cat([own, shown], 1))
            return made

        return process


def reading(tokens: Mapping[str, Tensor], told: Tensor, frames: int) -> dict[str, Reading]:
    """Processors by the path of their layer: the two U-Nets call them alike."""
    return {name: Reading(kept, told, frames) for name, kept in tokens.items()}


def widened(unet: Any, channels: int) -> Any:
    """A U-Net of pictures that reads `channels`: the first are read as before, the others with weights of zero."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    config = {**dict(unet.config), "in_channels": channels}
    made: Any = UNet2DConditionModel.from_config(config)
    state = unet.state_dict()
    first = state["conv_in.weight"]
    state["conv_in.weight"] = torch.cat([first, first.new_zeros(len(first), channels - first.shape[1], 3, 3)], 1)
    made.load_state_dict(state)
    return made
