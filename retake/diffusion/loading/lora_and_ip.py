"""LoRA and IP-Adapters, read by diffusers' own loaders and, for LoRA, merged into the weights once.

A merged LoRA costs nothing at a step, and leaves the network's classes as they were.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from retake.diffusion.loading import components
from retake.diffusion.model import image_encoder_of
from retake.errors import ConfigError

LORA = "retake"
HALVES = {"A.weight", "B.weight", "B.bias", "magnitude_vector", "magnitude_vector.weight"}  # of a layer, as peft names


def merge_lora(pipeline: Any, role: str, path: Path, scale: float) -> None:
    """Merge a LoRA file into the components of a diffusers pipeline, in place. `role` is that of its network.

    All of it goes in, or nothing: diffusers would leave out what has no place, with no more than a line in its log, and
    the result would be that of no LoRA. Raises ConfigError E287 where it does not fit the network, E282 for a pickle.
    """
    state, file = components.tensors(path, "a LoRA")
    try:
        with components.quiet():
            check_lora(pipeline, role, state)
            pipeline.load_lora_weights(dict(state), adapter_name=LORA)
            taken = [name for name, loaded in pipeline.get_list_adapters().items() if LORA in loaded]
            pipeline.fuse_lora(components=taken, lora_scale=scale, adapter_names=[LORA])
            pipeline.unload_lora_weights()
    except Exception as error:  # ValueError, RuntimeError of a size mismatch, KeyError of a name
        why = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ConfigError("E287", f"{file} does not fit this model: {why[:200]}", "Give a LoRA made for it.") from error


def check_lora(pipeline: Any, role: str, state: Mapping[str, Any]) -> None:
    """See that every weight of a LoRA has its layer in the pipeline, and every layer both of its factors. Raises
    ValueError in words, with counts and a name; or as diffusers does, for a format that it does not know."""
    found = pipeline.lora_state_dict(dict(state))
    given = dict(found[0] if isinstance(found, tuple) else found)  # beside it, the scales of kohya's format
    count, layers = len(given), dict[str, set[str]]()
    astray = [name for name in state if "dora_scale" in name]  # diffusers goes on without the scales of a DoRA
    for part in (role, "text_encoder"):
        if (network := getattr(pipeline, part, None)) is None:
            continue
        there = {name for name, _ in network.named_modules()}
        own = {name.partition(".")[2]: given.pop(name) for name in list(given) if name.startswith(f"{part}.")}
        for name in peft_names(own, network, words=part != role):
            layer, _, half = name.rpartition(".lora_")
            if layer in there and half in HALVES:
                layers.setdefault(f"{part}.{layer}", set()).add(half)
            else:
                astray.append(f"{part}.{name}")
    astray += given
    if not any(layer.startswith(f"{role}.") for layer in layers):
        some = f", not {astray[0]}" if astray else ""
        raise ValueError(f"none of its {count} weights has a place in the {role}{some}")
    if astray:
        raise ValueError(f"{len(astray)} of its {count} weights have no place in it, {astray[0]} among them")
    if halved := [layer for layer, halves in layers.items() if not halves >= {"A.weight", "B.weight"}]:
        raise ValueError(f"{len(halved)} of its {len(layers)} layers lack a factor, {halved[0]} among them")


def peft_names(state: dict[str, Any], network: Any, words: bool) -> Iterator[str]:
    """Names of a component's part of a LoRA as diffusers' loaders turn them into peft's. words: of a text encoder."""
    from diffusers.utils import state_dict_utils as formats

    if not state:
        return
    if not words:
        yield from state if "lora_A" in next(iter(state)) else formats.convert_unet_state_dict_to_peft(state)
        return
    level = "" if hasattr(network, "text_model") else "text_model."  # which transformers has done without since 5
    plain = formats.convert_state_dict_to_diffusers(state)
    yield from (name.removeprefix(level) for name in formats.convert_state_dict_to_peft(plain))


def add_image_adapter(pipeline: Any, path: Path) -> Path | None:
    """Put an IP-Adapter into the U-Net of a diffusers pipeline, in place; the folder of its image encoder, if there.

    Raises ConfigError E288 where it does not fit, E281 and E282 as `components.tensors`.
    """
    state, file = components.tensors(path, "an IP-Adapter")
    parts: dict[str, dict[str, Any]] = {"image_proj": {}, "ip_adapter": {}}
    for name, value in state.items():
        head, _, rest = name.partition(".")
        if head not in parts:
            raise ConfigError("E288", f"{file} is not an IP-Adapter: it holds {name}", "Give the file of one.")
        parts[head][rest] = value
    try:
        with components.quiet():
            pipeline.load_ip_adapter(parts, subfolder="", weight_name="", image_encoder_folder=None)
    except Exception as error:
        why = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ConfigError("E288", f"{file} does not fit this model: {why[:200]}", "Give one made for it.") from error
    return image_encoder_of(file)
