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

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from retake.metrics.common.values import Floats, mean, same_size

VERSION = 1
NEEDS = ("region",)
DIRECTION = "higher"
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


@dataclass(frozen=True)
class Result:
    """Scores in 0..1, one a pair, at index t for the pair (t, t+1). NaN: no pixel was edited in both."""

    full: Floats
    edit: Floats
    source_full: Floats
    source_edit: Floats

    def per_frame(self) -> dict[str, dict[int, float]]:
        """Name -> {frame t: value of the pair (t, t+1)}."""
        full, edit = differences(self.full, self.source_full), differences(self.edit, self.source_edit)
        series = (self.full, self.edit, self.source_full, self.source_edit, full, edit)
        return {name: dict(enumerate(values)) for name, values in zip(DESCRIPTIONS, series, strict=True)}

    def summary(self) -> dict[str, float]:
        """Name -> mean over the pairs that have a value."""
        return {name: mean(values.values()) for name, values in self.per_frame().items()}


def differences(first: Floats, second: Floats) -> Floats:
    """first - second, value by value."""
    return tuple(a - b for a, b in zip(first, second, strict=True))


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


class Flicker:
    """Accumulates flicker of a result and of its source over the pairs of a clip."""

    def __init__(self, params: Params | None = None) -> None:
        self.params = params or Params()
        self._rows: list[tuple[float, float, float, float]] = []

    def update(
        self,
        source: NDArray[np.uint8],
        source_next: NDArray[np.uint8],
        result: NDArray[np.uint8],
        result_next: NDArray[np.uint8],
        region: NDArray[np.bool_] | None = None,
        region_next: NDArray[np.bool_] | None = None,
    ) -> None:
        """Take the next pair (t, t+1), in order: uint8 [H, W, 3] and bool [H, W], True = edited."""
        same_size(source=source, result=result, region=region, region_next=region_next)
        both = region if region is None or region_next is None else region & region_next
        self._rows.append((*pair(result, result_next, both), *pair(source, source_next, both)))

    def result(self) -> Result:
        """Everything taken so far."""
        columns = tuple(zip(*self._rows, strict=True)) or ((), (), (), ())
        return Result(*columns)
