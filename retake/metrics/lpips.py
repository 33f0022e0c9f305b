"""LPIPS: how different two pictures look to a network that was fitted to people's judgements. Lower is better.

    LPIPS(x, y) = sum over layers of mean over places of w . (f(x) - f(y))^2        f of unit length over channels
    LPIPS-T     = mean over t of LPIPS(x_t, x_{t+1})

`lpips` compares each frame of the result with its source, whole, and `lpips_edit` the box of the edited region: how
much the edit changed, which an edit must. `lpips_t` compares neighbouring frames of the result; motion counts as
change, and a frozen picture scores 0. Two numbers mend that:

    lpips_t_delta  = mean over t of |LPIPS(x_t, x_{t+1}) - LPIPS(s_t, s_{t+1})|      0 = changes as its source does
    lpips_t_warped = mean over t of LPIPS(x_t, x_{t+1} brought back along the source's flow)

Both are failed by a frozen picture where the source moves. Points that the flow leads out of the frame are taken from
x_t, so they count as equal; what becomes hidden is not left out, and costs the source as much (`..._source`).

Source: Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, CVPR 2018, version 0.1.
LPIPS-T as MoCA-Video reports it; the difference to the source is tLP of Chu et al., TecoGAN, SIGGRAPH 2020.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from retake.machine import device
from retake.machine.device import Device
from retake.metrics.common.crop import tight
from retake.metrics.common.sample import NO_FLOW, NO_REGION, Distance, Frame, Result, Sample
from retake.metrics.common.values import same_size

VERSION = 1
NEEDS = ("optical_flow", "region")
DESCRIPTIONS = {
    "lpips": ("LPIPS of the result to its source, whole frame", "lower"),
    "lpips_edit": ("LPIPS of the result to its source, box of the edited region: how much was changed", "lower"),
    "lpips_t": ("LPIPS of neighbouring frames, result; motion counts as change", "lower"),
    "lpips_t_source": ("the same of the source: motion alone costs this much", "lower"),
    "lpips_t_delta": ("mean distance between the two; 0: changes as its source does", "lower"),
    "lpips_t_warped": ("LPIPS of neighbouring frames after the source's motion is taken out, result", "lower"),
    "lpips_t_warped_source": ("the same of the source: the floor", "lower"),
}


class Params(BaseModel, frozen=True, extra="forbid"):
    """Which network looks."""

    name: Literal["lpips"] = Field(default="lpips", description="the metric's name")
    weights: str = Field(
        default="lpips_alex",
        description="trunk: lpips_alex, lpips_vgg, lpips_squeeze, or a local file of such a torchvision network",
        json_schema_extra={"weights": ""},
    )
    device: Device = Field(default="auto", description="where the network runs", json_schema_extra=device.INERT)


def weights(params: Params) -> dict[str, str]:
    """Role -> reference of the weights that these settings use."""
    return {"lpips": params.weights}


def networks(params: Params) -> dict[str, Distance]:
    """Role -> network, loaded from local weights. Raises MachineError E302 when they are missing."""
    from retake.networks import lpips

    return {"lpips": lpips.load(params.weights, params.device)}


class Metric:
    """Accumulates LPIPS and LPIPS-T of a result and of its source. Keeps one frame of each."""

    def __init__(self, params: Params, *, lpips: Distance) -> None:
        self.params, self.lpips = params, lpips
        self._values: dict[str, dict[int, float]] = {name: {} for name in DESCRIPTIONS}
        self._before: tuple[Frame, Frame] | None = None

    def networks(self) -> dict[str, str]:
        """Value name -> the network that it comes from."""
        return dict.fromkeys(DESCRIPTIONS, self.lpips.name)

    def update(self, sample: Sample) -> None:
        """Take the next frame, in order. Raises MediaError E440 when sizes differ."""
        same_size(source=sample.source, result=sample.result, region=sample.region, flow=sample.flow)
        t, here = sample.t, (sample.result, sample.source)
        self._values["lpips"][t] = self._distance(*here)
        mine, source = (tight(frame, sample.region) for frame in here)
        self._values["lpips_edit"][t] = self._distance(mine, source)
        if self._before is not None:
            change = [self._distance(old, new) for old, new in zip(self._before, here, strict=True)]
            self._values["lpips_t"][t - 1], self._values["lpips_t_source"][t - 1] = change
            self._values["lpips_t_delta"][t - 1] = abs(change[0] - change[1])
            left = [math.nan, math.nan]
            if sample.flow is not None:
                flow = sample.flow
                pairs = zip(self._before, here, strict=True)
                left = [self._distance(old, brought_back(old, new, flow)) for old, new in pairs]
            self._values["lpips_t_warped"][t - 1], self._values["lpips_t_warped_source"][t - 1] = left
        self._before = here

    def _distance(self, first: Frame | None, second: Frame | None) -> float:
        if first is None or second is None:
            return math.nan
        return float(self.lpips.pairs(first[None], second[None])[0])

    def result(self) -> Result:
        """Everything taken so far."""
        why = {name: NO_FLOW for name in DESCRIPTIONS if "warped" in name}
        return Result(self._values, why | {"lpips_edit": NO_REGION})


def brought_back(before: Frame, after: Frame, flow: np.ndarray) -> Frame:
    """`after`, uint8 [H, W, 3], on the grid of `before` along its forward flow [H, W, 2].

    Points that leave the frame, or whose flow is not finite, are those of `before`.
    """
    from retake.imaging.flow import in_bounds, warp

    finite = np.asarray(np.isfinite(flow).all(-1))
    flow = np.where(finite[..., None], flow, 0)
    keep = finite & in_bounds(flow)
    moved = np.rint(warp(after, flow)).astype(np.uint8)
    return np.where(keep[..., None], moved, before)
