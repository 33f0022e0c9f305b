"""Networks at their real configuration with random weights, saved as the loading code expects them. Not a benchmark:
`stages` measures with these what each costs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple


class Made(NamedTuple):
    """A stage that looks through a network: settings that name its weights, frames to run on, millions of weights."""

    stage: str
    choice: str
    overrides: tuple[str, ...]
    frames: tuple[int, int]
    millions: float


def all_of(folder: Path) -> Iterator[Made]:
    """Write each network when its turn comes."""
    import torch

    folder.mkdir()
    torch.manual_seed(0)
    for size in ("raft_small", "raft_large"):
        yield flow(folder / f"{size}.pth", size)
    yield depth(folder / "depth_anything")
    yield from masks(folder / "sam2")
    yield from metrics(folder)


def flow(path: Path, size: str) -> Made:
    import torch
    from torchvision.models import optical_flow

    network = getattr(optical_flow, size)(weights=None)
    torch.save(network.state_dict(), path)
    return Made("optical_flow", size, ("optical_flow=raft", f"optical_flow.weights={path}"), (2, 4), millions(network))


def depth(path: Path) -> Made:
    """Depth Anything V2 Small: a DINOv2 ViT-S/14 that hands out four layers."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation

    trunk = {
        "model_type": "dinov2",
        "hidden_size": 384,
        "num_attention_heads": 6,
        "image_size": 518,
        "patch_size": 14,
        "out_features": ["stage3", "stage6", "stage9", "stage12"],
        "reshape_hidden_states": False,
        "apply_layernorm": True,
    }
    sizes = {"reassemble_hidden_size": 384, "neck_hidden_sizes": [48, 96, 192, 384], "fusion_hidden_size": 64}
    network = DepthAnythingForDepthEstimation(DepthAnythingConfig(backbone_config=trunk, **sizes))
    network.save_pretrained(path)
    asked = ("depth=depth_anything", f"depth.weights={path}")
    return Made("depth", "depth_anything, V2 Small", asked, (4, 12), millions(network))


def masks(path: Path) -> Iterator[Made]:
    """SAM 2.1 hiera small in both libraries, one object. The memory is full after seven frames."""
    import torch
    from transformers import (
        Sam2ImageProcessor,
        Sam2VideoConfig,
        Sam2VideoModel,
        Sam2VideoProcessor,
        Sam2VideoVideoProcessor,
    )

    from retake.priors.masks.sam2 import package

    trunk = {"model_type": "sam2_hiera_det_model", "blocks_per_stage": [1, 2, 11, 2]}
    vision = {"model_type": "sam2_vision_model", "backbone_config": trunk}
    network = Sam2VideoModel(Sam2VideoConfig(vision_config=vision))
    network.save_pretrained(path)
    Sam2VideoProcessor(Sam2ImageProcessor(), Sam2VideoVideoProcessor()).save_pretrained(path)
    anything = ("masks=sam2", "masks.threshold=-2000")  # random logits may well show nothing
    asked = (*anything, f"masks.weights={path}")
    yield Made("masks", "sam2 small, transformers", asked, (10, 14), millions(network))
    other = path / "sam2.1_hiera_small.pt"
    theirs = package.build(package.configuration(other))
    torch.save({"model": theirs.state_dict()}, other)
    asked = (*anything, "masks.backend=sam2", f"masks.weights={other}")
    yield Made("masks", "sam2 small, package", asked, (10, 14), millions(theirs))


def metrics(folder: Path) -> Iterator[Made]:
    import torch
    from torchvision.models import alexnet
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, ViTConfig, ViTModel

    trunk = alexnet(weights=None)
    torch.save(trunk.state_dict(), folder / "alexnet.pth")
    asked = ("metrics.names=[lpips]", f"metrics.lpips.weights={folder / 'alexnet.pth'}")
    yield Made("metrics", "lpips, AlexNet", asked, (4, 10), millions(trunk))

    clip = CLIPModel(CLIPConfig())
    clip.save_pretrained(folder / "clip")
    CLIPImageProcessor().save_pretrained(folder / "clip")
    asked = ("metrics.names=[temporal_consistency]", f"metrics.temporal_consistency.weights={folder / 'clip'}")
    yield Made("metrics", "temporal_consistency, CLIP ViT-B/32", asked, (4, 10), millions(clip))

    dino = ViTModel(ViTConfig(), add_pooling_layer=False)
    dino.save_pretrained(folder / "dino")
    asked = (
        "metrics.names=[consistency]",
        "metrics.consistency.dimensions=[subject]",
        f"metrics.consistency.subject_weights={folder / 'dino'}",
    )
    yield Made("metrics", "consistency, DINO ViT-B/16", asked, (4, 10), millions(dino))


def millions(network: Any) -> float:
    """Parameters, in millions."""
    return sum(p.numel() for p in network.parameters()) / 1e6
