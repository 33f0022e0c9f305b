"""The edge of an edit: where it fades into the source, and the box that holds it."""

from __future__ import annotations

import numpy as np

from retake.imaging.distance import distance

Box = tuple[int, int, int, int]


def soft_mask(mask: np.ndarray, feather: float, grow: float) -> np.ndarray:
    """float32 [H, W] in 0..1 of bool [H, W]: the mask grown by `grow` px, with a smooth edge `feather` px wide."""
    inside, outside = distance(mask), distance(~mask)
    s = np.clip((np.where(mask, inside - 0.5, 0.5 - outside) + grow) / feather + 0.5, 0, 1)
    return (s * s * (3 - 2 * s)).astype(np.float32) if mask.any() else np.zeros(mask.shape, np.float32)


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
