"""Frames that were rendered each in a box of its own, as the patch of a chunk."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retake.imaging.soft_mask import Box, around
from retake.methods import Patch


def assembled(rendered: Sequence[tuple[Box, np.ndarray, np.ndarray, *tuple[np.ndarray, ...]] | None]) -> Patch:
    """Frames of one chunk on the one box that holds them all."""
    box = around([one[0] if one else None for one in rendered]) or (0, 0, 0, 0)
    x0, y0, x1, y1 = box
    rgb = np.zeros((len(rendered), y1 - y0, x1 - x0, 3), np.uint8)
    alpha = np.zeros(rgb.shape[:3], np.uint8)
    for k, one in enumerate(rendered):
        if one is not None:
            left, top, right, bottom = one[0]
            rgb[k, top - y0 : bottom - y0, left - x0 : right - x0] = one[1]
            alpha[k, top - y0 : bottom - y0, left - x0 : right - x0] = one[2]
    return Patch(box, rgb, alpha)
