"""Pictures with transparency: RGBA as floats, resized without colour fringes."""

from __future__ import annotations

import cv2
import numpy as np


def with_alpha(image: np.ndarray) -> np.ndarray:
    """float32 RGBA [H, W, 4] of uint8 [H, W, 3 or 4]: colours in 0..255, alpha in 0..1 (1 where the image has none)."""
    alpha = image[..., 3:] / np.float32(255) if image.shape[2] == 4 else np.ones((*image.shape[:2], 1), np.float32)
    return np.dstack([image[..., :3].astype(np.float32), alpha.astype(np.float32)])


def premultiplied_resize(rgba: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize RGBA of `with_alpha` to `size` = (width, height), weighting colours by alpha so transparent pixels add
    none. Area averaging when both sides shrink, else bilinear. Returns float32 [height, width, 4]."""
    product = np.dstack([rgba[..., :3] * rgba[..., 3:], rgba[..., 3]])
    grows = size[0] > rgba.shape[1] or size[1] > rgba.shape[0]
    made = cv2.resize(product, size, interpolation=cv2.INTER_LINEAR if grows else cv2.INTER_AREA)
    return np.dstack([made[..., :3] / np.maximum(made[..., 3:], 1e-4), made[..., 3]])
