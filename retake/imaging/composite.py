"""An edit laid over its source: the crop resampled to the source's size and blended where its alpha is above 0."""

from __future__ import annotations

import cv2
import numpy as np

MARGIN = 4  # working pixels around a box, so that resampling at its border reads real neighbours


def composite(
    source: np.ndarray, edit: tuple[np.ndarray, np.ndarray, np.ndarray], working: tuple[int, int]
) -> np.ndarray:
    """Lay one frame's edit over the source.

    source uint8 [H,W,3]; edit as EditedSeries gives it, in `working` (width, height) pixels. Returns a new frame.
    The band in which source and edit are blended is where alpha, resampled to the source's size, is above 0;
    everywhere else the source's bytes stay.
    """
    (x0, y0, x1, y1), rgb, alpha = edit
    out = source.copy()
    if x1 <= x0 or not alpha.any():
        return out
    height, width = source.shape[:2]
    if (width, height) == working:
        box = int(x0), int(y0), int(x1), int(y1)
        fine_rgb, fine_alpha = rgb.astype(np.float32), alpha.astype(np.float32) / 255
    else:
        scale = width / working[0], height / working[1]
        box, fine_rgb, fine_alpha = resample_crop(rgb, alpha, (int(x0), int(y0)), scale, (width, height))
    region = out[box[1] : box[3], box[0] : box[2]]
    blended = region + fine_alpha[..., None] * (fine_rgb - region)
    region[...] = np.where(fine_alpha[..., None] > 0, np.rint(blended).clip(0, 255).astype(np.uint8), region)
    return out


def resample_crop(
    rgb: np.ndarray, alpha: np.ndarray, corner: tuple[int, int], scale: tuple[float, float], size: tuple[int, int]
) -> tuple[tuple[int, int, int, int], np.ndarray, np.ndarray]:
    """Resample a crop whose top left is `corner` (working pixels) by `scale`: its box in a frame of `size`, and its
    float32 colours [h,w,3] and alpha [h,w] in 0..1 there. Colours cubic, alpha linear, half-pixel centres."""
    rgb = cv2.copyMakeBorder(rgb, MARGIN, MARGIN, MARGIN, MARGIN, cv2.BORDER_REPLICATE)
    alpha = cv2.copyMakeBorder(alpha, MARGIN, MARGIN, MARGIN, MARGIN, cv2.BORDER_CONSTANT, value=0)
    left, top = corner[0] - MARGIN, corner[1] - MARGIN
    x0, y0 = max(0, int(left * scale[0])), max(0, int(top * scale[1]))
    x1 = min(size[0], int(np.ceil((left + rgb.shape[1]) * scale[0])))
    y1 = min(size[1], int(np.ceil((top + rgb.shape[0]) * scale[1])))
    x = ((np.arange(x0, x1) + 0.5) / scale[0] - 0.5 - left).astype(np.float32)
    y = ((np.arange(y0, y1) + 0.5) / scale[1] - 0.5 - top).astype(np.float32)
    map_x, map_y = np.meshgrid(x, y)
    colours = cv2.remap(rgb.astype(np.float32), map_x, map_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    opacity = cv2.remap(alpha.astype(np.float32), map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return (x0, y0, x1, y1), colours.clip(0, 255), opacity / 255
