"""Counterfactual pairs of a real clip: the same content, another motion. The target is always the clip's own pixels.

    resampled   the source is frames of the clip at other moments: faster, slower, earlier, later or backwards
    moved       the source is the clip with objects taken elsewhere, as edit=move does it along a random program

Now and then either video is seen through a window of its own, which slides and turns, and its points with it: as if two
cameras had filmed the same moment. Source: MotionV2V (Burgert et al. 2025, sec. 3), whose other recipe, frames made up
by a video model between two of the clip's, needs such a model; moved objects stand in its place.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from retake.training.motionv2v import Seen

SLIDES = 0.2  # share of videos that are seen through a window of their own (the development code's, as what follows)
NARROWEST = 0.25  # of the frame's shorter side
TURN = math.pi / 4
FEWEST = 4  # points that both videos of a pair show
FAR = 0.25  # of the frame: how far a random program takes an object at most

Window = NDArray[np.float64]
"""x, y of its middle and half its side in pixels, its angle: [4], or of every frame [F, 4]."""


def moments(rng: np.random.Generator, count: int, frames: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Frame numbers [frames] of a target, which are consecutive, and of a source resampled from the whole clip of
    `count` frames, backwards where its end comes before its start. Raises ValueError for a clip that is too short."""
    first = int(rng.integers(count - frames + 1))
    begin, end = (int(frame) for frame in rng.integers(0, count, 2))
    return np.arange(first, first + frames), np.rint(np.linspace(begin, end, frames)).astype(np.int64)


def program(rng: np.random.Generator, count: int, width: int, height: int) -> list[dict[str, Any]]:
    """A random edit of all objects of a clip of so many frames of width x height px (retake/track_edits)."""
    span = sorted(int(frame) for frame in rng.choice(count, 2, replace=False))
    kind = str(rng.choice(["move", "move", "turn", "size", "time"]))
    angle, reach = rng.uniform(0, 2 * math.pi), rng.uniform(0.3, 1) * FAR * min(width, height)
    shift = {"do": "move", "by": [round(reach * math.cos(angle)), round(reach * math.sin(angle))], "frames": span}
    if kind == "turn":
        return [{"do": "rotate", "by": round(float(rng.uniform(-60, 60))), "frames": span}, shift]
    if kind == "size":
        return [{"do": "scale", "by": round(float(np.exp(rng.uniform(-0.5, 0.5))), 2), "frames": span}, shift]
    if kind == "time":
        freeze = {"do": "freeze", "at": span[0], "frames": span}
        return [[{"do": "reverse"}], [freeze], [{"do": "retime", "speed": 0.5}]][int(rng.integers(3))]
    return [shift]


def framed(rng: np.random.Generator, target: Seen, source: Seen, size: int) -> tuple[Seen, Seen] | None:
    """Both videos of a pair through square windows, as clips of size x size px: one window for both, or now and then
    one of its own for either, which slides from there. Points are those that both show; None where these are few."""
    _, height, width, _ = target.frames.shape
    frames, first = len(target.frames), window(rng, width, height)
    made = []
    for one in (target, source):
        last = window(rng, width, height) if rng.uniform() < SLIDES else first
        made.append(through(one, slid(first, last, frames), size))
    both = made[0].visible.any(0) & made[1].visible.any(0)
    if np.count_nonzero(both) < FEWEST:
        return None
    first, second = (Seen(one.frames, one.xy[:, both], one.visible[:, both]) for one in made)
    return first, second


def window(rng: np.random.Generator, width: int, height: int) -> Window:
    """A window within the frame: mostly upright and wide."""
    while True:
        half = 0.5 * min(width, height) * (1 - (1 - NARROWEST) * rng.uniform() ** 2)
        angle = TURN * rng.uniform() ** 2 * rng.choice([-1, 1])
        reach = half * (abs(math.cos(angle)) + abs(math.sin(angle)))  # of its corners, along either axis
        room = width / 2 - reach, height / 2 - reach
        if min(room) >= 0:
            x, y = (side / 2 + rng.uniform(-some, some) for side, some in zip((width, height), room, strict=True))
            return np.array([x - 0.5, y - 0.5, half, angle])


def slid(first: Window, last: Window, frames: int) -> Window:
    """Windows [F, 4] from one to another: its size changes by equal factors."""
    share = np.linspace(0, 1, frames)[:, None]
    both = np.stack([first, last])
    both[:, 2] = np.log(both[:, 2])
    made = both[0] + share * (both[1] - both[0])
    made[:, 2] = np.exp(made[:, 2])
    return made


def through(seen: Seen, windows: Window, size: int) -> Seen:
    """A video and its points through windows [F, 4], of size x size px. Points outside are not seen."""
    x, y, half, angle = (column[:, None] for column in windows.T)
    cos, sin = np.cos(angle), np.sin(angle)
    dx, dy = seen.xy[..., 0] - x, seen.xy[..., 1] - y
    u, v = (cos * dx + sin * dy) / half, (cos * dy - sin * dx) / half  # -1..1 within the window
    xy = np.stack([(u + 1) * size / 2 - 0.5, (v + 1) * size / 2 - 0.5], -1).astype(np.float32)
    visible = seen.visible & (np.abs(u) < 1) & (np.abs(v) < 1)
    return Seen(sampled(seen.frames, windows, size), xy, visible)


def sampled(frames: NDArray[np.uint8], windows: Window, size: int) -> NDArray[np.uint8]:
    """Frames uint8 [F, H, W, 3] through windows, [F, size, size, 3]."""
    factor = max(1, int(2 * windows[:, 2].min() / size))  # what is much larger is averaged first
    pixels = torch.from_numpy(frames.transpose(0, 3, 1, 2).copy()).float()
    pixels = F.avg_pool2d(pixels, factor, ceil_mode=True) if factor > 1 else pixels
    height, width = (side * factor for side in pixels.shape[-2:])
    axis = (torch.arange(size, dtype=torch.float64) + 0.5) * 2 / size - 1
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    x, y, half, angle = (torch.from_numpy(column.copy())[:, None, None] for column in windows.T)
    cos, sin = torch.cos(angle), torch.sin(angle)
    across, down = x + half * (cos * u - sin * v), y + half * (sin * u + cos * v)
    where = torch.stack([2 * (across + 0.5) / width - 1, 2 * (down + 0.5) / height - 1], -1).float()
    seen = F.grid_sample(pixels, where, mode="bilinear", padding_mode="border", align_corners=False)
    return seen.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
