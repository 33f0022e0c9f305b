"""The crop of a frame that a mask is fitted in, and the shapes drawn there."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np


class Crop(NamedTuple):
    """A part of the frame (x0, y0, x1, y1, exclusive) and the size (w, h) that it is fitted at."""

    x0: int
    y0: int
    x1: int
    y1: int
    size: tuple[int, int]

    def take(self, image: np.ndarray) -> np.ndarray:
        """This part of an image or a bool mask, at the fitted size."""
        part = np.ascontiguousarray(image[self.y0 : self.y1, self.x0 : self.x1])
        if part.dtype == bool:
            return cv2.resize(part.astype(np.float32), self.size, interpolation=cv2.INTER_AREA) >= 0.5
        return cv2.resize(part, self.size, interpolation=cv2.INTER_AREA)

    def paste(self, mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """A mask of the fitted size, back in a frame of `shape` (H, W)."""
        whole = np.zeros(shape, bool)
        size = (self.x1 - self.x0, self.y1 - self.y0)
        part = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
        whole[self.y0 : self.y1, self.x0 : self.x1] = part >= 0.5
        return whole

    def place(self, x: float, y: float) -> tuple[int, int]:
        """The fitted pixel nearest to a place in the frame."""
        u = (x + 0.5 - self.x0) * self.size[0] / (self.x1 - self.x0) - 0.5
        v = (y + 0.5 - self.y0) * self.size[1] / (self.y1 - self.y0) - 0.5
        return round(u), round(v)


def around(mask: np.ndarray, enlarge: float, pad: float, longest: int) -> Crop:
    """The box of a mask, `enlarge` times its sides but at least `pad` px wider all round, within the frame."""
    height, width = mask.shape
    ys, xs = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    dx = max(pad, len(xs) * (enlarge - 1) / 2)
    dy = max(pad, len(ys) * (enlarge - 1) / 2)
    x0, y0 = max(0, math.floor(xs[0] - dx)), max(0, math.floor(ys[0] - dy))
    x1, y1 = min(width, math.ceil(xs[-1] + 1 + dx)), min(height, math.ceil(ys[-1] + 1 + dy))
    return sized(x0, y0, x1, y1, longest)


def sized(x0: int, y0: int, x1: int, y1: int, longest: int) -> Crop:
    """The region at its own size, or shrunk so that no side exceeds `longest` px."""
    scale = min(1.0, longest / max(x1 - x0, y1 - y0))
    return Crop(x0, y0, x1, y1, (max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))))


def rim_labels(inner: np.ndarray, unknown: np.ndarray, rim: float) -> np.ndarray:
    """Fixed inside and outside, open within `rim` px of the outline and, where unknown, within 3 times that."""
    inside = cv2.distanceTransform(inner.astype(np.uint8), cv2.DIST_L2, 5)
    outside = cv2.distanceTransform((~inner).astype(np.uint8), cv2.DIST_L2, 5)
    reach = np.where(unknown, 3 * rim, rim)
    labels = np.where(inside > reach, cv2.GC_FGD, cv2.GC_PR_FGD)
    return np.where(inner, labels, np.where(outside > reach, cv2.GC_BGD, cv2.GC_PR_BGD)).astype(np.uint8)


def tidy(fit: np.ndarray, share: float, seeds: np.ndarray | None = None) -> np.ndarray:
    """Drops parts below `share` of the largest (parts on seeds stay) and fills holes below 0.5 % of it."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(fit.astype(np.uint8), connectivity=8)
    if count <= 1:
        return fit
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    keep = areas >= share * areas.max()
    if seeds is not None:
        keep[np.unique(parts[seeds])] = True
    keep[0] = False
    fit = keep[parts]
    _, holes, stats, _ = cv2.connectedComponentsWithStats((~fit).astype(np.uint8), connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] < 0.005 * areas.max()
    small[0] = False
    touching = np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]])
    small[np.unique(touching)] = False
    return fit | small[holes]


def span_of(mask: np.ndarray) -> float:
    """Area in px of the bounding box."""
    return float(mask.any(0).sum()) * float(mask.any(1).sum())


def radius_of(inside: np.ndarray) -> np.ndarray:
    """Distance from the box's middle in units of its half axes; infinite outside the box."""
    ys, xs = np.nonzero(inside.any(1))[0], np.nonzero(inside.any(0))[0]
    x = (np.arange(inside.shape[1]) - (xs[0] + xs[-1]) / 2) / (len(xs) / 2)
    y = (np.arange(inside.shape[0]) - (ys[0] + ys[-1]) / 2) / (len(ys) / 2)
    return np.where(inside, np.hypot(x[None], y[:, None]), np.inf)
