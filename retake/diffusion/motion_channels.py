"""Channels of a network's features that hold motion, and what a direction looks like in them.

Features of panning clips, their content taken off: the channels with the largest loadings on the first principal
component are those that hold motion along the clips' axis. Computed once for each checkpoint.

Source: MOFT (Xiao et al., NeurIPS 2024, sec. 3.2 and 4.1); the sampling of cells and the ranking follow its published
notebook (process.ipynb at f57184b): the first frame's cells in the middle of the picture, centred over samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from retake.diffusion.motion_feature import content_removed

AXES = {"horizontal": ("left", "right"), "vertical": ("up", "down")}
WAYS = tuple(way for ways in AXES.values() for way in ways)


@dataclass(frozen=True)
class Channels:
    """ranked: int64 [C] by axis, channels by falling loading; loadings: float64 [C] by axis. slope: float32 [C] by way:
    by how much the motion feature grows with each pixel that content goes that way, mean over scenes."""

    ranked: Mapping[str, Tensor]
    loadings: Mapping[str, Tensor]
    slope: Mapping[str, Tensor]

    def of(self, axes: Sequence[str], share: float) -> Tensor:
        """Channels int64 [K] for axes, ascending: `share` of all for each of them, one at least."""
        count = {axis: max(1, round(share * len(self.ranked[axis]))) for axis in axes}
        return torch.cat([self.ranked[axis][: count[axis]] for axis in axes]).unique()

    def curve(self, path: Tensor) -> Tensor:
        """The motion feature float32 [F, C] of an object whose places are path [F, 2], (x, y) in pixels of the model's
        frame, made of what panning clips show; its mean over time is zero.

        The paper's is a line between the ends of each channel's range (sec. 4.1); as a slope for each pixel it says of
        any path how the feature goes, and is not ruled by the first and the last frame.
        """
        off = path - path.mean(0)
        along = [(self.slope[to] - self.slope[back]) / 2 for back, to in AXES.values()]
        return off[:, :1] * along[0] + off[:, 1:] * along[1]


def find(features: Mapping[tuple[str, int], Tensor], shifts: Tensor) -> Channels:
    """Channels from features [F, C, h, w] of panning clips by (way, scene): each way of AXES, every scene alike.
    shifts: float32 [F], how far the content has gone on each of the frames, in pixels of the model's frame."""
    moving = {key: content_removed(value[None].float())[0] for key, value in features.items()}
    off = shifts - shifts.mean()
    slope: dict[str, Tensor] = {}
    for way in WAYS:
        of = [middle(value).flatten(2).mean(-1) for (found, _), value in moving.items() if found == way]
        slope[way] = (off[:, None] * torch.stack(of).mean(0)).sum(0) / off.square().sum()
    ranked, loadings = {}, {}
    for axis, ways in AXES.items():
        samples = [middle(value)[0].flatten(1).T for (way, _), value in moving.items() if way in ways]
        loadings[axis] = first_component(torch.cat(samples))
        ranked[axis] = loadings[axis].abs().argsort(descending=True, stable=True)
    return Channels(ranked, loadings, slope)


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
