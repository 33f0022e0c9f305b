"""What a diffusion model costs, from its real configuration on the meta device: no weights, no downloads, seconds.

    python -m retake.diffusion.cost.measure            # a table of the models that are known
    python -m retake.diffusion.cost.measure --write    # the same into costs.json, which plans read (predict.py)

The configurations/ are those of the published models, as their config.json say; each file names its source and the
number of parameters, which a test counts. Every figure comes from the very code that runs the model (the adapters and
the VAE's chunks), followed by meta_counter.py.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from retake.diffusion.backbone import Condition
from retake.diffusion.cost import CONFIGURATIONS
from retake.diffusion.cost.meta_counter import tally
from retake.diffusion.cost.predict import TABLE, WORKS, Cost, Tally, Work
from retake.diffusion.loading.load import adapter_of, assembled
from retake.diffusion.loading.offload import Parts
from retake.diffusion.model import family_of
from retake.diffusion.schedule import Schedule

META = torch.device("meta")
LONGEST = 226  # states of a prompt in CogVideoX, and the default of its class


@dataclass(frozen=True)
class Architecture:
    """A model: its components by role, as files of configurations/ or folders with a config.json; `states` of a prompt;
    the clip it works on."""

    family: str
    parts: Mapping[str, str | Path]
    states: int
    frames: int
    height: int
    width: int
    dtype: str


def _modelscope(frames: int, height: int, width: int) -> Architecture:
    parts = {"unet": "unet3d", "vae": "sd_vae", "text_encoder": "openclip_h_text"}
    return Architecture("unet3d", parts, 77, frames, height, width, "float16")


def _cogvideox(name: str, dtype: str) -> Architecture:
    parts = {"transformer": name, "vae": f"{name}_vae", "text_encoder": "t5_xxl_encoder"}
    return Architecture("cogvideox", parts, LONGEST, 49, 480, 720, dtype)


PUBLISHED: dict[str, Architecture] = {
    "animatediff": Architecture(
        "unet_motion",
        {"unet": "sd15_unet", "motion_adapter": "motion_v1_5_2", "vae": "sd_vae", "text_encoder": "clip_l_text"},
        states=77,
        frames=16,
        height=512,
        width=512,
        dtype="float16",
    ),
    "ivediff_sd15": Architecture(
        "ivediff",
        {
            "unet": "mimicbrush_unet",
            "reference_unet": "sd15_unet",
            "motion_adapter": "motion_v3",
            "vae": "sd_vae",
            "image_encoder": "openclip_h_image",
        },
        states=0,
        frames=16,
        height=336,
        width=336,
        dtype="float16",
    ),
    "modelscope": _modelscope(16, 256, 256),
    "zeroscope": _modelscope(24, 320, 576),
    "cogvideox_2b": _cogvideox("cogvideox_2b", "float16"),
    "cogvideox_5b": _cogvideox("cogvideox_5b", "bfloat16"),
}


def of_folder(family: str, *folders: Path, frames: int, height: int, width: int, dtype: str) -> Architecture:
    """The architecture of a model in diffusers' folder format; a later folder has what the first lacks."""
    classes, parts = family_of(family).CLASSES, {}
    for folder in reversed(folders):
        parts |= {role: folder / role for role in classes if (folder / role / "config.json").is_file()}
    states = prompt_states(family, parts)
    if "image_encoder" in parts:
        shown = configuration(parts["image_encoder"])["config"]
        states += (shown["image_size"] // shown["patch_size"]) ** 2 + 1
    return Architecture(family, parts, states, frames, height, width, dtype)


def prompt_states(family: str, parts: Mapping[str, str | Path]) -> int:
    """States of a prompt: as many as the text encoder has positions for (T5 has no limit), and no more than a video
    transformer reads (diffusers' own default where no configuration says)."""
    if "text_encoder" not in parts:
        return 0
    denoiser, text = (configuration(parts[role])["config"] for role in (family_of(family).NETWORK, "text_encoder"))
    reads = denoiser.get("max_text_seq_length", LONGEST)
    return min(text.get("max_position_embeddings") or reads, reads)


def cost(architecture: Architecture, works: Sequence[Work] = WORKS) -> Cost:
    """Parameters, operations and peaks of memory of a model on one clip of its own size, in its dtype; of some works
    alone where that is enough."""
    a = architecture
    backbone = built(a)
    roles = [role for role in ("network", "vae", "text_encoder", "image_encoder") if role in backbone.parts]
    networks: dict[str, nn.Module] = {role: backbone.parts.look(role) for role in roles}
    there = [tensor for one in networks.values() for tensor in (*one.parameters(), *one.buffers())]
    grid = backbone.grid(a.frames, a.height, a.width)
    adapter, config = adapter_of(a.family), networks["network"].config
    width, site = adapter.text_width(config), adapter.site(config)

    def inputs() -> dict[str, torch.Tensor]:
        if hasattr(adapter, "inputs"):
            return adapter.inputs(backbone, META)
        return {"states": torch.empty(1, a.states, width, device=META, dtype=backbone.dtype)}

    def evaluation() -> object:
        z, t = torch.empty(1, *grid, device=META), torch.zeros(1, grid.frames, device=META)
        return backbone.predict(z, t, Condition(inputs()))

    def gradient() -> object:
        z = torch.empty(1, *grid, device=META, requires_grad=True)
        t = torch.zeros(1, grid.frames, device=META)
        with backbone.checkpointed():  # as steering does it (sampling/motion_guidance.py)
            found = backbone.features(z, t, Condition(inputs()), [site])[site]
            return torch.autograd.grad(found.float().square().sum(), z)

    def text() -> object:
        if "text_encoder" not in networks:  # it is told by a picture
            return backbone.states(torch.empty(1, 3, a.height, a.width, device=META))
        tokens = min(a.states, getattr(networks["text_encoder"].config, "max_position_embeddings", a.states))
        return networks["text_encoder"](torch.zeros(1, tokens, dtype=torch.int64, device=META)).last_hidden_state

    def encode() -> object:
        return backbone.encode(torch.empty(1, a.frames, 3, a.height, a.width, device=META))

    def decode() -> object:
        return backbone.decode(torch.empty(1, *grid, device=META))

    run = {"text": text, "encode": encode, "decode": decode, "evaluation": evaluation, "gradient": gradient}
    found: dict[str, Tally] = {}
    for work in works:
        with torch.set_grad_enabled(work == "gradient"):
            found[work] = tally(run[work], there)
    return Cost(
        family=a.family,
        frames=a.frames,
        height=a.height,
        width=a.width,
        dtype=a.dtype,
        time=backbone.time,
        site=site,
        parameters={role: sum(p.numel() for p in network.parameters()) for role, network in networks.items()},
        layers={role: max(map(_own, network.modules())) for role, network in networks.items()},
        works=found,
    )


def _own(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters(recurse=False))


def built(architecture: Architecture) -> Any:
    """The backbone of a model on the meta device: the adapter's own class, with shapes for weights."""
    a, dtype = architecture, getattr(torch, architecture.dtype)
    found: dict[str, Any] = {role: component(source) for role, source in a.parts.items()}
    with META:
        found["network"] = assembled(a.family, found)
    for part in found.values():
        nn.Module.to(part, dtype=dtype)  # diffusers' own `to` warns
    return adapter_of(a.family).Adapter(
        Parts(found, META, dtype), Schedule.from_config({}), a.frames, a.height, a.width
    )


def component(source: str | Path) -> nn.Module:
    """A network on the meta device, from a name of configurations/ or a folder with a config.json."""
    facts = configuration(source)
    library, _, name = facts["class"].partition(".")
    kind = getattr(importlib.import_module(library), name)
    with META:
        made = (
            kind.from_config(facts["config"]) if library == "diffusers" else kind(kind.config_class(**facts["config"]))
        )
    return made.eval().requires_grad_(False)


def configuration(source: str | Path) -> dict[str, Any]:
    """`class`, `config`, and for the published ones `source` and `parameters`."""
    if isinstance(source, str):
        return json.loads((CONFIGURATIONS / f"{source}.json").read_text(encoding="utf-8"))
    from retake.diffusion.loading import components

    config = components.settings(source / "config.json")
    name = components.class_of(source.name, source)
    return {"class": f"{components.known()[source.name][name]}.{name}", "config": config}


def known() -> dict[str, Architecture]:
    """The published models, and those that ship with Retake where they are there."""
    shipped = Path(__file__).parents[2] / "weights"
    image, video = shipped / "embedded", shipped / "embedded_dit"
    own: dict[str, Architecture] = {}
    size: dict[str, Any] = {"height": 64, "width": 64, "dtype": "float32"}
    if (image / "unet").is_dir():
        own["embedded"] = of_folder("unet_motion", image, frames=16, **size)
    if ((pictures := shipped / "embedded_ivediff") / "unet").is_dir():
        own["embedded_ivediff"] = of_folder("ivediff", pictures, image, frames=16, **size)
    if (video / "transformer").is_dir():
        own["embedded_dit"] = of_folder("cogvideox", video, frames=17, **size)
    return own | PUBLISHED


def write(path: Path = TABLE) -> None:
    """Work out every known model and write the table that plans read."""
    entries = {name: dataclasses.asdict(cost(one)) for name, one in known().items()}
    path.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


def show() -> None:
    """A table on stdout: parameters in millions, TFLOP, GiB."""
    print(f"{'model':16} {'clip':>14} {'Mparam':>8} {'network':>16} {'encode':>16} {'decode':>16}")
    for name, one in known().items():
        found = cost(one)
        clip = f"{one.width}x{one.height}x{one.frames}"
        works = (found.works[work] for work in ("evaluation", "encode", "decode"))
        cells = " ".join(f"{work.flops / 1e12:7.2f}T {work.peak / 2**30:5.2f}GiB" for work in works)
        print(f"{name:16} {clip:>14} {sum(found.parameters.values()) / 1e6:8.1f} {cells}")


if __name__ == "__main__":
    write() if "--write" in sys.argv[1:] else show()
