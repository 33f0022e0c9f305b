"""LoRA and IP-Adapters, read by diffusers' own loaders and, for LoRA, merged into the weights once.

A merged LoRA costs nothing at a step, and leaves the network's classes as they were.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retake.diffusion import components
from retake.diffusion.model import image_encoder_of
from retake.errors import ConfigError

LORA = "retake"


def merge_lora(pipeline: Any, role: str, path: Path, scale: float) -> None:
    """Merge a LoRA file into the components of a diffusers pipeline, in place. `role` is that of its network.

    Raises ConfigError E287 where it does not fit the network, E282 for a pickle.
    """
    state, file = components.tensors(path, "a LoRA")
    try:
        with components.quiet():
            pipeline.load_lora_weights(dict(state), adapter_name=LORA)
            network = getattr(pipeline, role)
            if LORA not in getattr(network, "peft_config", {}):
                raise ValueError("none of its weights are of this network")
            taken = [name for name, loaded in pipeline.get_list_adapters().items() if LORA in loaded]
            pipeline.fuse_lora(components=taken, lora_scale=scale, adapter_names=[LORA])
            pipeline.unload_lora_weights()
    except Exception as error:  # ValueError, RuntimeError of a size mismatch, KeyError of a name
        why = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ConfigError("E287", f"{file} does not fit this model: {why[:200]}", "Give a LoRA made for it.") from error


def add_image_adapter(pipeline: Any, path: Path) -> Path | None:
    """Put an IP-Adapter into the U-Net of a diffusers pipeline, in place; the folder of its image encoder, if there.

    Raises ConfigError E288 where it does not fit, E281 and E282 as `components.tensors`.
    """
    state, file = components.tensors(path, "an IP-Adapter")
    parts: dict[str, dict[str, Any]] = {"image_proj": {}, "ip_adapter": {}}
    for name, value in state.items():
        head, _, rest = name.partition(".")
        if head not in parts:
            raise ConfigError("E288", f"{file} is no IP-Adapter: it holds {name}", "Give the file of one.")
        parts[head][rest] = value
    try:
        with components.quiet():
            pipeline.load_ip_adapter(parts, subfolder="", weight_name="", image_encoder_folder=None)
    except Exception as error:
        why = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ConfigError("E288", f"{file} does not fit this model: {why[:200]}", "Give one made for it.") from error
    return image_encoder_of(file)
