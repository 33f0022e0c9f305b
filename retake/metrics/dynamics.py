"""Dynamics: does the result move where the source does? The guard of every metric that a frozen picture wins.

Dynamic degree, VBench's rule: a clip moves (1) or does not (0). Motion is looked at 8 times a second. Of n frames so
chosen, with a clip of H x W pixels, and the mean length of the largest 5 % of a pair's flow vectors:

    dynamic = more than 6 min(H, W) / 256 px in at least round(4 n / 16) pairs, and in at least one

`motion` is the number behind it, which VBench does not report: that mean length, averaged over the pairs, in percent
of the short side; `motion_edit` the same inside the edited region, with the largest 5 % of its vectors.

Source: Huang et al., VBench, CVPR 2024, dynamic degree, whose flow comes from RAFT, straight from look to look. Here
the source's flow is the edit's own optical_flow prior and the result's is DIS flow, both from frame to frame and
chained over the frames between two looks, so that equal clips score alike. VBench's rule calls two frames dynamic
whatever they show, because round(4 * 2 / 16) is 0: hence "at least one".
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from retake.metrics.common.sample import NO_FLOW, NO_REGION, Frame, Result, Sample
from retake.metrics.common.values import same_size

VERSION = 1
NEEDS = ("optical_flow", "region")
DESCRIPTIONS = {
    "dynamic_degree": ("VBench's rule: 1 = the result moves, 0 = it does not", "higher"),
    "dynamic_degree_source": ("the same of the source", "higher"),
    "motion": ("length of the largest 5 % of flow vectors 1/8 s apart, result, % of the short side", "higher"),
    "motion_source": ("the same of the source: what the result should reach", "higher"),
    "motion_edit": ("the same inside the edited region, result", "higher"),
    "motion_edit_source": ("the same inside the edited region, source", "higher"),
}
TOP = 0.05
THRESHOLD = 6 / 256  # of the short side


class Params(BaseModel, frozen=True, extra="forbid"):
    """How often motion is looked at."""

    name: Literal["dynamics"] = Field(default="dynamics", description="the metric's name")
    looks: float = Field(default=8.0, gt=0, description="looks a second, of frames chosen evenly; VBench takes 8")


class Metric:
    """Accumulates motion of a result and of its source. Keeps one frame, one region and two flows."""

    def __init__(self, params: Params) -> None:
        self.params = params
        names = [name for name in DESCRIPTIONS if name.startswith("motion")]
        self._values: dict[str, dict[int, float]] = {name: {} for name in names}
        self._pixels: dict[str, list[float]] = {"dynamic_degree": [], "dynamic_degree_source": []}
        self._short = 0
        self._before: Frame | None = None
        self._look: tuple[int, NDArray[np.bool_] | None] = 0, None
        self._mine: NDArray[np.float32] | None = None
        self._source: NDArray[np.float32] | None = None

    def networks(self) -> dict[str, str]:
        """Value name -> what the flow comes from."""
        return {
            name: "the clip's optical_flow" if name.endswith("_source") else "DIS optical flow" for name in DESCRIPTIONS
        }

    def update(self, sample: Sample) -> None:
        """Take the next frame, in order. `sample.fps` says which frames are looked at; without it, every frame.

        Raises MediaError E440 when sizes differ.
        """
        from retake.priors.optical_flow import dis

        same_size(source=sample.source, result=sample.result, region=sample.region, flow=sample.flow)
        self._short = min(sample.result.shape[:2])
        if self._before is not None:
            fresh = sample.t - 1 == self._look[0]
            step = dis.estimate(self._before, sample.result, dis.Params(preset="medium"))[0]
            self._mine = chained(self._mine, step, fresh)
            self._source = chained(self._source, sample.flow, fresh)
        interval = max(1, round(sample.fps / self.params.looks)) if sample.fps else 1
        if sample.t % interval == 0:
            if self._before is not None:
                self._take("", self._mine)
                self._take("_source", self._source)
            self._look = sample.t, sample.region
        self._before = sample.result

    def _take(self, end: str, flow: NDArray[np.float32] | None) -> None:
        full = edit = math.nan
        t, region = self._look
        if flow is not None:
            length = np.linalg.norm(flow, axis=-1)
            full, edit = top(length), top(length[region]) if region is not None else math.nan
            self._pixels["dynamic_degree" + end].append(full)
        self._values["motion" + end][t] = 100 * full / self._short
        self._values["motion_edit" + end][t] = 100 * edit / self._short

    def result(self) -> Result:
        """Everything taken so far. A value of two looks stands at the first."""
        whole = {name: degree(lengths, self._short) for name, lengths in self._pixels.items()}
        inside = NO_REGION if self._pixels["dynamic_degree_source"] else NO_FLOW
        why = {"dynamic_degree_source": NO_FLOW, "motion_source": NO_FLOW, "motion_edit_source": inside}
        why["motion_edit"] = NO_REGION
        return Result(self._values, why, whole)


def chained(
    before: NDArray[np.float32] | None, flow: NDArray[np.float32] | None, fresh: bool
) -> NDArray[np.float32] | None:
    """Flow from an earlier frame through `before` and on along `flow`, [H, W, 2]; `fresh` starts anew. None when a
    link is missing. Vectors that are not finite become 0 so that one bad pixel does not hide the rest."""
    from retake.imaging.flow import warp

    if flow is None or (before is None and not fresh):
        return None
    flow = np.nan_to_num(flow, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32)
    return flow if fresh or before is None else before + warp(flow, before)


def top(lengths: NDArray[np.floating]) -> float:
    """Mean of the largest 5 % (at least one) of some lengths; NaN of none."""
    flat = lengths.ravel()
    if not flat.size:
        return math.nan
    count = max(1, int(flat.size * TOP))
    return float(np.partition(flat, flat.size - count)[-count:].mean(dtype=np.float64))


def degree(lengths: list[float], short: int) -> float:
    """VBench's dynamic degree of one clip, 1 or 0, from `top` of each of its pairs in px; NaN without pairs."""
    if not lengths:
        return math.nan
    needed = max(1, round(4 * (len(lengths) + 1) / 16))
    return float(sum(length > THRESHOLD * short for length in lengths) >= needed)
