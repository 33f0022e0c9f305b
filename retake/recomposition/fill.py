"""What no frame shows, made up from its surroundings.

A hole takes the part of the picture whose rim is most like its own, in the light of its own rim, so that grain and
patterns go on through it. Slits, and holes for which the picture has no such part, are filled by marching inwards
(Telea, "An image inpainting technique based on the fast marching method", 2004).
"""

from __future__ import annotations

import cv2
import numpy as np

from retake.imaging.soft_mask import bounding_box

SLIT = 4  # px across: less is filled by marching
RIM = 10  # px around a hole that are compared
AROUND = 24  # px that marching starts from


def filled(picture: np.ndarray, wanted: np.ndarray, lacks: np.ndarray) -> np.ndarray:
    """The picture, uint8 [H, W, 3], with colours where they are wanted, bool [H, W]; of the places that it lacks, bool
    [H, W], none is looked at."""
    out = marched(picture, lacks)
    count, parts = cv2.connectedComponents(wanted.astype(np.uint8))
    for n in range(1, count):
        hole = parts == n
        if cv2.distanceTransform(np.pad(hole.astype(np.uint8), 1), cv2.DIST_L2, 3).max() * 2 > SLIT:
            out = patched(out, hole, lacks)
    return out


def halves(hole: np.ndarray) -> list[np.ndarray]:
    """A hole cut across its longer side: bool [H, W] each."""
    box = bounding_box(hole, 0)
    assert box is not None
    x0, y0, x1, y1 = box
    first = np.zeros_like(hole)
    if x1 - x0 >= y1 - y0:
        first[:, : (x0 + x1) // 2] = True
    else:
        first[: (y0 + y1) // 2] = True
    return [hole & first, hole & ~first]


def marched(picture: np.ndarray, lacks: np.ndarray) -> np.ndarray:
    box = bounding_box(lacks, AROUND)
    if box is None:
        return picture
    x0, y0, x1, y1 = box
    out = picture.copy()
    part = np.ascontiguousarray(picture[y0:y1, x0:x1])
    out[y0:y1, x0:x1] = cv2.inpaint(part, lacks[y0:y1, x0:x1].astype(np.uint8), 5, cv2.INPAINT_TELEA)
    return out


def patched(picture: np.ndarray, hole: np.ndarray, lacks: np.ndarray) -> np.ndarray:
    """The picture with one hole filled by another part of it; where no part is as large, one half after the other."""
    box = bounding_box(hole, RIM)
    assert box is not None
    x0, y0, x1, y1 = box
    inside = hole[y0:y1, x0:x1]
    rim = cv2.dilate(inside.astype(np.uint8), np.ones((2 * RIM + 1, 2 * RIM + 1), np.uint8)).astype(bool)
    rim &= ~lacks[y0:y1, x0:x1]
    shift = best_shift(picture, box, inside, rim, lacks)
    if shift is None:
        if min(x1 - x0, y1 - y0) > 2 * (RIM + SLIT):
            lacks = lacks.copy()
            for half in halves(hole):
                picture = patched(picture, half, lacks)
                lacks &= ~half  # the second one may look at the first
        return picture
    dx, dy = shift
    part = picture[y0 + dy : y1 + dy, x0 + dx : x1 + dx].astype(np.float32)
    # What differs at the rim, smooth: where a line does not meet its other half, its colour must not run inwards.
    broad = max(4.0, 0.25 * min(inside.shape))
    share = cv2.GaussianBlur(rim.astype(np.float32), (0, 0), broad)
    apart = (picture[y0:y1, x0:x1] - part) * rim[..., None]
    light = cv2.GaussianBlur(apart, (0, 0), broad) / np.maximum(share, 1e-4)[..., None]
    out = picture.copy()
    out[y0:y1, x0:x1][inside] = np.rint(part + light).clip(0, 255)[inside]
    return out


def best_shift(
    picture: np.ndarray, box: tuple[int, int, int, int], inside: np.ndarray, rim: np.ndarray, lacks: np.ndarray
) -> tuple[int, int] | None:
    """(dx, dy) to where the picture is most like the hole's rim and lacks nothing that the hole needs."""
    x0, y0, x1, y1 = box
    scale = min(1.0, 160 / max(x1 - x0, y1 - y0, 1))  # looked for in a smaller picture, where a hole is large

    def small(image: np.ndarray) -> np.ndarray:
        size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
        return cv2.resize(image.astype(np.float32), size, interpolation=cv2.INTER_AREA)

    whole, template = small(picture), small(picture[y0:y1, x0:x1])
    need, compare = small(inside) > 0, (small(rim) > 0.5).astype(np.float32)
    if not compare.any() or template.shape[0] > whole.shape[0] or template.shape[1] > whole.shape[1]:
        return None
    cost = cv2.matchTemplate(whole, template, cv2.TM_SQDIFF, mask=np.dstack([compare] * 3))
    overlap = cv2.matchTemplate((small(lacks) > 0).astype(np.float32), need.astype(np.float32), cv2.TM_CCORR)
    free = (overlap < 0.5) & np.isfinite(cost)
    rows, columns = np.nonzero(free)
    if not len(rows):
        return None
    best = int(np.argmin(cost[rows, columns]))
    dx, dy = round(columns[best] / scale) - x0, round(rows[best] / scale) - y0
    height, width = lacks.shape
    return int(np.clip(dx, -x0, width - x1)), int(np.clip(dy, -y0, height - y1))
