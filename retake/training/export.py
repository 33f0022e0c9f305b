"""From a training's folder to the folders that ship: libraries' own format, float16, each with a card.

python -m retake.training.export --size cpu --folder artifacts/training               every part that is finished
python -m retake.training.export --size cpu --folder artifacts/training --part vae    this one, as far as it is

retake/weights/embedded/      a pipeline as AnimateDiffPipeline saves it: VAE, towers, U-Net, motion adapter
retake/weights/embedded_dit/  a pipeline as CogVideoXPipeline saves it: VAE, T5, transformer
retake/weights/motionv2v/     the control branch of the transformer
retake/weights/video_mae/     the video encoder from which motion is learnt
retake/weights/motion_subspace/  what of its features tells flow
retake/weights/aligned/       the transformer after alignment with it
retake/weights/aligned_lora/  or a LoRA of it, as CogVideoXPipeline saves one
retake/weights/embedded_ivediff/  an editing network, but for the VAE and image encoder of embedded/
retake/weights/judge/         the other CLIP
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from retake.training import encoders, shipped
from retake.training import transformer as dit
from retake.training import unet as motion_unet
from retake.training.lessons import SCHEDULE
from retake.training.loop import progress
from retake.training.sizes import SIZES
from retake.training.workshop import Workshop

INDEX: dict[str, Any] = {
    "embedded": {
        "_class_name": "AnimateDiffPipeline",
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "motion_adapter": ["diffusers", "MotionAdapter"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    },
    "embedded_dit": {
        "_class_name": "CogVideoXPipeline",
        "vae": ["diffusers", "AutoencoderKLCogVideoX"],
        "text_encoder": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "T5Tokenizer"],
        "transformer": ["diffusers", "CogVideoXTransformer3DModel"],
        "scheduler": ["diffusers", "CogVideoXDDIMScheduler"],
    },
    "embedded_ivediff": {  # no pipeline of diffusers has all of them: Retake's own reads it
        "_class_name": "IVEDiff",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "reference_unet": ["diffusers", "UNet2DConditionModel"],
        "motion_adapter": ["diffusers", "MotionAdapter"],
        "image_projection": ["retake", "ImageProjection"],
        "depth_guider": ["retake", "DepthGuider"],
        "motion_reference": ["retake", "MotionReference"],
        "scheduler": ["diffusers", "DDIMScheduler"],
    },
}
"""model_index.json of the folders that are pipelines."""


def export(shop: Workshop, part: str, weights: Path) -> None:
    """Write the folders of one part as far as it has been trained, each aside and then renamed, and its card."""
    for place, write in WRITERS[part](shop).items():
        to = weights / place
        to.parent.mkdir(parents=True, exist_ok=True)
        aside = to.with_name(f"{to.name}.{os.getpid()}.tmp")
        write(aside)
        shutil.rmtree(to, ignore_errors=True)
        aside.rename(to)
    folder = shipped.PLACES[part][0].partition("/")[0]
    if folder in INDEX:
        (weights / folder / "model_index.json").write_text(json.dumps(INDEX[folder], indent=2) + "\n")
    # Beside the folder, not in it: the folder's content is part of every key.
    card = weights / f"{folder}.training.json"
    parts = json.loads(card.read_text()) if card.exists() else {}
    same = [other for other, places in shipped.PLACES.items() if places[0] == shipped.PLACES[part][0] and other != part]
    parts = {other: of for other, of in parts.items() if other not in same}  # its weights were replaced just now
    before = {"before": parts[part]} if shop.further and part in parts else {}
    parts[part] = {**progress(shop.folder / part), "curve": curve(shop.folder / part), **before}
    card.write_text(json.dumps(parts, indent=1) + "\n")


def curve(folder: Path, points: int = 24) -> list[dict[str, float]]:
    """At most so many rows of a training's curve, the last among them."""
    rows = [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]
    stride = max(1, -(-len(rows) // points))
    return rows[::-1][::stride][::-1]


IMAGE_ROLES = ("unet", "reference_unet", "image_projection", "depth_guider")
"""Of an editing network of pictures."""

Writers = dict[str, Callable[[Path], Any]]
"""What writes a folder, by its place under retake/weights."""


def vae(shop: Workshop) -> Writers:
    return {"embedded/vae": partial(save, shop.vae())}


def clip(shop: Workshop) -> Writers:
    whole = shop.trained("clip")
    return {
        "embedded/text_encoder": partial(save, text_tower(whole.text_model)),
        "embedded/image_encoder": partial(save, image_tower(whole)),
        "embedded/tokenizer": encoders.tokenizer().save_pretrained,
        "embedded/feature_extractor": processor().save_pretrained,
    }


def unet(shop: Workshop) -> Writers:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    student = shop.trained("unet")
    return {
        "embedded/unet": partial(save, student.unet),
        "embedded/text_encoder": partial(save, text_tower(student.text)),
        "embedded/scheduler": DDIMScheduler(**SCHEDULE).save_pretrained,
    }


def motion(shop: Workshop) -> Writers:
    """The modules, and the U-Net and its text tower again: they have learnt with them."""
    student, frames = shop.trained("motion"), motion_unet.of_frames()
    have = student.unet.state_dict()
    frames.load_state_dict({name: have[name] for name in frames.state_dict()})
    return {
        "embedded/unet": partial(save, frames),
        "embedded/text_encoder": partial(save, text_tower(student.text)),
        "embedded/motion_adapter": partial(save, adapter(student.unet)),
    }


def video_vae(shop: Workshop) -> Writers:
    return {"embedded_dit/vae": partial(save, shop.video_vae())}


def transformer(shop: Workshop, part: str = "transformer") -> Writers:
    from diffusers.schedulers.scheduling_ddim_cogvideox import CogVideoXDDIMScheduler

    student = shop.trained(part)
    return {
        "embedded_dit/transformer": partial(save, student.transformer),
        "embedded_dit/text_encoder": partial(save, student.text),
        "embedded_dit/tokenizer": dit.tokenizer().save_pretrained,
        "embedded_dit/scheduler": CogVideoXDDIMScheduler(**SCHEDULE, snr_shift_scale=1.0).save_pretrained,
    }


def control(shop: Workshop) -> Writers:
    return {"motionv2v": partial(save, shop.trained("control"))}


def video_mae(shop: Workshop) -> Writers:
    """With the decoder that it was trained with, as published encoders have theirs; without what told the words."""
    return {"video_mae": partial(save, shop.trained("video_mae").mae)}


def motion_subspace(shop: Workshop) -> Writers:
    return {"motion_subspace": partial(save, shop.trained("motion_subspace"))}


def aligned(shop: Workshop) -> Writers:
    """The transformer alone, for `model.checkpoint=`: its text tower has not learnt, the projection has served."""
    return {"aligned": partial(save, shop.trained("aligned").student.transformer)}


def aligned_lora(shop: Workshop) -> Writers:
    """For `model.lora=`."""
    from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline
    from peft import get_peft_model_state_dict

    layers: Any = get_peft_model_state_dict(shop.trained("aligned_lora").student.transformer)
    layers = {name: tensor.half().contiguous() for name, tensor in layers.items()}
    return {"aligned_lora": lambda to: CogVideoXPipeline.save_lora_weights(to, transformer_lora_layers=layers)}


def ivediff_image(shop: Workshop) -> Writers:
    """All but the motion of the editing network, with the schedule that it learnt under."""
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    image = shop.taught("ivediff_image")
    found: Writers = {f"embedded_ivediff/{role}": partial(save, getattr(image, role)) for role in IMAGE_ROLES}
    return found | {"embedded_ivediff/scheduler": DDIMScheduler(**SCHEDULE).save_pretrained}


def ivediff(shop: Workshop) -> Writers:
    clips = shop.trained("ivediff")
    options = {**motion_unet.ADAPTER, "use_motion_mid_block": False}
    whole = ivediff_image(shop) if shop.as_shipped("ivediff_image") else {}  # the folder is a network by itself
    return whole | {
        "embedded_ivediff/motion_adapter": partial(save, adapter(clips.unet, options)),
        "embedded_ivediff/motion_reference": partial(save, clips.motion_reference),
    }


def judge(shop: Workshop) -> Writers:
    return {"judge": partial(whole_clip, shop.trained("judge"))}


WRITERS = {
    "vae": vae,
    "clip": clip,
    "judge": judge,
    "unet": unet,
    "motion": motion,
    "video_vae": video_vae,
    "transformer_frames": partial(transformer, part="transformer_frames"),
    "transformer": transformer,
    "control": control,
    "video_mae": video_mae,
    "motion_subspace": motion_subspace,
    "aligned": aligned,
    "aligned_lora": aligned_lora,
    "ivediff_image": ivediff_image,
    "ivediff": ivediff,
}


def whole_clip(clip: Any, to: Path) -> None:
    """Both towers, their tokenizer and their processor in one folder, as retake/networks/clip.py reads it."""
    save(clip, to)
    encoders.tokenizer().save_pretrained(to)
    processor().save_pretrained(to)


def save(model: nn.Module, to: Path) -> None:
    """In half precision: what is lost is far below what training leaves (docs/models.md says how far).

    Without being told, diffusers reads its own models as float32, and transformers as the configuration says: a
    pipeline of both works where that says float32. Where weights were read from before they learnt on is left out: it
    is a path of one machine.
    """
    model.to("cpu", torch.float16).save_pretrained(to)  # type: ignore[operator]
    config = json.loads((to / "config.json").read_text())
    config.pop("_name_or_path", None)
    if "dtype" in config:
        config["dtype"] = "float32"
    (to / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def text_tower(text: Any) -> Any:
    from transformers import CLIPTextModel

    tower = CLIPTextModel(text.config)
    getattr(tower, "text_model", tower).load_state_dict(text.state_dict())
    return tower


def image_tower(clip: Any) -> Any:
    from transformers import CLIPVisionModelWithProjection

    config = clip.config.vision_config
    config.projection_dim = clip.config.projection_dim
    tower = CLIPVisionModelWithProjection(config)
    tower.vision_model.load_state_dict(clip.vision_model.state_dict())
    tower.visual_projection.load_state_dict(clip.visual_projection.state_dict())
    return tower


def adapter(motion: Any, options: Mapping[str, Any] = motion_unet.ADAPTER) -> Any:
    """The motion modules of a motion U-Net, as diffusers saves them apart."""
    from diffusers.models.unets.unet_motion_model import MotionAdapter

    made = MotionAdapter(**options)
    wanted, have = made.state_dict(), motion.state_dict()
    made.load_state_dict({name: have[name] for name in wanted})
    return made


def processor() -> Any:
    """How pictures become what both towers were trained on: 64 pixels, -1..1."""
    from transformers import CLIPImageProcessor

    size = 64
    return CLIPImageProcessor(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write the folders that ship from a training.")
    parser.add_argument("--size", choices=sorted(SIZES), default="cpu")
    parser.add_argument("--folder", type=Path, required=True, help="where the training lives")
    parser.add_argument("--to", type=Path, default=shipped.HERE)
    parser.add_argument("--part", choices=sorted(WRITERS), nargs="+")
    parser.add_argument("--on-shipped", action="store_true", help="of a training on parts that ship")
    parser.add_argument("--further", action="store_true", help="of a round that began as the part ships")
    given = parser.parse_args(arguments)
    how = {"on_shipped": given.on_shipped, "further": given.further}
    shop = Workshop(given.folder / given.size, SIZES[given.size], "cpu", **how)
    made = [part for part in WRITERS if shop.finished(part) and not shop.as_shipped(part)]
    for part in given.part or made:
        export(shop, part, given.to)
        files = [file for place in shipped.PLACES[part] for file in (given.to / place).rglob("*") if file.is_file()]
        print(f"{part}: {sum(file.stat().st_size for file in files) / 1e6:.2f} MB in {', '.join(shipped.PLACES[part])}")


if __name__ == "__main__":
    main()
