"""What is known of pixels, on the latent grid: masks, depth, flow, tracks.

A latent cell covers `space` x `space` pixels. Pixel i has its centre at i, so cell i has its at (i + 0.5) space - 0.5.
In time, latent frame 0 stands for frame 0; with a time stride of 4 (CogVideoX's causal VAE), latent frame k > 0 stands
for the four frames 4k-3 .. 4k, and motion is followed between the last of each: frames 0, 4, 8, ...
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from retake.errors import ConfigError

Kind = Literal["masks", "depth", "flow", "tracks", "visible"]


def to_grid(values: Tensor, kind: str, space: int, time: int) -> Tensor:
    """Values of pixels on the latent grid, float32 (visible: bool).

    masks [F, H, W] -> coverage 0..1 [f, h, w], the share of a cell's pixels and frames that the mask holds.
    depth [F, H, W] -> [f, h, w], the mean.
    flow [F-1, H, W, 2] (frame i to i+1, in pixels) -> [f-1, h, w, 2] in cells, between latent frames.
    tracks [F, P, 2] (x, y in pixels) -> [f, P, 2] in cells. visible [F, P] -> [f, P].
    Raises ConfigError E272 where values do not fill whole cells, and for an unknown kind.
    """
    if kind in ("tracks", "visible"):
        last = values[::time] if (values.shape[0] - 1) % time == 0 else _misfit(values.shape[0] - 1, time, "frames")
        return last.bool() if kind == "visible" else (last.float() + 0.5) / space - 0.5
    if kind in ("masks", "depth"):
        return _over_time(_cells(values.float()[:, None], space)[:, 0], time)
    if kind == "flow":
        flow = _cells(_followed(values.float().permute(0, 3, 1, 2), time), space)
        return flow.permute(0, 2, 3, 1) / space
    raise ConfigError("E272", f"{kind!r} is not known on a latent grid", "Known: masks, depth, flow, tracks, visible.")


def latent_frames(frames: int, time: int) -> int:
    """Latent frames of a clip. Raises ConfigError E272 unless it has 1 + time * k frames."""
    if frames < 1 or (frames - 1) % time:
        _misfit(frames - 1, time, "frames")
    return 1 + (frames - 1) // time


def cells(pixels: int, space: int, what: str) -> int:
    """Cells along an axis. Raises ConfigError E272 unless the pixels fill them."""
    if pixels < 1 or pixels % space:
        _misfit(pixels, space, what)
    return pixels // space


def _cells(values: Tensor, space: int) -> Tensor:
    """Mean over each cell of [N, C, H, W]."""
    cells(values.shape[-2], space, "pixels of height")
    cells(values.shape[-1], space, "pixels of width")
    return F.avg_pool2d(values, space) if space > 1 else values


def _over_time(values: Tensor, time: int) -> Tensor:
    """Mean over the frames [F, ...] that each latent frame stands for."""
    latent_frames(values.shape[0], time)
    groups = values[1:].unflatten(0, (-1, time)).mean(1) if values.shape[0] > 1 else values[1:]
    return torch.cat([values[:1], groups])


def _followed(flow: Tensor, time: int) -> Tensor:
    """Flow [F-1, 2, H, W] of `time` steps in a row as one: each step is read where the ones before it lead."""
    if flow.shape[0] % time:
        _misfit(flow.shape[0], time, "pairs of frames")
    if time == 1 or not flow.shape[0]:
        return flow
    steps = flow.unflatten(0, (-1, time))
    height, width = flow.shape[-2:]
    y, x = torch.meshgrid(
        torch.arange(height, device=flow.device), torch.arange(width, device=flow.device), indexing="ij"
    )
    here, total = torch.stack([x, y]).float(), steps[:, 0]
    half = torch.tensor([max(width - 1, 1), max(height - 1, 1)], device=flow.device) / 2
    for k in range(1, time):
        at = (here + total).permute(0, 2, 3, 1) / half - 1
        total = total + F.grid_sample(steps[:, k], at, padding_mode="border", align_corners=True)
    return total


def _misfit(count: int, stride: int, what: str) -> Tensor:
    if what == "frames":
        raise ConfigError(
            "E272",
            f"{count + 1} frames do not fit a model with {stride} frames a latent frame",
            f"Give 1 + {stride} k frames, for example {1 + max(round(count / stride), 1) * stride}.",
        )
    raise ConfigError(
        "E272",
        f"{count} {what} do not fill whole latent cells of {stride}",
        f"Give a multiple of {stride}, for example {max(round(count / stride), 1) * stride}.",
    )
