"""Natural stills that move: what a camera that pans, rolls and zooms makes of a picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retake.synthetic.grounds import natural_image

Image = NDArray[np.uint8]
COVERED = 0.4  # share of stills before which a second one moves
RESTING = 0.25  # share of stills that do not move


def travelling(rng: np.random.Generator, frames: int, size: int) -> Image:
    """A still with the statistics of photographs that shifts, turns and grows; before some of them a disc of another
    still, with a way of its own."""
    import cv2

    shown = _seen(rng, frames, size)
    if rng.uniform() >= COVERED:
        return shown
    over, way = _seen(rng, frames, size), rng.uniform(-0.3, 0.3, 2) * size
    middle, radius = rng.uniform(0.3, 0.7, 2) * size, float(rng.uniform(0.12, 0.3) * size)
    for t in range(frames):
        x, y = middle + way * (t / max(frames - 1, 1) - 0.5)
        cover = np.zeros((size, size), np.float32)
        place = (round(16 * x), round(16 * y))
        cv2.circle(cover, place, round(16 * radius), 1.0, -1, cv2.LINE_AA, 4)
        cover = cv2.GaussianBlur(cover, (3, 3), 0.6)[..., None]
        shown[t] = np.rint(shown[t] + cover * (over[t].astype(np.float32) - shown[t]))
    return shown


def _seen(rng: np.random.Generator, frames: int, size: int) -> Image:
    """A natural still seen by a camera that pans, rolls and zooms evenly."""
    import cv2

    still = natural_image(rng, 2 * size)
    pan, roll = rng.uniform(-0.25, 0.25, 2) * size, float(rng.uniform(-0.3, 0.3))
    zoom, base = float(rng.uniform(-0.2, 0.2)), float(rng.uniform(0.8, 1.6))
    if rng.uniform() < RESTING:
        pan, roll, zoom = pan * 0, 0.0, 0.0
    made = np.empty((frames, size, size, 3), np.uint8)
    for t in range(frames):
        u = t / max(frames - 1, 1) - 0.5
        turn = cv2.getRotationMatrix2D((size - 0.5, size - 0.5), np.degrees(roll * u), base * np.exp(zoom * u))
        turn[:, 2] += pan * u - size / 2
        made[t] = cv2.warpAffine(still, turn, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return made
