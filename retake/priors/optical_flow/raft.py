"""RAFT: optical flow by a network, torchvision's own model and weights.

Teed, Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow", ECCV 2020
(https://arxiv.org/abs/2003.12039).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, Field

from retake.imaging.flow import resize_flow
from retake.imaging.signed import to_signed
from retake.machine.device import INERT, Device, Dtype, device_of, dtype_of
from retake.networks.checkpoint import load_tensors, wrong_weights
from retake.weights.local import require

if TYPE_CHECKING:
    import torch

VERSION = 1
NEEDS: tuple[str, ...] = ()

Pair = tuple[np.ndarray, np.ndarray]

_STRIDE = 8
_SHORTEST = 128  # px; below, the coarsest level of correlations would be smaller than two cells


class Params(BaseModel, frozen=True, extra="forbid"):
    """Which network, and how long it refines."""

    name: Literal["raft"] = "raft"
    weights: str = Field(
        "raft_large",
        description="raft_large, raft_small, or a .pth file of either, which is seen from its tensors",
        json_schema_extra={"weights": ""},
    )
    updates: int = Field(12, ge=1, le=64, description="refinements; time is proportional to it")
    dtype: Dtype = Field("float32", description="precision of the convolutions; positions stay float32")
    device: Device = Field("auto", description="where it runs", json_schema_extra={**INERT})


def weights(params: Params) -> dict[str, str]:
    """The references that these settings load, by role."""
    return {"raft": params.weights}


def pairs(frames: Iterable[np.ndarray], params: Params, first: int = 0) -> Iterator[Pair]:
    """(forward, backward) of each frame and its successor, float32 [H, W, 2] in pixels: N frames give N - 1 pairs.

    frames: uint8 RGB [H, W, 3] of one size. Both directions go through the network in one batch. Sides are continued
    to multiples of 8; frames whose short side is under 128 px are enlarged and the flow is scaled back. Memory grows
    with the square of the number of pixels (all pairs of places are compared, at an eighth of the size): about 1 GB
    at 854x480, 12 GB at 1080p. Results on CPU and GPU agree to about 0.02 px.

    Raises MachineError E302 (weights not here) or E304 (no GPU), ConfigError E262 (weights of another network) before
    the first frame is read; ValueError for frames of two sizes.
    """
    import torch

    device, dtype = device_of(params.device), dtype_of(params.dtype)
    network = load(require(params.weights)).to(device)
    before: torch.Tensor | None = None
    for frame in frames:
        height, width = frame.shape[:2]
        after = _prepared(frame).to(device)
        if before is not None:
            if before.shape != after.shape:
                raise ValueError(f"frames of one size are needed, not {before.shape[-2:]} and {after.shape[-2:]}")
            with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                flows = network(
                    torch.cat([before, after]), torch.cat([after, before]), num_flow_updates=params.updates
                )[-1]
            enlarged = _enlarged(width, height)
            both = flows[..., : enlarged[1], : enlarged[0]].float().permute(0, 2, 3, 1).cpu().numpy()
            yield resize_flow(both[0], (width, height)), resize_flow(both[1], (width, height))
        before = after


def load(path: Path) -> torch.nn.Module:
    """torchvision's raft_large or raft_small, whichever the file's tensors fit, ready to infer, float32 on the CPU.

    Read with weights_only=True: nothing in the file is executed. Raises ConfigError E262 where it holds something else.
    """
    from torchvision.models.optical_flow import raft_large, raft_small

    state = load_tensors(path)
    first = state.get("feature_encoder.convnormrelu.0.weight")  # 64 channels in the large network, 32 in the small one
    if first is None:
        raise wrong_weights(path, "RAFT", "it holds other tensors")
    network = (raft_large if len(first) == 64 else raft_small)(weights=None, progress=False)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise wrong_weights(path, "RAFT", str(error)) from error
    return network.eval()


def _prepared(frame: np.ndarray) -> torch.Tensor:
    """float32 [1, 3, h, w] in [-1, 1], enlarged where it is small, its right and lower edge continued to the stride."""
    import torch
    from torch.nn import functional

    height, width = frame.shape[:2]
    wide, high = _enlarged(width, height)
    image = to_signed(torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None])
    if (wide, high) != (width, height):
        image = functional.interpolate(image, (high, wide), mode="bicubic", align_corners=False).clamp(-1, 1)
    return functional.pad(image, (0, -wide % _STRIDE, 0, -high % _STRIDE), mode="replicate")


def _enlarged(width: int, height: int) -> tuple[int, int]:
    """Size (width, height) at which the network looks at frames: a whole multiple."""
    factor = -(-_SHORTEST // min(width, height))
    return width * factor, height * factor
