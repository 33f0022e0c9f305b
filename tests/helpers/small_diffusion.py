"""Tiny diffusion models with random weights in diffusers' own classes and folder format, for everybody's tests.

Clips of 32x32 pixels and 8 frames; latents of 4 channels at 8x8 (a VAE of stride 4); text of 8 tokens, 16 wide.
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKL,
    DDIMScheduler,
    MotionAdapter,
    TextToVideoSDPipeline,
    UNet2DConditionModel,
    UNet3DConditionModel,
    UNetMotionModel,
)
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
)

WIDTH, LENGTH, SIZE, FRAMES, SPACE = 16, 8, 32, 8, 4
SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def seeded(build: Any, seed: int) -> Any:
    """A network with random weights of its own: the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build().eval()
        for value in network.parameters():  # zeros and ones of a new network would hide mistakes
            value.data += 0.02 * torch.randn_like(value)
        return network


def tokenizer() -> CLIPTokenizer:
    """Every letter is a token."""
    words = [*string.ascii_lowercase, *(c + "</w>" for c in string.ascii_lowercase), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=LENGTH)


def text_encoder(seed: int = 0, width: int = WIDTH) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=54,
        hidden_size=width,
        intermediate_size=32,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        bos_token_id=52,
        eos_token_id=53,
        pad_token_id=53,
    )
    return seeded(lambda: CLIPTextModel(config), seed)


def image_encoder(seed: int = 1, width: int = WIDTH, projected: bool = False) -> Any:
    """A CLIP vision tower: 16 patches and the class token. `projected`: with the head that IP-Adapters read."""
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=32,
        projection_dim=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIZE,
        patch_size=8,
    )
    return seeded(lambda: (CLIPVisionModelWithProjection if projected else CLIPVisionModel)(config), seed)


def vae(seed: int = 2, channels: int = 4) -> AutoencoderKL:
    return seeded(
        lambda: AutoencoderKL(
            block_out_channels=(8, 16, 16),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            latent_channels=channels,
            norm_num_groups=4,
            sample_size=SIZE,
            scaling_factor=0.7,
        ),
        seed,
    )


def unet2d(seed: int = 3, channels: int = 4, width: int = WIDTH) -> UNet2DConditionModel:
    return seeded(
        lambda: UNet2DConditionModel(
            sample_size=SIZE // SPACE,
            in_channels=channels,
            out_channels=channels,
            block_out_channels=(16, 32),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=width,
            attention_head_dim=2,
            norm_num_groups=4,
        ),
        seed,
    )


def motion(seed: int = 4, longest: int = 16) -> MotionAdapter:
    return seeded(
        lambda: MotionAdapter(
            block_out_channels=(16, 32),
            motion_layers_per_block=1,
            motion_num_attention_heads=2,
            motion_norm_num_groups=4,
            motion_max_seq_length=longest,
        ),
        seed,
    )


def unet_motion(seed: int = 3) -> UNetMotionModel:
    return UNetMotionModel.from_unet2d(unet2d(seed), motion(seed + 1)).eval()


def unet3d(seed: int = 5) -> UNet3DConditionModel:
    return seeded(
        lambda: UNet3DConditionModel(
            sample_size=SIZE // SPACE,
            block_out_channels=(16, 32),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
            up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
            cross_attention_dim=WIDTH,
            attention_head_dim=8,
            norm_num_groups=4,
        ),
        seed,
    )


def save(path: Path, **components: Any) -> Path:
    """Components under their roles, as a pipeline's folder without model_index.json."""
    for role, component in components.items():
        component.save_pretrained(path / role)
    return path


def save_embedded_like(path: Path, joint: bool = True, **others: Any) -> Path:
    """A folder laid out as the embedded model's: an image U-Net, a motion adapter, and with `joint` an image encoder as
    wide as the text. `others` replace components by role."""
    found = {
        "unet": unet2d(),
        "motion_adapter": motion(),
        "vae": vae(),
        "text_encoder": text_encoder(),
        "tokenizer": tokenizer(),
        "scheduler": DDIMScheduler(**SCHEDULE),
    }
    if joint:
        found["image_encoder"] = image_encoder(projected=True)
        found["feature_extractor"] = CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size=SIZE)
    return save(path, **found | others)


def animatediff(prediction: str = "epsilon") -> AnimateDiffPipeline:
    return AnimateDiffPipeline(
        vae=vae(),
        text_encoder=text_encoder(),
        tokenizer=tokenizer(),
        unet=unet2d(),
        motion_adapter=motion(),
        scheduler=DDIMScheduler(**SCHEDULE, prediction_type=prediction),
    )


def modelscope() -> TextToVideoSDPipeline:
    return TextToVideoSDPipeline(
        vae=vae(),
        text_encoder=text_encoder(),
        tokenizer=tokenizer(),
        unet=unet3d(),
        scheduler=DDIMScheduler(**SCHEDULE),
    )


def save_animatediff(path: Path) -> Path:
    """What diffusers' AnimateDiffPipeline saves."""
    animatediff().save_pretrained(path)
    return path


def save_modelscope(path: Path) -> Path:
    """What diffusers' TextToVideoSDPipeline saves."""
    modelscope().save_pretrained(path)
    return path


def settings(weights: Path, **more: Any) -> dict[str, Any]:
    """Fields of `Model` for the folders saved here. Windows go through the network together: it is so small that most
    of what a window costs is Python's."""
    sizes = {"height": SIZE, "width": SIZE, "frames": FRAMES}
    return {"weights": str(weights), "device": "cpu", "batch": 8} | sizes | more
