"""Channels of a network's features that hold motion, and what a direction looks like in them.

Features of clips that go four ways, their content taken off: the channels with the largest loadings on the first
principal component are those that hold motion along the clips' axis. Computed once for each checkpoint.

Source: MOFT (Xiao et al., NeurIPS 2024, sec. 3.2 and 4.1); the sampling of cells and the ranking follow its published
notebook (process.ipynb at f57184b): the first frame's cells in the middle of the picture, centred over samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from retake.diffusion.motion_feature import content_removed

AXES = {"horizontal": ("left", "right"), "vertical": ("up", "down")}
PASSED = 0.15  # of all cells: those that a sprite passes most
WAYS = tuple(way for ways in AXES.values() for way in ways)


@dataclass(frozen=True)
class Channels:
    """ranked: int64 [C] by axis, channels by falling loading; loadings: float64 [C] by axis. slope: float32 [C] by way:
    by how much the motion feature grows with each pixel that content goes that way, mean over scenes."""

    ranked: Mapping[str, Tensor]
    loadings: Mapping[str, Tensor]
    slope: Mapping[str, Tensor]

    @staticmethod
    def from_arrays(found: Mapping[str, Mapping[str, NDArray[Any]]]) -> Channels:
        """Of what the stage motion_channels has stored (formats.py)."""
        kinds = ("ranked", "loadings", "slope")
        return Channels(**{kind: {of: torch.from_numpy(a) for of, a in found[kind].items()} for kind in kinds})

    def of(self, axes: Sequence[str], share: float) -> Tensor:
        """Channels int64 [K] for axes, ascending: `share` of all for each of them, one at least."""
        count = {axis: max(1, round(share * len(self.ranked[axis]))) for axis in axes}
        return torch.cat([self.ranked[axis][: count[axis]] for axis in axes]).unique()

    def curve(self, path: Tensor) -> Tensor:
        """The motion feature float32 [F, C] of an object whose places are path [F, 2], (x, y) in pixels of the model's
        frame, made of what these clips show; its mean over time is zero.

        The paper's is a line between the ends of each channel's range (sec. 4.1); as a slope for each pixel it says of
        any path how the feature goes, and is not ruled by the first and the last frame.
        """
        off = path - path.mean(0)
        along = [(self.slope[to] - self.slope[back]) / 2 for back, to in AXES.values()]
        return off[:, :1] * along[0] + off[:, 1:] * along[1]


class Panned(NamedTuple):
    """What is kept of a panning clip's features: cells of the first frame in the middle of the picture, float32 [N, C],
    as they are (`raw`) and without the content that frames share (`removed`); `curve`: float32 [F, C], the motion
    feature over time, mean over the middle. Of a clip in which a sprite passes, the cells that it passes most."""

    raw: Tensor
    removed: Tensor
    curve: Tensor


def reduced(features: Tensor, passed: Tensor | None = None) -> Panned:
    """Of features [F, C, h, w]. passed: float32 [F, H, W], 0..1, where a sprite is; None: the picture pans."""
    moving = content_removed(features[None].float())[0]
    if passed is None:
        raw, removed = (middle(value)[0].flatten(1).T for value in (features.float(), moving))
        return Panned(raw, removed, middle(moving).flatten(2).mean(-1))
    height, width = features.shape[-2:]
    share = passed.float().mean(0)[None, None].to(features.device)
    share = functional.adaptive_avg_pool2d(share, (height, width)).flatten()
    cells = share.topk(max(1, round(PASSED * len(share)))).indices
    raw, removed = (value[0].flatten(1).T[cells] for value in (features.float(), moving))
    return Panned(raw, removed, moving.flatten(2)[..., cells].mean(-1))


def find(clips: Mapping[tuple[str, int], Panned], shifts: Tensor) -> Channels:
    """Channels from clips by (way, scene): each way of AXES, every scene alike. shifts: float32 [F], how far
    the content has gone on each of the frames, in pixels of the model's frame."""
    off, shown = shifts - shifts.mean(), curves(clips)
    slope = {way: (off[:, None] * shown[way].mean(0)).sum(0) / off.square().sum() for way in WAYS}
    ranked, loadings = {}, {}
    for axis, ways in AXES.items():
        samples = [clip.removed for (way, _), clip in clips.items() if way in ways]
        loadings[axis] = components(torch.cat(samples), 1)[0]
        ranked[axis] = loadings[axis].abs().argsort(descending=True, stable=True)
    return Channels(ranked, loadings, slope)


def curves(clips: Mapping[tuple[str, int], Panned]) -> dict[str, Tensor]:
    """The motion feature over time, float32 [scenes, F, C] by way."""
    found: dict[str, list[Tensor]] = {}
    for (way, _), clip in clips.items():
        found.setdefault(way, []).append(clip.curve)
    return {way: torch.stack(of) for way, of in found.items()}


def scatter(clips: Mapping[tuple[str, int], Panned], removed: bool) -> dict[str, Tensor]:
    """Cells of the first frames in the plane of their first two principal components, float32 [scenes, N, 2] by way,
    with the content that all frames share taken off or left in (the paper's figure 3)."""
    cells = {key: clip.removed if removed else clip.raw for key, clip in clips.items()}
    plane = components(torch.cat(list(cells.values())), 2).T
    found: dict[str, list[Tensor]] = {}
    for (way, _), value in cells.items():
        found.setdefault(way, []).append((value.double() @ plane).float())
    return {way: torch.stack(of) for way, of in found.items()}


def middle(features: Tensor) -> Tensor:
    """The middle half of features [F, C, h, w] along either side, where a pan brings nothing new in."""
    height, width = features.shape[-2:]
    top, left = height // 4, width // 4
    return features[..., top : height - top, left : width - left]


def components(samples: Tensor, count: int) -> Tensor:
    """Loadings float64 [count, C] of the first principal components of samples [N, C]."""
    centred = samples.double() - samples.double().mean(0)
    _, _, v = torch.linalg.svd(centred, full_matrices=False)
    return v[:count]
