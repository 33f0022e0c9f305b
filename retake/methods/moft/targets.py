"""Objects whose motion is steered: where each may be, and the motion feature that says so.

An object's area is where it was and where it shall be, the same on all frames of a window (MOFT, Xiao et al., NeurIPS
2024, sec. 4.2: a fixed region). Paths are those of retake/motion_targets.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from retake.errors import ConfigError
from retake.formats import MaskSeries
from retake.motion_targets import MotionTarget

if TYPE_CHECKING:
    from torch import Tensor

    from retake.diffusion.motion_channels import Channels


class Object:
    """An object in its masks: where it is on each frame, and where it would be along a path."""

    def __init__(self, masks: MaskSeries, identity: int) -> None:
        self.masks, self.identity = masks, identity
        self.first, self.mask = 0, np.ones((masks.height, masks.width), bool)
        if identity:
            seen = (t for t in range(len(masks)) if masks.object(t, identity).any())
            self.first = next(seen, 0)
            self.mask = masks.object(self.first, identity)

    @property
    def radius(self) -> float:
        """Of a disc as large."""
        return math.sqrt(max(float(self.mask.sum()), 1.0) / math.pi)

    def area(self, frames: range, path: np.ndarray) -> np.ndarray:
        """Where it is or shall be on some of these frames, bool [H, W]; of what is no object, where never an object
        is."""
        if not self.identity:
            return ~np.logical_or.reduce([self.masks[t] for t in frames])
        found = np.logical_or.reduce([self.masks.object(t, self.identity) for t in frames])
        for x, y, scale in np.unique(path[frames.start : frames.stop], axis=0):
            found |= self.placed(x, y, scale)
        return found

    def placed(self, x: float, y: float, scale: float) -> np.ndarray:
        """Its first mask, moved and scaled about its middle."""
        if not self.mask.any():
            return self.mask
        rows, columns = np.nonzero(self.mask)
        middle = columns.mean(), rows.mean()
        affine = np.array([[scale, 0, x + (1 - scale) * middle[0]], [0, scale, y + (1 - scale) * middle[1]]])
        size = self.mask.shape[1], self.mask.shape[0]
        return cv2.warpAffine(self.mask.astype(np.uint8), affine, size, flags=cv2.INTER_NEAREST) > 0


def objects_of(targets: Sequence[MotionTarget], masks: MaskSeries) -> list[Object]:
    """The object of each target. Raises ConfigError E248 for an id that no mask holds, or a mask that is empty."""
    known = ", ".join(str(identity) for identity in masks.ids)
    for target in targets:
        if target.object and target.object not in masks.ids:
            raise ConfigError(
                "E248",
                f"edit.targets: there is no object {target.object} in the masks, which hold {known}",
                f"Give object: {masks.ids[0]}, or 0 for what is no object.",
            )
    found = [Object(masks, target.object) for target in targets]
    for one in found:
        if not one.mask.any():
            raise ConfigError(
                "E248",
                f"edit.targets: object {one.identity} is never seen in the masks",
                "Look at them: --until masks. masks.box or a correction finds it.",
            )
    return found


def halves(mask: np.ndarray) -> dict[str, np.ndarray]:
    """The left, right, upper and lower half of a mask [h, w], cut at its middle: they part as it grows."""
    rows, columns = np.nonzero(mask)
    y, x = np.arange(mask.shape[0])[:, None], np.arange(mask.shape[1])[None]
    middle_x, middle_y = columns.mean(), rows.mean()
    sides = {"left": x <= middle_x, "right": x >= middle_x, "up": y <= middle_y, "down": y >= middle_y}
    return {way: mask * side for way, side in sides.items()}


class Course(NamedTuple):
    """Channels int64 [K], what they shall show, float32 [f, K], and the pace of that (motion_guidance.Target)."""

    channels: Tensor
    curve: Tensor
    pace: float


def curves(channels: Channels, path: np.ndarray, share: float, radius: float, step: float) -> dict[str, Course]:
    """Courses of an object that goes along path [f, 3], by the part of it: "" is all of it, others are of `halves`. All
    lengths in pixels of the model's frame; step: of the clips in which the channels were found, a latent frame. An axis
    along which nothing goes, while something goes along the other, is left alone."""
    import torch

    if np.ptp(path[:, 2]) > 0:
        made = {}
        for way, half in HALVES.items():
            gone = np.outer(path[:, 2] - 1, np.array(half) * radius)
            some = channels.of(["horizontal" if half[0] else "vertical"], share)
            made[way] = Course(some, channels.curve(torch.from_numpy(gone).float())[:, some], pace(gone, step))
        return made
    goes = np.ptp(path[:, :2], axis=0) > 0
    axes = [axis for axis, moves in zip(("horizontal", "vertical"), goes, strict=True) if moves or not goes.any()]
    some = channels.of(axes, share)
    return {"": Course(some, channels.curve(torch.from_numpy(path[:, :2]).float())[:, some], pace(path[:, :2], step))}


def pace(path: np.ndarray, step: float) -> float:
    """How far apart the places of path [f, 2] are, against those of what goes `step` pixels from each to the next."""
    even = step * np.arange(len(path))
    return float(np.sqrt(path.var(0).sum() / max(even.var(), 1e-12)))


HALVES = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
