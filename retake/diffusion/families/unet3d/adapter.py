"""ModelScope (Wang et al. 2023, https://arxiv.org/abs/2308.06571) and ZeroScope: text to video in one 3-D U-Net, as
diffusers' UNet3DConditionModel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.peft import PeftAdapterMixin
from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel
from diffusers.pipelines.animatediff.pipeline_animatediff import AnimateDiffPipeline
from torch import nn

from retake.diffusion.families.common.unet import UNet, blank, site, text_width
from retake.diffusion.loading import components
from retake.diffusion.loading.lora_and_ip import merge_lora
from retake.diffusion.model import Model
from retake.weights.local import require


class UNet3D(UNet):
    """ModelScope's family: text alone, any number of frames."""

    def blank(self) -> nn.Module:
        config = dict(self.config)
        return blank(lambda: UNet3DConditionModel.from_config(config))


def network(model: Model, folders: list[Path], found: dict[str, Any], dtype: torch.dtype) -> Any:
    """The U-Net that the settings describe. Raises as `loading.load`."""
    folder = components.find("unet", *folders)
    assert folder is not None  # loading.sources has looked
    unet = components.read("unet", folder, dtype, ("UNet3DConditionModel",))
    if model.lora is not None:
        # diffusers' 3-D U-Net lacks the mixin that its LoRA loaders call. It is lent for as long as they run; which of
        # Stable Diffusion's pipelines they belong to makes no difference.
        unet.__class__ = type("UNet3DConditionModel", (UNet3DConditionModel, PeftAdapterMixin), {})
        nothing: Any = None
        pipeline = AnimateDiffPipeline(nothing, found["text_encoder"], found["tokenizer"], unet, nothing, nothing)
        merge_lora(pipeline, "unet", require(model.lora), model.lora_scale)
        unet.__class__ = UNet3DConditionModel
    return unet


Adapter = UNet3D
__all__ = ["Adapter", "network", "site", "text_width"]
