"""Point tracks as pictures: every point a soft blob of a colour of its own, by which networks know it again.

Source: MotionV2V (Burgert et al. 2025, sec. 4): blobs of ten pixels at 720x480 on black, 1.25 cells of CogVideoX's
latents; the same colour in the source's and the target's video; drawn where the tracker sees the point. Theirs are
drawn at whole pixels; here at the places themselves, since a tenth of a clip's motion would be lost at 64 pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIGMA = 1.25  # cells of the latent grid
REACH = 3.0  # sigmas beyond which nothing is drawn
APART = 0.3  # of the unit cube's edge: colours of one clip differ by so much, where there is room

Floats = NDArray[np.float32]


def blobs(
    xy: NDArray[np.floating], visible: NDArray[np.bool_], colours: Floats, size: tuple[int, int], sigma: float
) -> Floats:
    """RGB float32 [F, H, W, 3], 0..1, of tracks xy [F, P, 2] in pixels and visible [F, P], in colours [P, 3]; size:
    (width, height); sigma: of a blob, pixels. Later points lie over earlier ones."""
    width, height = size
    made = np.zeros((len(xy), height, width, 3), np.float32)
    reach = int(np.ceil(REACH * sigma))
    for t, p in zip(*np.nonzero(visible & np.isfinite(xy).all(-1)), strict=True):
        x, y = float(xy[t, p, 0]), float(xy[t, p, 1])
        x0, x1 = max(0, round(x) - reach), min(width, round(x) + reach + 1)
        y0, y1 = max(0, round(y) - reach), min(height, round(y) + reach + 1)
        if x0 >= x1 or y0 >= y1:
            continue
        across = np.exp(-np.square(np.arange(x0, x1) - x) / (2 * sigma**2))
        down = np.exp(-np.square(np.arange(y0, y1) - y) / (2 * sigma**2))
        alpha = (down[:, None] * across[None]).astype(np.float32)[..., None]
        part = made[t, y0:y1, x0:x1]
        part += alpha * (colours[p] - part)
    return made


def colours_of(count: int, rng: np.random.Generator) -> Floats:
    """Bright colours float32 [count, 3], 0..1, apart from one another as far as there is room; the strongest channel is
    above one half."""
    found: list[Floats] = []
    apart = APART
    while len(found) < count:
        for _ in range(32):
            colour = rng.uniform(0, 1, 3).astype(np.float32)
            if colour.max() > 0.5 and all(np.abs(colour - other).max() >= apart for other in found):
                found.append(colour)
                break
        else:
            apart *= 0.9  # no room for another so far away
    return np.stack(found) if found else np.zeros((0, 3), np.float32)
