"""Channels of a network's features that hold motion, and what a direction looks like in them.

Features of panning clips, their content taken off: the channels with the largest loadings on the first principal
component are those that hold motion along the clips' axis. Computed once for each checkpoint.

Source: MOFT (Xiao et al., NeurIPS 2024, sec. 3.2 and 4.1); the sampling of cells and the ranking follow its published
notebook (process.ipynb at f57184b): the first frame's cells in the middle of the picture, centred over samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from retake.diffusion.motion_feature import content_removed

AXES = {"horizontal": ("left", "right"), "vertical": ("up", "down")}
AXIS_OF = {way: axis for axis, ways in AXES.items() for way in ways}


@dataclass(frozen=True)
class Channels:
    """ranked: int64 [C] by axis, channels by falling loading; loadings: float64 [C] by axis. low, high, sign: float32
    [C] by way: the range of the motion feature over the frames, mean over scenes, and which end it starts at."""

    ranked: Mapping[str, Tensor]
    loadings: Mapping[str, Tensor]
    low: Mapping[str, Tensor]
    high: Mapping[str, Tensor]
    sign: Mapping[str, Tensor]

    def of(self, ways: Sequence[str], share: float) -> Tensor:
        """Channels int64 [K] for ways, ascending: `share` of all for each of their axes, one at least."""
        axes = sorted({AXIS_OF[way] for way in ways})
        count = {axis: max(1, round(share * len(self.ranked[axis]))) for axis in axes}
        return torch.cat([self.ranked[axis][: count[axis]] for axis in axes]).unique()

    def curve(self, way: str, frames: int, amplitude: float = 1.0, turns: Sequence[int] = ()) -> Tensor:
        """The motion feature float32 [frames, C] of an object that goes a way, made of what panning clips show: a line
        from one end of each channel's range to the other, with zero mean over time. turns: frames at which it turns
        back."""
        ends = [0, *turns, frames - 1]
        ramp = torch.zeros(frames)
        for k, (first, last) in enumerate(pairwise(ends)):
            rise = torch.linspace(0, 1, last - first + 1)
            ramp[first : last + 1] = rise if k % 2 == 0 else 1 - rise
        ramp = ramp - ramp.mean()
        return amplitude * ramp[:, None] * (self.sign[way] * (self.high[way] - self.low[way]))


def find(features: Mapping[tuple[str, int], Tensor]) -> Channels:
    """Channels from features [F, C, h, w] of panning clips by (way, scene): each way of AXES, every scene alike."""
    moving = {key: content_removed(value[None].float())[0] for key, value in features.items()}
    curves: dict[str, Tensor] = {}
    for way in AXIS_OF:
        of = [middle(value).flatten(2).mean(-1) for (found, _), value in moving.items() if found == way]
        curves[way] = torch.stack(of)  # [scenes, F, C]
    ranked, loadings = {}, {}
    for axis, ways in AXES.items():
        samples = [middle(value)[0].flatten(1).T for (way, _), value in moving.items() if way in ways]
        loadings[axis] = first_component(torch.cat(samples))
        ranked[axis] = loadings[axis].abs().argsort(descending=True, stable=True)
    return Channels(
        ranked,
        loadings,
        {way: curve.amin(1).mean(0) for way, curve in curves.items()},
        {way: curve.amax(1).mean(0) for way, curve in curves.items()},
        {way: (curve[:, -1] - curve[:, 0]).mean(0).sign() for way, curve in curves.items()},
    )


def middle(features: Tensor) -> Tensor:
    """The middle half of features [F, C, h, w] along either side, where a pan brings nothing new in."""
    height, width = features.shape[-2:]
    top, left = height // 4, width // 4
    return features[..., top : height - top, left : width - left]


def first_component(samples: Tensor) -> Tensor:
    """Loadings float64 [C] of the first principal component of samples [N, C]."""
    centred = samples.double() - samples.double().mean(0)
    _, _, v = torch.linalg.svd(centred, full_matrices=False)
    return v[0]
