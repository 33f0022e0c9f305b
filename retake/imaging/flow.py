"""Optical flow as numbers: backward warping, bounds, occlusion, change of size.

A flow is float32 [H, W, 2] in pixels, (x, y) = (right, down). `forward` lives on the grid of the first
frame and points into the second, first(p) ~ second(p + forward(p)); `backward` lives on the grid of the
second and points into the first. The centre of pixel (0, 0) has the coordinate (0, 0).
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np

Border = Literal["clamp", "constant"]


def warp(image: np.ndarray, flow: np.ndarray, border: Border = "clamp", exact: bool = False) -> np.ndarray:
    """Samples `image` at p + flow(p), bilinearly: the image pulled back onto the grid of `flow`.

    `warp(second, forward)` looks like the first frame, `warp(first, backward)` like the second.

    image: [H, W] or [H, W, C], any numeric dtype, or bool (thresholded at 0.5 after sampling).
    flow: [h, w, 2] in pixels of `image`; (h, w) may differ from (H, W).
    border: "clamp" repeats the edge, as Lai et al.'s Resample2d does; "constant" is zero outside, blended
        over the last pixel.
    exact: NumPy with float64 coordinates instead of cv2.remap, which is within 2e-6 of the image's range in
        OpenCV 5 (older versions round coordinates to 1/32 px). About 20 times slower; always on for float64.
    Returns [h, w] or [h, w, C]: bool for bool, float64 for float64, else float32 in the image's range.
    """
    if image.dtype == bool:
        return warp(image.astype(np.float32), flow, border, exact) >= 0.5
    values = image if image.dtype == np.float64 else image.astype(np.float32, copy=False)
    if exact or values.dtype == np.float64:
        return _warp_exact(values, flow, border)
    height, width = flow.shape[:2]
    map_x = flow[..., 0].astype(np.float32) + np.arange(width, dtype=np.float32)
    map_y = flow[..., 1].astype(np.float32) + np.arange(height, dtype=np.float32)[:, None]
    mode = cv2.BORDER_REPLICATE if border == "clamp" else cv2.BORDER_CONSTANT

    def sample(plane: np.ndarray) -> np.ndarray:
        return cv2.remap(plane, map_x, map_y, cv2.INTER_LINEAR, borderMode=mode, borderValue=0)

    if values.ndim == 2 or values.shape[2] in (1, 3, 4):
        warped = sample(values)
    else:  # OpenCV 5 rounds coordinates to 1/32 px for other channel counts, a flow's two among them
        warped = np.stack([sample(values[..., c]) for c in range(values.shape[2])], axis=-1)
    return warped.reshape(height, width, *image.shape[2:])  # remap drops a channel axis of length 1


def _warp_exact(values: np.ndarray, flow: np.ndarray, border: Border) -> np.ndarray:
    height, width = values.shape[:2]
    x = flow[..., 0].astype(np.float64) + np.arange(flow.shape[1])
    y = flow[..., 1].astype(np.float64) + np.arange(flow.shape[0])[:, None]
    if border == "constant":  # one ring of zeros; beyond it the clamp finds only zeros
        values = np.pad(values, [(1, 1), (1, 1)] + [(0, 0)] * (values.ndim - 2))
        x, y, height, width = x + 1, y + 1, height + 2, width + 2
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    left, top = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    wide = (...,) + (None,) * (values.ndim - 2)
    fx, fy = (x - left)[wide], (y - top)[wide]
    upper = values[top, left] * (1 - fx) + values[top, right] * fx
    lower = values[bottom, left] * (1 - fx) + values[bottom, right] * fx
    return (upper * (1 - fy) + lower * fy).astype(values.dtype)


def in_bounds(flow: np.ndarray, slack: float = 0.0) -> np.ndarray:
    """bool [H, W]: True where p + flow(p) lies between the centres of the outermost pixels, or at most `slack` px
    beyond them (0.5 reaches to the edge of the picture)."""
    height, width = flow.shape[:2]
    x = flow[..., 0] + np.arange(width, dtype=np.float32)
    y = flow[..., 1] + np.arange(height, dtype=np.float32)[:, None]
    return (x >= -slack) & (x <= width - 1 + slack) & (y >= -slack) & (y <= height - 1 + slack)


def occlusion(forward: np.ndarray, backward: np.ndarray, boundaries: bool = True) -> np.ndarray:
    """Pixels of the first frame that the second does not show, by forward-backward disagreement.

    With b(p) = backward(p + forward(p)) and squared magnitudes throughout, p is occluded where
    |forward + b|^2 > 0.01 (|forward|^2 + |b|^2) + 0.5, or, with `boundaries`, where it lies on a motion
    boundary: |grad forward_x|^2 + |grad forward_y|^2 > 0.01 |forward|^2 + 0.002 (one-pixel forward
    differences). Source: Sundaram et al., ECCV 2010, equations 5 and 6, with the constants that Lai et al.,
    ECCV 2018, use for the warp error. The warp clamps at the border and no pixel is marked for leaving the
    frame: combine with `in_bounds` for that. `occlusion(backward, forward)` serves the second frame.

    forward, backward: float32 [H, W, 2] in pixels. Returns bool [H, W] on the grid of `forward`.
    """
    back = warp(backward, forward)
    energy = _square(forward)
    occluded = _square(forward + back) > 0.01 * (energy + _square(back)) + 0.5
    if boundaries:
        occluded |= _gradient_energy(forward) > 0.01 * energy + 0.002
    return occluded


def _square(flow: np.ndarray) -> np.ndarray:
    return flow[..., 0] ** 2 + flow[..., 1] ** 2


def _gradient_energy(flow: np.ndarray) -> np.ndarray:
    energy = np.zeros(flow.shape[:2], np.float32)
    energy[:, :-1] += _square(np.diff(flow, axis=1))
    energy[:-1] += _square(np.diff(flow, axis=0))
    return energy


def resize_flow(flow: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The same motion on a grid of `size` = (width, height): resampled, and its values rescaled.

    Half-pixel centres; area averaging when both sides shrink, bilinear otherwise. Returns float32
    [height, width, 2] in pixels of the new grid.
    """
    height, width = flow.shape[:2]
    flow = flow.astype(np.float32)
    if size == (width, height):
        return flow
    shrinks = size[0] <= width and size[1] <= height
    resized = cv2.resize(flow, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return resized * np.array([size[0] / width, size[1] / height], np.float32)
