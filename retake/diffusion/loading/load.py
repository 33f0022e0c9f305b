"""From settings to a backbone: find the folders, read the components, see that they fit one another.

Folders are in diffusers' format: `unet` or `transformer`, `vae`, `text_encoder`, `tokenizer`, `image_encoder`,
`motion_adapter`, `scheduler`. What `weights` lacks is taken from `parts`. Nothing is downloaded, no code of a folder
runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from retake.diffusion.backbone import Backbone
from retake.diffusion.loading import components
from retake.diffusion.loading.offload import Parts
from retake.diffusion.model import Model, Noise, family_of
from retake.diffusion.schedule import Schedule
from retake.errors import ConfigError
from retake.machine.device import device_of, dtype_of
from retake.networks.checkpoint import refuse_remote_code
from retake.weights.local import require

Channels = Callable[[Any], int]
ENCODERS = ("vae", "text_encoder", "tokenizer", "image_encoder")


def load(model: Model) -> Backbone:
    """The backbone of a model, ready to infer.

    Raises MachineError E302 where weights are not on this machine, E304 without the GPU that was asked for; ConfigError
    E279 for a kind of network that the family does not support, E280 for a folder of something else, E281 where a
    component is missing, E282 for pickled weights, E263 and E283 for code, E284 where VAE and network, E285 where text
    and network do not fit, E286 for a checkpoint, E287 for a LoRA, E288 for an image adapter that does not fit, E289
    for weights that do not load, E272 for a clip size that the model cannot take, E276 for its schedule.
    """
    device, dtype = device_of(model.device), dtype_of(model.dtype)
    adapter, role = adapter_of(model.family), family_of(model.family).NETWORK
    folders = sources(model)
    refuse_kind(adapter, part(folders, role))
    schedule = schedule_of(folders, model.schedule)
    vouch(folders, (*ENCODERS, role))
    found = encoders(folders, dtype, family_of(model.family).CLASSES)
    found["network"] = adapter.network(model, folders, found, dtype)
    if model.checkpoint is not None:
        overlay(found["network"], require(model.checkpoint))
    check(found, folders[0], adapter.text_width(found["network"].config), channels_of(adapter))
    backbone = adapter.Adapter(Parts(found, device, dtype, model.offload), schedule, *size_of(model))
    backbone.grid(*size_of(model))
    return backbone


def load_coder(model: Model) -> Backbone:
    """The backbone as far as `encode` and `decode` need it: its autoencoder. Of the network only the configuration is
    read, so that gigabytes stay on disk; it cannot predict.

    Raises MachineError E302, E304, ConfigError E263, E272, E276, E279 to E284 and E289, as `load`.
    """
    device, dtype = device_of(model.device), dtype_of(model.dtype)
    folders, role = sources(model), family_of(model.family).NETWORK
    refuse_kind(adapter_of(model.family), part(folders, role))
    schedule = schedule_of(folders, model.schedule)
    vouch(folders, ("vae", role))
    found = {
        "vae": components.read("vae", part(folders, "vae"), dtype),
        "network": components.outline(role, part(folders, role)),
    }
    check_channels(found, folders[0], channels_of(adapter_of(model.family)))
    parts = Parts(found, device, dtype, model.offload)
    backbone = adapter_of(model.family).Adapter(parts, schedule, *size_of(model))
    backbone.grid(*size_of(model))
    return backbone


def channels_of(adapter: Any) -> Channels:
    """How a family's configuration says of how many channels its latents are."""
    return getattr(adapter, "channels", lambda config: config.in_channels)


def adapter_of(family: str) -> Any:
    """The module that runs a family: see families/__init__.py."""
    return import_module(f"retake.diffusion.families.{family}.adapter")


def assembled(family: str, found: dict[str, Any]) -> Any:
    """The denoiser of a family out of components by role, which are taken from `found`."""
    make = getattr(adapter_of(family), "assembled", None)
    return make(found) if make else found.pop(family_of(family).NETWORK)


def size_of(model: Model) -> tuple[int, int, int]:
    """(frames, height, width)."""
    return model.frames, model.height, model.width


def sources(model: Model) -> list[Path]:
    """Folders in which components are looked for, in order. Raises MachineError E302, ConfigError E280, E281, E283."""
    references = [reference for reference in (model.weights, model.parts) if reference is not None]
    folders = [require(reference) for reference in references]
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError("E280", f"{folder} is not a folder", "Give a folder in diffusers' format.")
        components.check_index(folder)
    role = family_of(model.family).NETWORK
    if components.find(role, *folders) is None:
        raise ConfigError(
            "E280",
            f"{folders[0]} is not a model of the family {model.family}: it has no folder {role}",
            "Choose the family that it belongs to (model.family), or give another folder (model.weights).",
        )
    return folders


def refuse_kind(adapter: Any, network: Path) -> None:
    """Let the family say that it does not support this kind of network, before other checks find what follows from it.
    Raises what `refuse` of the family raises, and ConfigError E280."""
    if hasattr(adapter, "refuse"):
        adapter.refuse(components.settings(network / "config.json"))


def vouch(folders: list[Path], roles: Iterable[str]) -> None:
    """Look at configurations of components before gigabytes of any are read. Raises ConfigError E262, E263, E280
    and E283."""
    for role in roles:
        if (folder := components.find(role, *folders)) is not None:
            refuse_remote_code(folder, f"a {components.class_of(role, folder)}")


def encoders(folders: list[Path], dtype: torch.dtype, roles: Iterable[str] = ENCODERS) -> dict[str, Any]:
    """VAE, text encoder and tokenizer of a family that has these `roles`, and the image encoder where there is one; one
    that reads no text needs it. Raises ConfigError E281."""
    found: dict[str, Any] = {}
    for role in (role for role in ENCODERS if role in roles):
        optional = role == "image_encoder" and "text_encoder" in roles
        if not optional or components.find(role, *folders) is not None:
            found[role] = components.read(role, part(folders, role), dtype)
    return found


def part(folders: list[Path], role: str) -> Path:
    """The folder of a component. Raises ConfigError E281 where there is none."""
    if (folder := components.find(role, *folders)) is not None:
        return folder
    where = " nor ".join(map(str, folders))
    raise ConfigError("E281", f"{where} has no {role}", "Give a folder that has one: model.parts=FOLDER.")


def schedule_of(folders: list[Path], changes: Noise = Noise()) -> Schedule:  # noqa: B008  frozen
    """The schedule that stands beside the weights, with changes. Raises ConfigError E276, E280, E281."""
    folder = components.find("scheduler", *folders)
    if folder is None:
        raise ConfigError("E281", f"{folders[0]} has no scheduler", "Give the folder that the model was saved in.")
    config = components.settings(folder / "scheduler_config.json")
    changed = {
        "beta_schedule": changes.beta_schedule,
        "timestep_spacing": changes.spacing,
        "rescale_betas_zero_snr": changes.zero_terminal_snr,
        "prediction_type": changes.prediction,
    }
    return Schedule.from_config(config | {name: value for name, value in changed.items() if value is not None})


def overlay(network: Any, path: Path) -> None:
    """Lay own weights over a network's, in place: all of them, or those of some layers.

    Raises ConfigError E286 for a name that the network does not have, or another shape.
    """
    own = network.state_dict()
    given, file = components.tensors(path, "the network")
    for name, value in given.items():
        if name not in own:
            raise ConfigError("E286", f"{file} has weights {name}, and the network has none", _OVER)
        if own[name].shape != value.shape:
            here, there = tuple(own[name].shape), tuple(value.shape)
            raise ConfigError("E286", f"{file}: {name} is {there}, and the network's is {here}", _OVER)
    network.load_state_dict(given, strict=False)


_OVER = "A checkpoint holds weights of the very network in model.weights, saved as safetensors."


def check(found: dict[str, Any], where: Path, wanted: int, channels: Channels) -> None:
    """See that the components fit one another; the network attends to text states `wanted` wide.

    Raises ConfigError E284, E285.
    """
    check_channels(found, where, channels)
    if "text_encoder" not in found:
        return
    text = found["text_encoder"].config
    width = getattr(text, "d_model", None) or text.hidden_size
    if width != wanted:
        raise ConfigError(
            "E285",
            f"{where}: the text encoder's states are {width} wide, and the network attends to {wanted}",
            "Take both from one model: leave model.parts out, or give the parts that it was trained with.",
        )


def check_channels(found: dict[str, Any], where: Path, channels: Channels) -> None:
    """See that the VAE's latents are the network's. Raises ConfigError E284."""
    network, vae = found["network"].config, found["vae"].config
    if vae.latent_channels != channels(network):
        raise ConfigError(
            "E284",
            f"{where}: the VAE gives {vae.latent_channels} channels, and the network takes {channels(network)}",
            "Take both from one model: leave model.parts out, or give the parts that it was trained with.",
        )
