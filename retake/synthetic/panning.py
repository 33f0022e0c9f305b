"""Clips in which all content moves one way: a still seen by a camera that pans. They say which channels of a network
hold motion, since nothing else differs between two of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retake.synthetic.grounds import natural_image

Image = NDArray[np.uint8]

WAYS = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1), "still": (0, 0)}
"""Where the content goes on the screen, (x, y)."""


def panning(way: str, seed: int, size: int, frames: int, step: float) -> Image:
    """A clip uint8 [frames, size, size, 3] whose content goes `step` pixels a frame; `way` is a name of WAYS. Clips of
    one seed show the same still, and are alike in the middle of the clip."""
    import cv2

    reach = int(np.ceil(step * (frames - 1) / 2)) + 2
    rng = np.random.default_rng([seed, 24])
    still = natural_image(rng, size + 2 * reach)
    middle = (still.shape[0] - 1) / 2
    made = np.empty((frames, size, size, 3), np.uint8)
    for t in range(frames):
        off = step * (t - (frames - 1) / 2)
        x, y = (middle - off * way_ for way_ in WAYS[way])
        made[t] = cv2.getRectSubPix(still, (size, size), (float(x), float(y)))
    return made
