"""The network of the sam2 package, built from the package's own configuration, without its Hydra.

Which configuration belongs to a checkpoint shows in its name: sam2.1_hiera_small.pt, sam2_hiera_large.pt, ... These fit
no other's tensors, so the name adds nothing to a key. A file of another name says it in JSON beside it, NAME.json for
NAME.pt, which is part of the key:

    {"base": "sam2.1_hiera_small", "model": {"image_size": 512, "memory_attention": {"num_layers": 2}}}

`model` is merged into the `model` of the package's configuration; it holds plain values, and cannot name classes.
"""

from __future__ import annotations

import contextlib
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retake.networks.checkpoint import wrong_weights
from retake.priors.masks.sam2.follower import fitting

if TYPE_CHECKING:
    import torch

WHAT = "a .pt file of the sam2 package"
SIZES = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}
CONFIGS = {
    f"{v}_hiera_{size}": f"configs/{v}/{v}_hiera_{s}.yaml" for v in ("sam2.1", "sam2") for size, s in SIZES.items()
}
PREDICTOR = "sam2.sam2_video_predictor.SAM2VideoPredictor"
# As the package's own builder sets them, but for two: no holes are filled, which the package does on CUDA alone and
# only where its extension was compiled; and corrected frames condition later ones.
SETTINGS = {
    "sam_mask_decoder_extra_args": {
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    },
    "binarize_mask_from_pts_for_mem_enc": True,
    "fill_hole_area": 0,
    "add_all_frames_to_correct_as_cond": True,
}
MAX_BYTES = 1 << 20


def predictor(path: Path, device: torch.device) -> Any:
    """SAM2VideoPredictor with the weights of a .pt file, in float32. Raises ConfigError E262."""
    import torch

    if not path.is_file():
        raise wrong_weights(path, WHAT, "folders belong to masks.backend=transformers")
    settings = configuration(path)
    with fitting(path, WHAT), hydra_left_alone():
        network = build(settings)
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["model"])
    return network.to(device).eval()


def configuration(path: Path) -> dict[str, Any]:
    """What builds the network of a checkpoint, by its name or JSON beside it. Raises ConfigError E262."""
    own = beside(path)
    name = str(own["base"] if own else path.stem)
    if name not in CONFIGS:
        raise wrong_weights(path, WHAT, f"{name} is not a configuration of the package, which has {', '.join(CONFIGS)}")
    return merged(merged(packaged(name), SETTINGS), own.get("model", {}))


def settings_file(path: Path) -> Path:
    """Where a checkpoint may say how its network is built."""
    return path.with_suffix(".json")


def beside(path: Path) -> dict[str, Any]:
    """What a JSON file beside a checkpoint says; empty where there is none. Raises ConfigError E262."""
    file = settings_file(path)
    if not file.is_file():
        return {}
    with fitting(file, 'settings of the form {"base": NAME, "model": {...}}'):
        if file.stat().st_size > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES} bytes")
        own = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(own, dict) or not {"base"} <= own.keys() <= {"base", "model"}:
            raise ValueError("it has other keys")
        if not isinstance(own.get("model", {}), dict):
            raise ValueError("its model is not a mapping")
        if strange := next((key for key in keys(own) if key.startswith("_")), None):
            raise ValueError(f"the key {strange} is not allowed")
    return own


def keys(node: Any) -> Iterator[str]:
    """Every key of nested mappings and lists."""
    if isinstance(node, dict):
        yield from node
    for one in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from keys(one)


def packaged(name: str) -> dict[str, Any]:
    """The `model` of one of the package's configuration files."""
    from omegaconf import OmegaConf

    with hydra_left_alone():
        import sam2
    settings: Any = OmegaConf.load(Path(str(sam2.__file__)).parent / CONFIGS[name])
    model: Any = OmegaConf.to_container(settings.model, resolve=True)
    return model | {"_target_": PREDICTOR}


def build(node: Any) -> Any:
    """The object that a configuration describes, from the inside out: `_target_` names a class of sam2, the rest are
    its arguments."""
    if isinstance(node, list):
        return [build(one) for one in node]
    if not isinstance(node, dict):
        return node
    arguments = {key: build(value) for key, value in node.items() if key != "_target_"}
    if "_target_" not in node:
        return arguments
    module, _, name = node["_target_"].rpartition(".")
    assert module.startswith("sam2."), module
    return getattr(importlib.import_module(module), name)(**arguments)


@contextlib.contextmanager
def hydra_left_alone() -> Iterator[None]:
    """The first `import sam2` initialises Hydra for the whole process; this puts it back as it was."""
    from hydra.core.global_hydra import GlobalHydra

    before = GlobalHydra.instance().hydra
    try:
        yield
    finally:
        if GlobalHydra.instance().hydra is not before:
            GlobalHydra.instance().clear()
            if before is not None:
                GlobalHydra.instance().initialize(before)


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`, mappings merged in turn."""
    return base | {
        key: merged(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
        for key, value in over.items()
    }
