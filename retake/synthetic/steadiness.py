"""What a clip of one sprite keeps from frame to frame: its object, its background, its detail."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retake.synthetic.clips import RADIUS

Image = NDArray[np.uint8]
Floats = NDArray[np.float64]

BODY = 0.8  # of an object is compared, in the largest radius of a sprite: little of the ground comes with it
REACH = 1.4  # about its centre nothing counts as background, in the same
SHIFTS = [np.array([x, y]) for x in (-0.5, -0.25, 0, 0.25, 0.5) for y in (-0.5, -0.25, 0, 0.25, 0.5)]


def sameness(clip: Image, centres: Floats) -> float:
    """Mean correlation of an object, cut out about its centre [F, 2] (x, y), between frames that follow each other in a
    clip uint8 [F, H, W, 3]; NaN where no two such frames show it. The centres are those of silhouettes, a few tenths of
    a pixel off: the best of the shifts up to half a pixel counts."""
    found = [
        max(_correlation(before, _cut(now, at + shift)) for shift in SHIFTS)
        for before, now, at in zip(_cuts(clip, centres), clip[1:], centres[1:], strict=False)
        if before is not None and not np.isnan(at).any()
    ]
    return float(np.mean(found)) if found else math.nan


def _cuts(clip: Image, centres: Floats) -> Iterator[NDArray[Any] | None]:
    return (None if np.isnan(at).any() else _cut(frame, at) for frame, at in zip(clip, centres, strict=True))


def _cut(frame: Image, at: Floats) -> NDArray[Any]:
    """The square about a place (x, y) that holds the middle of a sprite."""
    import cv2

    side = 2 * round(BODY * RADIUS[1] * frame.shape[1]) + 1
    return np.asarray(cv2.getRectSubPix(frame, (side, side), (float(at[0]), float(at[1]))))


def _correlation(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Of two pictures [H, W, 3], the mean of each channel taken off: two objects of one hue are not alike for that."""
    x, y = a - a.mean((0, 1)), b - b.mean((0, 1))
    return float((x * y).sum() / max(np.sqrt((x * x).sum() * (y * y).sum()), 1e-9))


def sharpness(clip: Image) -> float:
    """Variance of the Laplacian of a clip's luma, mean over its frames."""
    import cv2

    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip]
    return float(np.mean([cv2.Laplacian(frame, cv2.CV_64F).var() for frame in grey]))


def flicker(clip: Image, centres: Floats) -> float:
    """Mean absolute distance of the background from the mean of the frames before and after, which an even pan over a
    smooth ground hardly changes; NaN where no three frames that follow each other show the object."""
    rows, columns = np.mgrid[: clip.shape[1], : clip.shape[2]]
    away = REACH * RADIUS[1] * clip.shape[2]
    found = []
    for t in range(1, len(clip) - 1):
        near = centres[t - 1 : t + 2]
        if not np.isnan(near).any():
            outside = np.all([np.hypot(columns - x, rows - y) > away for x, y in near], axis=0)
            before, now, after = clip[t - 1 : t + 2].astype(np.float64)
            found.append(np.abs(now - (before + after) / 2)[outside].mean())
    return float(np.mean(found)) if found else math.nan
