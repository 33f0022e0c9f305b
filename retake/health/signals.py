"""What one frame tells of a mask: whether its outline lies where the picture has an edge, whether the colours inside
are others than those around it, whether it is where the motion of the frame before puts it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from retake.imaging.flow import warp
from retake.imaging.soft_mask import bounding_box

Mask = NDArray[np.bool_]

REACH = 8  # rings around the outline that count as its surroundings, in widths of a ring
RIDGE = 2.0  # times the mean gradient around it: an edge of the picture
LEVELS = 8  # of each of the three axes of CIELAB, for the histograms


@dataclass(frozen=True)
class Signals:
    """Of one frame; shares are 0..1. None: there is nothing to measure, or nothing to measure it by.

    area: share of the picture. edges: share of the outline on an edge of the picture: there the gradient is at least
    twice the mean around it. overlap: likeness of the colours inside and around (Bhattacharyya coefficient of
    histograms in CIELAB, 1: equal). border: share of the outline on the picture's border. agreement: overlap
    (intersection over union) with the frame before, moved along the flow. growth: |log| of the area's ratio to the
    frame before.
    """

    area: float
    edges: float | None = None
    overlap: float | None = None
    border: float | None = None
    agreement: float | None = None
    growth: float | None = None


def signals(
    rgb: NDArray[np.uint8], mask: Mask, before: Mask | None = None, backward: NDArray[np.float32] | None = None
) -> Signals:
    """Signals of a mask bool [H, W] on a frame uint8 RGB [H, W, 3].

    before: the mask of the frame before; backward: the motion from this frame into that one, float32 [H, W, 2] in
    pixels.
    """
    found: dict[str, float] = {"area": float(mask.mean())}
    if before is not None and (mask.any() or before.any()):
        found["growth"] = abs(float(np.log((mask.sum() + 1) / (before.sum() + 1))))
        if backward is not None:
            moved = warp(before, backward)
            found["agreement"] = float((moved & mask).sum() / max(1, (moved | mask).sum()))
    ring = max(3, round(min(mask.shape) / 80))
    box = bounding_box(mask, REACH * ring + 2)
    if box is None:
        return Signals(**found)
    window = slice(box[1], box[3]), slice(box[0], box[2])
    inside, picture = mask[window], _lab(rgb[window])
    outline = _outline(inside)
    free = outline & _off_border(mask.shape, window)
    found["border"] = 1 - float(free.sum() / outline.sum())
    if free.any():
        found["edges"] = float((_ridge(picture, 4 * ring + 1)[free] > RIDGE).mean())
    around = ~inside & (cv2.distanceTransform((~outline).astype(np.uint8), cv2.DIST_L2, 3) < REACH * ring)
    if around.any():
        found["overlap"] = _likeness(picture[inside], picture[around])
    return Signals(**found)


def _ridge(picture: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """The gradient, at most a pixel away, over its mean in a square of `size` pixels."""
    squares = np.zeros(picture.shape[:2], np.float32)
    for channel in np.moveaxis(picture, -1, 0):
        plane = np.ascontiguousarray(channel)
        squares += cv2.Sobel(plane, cv2.CV_32F, 1, 0) ** 2 + cv2.Sobel(plane, cv2.CV_32F, 0, 1) ** 2
    gradient = np.sqrt(squares)
    near = cv2.dilate(gradient, np.ones((3, 3), np.uint8))
    return np.asarray(near / (cv2.boxFilter(gradient, -1, (size, size)) + 1e-3), np.float32)


def _likeness(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    a, b = (_histogram(colours) for colours in (one, other))
    return float(np.sqrt(a * b).sum())


def _histogram(colours: NDArray[np.float32]) -> NDArray[np.float64]:
    """Shares of CIELAB colours [N, 3] over LEVELS**3 cells."""
    cells = np.empty(colours.shape, np.int64)
    cells[:, 0] = colours[:, 0] * (LEVELS / 100)
    cells[:, 1:] = (colours[:, 1:] + 64) * (LEVELS / 128)
    index = np.clip(cells, 0, LEVELS - 1) @ np.array([LEVELS**2, LEVELS, 1])
    return np.bincount(index, minlength=LEVELS**3) / len(colours)


def _lab(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(rgb).astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)


def _outline(mask: Mask) -> Mask:
    """The outermost pixels of a mask."""
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    return mask & ~cv2.erode(mask.astype(np.uint8), cross, borderType=cv2.BORDER_CONSTANT, borderValue=0).astype(bool)


def _off_border(shape: tuple[int, ...], window: tuple[slice, slice]) -> Mask:
    """Which pixels of a window do not lie on the picture's border."""
    off = np.zeros(shape, bool)
    off[1:-1, 1:-1] = True
    return off[window]
