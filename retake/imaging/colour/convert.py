"""Code values to non-linear RGB and back.

The equations are those of ITU-T H.273, section 8.3. swscale's fast conversion, of 8-bit 4:2:0, is up to 2.8 levels too
dark; OpenCV's matrix product rounds to nearest and takes as long.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from .coding import LUMA, Coding
from .planes import Planes

DEEP = 65535.0


@cache
def to_rgb_matrix(coding: Coding, peak: float = 1.0) -> np.ndarray:
    """float64 [3, 4]: code values (luma, Cb, Cr, 1) to R'G'B' from 0 to `peak`; of RGB only the scale."""
    top = float((1 << coding.depth) - 1)
    if coding.layout == "rgb":
        return np.eye(3, 4) * (peak / top)
    unit = 1 << (coding.depth - 8)
    middle = float(1 << (coding.depth - 1))
    luma, black, chroma = (top, 0.0, top) if coding.full else (219.0 * unit, 16.0 * unit, 224.0 * unit)
    codes = np.array([[1 / luma, 0, 0, -black / luma], [0, 1 / chroma, 0, -middle / chroma], [0, 0, 1 / chroma, 0]])
    codes[2, 3] = -middle / chroma
    return _equations(coding.matrix) @ codes * peak


def _equations(matrix: str) -> np.ndarray:
    if matrix == "ycgco":
        return np.array([[1.0, -1, 1], [1, 1, 0], [1, -1, -1]])
    kr, kb = LUMA[matrix]
    red, blue, kg = 2 * (1 - kr), 2 * (1 - kb), 1 - kr - kb
    return np.array([[1, 0, red], [1, -kb * blue / kg, -kr * red / kg], [1, blue, 0]])


@cache
def to_codes_matrix(coding: Coding, peak: float = 1.0) -> np.ndarray:
    """float64 [3, 4]: (R', G', B', 1) from 0 to `peak` to code values; the inverse of `to_rgb_matrix`."""
    forward = to_rgb_matrix(coding, peak)
    back = np.linalg.inv(forward[:, :3])
    return np.concatenate([back, -back @ forward[:, 3:]], axis=1)


def to_rgb8(planes: Planes, coding: Coding) -> np.ndarray:
    """Code values of 8 bits to uint8 R'G'B' [H, W, 3], rounded to nearest, cut to 0..255. Mean error below 0.1."""
    return _to_rgb(planes, coding, 255.0)


def to_rgb16(planes: Planes, coding: Coding) -> np.ndarray:
    """Code values of any depth to uint16 R'G'B' [H, W, 3], 65535 the peak."""
    if coding.depth == 8:
        planes = [plane.astype(np.uint16) for plane in planes]
    return _to_rgb(planes, coding, DEEP)


def _to_rgb(planes: Planes, coding: Coding, peak: float) -> np.ndarray:
    if coding.layout == "rgb":
        return cv2.transform(planes[0], to_rgb_matrix(coding, peak)) if peak != (1 << coding.depth) - 1 else planes[0]
    if coding.layout == "gray":
        scale = np.float32(to_rgb_matrix(coding, peak)[0, 0])
        black = np.float32(0 if coding.full else 16 << (coding.depth - 8))
        grey = np.rint((planes[0] - black) * scale).clip(0, peak).astype(planes[0].dtype)
        return cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    height, width = planes[0].shape
    chroma = [upsampled(plane, coding, (width, height)) for plane in planes[1:3]]
    return cv2.transform(cv2.merge([planes[0], *chroma]), to_rgb_matrix(coding, peak))


def to_codes(rgb: np.ndarray, coding: Coding) -> list[np.ndarray]:
    """R'G'B' [H, W, 3] to the planes of a coding, without alpha: uint8 from 0 to 255 or uint16 from 0 to 65535.

    Rounded to nearest and cut to the code's range; chroma is the mean over the pixels that it stands for.
    """
    peak = 255.0 if rgb.dtype == np.uint8 else DEEP
    # OpenCV multiplies uint16 in floating point, uint8 by coefficients of 10 bits, which add up over several passes.
    codes = np.minimum(cv2.transform(rgb.astype(np.uint16), to_codes_matrix(coding, peak)), (1 << coding.depth) - 1)
    if coding.depth == 8:
        codes = codes.astype(np.uint8)
    if coding.layout == "rgb":
        return [codes]
    luma, *chroma = cv2.split(codes)
    return [luma] if coding.layout == "gray" else [luma, *(downsampled(plane, coding) for plane in chroma)]


def upsampled(plane: np.ndarray, coding: Coding, size: tuple[int, int]) -> np.ndarray:
    """A chroma plane at every pixel of a picture of `size` = (width, height): bilinear, from where the samples lie."""
    if coding.step == (1, 1):
        return plane
    (across, down), (right, below) = coding.step, coding.siting
    height, width = plane.shape
    if (right, below) == (0.0, 0.5) and (across, down) in ((2, 1), (2, 2)) and size == (2 * width, down * height):
        tall = _doubled_down(plane) if down == 2 else plane
        out = np.empty((size[1], width, 2), plane.dtype)  # six times as fast as the warp below
        out[..., 0] = tall
        out[:, -1, 1] = tall[:, -1]
        out[:, :-1, 1] = cv2.addWeighted(tall[:, :-1], 0.5, tall[:, 1:], 0.5, 0)
        return out.reshape(size[1], size[0])
    place = np.array([[1 / across, 0, -right / across], [0, 1 / down, -below / down]])
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(plane, place, size, flags=how, borderMode=cv2.BORDER_REPLICATE)


def _doubled_down(plane: np.ndarray) -> np.ndarray:
    """Twice the rows, bilinear. cv2.resize rounds halves up, an eighth of a level on average, which adds up."""
    out = np.empty((2 * plane.shape[0], plane.shape[1]), plane.dtype)
    around = cv2.copyMakeBorder(plane, 1, 1, 0, 0, cv2.BORDER_REPLICATE)
    out[::2] = cv2.addWeighted(around[:-2], 0.25, plane, 0.75, 0)
    out[1::2] = cv2.addWeighted(plane, 0.75, around[2:], 0.25, 0)
    return out


def downsampled(plane: np.ndarray, coding: Coding) -> np.ndarray:
    """One chroma value for each sample of a coding, from a plane [H, W] with one for each pixel: the mean of the
    pixels around the sample, nearer ones counting more. uint8, uint16 or float32; so is the result."""
    shorter = _downsampled(plane, coding.step[1], coding.siting[1], 0)
    return _downsampled(shorter, coding.step[0], coding.siting[0], 1)


def _downsampled(plane: np.ndarray, step: int, offset: float, axis: int) -> np.ndarray:
    if step == 1:
        return plane
    height, width = plane.shape
    if offset == (step - 1) / 2 and not plane.shape[axis] % step:
        size = (width, height // step) if axis == 0 else (width // step, height)
        return cv2.resize(plane, size, interpolation=cv2.INTER_AREA)
    away = np.abs(np.arange(-2 * step, 2 * step + 1) - offset)
    tent = np.maximum(0, 1 - away / step)  # a quarter, a half, a quarter where a sample lies on a pixel
    used = np.flatnonzero(tent)
    kernel, anchor = tent[used[0] : used[-1] + 1] / tent.sum(), 2 * step - int(used[0])
    if not 0 <= anchor < len(kernel):
        raise ValueError(f"a chroma sample {offset:g} pixels from its group is outside it")
    one = np.ones(1)
    kernels, where = ((one, kernel), (0, anchor)) if axis == 0 else ((kernel, one), (anchor, 0))
    filtered = cv2.sepFilter2D(plane, -1, *kernels, anchor=where, borderType=cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(filtered[::step] if axis == 0 else filtered[:, ::step])


def with_full_chroma(planes: Planes, coding: Coding) -> list[np.ndarray]:
    """Planes with a chroma sample for every pixel."""
    if coding.step == (1, 1):
        return list(planes)
    height, width = planes[0].shape
    return [planes[0], *(upsampled(plane, coding, (width, height)) for plane in planes[1:3]), *planes[3:]]
