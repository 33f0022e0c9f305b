"""A control branch as settings and plans see it: whether it fits a model, and what it costs. Imports nothing heavy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from retake.diffusion.cost import CONFIGURATIONS
from retake.diffusion.model import Model
from retake.errors import ConfigError
from retake.weights.local import locate

FAMILY = "cogvideox"  # the networks that a branch can stand beside
SAME = ("num_attention_heads", "attention_head_dim", "time_embed_dim", "patch_size")  # in branch and network


class Beside(NamedTuple):
    """What a branch adds: `share` of the operations of an evaluation; `parameters`, its weights; `videos` that are
    encoded for it beside the clip."""

    share: float
    parameters: int
    videos: int


NOT_MADE = (
    "Give one made for it, where you have one (the one that ships, and what retake train makes, is for "
    "model=embedded_dit; none is published for large models); without: edit=move, edit=timetomove."
)
NOTHING = Beside(0.0, 0, 0)


def check(reference: str, model: Model) -> None:
    """Whether a branch can stand beside a model, as far as what lies on this machine tells. Raises ConfigError E258."""
    if model.family != FAMILY:
        raise takes_no_branch(model.weights)
    ours, theirs = config_of(locate(reference)), network_config(model)
    if ours and theirs:
        check_fits(ours, theirs, reference, model.weights)


def check_fits(branch: Mapping[str, Any], network: Mapping[str, Any], where: str, model: str) -> None:
    """Raises ConfigError E258 unless the configuration of a branch is made for that of a network. where, model: what
    the error calls them."""
    if not {"depth", "channels", *SAME} <= branch.keys():
        raise misfit(where, model, "it holds another network", "Give the folder of one, as training exports it.")
    for name in SAME:
        if branch.get(name) != network.get(name):
            raise misfit(where, model, f"{name} is {branch.get(name)} there and {network.get(name)} in the model")
    if branch["depth"] > network["num_layers"]:
        raise misfit(where, model, f"it copies {branch['depth']} blocks, and the model has {network['num_layers']}")
    if branch["channels"] % network["in_channels"]:
        raise misfit(where, model, f"it reads {branch['channels']} channels, no multiple of the model's latents")


def beside(reference: str, model: Model) -> Beside:
    """What a branch adds to a model, by the configurations of both; nothing where they are not on this machine."""
    folder = locate(reference)
    ours, theirs = config_of(folder), network_config(model)
    if folder is None or not theirs or not {"depth", "channels", *SAME} <= ours.keys():
        return NOTHING
    width = ours["num_attention_heads"] * ours["attention_head_dim"]
    block = 12 * width**2 + 12 * width * ours["time_embed_dim"]  # attention 4, feed-forward 8; two modulations of 6
    videos = ours["channels"] // theirs["in_channels"] - 1
    return Beside(ours["depth"] / theirs["num_layers"], ours["depth"] * (block + width**2), videos)


def config_of(folder: Path | None) -> dict[str, Any]:
    """A component's configuration; {} where it cannot be read: loading says what is wrong with it."""
    try:
        found = json.loads((folder / "config.json").read_text()) if folder is not None else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def network_config(model: Model) -> dict[str, Any]:
    """Of the model's transformer: as it lies here, else as it is published."""
    if (folder := locate(model.weights)) is not None:
        return config_of(folder / "transformer")
    published = CONFIGURATIONS / f"{model.weights}.json"
    return json.loads(published.read_text(encoding="utf-8"))["config"] if published.is_file() else {}


def takes_no_branch(model: str) -> ConfigError:
    return ConfigError(
        "E258",
        f"{model} takes no control branch: they stand beside video transformers",
        "Take model=embedded_dit, for which one ships, or another video transformer (family cogvideox) with a branch "
        "of its own; without: edit=move, edit=timetomove.",
    )


def misfit(where: str, model: str, why: str, hint: str = NOT_MADE) -> ConfigError:
    return ConfigError("E258", f"{where} is not a control branch of {model}: {why}", hint)
