"""Interpolated midpoint frames, which motion smoothness compares the dropped frames with.

amt_s    AMT-S, VBench's own: Li et al., AMT: All-Pairs Multi-Field Transforms, CVPR 2023. The network is in the
         package vbench only, whose pinned versions conflict with ours; its AMT part needs none of them.
flow     both frames moved half way along DIS flow and averaged. A definition of its own, without weights.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retake.errors import ConfigError
from retake.machine.device import device_of
from retake.networks.checkpoint import display_name, load_tensors, wrong_weights
from retake.weights.local import require

if TYPE_CHECKING:
    import torch

Frame = NDArray[np.uint8]
MODULE = "vbench.third_party.amt.networks.AMT-S"
STRIDE = 16  # px; frames are padded to a multiple of it, as VBench does where it does not shrink them
MIN_SIDE = 128  # px; below it the coarsest correlations have one row, and AMT divides by zero


def load_amt(reference: str, device: str = "auto") -> Amt:
    """AMT-S over local weights: a catalogue name or a .pth file.

    Raises MachineError E302 when the weights are missing, E304 when the device is, ConfigError E261 when the package
    vbench is not installed, E262 when the weights are not AMT-S's.
    """
    path = require(reference)
    return Amt(path, display_name(reference, path), device_of(device))


def amt_class() -> Any:
    """The original network class of AMT-S. Raises ConfigError E261 when the package vbench is missing."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        return importlib.import_module(MODULE).Model
    except ImportError as error:
        raise ConfigError(
            "E261",
            f"AMT-S is part of the package vbench, which cannot be imported here ({error})",
            "pip install --no-deps vbench, or metrics.smoothness.interpolator=flow (not VBench's numbers)",
        ) from error
    finally:  # importing vbench sets up logging for the whole process
        root.handlers[:], root.level = handlers, level


class Amt:
    """Midpoints by AMT-S, at the frames' own size: VBench shrinks frames where a GPU's memory is short, which would
    make the number depend on the machine."""

    def __init__(self, path: Path, label: str, device: torch.device) -> None:
        self.name, self.device = f"AMT-S {label}", device
        self.model = amt_class()()
        try:
            self.model.load_state_dict(load_tensors(path))
        except RuntimeError as error:
            raise wrong_weights(path, "a file of AMT-S", str(error)) from error
        self.model.eval().requires_grad_(False).to(device)

    def midpoint(self, first: Frame, second: Frame) -> Frame:
        """Two uint8 RGB [H, W, 3] -> uint8 [H, W, 3]; levels are cut off, not rounded, as VBench does."""
        import torch

        height, width = first.shape[:2]
        down, across = (max(MIN_SIDE - side, -side % STRIDE) for side in (height, width))
        margin = across // 2, across - across // 2, down // 2, down - down // 2

        def prepared(frame: Frame) -> torch.Tensor:
            pixels = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].to(self.device) / 255.0
            return torch.nn.functional.pad(pixels, margin, mode="replicate")

        half = torch.full((1, 1, 1, 1), 0.5, device=self.device)
        with torch.inference_mode():
            found = self.model(prepared(first), prepared(second), half, scale_factor=1.0, eval=True)["imgt_pred"]
        found = found[0, :, margin[2] : margin[2] + height, margin[0] : margin[0] + width]
        return (found * 255.0).permute(1, 2, 0).cpu().numpy().clip(0, 255).astype(np.uint8)


class Flow:
    """Midpoints along DIS flow. With F = (forward - backward) / 2 at each place, the midpoint there is the mean of
    first(p - F/2) and second(p + F/2); where one of them lies outside the frame, the other alone."""

    name = "DIS midpoints, not VBench's AMT-S"

    def midpoint(self, first: Frame, second: Frame) -> Frame:
        """Two uint8 RGB [H, W, 3] -> uint8 [H, W, 3]."""
        from retake.imaging.flow import in_bounds, warp
        from retake.priors.optical_flow import dis

        forward, backward = dis.estimate(first, second, dis.Params(preset="medium"))
        half = (forward - backward) / 4
        known = [in_bounds(-half)[..., None], in_bounds(half)[..., None]]
        moved = [warp(first, -half), warp(second, half)]
        weight = [np.where(known[0] | ~known[1], 0.5, 0.0), np.where(known[1] | ~known[0], 0.5, 0.0)]
        total = weight[0] + weight[1]
        picture = (moved[0] * weight[0] + moved[1] * weight[1]) / total
        return np.rint(picture).clip(0, 255).astype(np.uint8)
