"""The edited region as a picture of its own, for networks that look at one object."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]
BLANK = (123, 117, 104)  # CLIP's mean colour in levels: to CLIP and to ImageNet networks it is about zero


def box_of(region: NDArray[np.bool_]) -> Box | None:
    """The region's bounding box x0, y0, x1, y1 (exclusive ends), or None when it is empty."""
    rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def tight(frame: NDArray[np.uint8], region: NDArray[np.bool_] | None) -> NDArray[np.uint8] | None:
    """The region's box cut out of uint8 [H, W, 3], or None when there is no region."""
    if region is None or (box := box_of(region)) is None:
        return None
    x0, y0, x1, y1 = box
    return frame[y0:y1, x0:x1]


def square(frame: NDArray[np.uint8], region: NDArray[np.bool_] | None, blank: bool = True) -> NDArray[np.uint8] | None:
    """The smallest square around the region's box, centred on it: uint8 [S, S, 3], or None when there is no region.

    With `blank`, pixels of the square that are not edited become BLANK, so that the background cannot speak for the
    edit. What lies outside the frame is BLANK always.
    """
    if region is None or (box := box_of(region)) is None:
        return None
    x0, y0, x1, y1 = box
    side = max(x1 - x0, y1 - y0)
    left, top = x0 - (side - (x1 - x0)) // 2, y0 - (side - (y1 - y0)) // 2
    height, width = frame.shape[:2]
    inside = slice(max(top, 0), min(top + side, height)), slice(max(left, 0), min(left + side, width))
    seen = frame[inside]
    if blank:
        seen = np.where(region[inside][..., None], seen, np.array(BLANK, np.uint8))
    picture = np.full((side, side, 3), BLANK, np.uint8)
    row, column = inside[0].start - top, inside[1].start - left
    picture[row : row + seen.shape[0], column : column + seen.shape[1]] = seen
    return picture


def whole(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture of any shape, uint8 [h, w, 3], or [h, w, 4] laid over BLANK, as a square [S, S, 3]: nothing is cut."""
    rgb = image[..., :3]
    if image.shape[2] == 4:
        alpha = image[..., 3:].astype(np.float32) / 255
        rgb = np.rint(rgb * alpha + np.array(BLANK, np.float32) * (1 - alpha)).astype(np.uint8)
    side = max(rgb.shape[:2])
    picture = np.full((side, side, 3), BLANK, np.uint8)
    top, left = (side - rgb.shape[0]) // 2, (side - rgb.shape[1]) // 2
    picture[top : top + rgb.shape[0], left : left + rgb.shape[1]] = rgb
    return picture
