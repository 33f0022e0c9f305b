"""Temporal consistency: how alike neighbouring frames are to CLIP. Higher is better.

    TC = mean over t of cos(E(x_t), E(x_{t+1}))        -1..1, E = projected CLIP image embedding

`tc_full` looks at the whole frame, `tc_edit` at the smallest square around the edited region with the background
blanked. The source has the same numbers: what its motion costs. The informative ones are the differences.

Source: Zhang et al., AVID, CVPR 2024, section 4 (temporal consistency), as IVEDiff reports it. A frozen picture scores
1: read it beside dynamics, which guard.py does.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from pydantic import Field

from retake.metrics.common.crop import square
from retake.metrics.common.likeness import ClipParams, load_clips
from retake.metrics.common.sample import NO_REGION, Images, Result, Sample, cosine
from retake.metrics.common.values import same_size

VERSION = 1
NEEDS = ("region",)
DESCRIPTIONS = {
    "tc_full": ("cosine of the CLIP embeddings of neighbouring frames, result, -1..1", "higher"),
    "tc_full_source": ("the same of the source: motion alone costs this much", "higher"),
    "tc_full_delta": ("result minus source; below 0: the edit is less steady than its source", "higher"),
    "tc_edit": ("the same for the square around the edited region, background blanked", "higher"),
    "tc_edit_source": ("the same of the source", "higher"),
    "tc_edit_delta": ("result minus source", "higher"),
}
PARTS = ("full", "edit")


class Params(ClipParams, frozen=True):
    """Which CLIP looks."""

    name: Literal["temporal_consistency"] = Field(default="temporal_consistency", description="the metric's name")


def weights(params: Params) -> dict[str, str]:
    """Role -> reference of the weights that these settings use."""
    return {"clip": params.weights}


def networks(params: Params) -> dict[str, Images]:
    """Role -> network, loaded from local weights. Raises MachineError E302 when they are missing."""
    return load_clips(weights(params), params.device)


class Metric:
    """Accumulates temporal consistency of a result and of its source."""

    def __init__(self, params: Params, *, clip: Images) -> None:
        self.params, self.clip = params, clip
        self._values: dict[str, dict[int, float]] = {name: {} for name in DESCRIPTIONS}
        self._before: dict[str, np.ndarray | None] = {}

    def networks(self) -> dict[str, str]:
        """Value name -> the network that it comes from."""
        return dict.fromkeys(DESCRIPTIONS, self.clip.name)

    def update(self, sample: Sample) -> None:
        """Take the next frame, in order. Raises MediaError E440 when sizes differ."""
        same_size(source=sample.source, result=sample.result, region=sample.region)
        both = (sample.result, sample.source)
        crops = [square(frame, sample.region) for frame in both]
        here: dict[str, np.ndarray | None] = {"full": self.clip.images(np.stack(both)), "edit": None}
        if crops[0] is not None and crops[1] is not None:
            here["edit"] = self.clip.images(np.stack([crops[0], crops[1]]))
        if self._before:
            for part in PARTS:
                self._compare(part, sample.t - 1, self._before[part], here[part])
        self._before = here

    def _compare(self, part: str, t: int, first: np.ndarray | None, second: np.ndarray | None) -> None:
        mine = source = math.nan
        if first is not None and second is not None:
            mine, source = (cosine(first[i], second[i]) for i in (0, 1))
        for name, value in (("", mine), ("_source", source), ("_delta", mine - source)):
            self._values[f"tc_{part}{name}"][t] = value

    def result(self) -> Result:
        """Everything taken so far."""
        return Result(self._values, {name: NO_REGION for name in DESCRIPTIONS if name.startswith("tc_edit")})
