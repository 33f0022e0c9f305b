"""Depth Anything: relative inverse depth of single frames by a network, in transformers' own classes.

Yang et al., "Depth Anything V2", NeurIPS 2024 (https://arxiv.org/abs/2406.09414). The Small weights are Apache-2.0;
Base and Large are CC-BY-NC-4.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from retake.machine.device import INERT, Device, Dtype, device_of, dtype_of
from retake.networks.checkpoint import load_local, load_pretrained
from retake.weights.local import require

VERSION = 1
NEEDS: tuple[str, ...] = ()

LARGEST = 1000.0  # maps are kept as float16
NON_COMMERCIAL = re.compile(r"depth-?anything.*(base|large|giant)", re.IGNORECASE)


class Params(BaseModel, frozen=True, extra="forbid"):
    """Which network, and how it runs."""

    name: Literal["depth_anything"] = "depth_anything"
    weights: str = Field(
        "depth_anything_v2_small",
        description="a name, a folder, or org/repo of a Depth Anything model in transformers' format; V2 Small is "
        "Apache-2.0, Base and Large are CC-BY-NC-4.0",
        json_schema_extra={"weights": ""},
    )
    dtype: Dtype = Field("float32", description="precision of the network")
    batch: int = Field(
        4, ge=1, le=64, description="frames at once", json_schema_extra={"inert": "batches agree to 1e-4"}
    )
    device: Device = Field("auto", description="where it runs", json_schema_extra={**INERT})


def weights(params: Params) -> dict[str, str]:
    """The references that these settings load, by role."""
    return {"depth": params.weights}


def notes(params: Params) -> list[str]:
    """What to know about the result."""
    found = ["Depth by Depth Anything: relative, each frame on a scale of its own."]
    if NON_COMMERCIAL.search(params.weights):
        found.append(f"The weights {params.weights} are CC-BY-NC-4.0: no commercial use.")
    return found


def maps(frames: Any, flow: Any, params: Params, first: int = 0) -> Iterator[np.ndarray]:
    """Relative inverse depth of frames first, first + 1, ...: float32 [H, W], 0 to 1000, larger is nearer.

    frames: a series of uint8 RGB [H, W, 3]; `flow` is not used. Frames are resized as the model's own image processor
    says (short side 518, multiples of 14, ImageNet's mean and deviation), its depth is resized back. A model that
    gives metres is turned into 1 / metres. Batches begin at multiples of `batch`, so a map does not depend on `first`.

    Raises MachineError E302 (weights not here) or E304 (no GPU), ConfigError E262 (weights of another network) before
    the first frame is read.
    """
    import torch

    device, dtype = device_of(params.device), dtype_of(params.dtype)
    network, processor = load(require(params.weights))
    network = network.to(device, dtype)
    metric = network.config.depth_estimation_type == "metric"
    for start in range(first - first % params.batch, len(frames), params.batch):
        batch = [frames[t] for t in range(start, min(start + params.batch, len(frames)))]
        pixels = processor(images=batch, return_tensors="pt")["pixel_values"].to(device, dtype)
        with torch.inference_mode():
            found = network(pixel_values=pixels)
        found.predicted_depth = found.predicted_depth.float()
        sizes = [frame.shape[:2] for frame in batch]
        for t, one in enumerate(processor.post_process_depth_estimation(found, target_sizes=sizes), start):
            if t >= first:
                depth = one["predicted_depth"].clamp(min=1 / LARGEST if metric else 0)
                yield (1 / depth if metric else depth).clamp(max=LARGEST).cpu().numpy()


def load(path: Path) -> tuple[Any, Any]:
    """(DepthAnythingForDepthEstimation in float32 on the CPU, its image processor) of a local folder.

    A folder without preprocessor_config.json gets the processor that all Depth Anything models share. Raises
    ConfigError E262 where the folder holds another network, E263 where it wants code of its own to run.
    """
    from transformers import DepthAnythingForDepthEstimation, DPTImageProcessor

    network = load_pretrained(DepthAnythingForDepthEstimation, path, "Depth Anything")
    if (path / "preprocessor_config.json").is_file():
        return network, load_local(DPTImageProcessor, path, "Depth Anything with its processor")
    return network, DPTImageProcessor(
        size={"height": 518, "width": 518},
        keep_aspect_ratio=True,
        ensure_multiple_of=14,
        resample=3,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
