"""An edit laid over its source: the crop resampled to the source's size and blended where its alpha is above 0."""

from __future__ import annotations

import cv2
import numpy as np

from retake.imaging.colour.coding import Coding
from retake.imaging.colour.convert import downsampled, to_codes_matrix
from retake.imaging.colour.planes import Planes
from retake.imaging.colour.view import from_view
from retake.imaging.soft_mask import Box

Layer = tuple[Box, np.ndarray, np.ndarray]
MARGIN = 4  # working pixels around a box, so that resampling at its border reads real neighbours


def composite(
    planes: Planes, coding: Coding, edit: tuple[np.ndarray, np.ndarray, np.ndarray], working: tuple[int, int]
) -> list[np.ndarray]:
    """Lay one frame's edit over the source, in the source's own code values.

    planes as in retake/imaging/colour/planes.py; edit as EditedSeries gives it, a picture of the view in `working`
    (width, height) pixels. Returns new planes, or the source's where nothing is edited. The band in which source and
    edit are blended is where alpha, resampled to the source's size, is above 0; everywhere else the source's code
    values stay. A chroma sample is blended by the mean alpha of the pixels around it, so it changes where one of them
    is edited. The source's own alpha plane stays.
    """
    (x0, y0, x1, y1), rgb, alpha = edit
    if x1 <= x0 or not alpha.any():
        return list(planes)
    height, width = planes[0].shape[:2]
    if (width, height) == working:
        box = int(x0), int(y0), int(x1), int(y1)
        fine_rgb, fine_alpha = rgb.astype(np.float32), alpha.astype(np.float32) / 255
    else:
        scale = width / working[0], height / working[1]
        box, fine_rgb, fine_alpha = resample_crop(rgb, alpha, (int(x0), int(y0)), scale, (width, height))
    return _lay_over(planes, coding, box, fine_rgb, fine_alpha)


def pasted(picture: np.ndarray, box: Box, rgb: np.ndarray, alpha: np.ndarray) -> None:
    """Lay rgb uint8 [h, w, 3] by its alpha uint8 [h, w] over a box of a picture uint8 [H, W, 3], in place."""
    x0, y0, x1, y1 = box
    part, share = picture[y0:y1, x0:x1], alpha[..., None].astype(np.float32) / 255
    part[:] = np.rint(part + share * (rgb.astype(np.float32) - part))


def over(below: Layer, above: Layer) -> Layer:
    """Two layers of a frame as one, which gives what both give one after the other: box, rgb uint8 [h, w, 3], alpha
    uint8 [h, w] each. Where only one of them is opaque, its values stay as they are."""
    boxes = [layer[0] for layer in (below, above) if layer[2].any()]
    if len(boxes) < 2:
        return above if above[2].any() else below
    corners = np.array(boxes)
    x0, y0, x1, y1 = (*corners[:, :2].min(0).tolist(), *corners[:, 2:].max(0).tolist())
    (rgb_below, a), (rgb_above, b) = (_placed(layer, (x0, y0, x1, y1)) for layer in (below, above))
    shares = b.astype(np.float32)[..., None] / 255, a.astype(np.float32)[..., None] / 255
    whole = shares[0] + shares[1] * (1 - shares[0])
    mixed = (shares[0] * rgb_above + shares[1] * (1 - shares[0]) * rgb_below) / np.maximum(whole, 1e-6)
    rgb, alpha = np.rint(mixed).clip(0, 255).astype(np.uint8), np.rint(255 * whole[..., 0]).astype(np.uint8)
    for only, other, picture, own in ((a > 0, b == 0, rgb_below, a), (b > 0, a == 0, rgb_above, b)):
        rgb[only & other], alpha[only & other] = picture[only & other], own[only & other]
    return (x0, y0, x1, y1), rgb, alpha


def _placed(layer: Layer, box: Box) -> tuple[np.ndarray, np.ndarray]:
    """A layer's rgb and alpha on a larger box around its own."""
    (x0, y0, x1, y1), rgb, alpha = layer
    part = slice(y0 - box[1], y1 - box[1]), slice(x0 - box[0], x1 - box[0])
    size = box[3] - box[1], box[2] - box[0]
    wide, opacity = np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8)
    wide[part], opacity[part] = rgb, alpha
    return wide, opacity


def _lay_over(
    planes: Planes, coding: Coding, box: tuple[int, int, int, int], rgb: np.ndarray, alpha: np.ndarray
) -> list[np.ndarray]:
    """The planes with a picture of the view laid over them: box in pixels, rgb float32 [h, w, 3], 0..255, alpha float32
    [h, w], 0..1."""
    out = list(planes)
    across, down = coding.step
    x0, y0 = box[0] // across * across, box[1] // down * down
    height, width = planes[0].shape[:2]
    x1, y1 = min(width, -(-box[2] // across) * across), min(height, -(-box[3] // down) * down)
    if (x0, y0, x1, y1) != tuple(box):
        border = (box[1] - y0, y1 - box[3], box[0] - x0, x1 - box[2])
        rgb = cv2.copyMakeBorder(rgb, *border, cv2.BORDER_REPLICATE)
        alpha = cv2.copyMakeBorder(alpha, *border, cv2.BORDER_CONSTANT, value=0)
    codes = cv2.transform(from_view(rgb, coding).astype(np.float32), to_codes_matrix(coding).astype(np.float32))
    top = (1 << coding.depth) - 1
    if coding.layout == "rgb":
        out[0] = _blended(planes[0], (slice(y0, y1), slice(x0, x1)), codes, alpha[..., None], top)
        return out
    out[0] = _blended(planes[0], (slice(y0, y1), slice(x0, x1)), codes[..., 0], alpha, top)
    if coding.layout == "yuv":
        weight = downsampled(alpha, coding)
        part = (slice(y0 // down, y0 // down + weight.shape[0]), slice(x0 // across, x0 // across + weight.shape[1]))
        for k in (1, 2):
            mean = downsampled(alpha * codes[..., k], coding) / np.maximum(weight, 1e-6)
            out[k] = _blended(planes[k], part, mean, weight, top)
    return out


def _blended(
    plane: np.ndarray, part: tuple[slice, slice], codes: np.ndarray, alpha: np.ndarray, top: int
) -> np.ndarray:
    out = plane.copy()
    region = out[part]
    mixed = region + alpha * (codes - region)
    region[...] = np.where(alpha > 0, np.rint(mixed).clip(0, top).astype(plane.dtype), region)
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
