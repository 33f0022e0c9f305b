"""Warp error: how far an edited clip departs from the motion of its source. Lower is better.

For a pair of frames (t, t+1) and the forward flow F of the SOURCE from t to t+1:

    E_t = sum_p V(p) |x_{t+1}(p + F(p)) - x_t(p)|^2 / sum_p V(p)

V is 1 where the source's point is visible in both frames. The square is a mean over the three channels
and values are in 0..1, so E is in 0..1. A clip scores the mean over its pairs. The same number of the
source itself, with the same flow and V, is the floor: noise, shading and flow errors that no edit can
go below.

Source: Lai et al., Learning Blind Video Temporal Consistency, ECCV 2018, section 4.2 (their released
numbers are means over channels; the formula as printed is three times larger). Visibility: the
forward-backward rule of Sundaram et al., ECCV 2010, with the motion-boundary term, as Lai et al. use it.
Sampling is clamped at the border, so a point that leaves the frame is compared with a wrong pixel:
`in_bounds` leaves those points out; without it the number is comparable with published ones.

It cannot be cheated by a frozen picture: where the source moves, a still result has a large error.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from retake.metrics.common.sample import Result, Sample
from retake.metrics.common.values import same_size, unit

VERSION = 1
NEEDS = ("optical_flow", "region")
DESCRIPTIONS = {
    "warp_error_full": ("warp error of the result, whole frame, mean squared difference in 0..1", "lower"),
    "warp_error_edit": ("warp error of the result inside the edited region", "lower"),
    "warp_error_source_full": ("warp error of the source itself, whole frame: the floor", "lower"),
    "warp_error_source_edit": ("warp error of the source inside the edited region: the floor", "lower"),
}


class Params(BaseModel, frozen=True, extra="forbid"):
    """Which pixels count. Defaults: visible in both frames, away from motion boundaries, inside the frame."""

    name: Literal["warp_error"] = Field(default="warp_error", description="the metric's name")
    in_bounds: bool = Field(default=True, description="leave out points whose flow leads out of the frame")
    boundaries: bool = Field(default=True, description="leave out motion boundaries, as Lai et al. do")


def visible(forward: NDArray[Any], backward: NDArray[Any], params: Params) -> NDArray[np.bool_]:
    """[H, W], True where the point of frame t can be compared with its place in frame t+1.

    Flow vectors that are not finite count as not visible.
    """
    from retake.imaging.flow import in_bounds, occlusion

    finite: NDArray[np.bool_] = np.asarray(np.isfinite(forward).all(-1))
    forward = np.where(finite[..., None], forward, 0)
    backward = np.where(np.isfinite(backward), backward, 1e6)  # agrees with no forward vector
    keep = finite & ~occlusion(forward, backward, boundaries=params.boundaries)
    return keep & in_bounds(forward) if params.in_bounds else keep


def squared_errors(here: NDArray[Any], there: NDArray[Any], forward: NDArray[Any]) -> NDArray[np.float32]:
    """Per clip and pixel, the channel mean of (there(p + F(p)) - here(p))^2: [H, W, 3K] in 0..1 -> [K, H, W].

    Several clips that share one flow are stacked along the channels.
    """
    from retake.imaging.flow import warp

    # Clip by clip: OpenCV's warp is within 1e-5 of the exact one for three channels only.
    clips = range(0, here.shape[-1], 3)
    warped = [warp(there[..., k : k + 3], forward, border="clamp") for k in clips]
    return np.stack([np.square(w - here[..., k : k + 3]).mean(-1) for k, w in zip(clips, warped, strict=True)])


def full_mean(error: NDArray[Any], keep: NDArray[np.bool_]) -> float:
    """Mean over `keep`; when nothing is kept the divisor is the whole frame, hence 0 (Lai et al.)."""
    return float(error.sum(where=keep, dtype=np.float64)) / (int(keep.sum()) or keep.size)


def edit_mean(error: NDArray[Any], keep: NDArray[np.bool_], region: NDArray[np.bool_] | None) -> float:
    """Mean over `keep` inside the region; NaN when nothing is left, so that the pair is not counted."""
    inside = keep & region if region is not None else np.zeros_like(keep)
    return full_mean(error, inside) if inside.any() else float("nan")


def pair(
    x_t: NDArray[Any],
    x_next: NDArray[Any],
    forward: NDArray[np.float32],
    backward: NDArray[np.float32],
    region: NDArray[np.bool_] | None = None,
    params: Params | None = None,
) -> tuple[float, float]:
    """Warp error of one pair of frames: (whole frame, inside the region), both in 0..1.

    x_t, x_next: uint8 [H, W, 3], or float in 0..1. forward, backward: float32 [H, W, 2] in pixels, the
    source's flow from t to t+1 and back. region: bool [H, W] on the grid of frame t, True = edited.
    The first value is 0 when no pixel is visible, the second NaN when no visible pixel is in the region.
    Raises MediaError E440 when sizes differ.
    """
    same_size(x_t=x_t, x_next=x_next, forward=forward, backward=backward, region=region)
    keep = visible(forward, backward, params or Params())
    error = squared_errors(unit(x_t), unit(x_next), np.nan_to_num(forward))[0]
    return full_mean(error, keep), edit_mean(error, keep, region)


class Metric:
    """Accumulates the warp error of a result and of its source over the pairs of a clip. Keeps one sample."""

    def __init__(self, params: Params) -> None:
        self.params = params
        self._values: dict[str, dict[int, float]] = {name: {} for name in DESCRIPTIONS}
        self._before: Sample | None = None

    def update(self, sample: Sample) -> None:
        """Take the next frame, in order; a pair without flow has no value. Raises MediaError E440 when sizes differ."""
        forward, backward, before = sample.flow, sample.backward, self._before
        same_size(source=sample.source, result=sample.result, forward=forward, backward=backward, region=sample.region)
        self._before = sample
        if before is None or forward is None or backward is None:
            return
        keep = visible(forward, backward, self.params)
        here = np.concatenate([unit(before.result), unit(before.source)], axis=-1)
        there = np.concatenate([unit(sample.result), unit(sample.source)], axis=-1)
        errors = squared_errors(here, there, np.nan_to_num(forward))
        row = (
            average for error in errors for average in (full_mean(error, keep), edit_mean(error, keep, before.region))
        )
        for name, value in zip(DESCRIPTIONS, row, strict=True):
            self._values[name][before.t] = value

    def result(self) -> Result:
        """Everything taken so far. The value of a pair stands at its first frame. NaN: no pixel of the region could be
        compared."""
        return Result(self._values, why=None)
