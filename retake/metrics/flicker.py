"""Temporal flicker: how little neighbouring frames differ, pixel by pixel. Higher is better.

    MAE_t   = mean over pixels and channels of |x_{t+1} - x_t|     uint8 levels, 0..255
    flicker = (255 - mean_t MAE_t) / 255                           1 = no pixel ever changes

Source: Huang et al., VBench, CVPR 2024, temporal flickering. It was meant for static scenes: motion counts
as flicker and a frozen picture scores 1. For an edit the informative number is `flicker_delta`, the
result's score minus the source's: the motion that both share cancels. Read it beside the warp error or
motion fidelity, which a frozen picture fails.

Inside the edited region only pixels edited in both frames of a pair count: elsewhere the step from object
to background is motion, not flicker.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from retake.metrics.common.sample import Result, Sample
from retake.metrics.common.values import same_size

VERSION = 1
NEEDS = ("region",)
DESCRIPTIONS = {
    "flicker": ("1 - mean absolute change between neighbouring frames / 255, result", "higher"),
    "flicker_edit": ("the same inside the edited region", "higher"),
    "flicker_source": ("the same of the source: motion alone costs this much", "higher"),
    "flicker_source_edit": ("the same of the source inside the edited region", "higher"),
    "flicker_delta": ("flicker of the result minus that of the source; below 0: the edit flickers", "higher"),
    "flicker_edit_delta": ("the same inside the edited region", "higher"),
}


class Params(BaseModel, frozen=True, extra="forbid"):
    """Nothing to set."""

    name: Literal["flicker"] = Field(default="flicker", description="the metric's name")


def pair(
    x_t: NDArray[np.uint8], x_next: NDArray[np.uint8], region: NDArray[np.bool_] | None = None
) -> tuple[float, float]:
    """Score of one pair of frames: (whole frame, inside the region), both in 0..1, 1 = no change.

    x_t, x_next: uint8 [H, W, 3]. region: bool [H, W]; the second value is NaN without a region or when
    it is empty. Raises MediaError E440 when sizes differ.
    """
    import cv2

    same_size(x_t=x_t, x_next=x_next, region=region)
    change = cv2.absdiff(x_t, x_next)
    inside = change[region] if region is not None else change[:0]
    full, edit = (1 - float(part.mean()) / 255 if part.size else float("nan") for part in (change, inside))
    return full, edit


class Metric:
    """Accumulates flicker of a result and of its source over the pairs of a clip. Keeps one sample."""

    def __init__(self, params: Params) -> None:
        self._values: dict[str, dict[int, float]] = {name: {} for name in DESCRIPTIONS}
        self._before: Sample | None = None

    def update(self, sample: Sample) -> None:
        """Take the next frame, in order. Raises MediaError E440 when sizes differ."""
        same_size(source=sample.source, result=sample.result, region=sample.region)
        if (before := self._before) is not None:
            both = before.region & sample.region if before.region is not None and sample.region is not None else None
            full, edit = pair(before.result, sample.result, both)
            source_full, source_edit = pair(before.source, sample.source, both)
            row = full, edit, source_full, source_edit, full - source_full, edit - source_edit
            for name, value in zip(DESCRIPTIONS, row, strict=True):
                self._values[name][before.t] = value
        self._before = sample

    def result(self) -> Result:
        """Everything taken so far, 0..1. The value of a pair stands at its first frame. NaN: no pixel was edited in
        both."""
        return Result(self._values, why=None)
