"""SSIM of the whole frame to its source: how much of the clip's structure the result kept. Higher is better.

    ssim      = mean over frames of the mean over valid places of the SSIM map       -1..1, 1 = equal
    ssim_edit = mean of the same map over the edited region

Places are valid where the 11x11 window lies in the frame: the outer 5 px have none. The map is the mean over the three
channels. A window reaches 5 px out of the edited region: `ssim_edit` does not erode it, `ssim_unedited` of region does.

An edit changes structure, so the best possible `ssim` is that of no edit at all: read it beside how much the edit
brought (clip_score, cass). Two pictures that differ in fine texture alone score low although they look alike.

Source: Wang et al., Image Quality Assessment, IEEE TIP 2004: Gaussian window of sigma 1.5, K1 = 0.01, K2 = 0.03, data
range 1. That MoCA-Video's table compares the result with its source is inferred; the conventions are those of the
library that it credits (JunyaoHu/common_metrics_on_video_quality). torchmetrics has the same map and counts the rim
too, mirrored.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, Field

from retake.metrics.common.sample import NO_REGION, Result, Sample
from retake.metrics.common.values import same_size
from retake.metrics.region import WINDOW, ssim_map

VERSION = 1
NEEDS = ("region",)
DESCRIPTIONS = {
    "ssim": ("SSIM of the result to its source, whole frame: what of its structure was kept", "higher"),
    "ssim_edit": ("the same over the edited region", "higher"),
}
RIM = WINDOW // 2
TOO_SMALL = f"frames are smaller than the {WINDOW}x{WINDOW} window"


class Params(BaseModel, frozen=True, extra="forbid"):
    """Nothing to choose."""

    name: Literal["ssim"] = Field(default="ssim", description="the metric's name")


class Metric:
    """Accumulates SSIM of a result to its source."""

    def __init__(self, params: Params) -> None:
        self.params = params
        self._values: dict[str, dict[int, float]] = {name: {} for name in DESCRIPTIONS}
        self._why = {"ssim_edit": NO_REGION}

    def update(self, sample: Sample) -> None:
        """Take the next frame, in order. Raises MediaError E440 when sizes differ."""
        same_size(source=sample.source, result=sample.result, region=sample.region)
        full = edit = math.nan
        if min(sample.source.shape[:2]) < WINDOW:
            self._why = dict.fromkeys(DESCRIPTIONS, TOO_SMALL)
        else:
            valid = slice(RIM, -RIM), slice(RIM, -RIM)
            found = ssim_map(sample.source, sample.result)[valid]
            full = float(found.mean(dtype="float64"))
            if sample.region is not None and (inside := sample.region[valid]).any():
                edit = float(found.mean(where=inside, dtype="float64"))
        self._values["ssim"][sample.t], self._values["ssim_edit"][sample.t] = full, edit

    def result(self) -> Result:
        """Everything taken so far."""
        return Result(self._values, self._why)
