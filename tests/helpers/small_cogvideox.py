"""Tiny CogVideoX models: the genuine classes with random weights, as pipelines and as folders that loading reads."""

from __future__ import annotations

from pathlib import Path

import torch

WORDS = "abcdefgh"


def tokenizer_t5():
    from transformers import T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0), *((word, -2.0) for word in WORDS)]
    return T5Tokenizer(vocab=pieces, extra_ids=0)


def randomised(network: torch.nn.Module, seed: int = 0, spread: float = 0.1) -> torch.nn.Module:
    """The network with weights that all matter: zeros and ones of the initialisation would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
            if parameter.ndim == 1:
                parameter.add_(0.5)
    return network.eval()


def transformer(rotary: bool = False, **changes):
    """2 heads of 16, 3 blocks, for clips of 9 frames at 32x48 with the autoencoder below."""
    from diffusers import CogVideoXTransformer3DModel

    config = {
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "in_channels": 4,
        "out_channels": 4,
        "time_embed_dim": 8,
        "text_embed_dim": 16,
        "num_layers": 3,
        "sample_width": 12,
        "sample_height": 8,
        "sample_frames": 9,
        "patch_size": 2,
        "temporal_compression_ratio": 4,
        "max_text_seq_length": 6,
        "use_rotary_positional_embeddings": rotary,
    }
    return randomised(CogVideoXTransformer3DModel(**config | changes))


def causal_vae():
    """Three levels of 8 channels: 4 pixels a cell, 4 frames a latent frame."""
    from diffusers import AutoencoderKLCogVideoX

    torch.manual_seed(1)
    return AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 3,
        up_block_types=("CogVideoXUpBlock3D",) * 3,
        block_out_channels=(8, 8, 8),
        norm_num_groups=2,
        layers_per_block=1,
        latent_channels=4,
        sample_height=32,
        sample_width=48,
    ).eval()


def text_encoder():
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(2)
    config = T5Config(vocab_size=4 + len(WORDS), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    return T5EncoderModel(config).eval()


def pipeline(rotary: bool = False):
    """A CogVideoXPipeline: v-prediction, zero terminal SNR, trailing timesteps, as the published models."""
    from diffusers import CogVideoXDDIMScheduler, CogVideoXPipeline

    scheduler = CogVideoXDDIMScheduler(
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        snr_shift_scale=1.0 if rotary else 3.0,
        clip_sample=False,
    )
    made = CogVideoXPipeline(tokenizer_t5(), text_encoder(), causal_vae(), transformer(rotary), scheduler)
    made.set_progress_bar_config(disable=True)
    return made


def save(folder: Path, rotary: bool = False) -> Path:
    """The pipeline as a folder in diffusers' format."""
    pipeline(rotary).save_pretrained(folder)
    return folder


def save_embedded(folder: Path) -> tuple[Path, Path]:
    """Two folders like those that ship with Retake: a video transformer with its scheduler, and the parts that it
    shares with an image model (AutoencoderKL, CLIP text and image encoders, tokenizer): 16 frames of 16x16 latents of
    8 channels, 4 pixels a cell."""
    from diffusers import AutoencoderKL, CogVideoXDDIMScheduler
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, CLIPVisionConfig, CLIPVisionModel

    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    words = {"<|startoftext|>": 0, "<|endoftext|>": 1, **{f"{word}</w>": 2 + i for i, word in enumerate(WORDS)}}
    text = small | {"vocab_size": len(words), "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 1}
    network, parts = folder / "dit", folder / "parts"
    torch.manual_seed(3)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        norm_num_groups=2,
        latent_channels=8,
        sample_size=64,
    )
    vae.save_pretrained(parts / "vae")
    CLIPTextModel(CLIPTextConfig(**text)).save_pretrained(parts / "text_encoder")
    CLIPTokenizer(vocab=words, merges=[], model_max_length=8).save_pretrained(parts / "tokenizer")
    CLIPVisionModel(CLIPVisionConfig(image_size=16, patch_size=8, **small)).save_pretrained(parts / "image_encoder")
    transformer(
        in_channels=8,
        out_channels=8,
        sample_width=16,
        sample_height=16,
        sample_frames=16,
        patch_size=4,
        temporal_compression_ratio=1,
        max_text_seq_length=8 + 5,
    ).save_pretrained(network / "transformer")
    CogVideoXDDIMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    ).save_pretrained(network / "scheduler")
    return network, parts
