"""Folders of models to spoil, and the entries that are given them."""

from __future__ import annotations

import functools
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

# ---- the entries -------------------------------------------------------------------------------------------------


def of_transformers(folder: Path) -> None:
    from transformers import CLIPModel

    from retake.networks.checkpoint import load_pretrained

    load_pretrained(CLIPModel, folder, "a CLIP model")


def of_tokenizer(folder: Path) -> None:
    from transformers import CLIPTokenizer

    from retake.networks.checkpoint import load_local

    load_local(CLIPTokenizer, folder, "a tokenizer")


def of_pipeline(folder: Path) -> None:
    from retake.diffusion.loading.load import load_coder
    from retake.diffusion.model import Model

    load_coder(Model(weights=str(folder)))


def of_text(folder: Path) -> None:
    from retake.diffusion.loading.components import read

    read("text_encoder", folder / "text_encoder")


# ---- what they are given -----------------------------------------------------------------------------------------


@functools.cache
def small_clip() -> Path:
    """A genuine CLIP of a few kilobytes."""
    import torch
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    words = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2}
    text = small | {"vocab_size": 3, "max_position_embeddings": 4, "bos_token_id": 0, "eos_token_id": 1}
    with torch.random.fork_rng(devices=[]):
        model = CLIPModel(
            CLIPConfig(text_config=text, vision_config=small | {"image_size": 8, "patch_size": 8}, projection_dim=4)
        )
    folder = Path(tempfile.mkdtemp(prefix="clip-"))
    model.save_pretrained(folder)
    CLIPTokenizer(vocab=words, merges=[]).save_pretrained(folder)
    return folder


def clip_with(spoil: Callable[[Path], object]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        spoil(Path(shutil.copytree(small_clip(), folder / "model")))
        return folder / "model"

    return write


def pipeline_with(spoil: Callable[[Path], object]) -> Callable[[Path], Path]:
    """The embedded model, its weights linked, with something changed."""
    from retake.weights.local import require

    def write(folder: Path) -> Path:
        def link(source: str, target: str) -> None:
            os.symlink(source, target) if source.endswith(".safetensors") else shutil.copyfile(source, target)

        spoil(Path(shutil.copytree(require("embedded"), folder / "model", copy_function=link)))
        return folder / "model"

    return write


def changed(name: str, values: dict[str, Any]) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        path = folder / name
        given = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(given | values))

    return spoil


def put(name: str, content: bytes) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

    return spoil


def link_to(name: str, target: str) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return spoil


def only(name: str, content: bytes) -> Callable[[Path], object]:
    """The weights are that file alone."""

    def spoil(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / name).write_bytes(content)

    return spoil


def clean(role: str, name: str, content: bytes) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        for file in (folder / role).glob("*.safetensors"):
            file.unlink()
        (folder / role / name).write_bytes(content)

    return spoil
