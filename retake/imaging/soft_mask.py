"""The edge of an edit: where it fades into the source, and the box that holds it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from retake.imaging.distance import distance

Box = tuple[int, int, int, int]


def soft_mask(mask: np.ndarray, feather: float, grow: float) -> np.ndarray:
    """float32 [H, W] in 0..1 of bool [H, W]: the mask grown by `grow` px, with a smooth edge `feather` px wide."""
    soft = np.zeros(mask.shape, np.float32)
    box = bounding_box(mask, max(0, math.ceil(grow + feather / 2)) + 2)
    if box is not None:  # further out it is 0
        x0, y0, x1, y1 = box
        part = mask[y0:y1, x0:x1]
        inside, outside = distance(part), distance(~part)
        s = np.clip((np.where(part, inside - 0.5, 0.5 - outside) + grow) / feather + 0.5, 0, 1)
        soft[y0:y1, x0:x1] = s * s * (3 - 2 * s)
    return soft


def seam(mask: np.ndarray, opacity: np.ndarray | None, feather: float, grow: float) -> np.ndarray:
    """float32 [H, W] in 0..1: the opacity of a soft matte, uint8 [H, W], or the soft mask where there is none."""
    return soft_mask(mask, feather, grow) if opacity is None else opacity.astype(np.float32) / 255


def bounding_box(mask: np.ndarray, margin: int) -> Box | None:
    """Bounding box (x0, y0, x1, y1; x1, y1 exclusive) of bool [H, W], grown by `margin` px and clipped to the frame;
    None if the mask is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return None
    height, width = mask.shape
    x0, x1 = max(0, int(columns[0]) - margin), min(width, int(columns[-1]) + 1 + margin)
    y0, y1 = max(0, int(rows[0]) - margin), min(height, int(rows[-1]) + 1 + margin)
    return x0, y0, x1, y1


def filled_box(mask: np.ndarray) -> np.ndarray:
    """The smallest rectangle around what a mask bool [H, W] holds; nothing where it is empty."""
    filled, box = np.zeros_like(mask), bounding_box(mask, 0)
    if box is not None:
        filled[box[1] : box[3], box[0] : box[2]] = True
    return filled


def around(boxes: Sequence[Box | None]) -> Box | None:
    """The box that holds all of those that there are."""
    known = np.array([box for box in boxes if box is not None])
    if not len(known):
        return None
    (x0, y0), (x1, y1) = known[:, :2].min(0), known[:, 2:].max(0)
    return int(x0), int(y0), int(x1), int(y1)
