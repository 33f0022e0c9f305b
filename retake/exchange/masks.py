"""Masks as DAVIS keeps them: one palette PNG a frame, whose values are the objects' ids.

Pont-Tuset et al., "The 2017 DAVIS Challenge on Video Object Segmentation": `Annotations/480p/NAME/00000.png`. Colours
are those of PASCAL VOC; tools read the values, people see the colours. `masks=given` reads such a folder back.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from retake.machine.disk import explain_write_errors


def palette() -> np.ndarray:
    """uint8 [256, 3], the colour of each id: bits 0, 1, 2 of the id are the highest bits of red, green and blue, its
    bits 3, 4, 5 the next lower ones, and so on. 0 is black, 1 is (128, 0, 0), 255 is (224, 224, 192)."""
    ids = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for k in range(8):
        for channel in range(3):
            colours[:, channel] |= ((ids >> (3 * k + channel) & 1) << (7 - k)).astype(np.uint8)
    return colours


def index_image(objects: Iterable[tuple[int, np.ndarray]], shape: tuple[int, int]) -> np.ndarray:
    """uint8 [H, W] of (id, bool [H, W]) pairs: 0 is background. Where objects overlap, the
    later one wins. Raises ValueError for an id outside 1..255."""
    index = np.zeros(shape, np.uint8)
    for id, mask in objects:
        if not 1 <= id <= 255:
            raise ValueError(f"an id is 1 to 255, not {id}")
        index[mask] = id
    return index


def write_index_png(path: Path, index: np.ndarray) -> None:
    """Write uint8 [H, W] as a palette PNG of 8 bits. Equal values give equal bytes. Raises MachineError E502, E503."""
    from PIL import Image

    if index.dtype != np.uint8 or index.ndim != 2 or not index.size:
        raise ValueError(f"an index image is uint8 [H, W], not {index.dtype} {index.shape}")
    image = Image.fromarray(index, mode="L")
    image.putpalette(palette().tobytes())  # turns it into a palette image; the values stay
    with explain_write_errors(path):
        image.save(path, format="PNG")
