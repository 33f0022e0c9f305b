"""From a training's folder to the folders that ship: libraries' own format, float16, each with a card.

python -m retake.training.export --size cpu --folder artifacts/training

retake/weights/embedded/      a pipeline as AnimateDiffPipeline saves it: VAE, towers, U-Net, motion adapter
retake/weights/embedded_dit/  the video transformer and its schedule; VAE and towers are those of embedded/
retake/weights/judge/         the other CLIP
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from retake.training import encoders
from retake.training.denoisers import ADAPTER, SCHEDULE
from retake.training.embedded import SIZES, Workshop
from retake.training.loop import progress

HERE = Path(__file__).resolve().parent.parent / "weights"
FOLDERS = {
    "embedded": ("vae", "clip", "unet", "motion"),
    "embedded_dit": ("transformer",),
    "judge": ("judge",),
}


def export(shop: Workshop, name: str, to: Path) -> None:
    """Write one of FOLDERS from the parts as far as they have been trained."""
    aside = to.with_name(f"{to.name}.{os.getpid()}.tmp")
    FOLDER_WRITERS[name](shop, aside)
    shutil.rmtree(to, ignore_errors=True)
    aside.rename(to)
    # Beside the folder, not in it: the folder's content is part of every key.
    card = {part: {**progress(shop.folder / part), "curve": curve(shop.folder / part)} for part in FOLDERS[name]}
    to.with_name(f"{name}.training.json").write_text(json.dumps(card, indent=1) + "\n")


def curve(folder: Path, points: int = 24) -> list[dict[str, float]]:
    """At most so many rows of a training's curve, the last among them."""
    rows = [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]
    stride = max(1, -(-len(rows) // points))
    return rows[::-1][::stride][::-1]


def embedded(shop: Workshop, to: Path) -> None:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    vae, clip, words = shop.vae(), shop.trained("clip"), encoders.tokenizer()
    unet, motion = shop.trained("unet"), shop.trained("motion")
    save(vae, to / "vae")
    save(text_tower(clip), to / "text_encoder")
    save(image_tower(clip), to / "image_encoder")
    words.save_pretrained(to / "tokenizer")
    processor().save_pretrained(to / "feature_extractor")
    save(unet, to / "unet")
    save(adapter(motion), to / "motion_adapter")
    DDIMScheduler(**SCHEDULE).save_pretrained(to / "scheduler")
    index = {
        "_class_name": "AnimateDiffPipeline",
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "motion_adapter": ["diffusers", "MotionAdapter"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    }
    (to / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def embedded_dit(shop: Workshop, to: Path) -> None:
    from diffusers.schedulers.scheduling_ddim_cogvideox import CogVideoXDDIMScheduler

    save(shop.trained("transformer"), to / "transformer")
    CogVideoXDDIMScheduler(**SCHEDULE, snr_shift_scale=1.0).save_pretrained(to / "scheduler")


def judge(shop: Workshop, to: Path) -> None:
    whole_clip(shop.trained("judge"), to)


def whole_clip(clip: Any, to: Path) -> None:
    """Both towers, their tokenizer and their processor in one folder, as retake/networks/clip.py reads it."""
    save(clip, to)
    encoders.tokenizer().save_pretrained(to)
    processor().save_pretrained(to)


FOLDER_WRITERS = {"embedded": embedded, "embedded_dit": embedded_dit, "judge": judge}


def save(model: nn.Module, to: Path) -> None:
    """In half precision: what is lost is far below what training leaves (docs/models.md says how far)."""
    model.to("cpu", torch.float16).save_pretrained(to)  # type: ignore[operator]


def text_tower(clip: Any) -> Any:
    from transformers import CLIPTextModel

    tower = CLIPTextModel(clip.config.text_config)
    getattr(tower, "text_model", tower).load_state_dict(clip.text_model.state_dict())
    return tower


def image_tower(clip: Any) -> Any:
    from transformers import CLIPVisionModelWithProjection

    config = clip.config.vision_config
    config.projection_dim = clip.config.projection_dim
    tower = CLIPVisionModelWithProjection(config)
    tower.vision_model.load_state_dict(clip.vision_model.state_dict())
    tower.visual_projection.load_state_dict(clip.visual_projection.state_dict())
    return tower


def adapter(motion: Any) -> Any:
    """The motion modules of a motion U-Net, as diffusers saves them apart."""
    from diffusers.models.unets.unet_motion_model import MotionAdapter

    made = MotionAdapter(**ADAPTER)
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
    parser.add_argument("--to", type=Path, default=HERE)
    parser.add_argument("--only", choices=sorted(FOLDERS))
    given = parser.parse_args(arguments)
    shop = Workshop(given.folder / given.size, SIZES[given.size], "cpu")
    for name in [given.only] if given.only else FOLDERS:
        export(shop, name, given.to / name)
        size = sum(f.stat().st_size for f in (given.to / name).rglob("*") if f.is_file())
        print(f"{given.to / name}: {size / 1e6:.2f} MB of {', '.join(FOLDERS[name])}")


if __name__ == "__main__":
    main()
