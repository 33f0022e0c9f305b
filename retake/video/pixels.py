"""Resizing and writing one RGB frame, with the same pixels in the parent and in the child process."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from retake.machine.disk import explain_write_errors, write_atomic


def resize(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale a frame to `size` = (width, height), pixel centres at half-pixel positions.

    `rgb` is uint8 [H, W] or [H, W, C]; so is the result, contiguous. An axis that shrinks is averaged
    over the area it covers (OpenCV INTER_AREA, no aliasing), an axis that grows is interpolated by
    INTER_CUBIC; a frame that does both is shrunk first. `decode(..., size)` applies this very function
    to the full-size frame, so a later stage that calls it gets the same pixels. Returns `rgb` itself,
    not a copy, when the size is right already. Raises ValueError for an empty size.
    """
    import cv2

    height, width = rgb.shape[:2]
    if min(size) < 1:
        raise ValueError(f"cannot resize to {size[0]}x{size[1]}: both must be at least 1")
    smaller = (min(width, size[0]), min(height, size[1]))
    if smaller != (width, height):
        rgb = cv2.resize(rgb, smaller, interpolation=cv2.INTER_AREA)
    if smaller != tuple(size):
        rgb = cv2.resize(rgb, (size[0], size[1]), interpolation=cv2.INTER_CUBIC)
    return rgb


def write_png(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Write uint8 [H, W] (gray), [H, W, 3] (RGB) or [H, W, 4] (RGBA) as a PNG, whole or not at all.

    Raises what `png` raises, MachineError E503 when the disk is full, E502 when the file cannot be written for another
    reason.
    """
    data, target = png(image), Path(path)
    with explain_write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, data)


def png(image: np.ndarray) -> bytes:
    """The PNG of uint8 [H, W] (gray), [H, W, 3] (RGB) or [H, W, 4] (RGBA). Equal pixels give equal bytes. Raises
    ValueError for another shape or dtype."""
    import cv2

    channels = image.shape[2] if image.ndim == 3 else 1
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or channels not in (1, 3, 4) or not image.size:
        raise ValueError(f"a PNG needs uint8 [H, W], [H, W, 3] or [H, W, 4], got {image.dtype} {image.shape}")
    swap = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    stored = cv2.cvtColor(image, swap[channels]) if channels in swap else image
    ok, data = cv2.imencode(".png", stored, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    if not ok:
        raise ValueError(f"OpenCV cannot write a PNG of {image.shape}")
    return data.tobytes()
