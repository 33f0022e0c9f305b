"""Parts of the embedded models as they ship, for others to learn from: a training need not make them anew.

What a shipped part gives differs from what its training's folder gives by half precision alone. Parts of the models
that are to come are laid into next/ as they are finished, in the same places: a model is used when all its parts are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from retake.training import transformer, unet

HERE = Path(__file__).resolve().parent.parent / "weights"

PLACES = {
    "vae": ("embedded/vae",),
    "clip": ("embedded/text_encoder", "embedded/image_encoder"),
    "unet": ("embedded/unet", "embedded/text_encoder"),
    "motion": ("embedded/motion_adapter", "embedded/unet", "embedded/text_encoder"),
    "video_vae": ("embedded_dit/vae",),
    "transformer_frames": ("embedded_dit/transformer", "embedded_dit/text_encoder"),
    "transformer": ("embedded_dit/transformer", "embedded_dit/text_encoder"),
    "control": ("motionv2v",),
    "video_mae": ("video_mae",),
    "motion_subspace": ("motion_subspace",),
    "aligned": ("aligned",),
    "aligned_lora": ("aligned_lora",),
    "judge": ("judge",),
    "ivediff_image": (
        "embedded_ivediff/unet",
        "embedded_ivediff/reference_unet",
        "embedded_ivediff/image_projection",
        "embedded_ivediff/depth_guider",
    ),
    "ivediff": ("embedded_ivediff/motion_adapter", "embedded_ivediff/motion_reference"),
}
"""Folders of weights by part."""
ALSO = {"transformer_frames": "transformer"}
"""Parts as which a later one serves, that took their place."""


def folders(part: str) -> list[Path]:
    """A part's folders, of the models to come where it is finished; [] where it does not ship. The card beside them
    says what was exported: two parts may share a folder, of which the later replaces the earlier."""
    card = PLACES[part][0].partition("/")[0] + ".training.json"
    for root in (HERE / "next", HERE):
        said = json.loads((root / card).read_text()) if (root / card).exists() else {}
        if (part in said or ALSO.get(part) in said) and all(
            any((root / place).glob("*.safetensors")) for place in PLACES[part]
        ):
            return [root / place for place in PLACES[part]]
    return []


def ships(part: str) -> bool:
    """Whether all of a part's folders hold weights."""
    return bool(folders(part))


def load(part: str) -> Any:
    """The network of a part that others learn from: vae, clip (text_model and vision_model), unet or motion
    (unet.Student), video_vae, transformer_frames or transformer (transformer.Student), control, video_mae
    (video_mae.Taught, but for what tells words), motion_subspace, ivediff_image (EditingNetwork); float32.

    Raises KeyError for a part that nothing learns from, OSError where it does not ship.
    """
    found = folders(part) or [HERE / place for place in PLACES[part]]
    return LOADERS[part](*found).eval().requires_grad_(False)


def vae(folder: Path) -> Any:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    return AutoencoderKL.from_pretrained(folder, low_cpu_mem_usage=False).float()


def clip(text: Path, image: Path) -> Any:
    from torch import nn
    from transformers import CLIPTextModel, CLIPVisionModelWithProjection

    both = nn.Module()
    written = CLIPTextModel.from_pretrained(text).float()
    both.text_model = getattr(written, "text_model", written)
    both.vision_model = CLIPVisionModelWithProjection.from_pretrained(image).float().vision_model
    return both


def frames_unet(folder: Path, text: Path) -> Any:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextModel

    written = CLIPTextModel.from_pretrained(text).float()
    frames: Any = UNet2DConditionModel.from_pretrained(folder, low_cpu_mem_usage=False)
    return unet.Student(frames.float(), getattr(written, "text_model", written))


def motion_unet(modules: Path, folder: Path, text: Path) -> Any:
    from diffusers.models.unets.unet_motion_model import MotionAdapter, UNetMotionModel

    student = frames_unet(folder, text)
    adapter: Any = MotionAdapter.from_pretrained(modules, low_cpu_mem_usage=False)
    student.unet = UNetMotionModel.from_unet2d(student.unet, adapter.float())
    return student


def video_vae(folder: Path) -> Any:
    from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX

    return AutoencoderKLCogVideoX.from_pretrained(folder, low_cpu_mem_usage=False).float()


def frames_transformer(folder: Path, text: Path) -> Any:
    from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
    from transformers import T5EncoderModel

    frames: Any = CogVideoXTransformer3DModel.from_pretrained(folder, low_cpu_mem_usage=False)
    return transformer.Student(frames.float(), T5EncoderModel.from_pretrained(text).float())


def control(folder: Path) -> Any:
    from retake.diffusion.families.cogvideox.control import ControlBranch

    branch: Any = ControlBranch.from_pretrained(folder)
    return branch.float()


def video_mae(folder: Path) -> Any:
    from transformers import VideoMAEForPreTraining

    from retake.training.video_mae import Taught

    return Taught(VideoMAEForPreTraining.from_pretrained(folder).float())


def motion_subspace(folder: Path) -> Any:
    from retake.training.motion_subspace import MotionSubspace

    subspace: Any = MotionSubspace.from_pretrained(folder)
    return subspace.float()


def ivediff_image(unet: Path, reference: Path, projection: Path, guider: Path) -> Any:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    from retake.diffusion.families.ivediff.guides import DepthGuider, ImageProjection
    from retake.diffusion.families.ivediff.network import EditingNetwork

    kinds = UNet2DConditionModel, UNet2DConditionModel, ImageProjection, DepthGuider
    folders = unet, reference, projection, guider
    parts: list[Any] = [
        kind.from_pretrained(folder, low_cpu_mem_usage=False) for kind, folder in zip(kinds, folders, strict=True)
    ]
    return EditingNetwork(*(part.float() for part in parts))


LOADERS = {
    "vae": vae,
    "clip": clip,
    "unet": frames_unet,
    "motion": motion_unet,
    "video_vae": video_vae,
    "transformer_frames": frames_transformer,
    "transformer": frames_transformer,
    "control": control,
    "video_mae": video_mae,
    "motion_subspace": motion_subspace,
    "ivediff_image": ivediff_image,
}
