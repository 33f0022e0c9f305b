"""Code values of one coding as code values of another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from .coding import Coding
from .convert import Planes, downsampled, to_codes, to_rgb8, to_rgb16, with_full_chroma
from .view import to_view


def playable(coding: Coding) -> Coding:
    """The coding of an H.264 file that plays everywhere: limited range, 4:2:0, 8 bits. SDR keeps its matrix, primaries
    and transfer; HDR becomes the view, and what has no matrix that players know gets BT.709's."""
    target = Coding("yuv", 8, (2, 2), (0.0, 0.5), False, "bt709", False, "bt709", "bt709")
    if coding.hdr or (coding.layout == "rgb" and not coding.wide):
        return target
    matrix = coding.matrix if coding.layout == "yuv" and coding.matrix in ("bt601", "bt709", "bt2020") else "bt709"
    return replace(target, matrix=matrix, primaries=coding.primaries, transfer=coding.transfer)


def recoded(planes: Planes, source: Coding, target: Coding) -> list[np.ndarray]:
    """The planes in another coding: the very same where the two are equal, else rounded once or, where the matrix or
    the range changes, twice. HDR that becomes SDR is the view; SDR does not become HDR. Alpha is full where the source
    has none."""
    colours, alpha = list(planes[: 1 if source.layout != "yuv" else 3]), planes[-1] if source.alpha else None
    same = (source.layout, source.matrix, source.full) == (target.layout, target.matrix, target.full)
    if source.hdr and not target.hdr:
        colours = to_codes(to_view(planes, source), target)
    elif same:
        colours = _same_matrix(colours, source, target)
    else:
        rgb = to_rgb8(planes, source) if source.depth == target.depth == 8 else to_rgb16(planes, source)
        colours = to_codes(rgb, target)
    if not target.alpha:
        return colours
    if alpha is None:
        full = np.full(colours[0].shape[:2], (1 << target.depth) - 1, colours[0].dtype)
        return [*colours, full]
    return [*colours, _deepened([alpha], source.depth, target.depth, True)[0]]


def _same_matrix(planes: Sequence[np.ndarray], source: Coding, target: Coding) -> list[np.ndarray]:
    if (source.step, source.siting) != (target.step, target.siting):
        luma, *chroma = with_full_chroma(planes, source)
        planes = [luma, *(downsampled(plane, target) for plane in chroma)]
    return _deepened(planes, source.depth, target.depth, source.full)


def _deepened(planes: Sequence[np.ndarray], depth: int, wanted: int, full: bool) -> list[np.ndarray]:
    if depth == wanted:
        return list(planes)
    scale = ((1 << wanted) - 1) / ((1 << depth) - 1) if full else 2.0 ** (wanted - depth)
    if wanted == 8:
        return [cv2.convertScaleAbs(plane, alpha=scale) for plane in planes]
    return [np.rint(plane * np.float32(scale)).clip(0, (1 << wanted) - 1).astype(np.uint16) for plane in planes]


def padded_to_even(planes: Planes, coding: Coding) -> list[np.ndarray]:
    """Planes in which every group of pixels with one chroma sample is whole, and whose size is even, by repeating the
    last row and column."""
    height, width = planes[0].shape[:2]
    across, down = max(2, coding.step[0]), max(2, coding.step[1])
    right, below = -width % across, -height % down
    if not right and not below:
        return list(planes)
    wide, tall = (width + right) // coding.step[0], (height + below) // coding.step[1]
    out = []
    for k, plane in enumerate(planes):
        small = coding.layout == "yuv" and k in (1, 2)
        size = (tall, wide) if small else (height + below, width + right)
        border = [(0, size[0] - plane.shape[0]), (0, size[1] - plane.shape[1]), (0, 0)][: plane.ndim]
        out.append(np.pad(plane, border, mode="edge"))
    return out
