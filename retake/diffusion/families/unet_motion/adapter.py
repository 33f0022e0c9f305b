"""AnimateDiff: an image model whose U-Net was given motion modules (Guo et al. 2024, https://arxiv.org/abs/2307.04725),
as diffusers' UNetMotionModel. A reference image goes in as states beside the text's where the model was trained so, or
through an IP-Adapter (Ye et al. 2023, https://arxiv.org/abs/2308.06721).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.embeddings import ImageProjection
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.models.unets.unet_motion_model import UNetMotionModel
from diffusers.pipelines.animatediff.pipeline_animatediff import AnimateDiffPipeline
from torch import Tensor, nn

from retake.diffusion.families.common.conditioning import clip_pixels
from retake.diffusion.families.common.unet import UNet, blank, site, text_width
from retake.diffusion.loading import components
from retake.diffusion.loading.lora_and_ip import add_image_adapter, merge_lora
from retake.diffusion.model import Model
from retake.errors import ConfigError
from retake.weights.local import require


class UNetMotion(UNet):
    """AnimateDiff's family."""

    def forward(self, z: Tensor, t: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        self.check_frames(z.shape[1])
        return super().forward(z, t, inputs)

    def blank(self) -> nn.Module:
        # An IP-Adapter changes the configuration of the network that it was loaded into, but no site.
        config = dict(self.config) | {"encoder_hid_dim_type": None}
        return blank(lambda: UNetMotionModel.from_config(config))

    def _embedded(self, image: Tensor) -> tuple[Tensor, Tensor]:
        encoder, projection = self.parts.need("image_encoder"), self.network.encoder_hid_proj
        pixels = clip_pixels(image.to(self.device), encoder)
        if isinstance(projection.image_projection_layers[0], ImageProjection):
            found = encoder(pixels).image_embeds
            return found[:, None], torch.zeros_like(found)[:, None]
        # The "plus" adapters read the states before the last layer; none is the mean colour, as in diffusers.
        seen = encoder(pixels, output_hidden_states=True).hidden_states[-2]
        return seen[:, None], encoder(torch.zeros_like(pixels), output_hidden_states=True).hidden_states[-2][:, None]


def network(model: Model, folders: list[Path], found: dict[str, Any], dtype: torch.dtype) -> Any:
    """The motion U-Net that the settings describe: saved whole, or an image model's and a motion adapter.

    An IP-Adapter puts its own image encoder into `found`. Raises as `loading.load`.
    """
    folder = components.find("unet", *folders)
    assert folder is not None  # loading.sources has looked
    unet: Any = components.read("unet", folder, dtype, ("UNetMotionModel", "UNet2DConditionModel"))
    adapter = motion_adapter(model, folders, dtype, needed=isinstance(unet, UNet2DConditionModel))
    if adapter is not None:
        try:
            with components.quiet():
                if isinstance(unet, UNet2DConditionModel):
                    unet = UNetMotionModel.from_unet2d(unet, adapter)
                else:
                    unet.load_motion_modules(adapter)
        except (ValueError, RuntimeError, IndexError) as error:
            raise components.misfit(folder, f"the motion adapter does not fit: {error}") from error
    if model.lora is not None or model.image_adapter is not None:
        nothing: Any = None  # the loaders look at no other part
        pipeline = AnimateDiffPipeline(nothing, found["text_encoder"], found["tokenizer"], unet, nothing, nothing)
        if model.lora is not None:
            merge_lora(pipeline, "unet", require(model.lora), model.lora_scale)
        if model.image_adapter is not None:
            encoder = add_image_adapter(pipeline, require(model.image_adapter))
            if encoder is not None:
                found["image_encoder"] = components.read("image_encoder", encoder, dtype)
            if "image_encoder" not in found:
                raise ConfigError(
                    "E281",
                    f"{model.image_adapter} has no image_encoder beside it",
                    "Put the adapter's image_encoder folder there, or give it by model.parts.",
                )
    return unet.eval()


def motion_adapter(model: Model, folders: list[Path], dtype: torch.dtype, needed: bool) -> Any:
    """The adapter that the settings name, or the one beside an image model; None for a network saved whole.

    Raises ConfigError E281 where an image model has none.
    """
    if model.motion is not None:
        named = require(model.motion)
        return components.read("motion_adapter", components.find("motion_adapter", named) or named, dtype)
    if not needed:
        return None
    folder = components.find("motion_adapter", *folders)
    if folder is None:
        raise ConfigError(
            "E281", f"{folders[0]} is an image model without a motion adapter", "Give one: model.motion=FOLDER."
        )
    return components.read("motion_adapter", folder, dtype)


def assembled(found: dict[str, Any]) -> Any:
    """The motion U-Net of an image model's and a motion adapter."""
    return UNetMotionModel.from_unet2d(found.pop("unet"), found.pop("motion_adapter"))


Adapter = UNetMotion
__all__ = ["Adapter", "assembled", "network", "site", "text_width"]
