"""Distance to the edge of a region, the same to the last bit wherever it is computed."""

from __future__ import annotations

import cv2
import numpy as np


def distance(region: np.ndarray) -> np.ndarray:
    """float32 [H, W]: for each pixel of a region, bool [H, W], the distance in px between its centre and that of the
    nearest pixel outside; 0 outside, very large where there is no outside.

    OpenCV may hand this to IPP, whose last bit depends on where in memory the result lies. The square of a distance
    between pixels is a whole number, so that rounding it (safe up to 1,400 px) leaves one answer.
    """
    near = cv2.distanceTransform(region.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.sqrt(np.rint(np.square(near, dtype=np.float64))).astype(np.float32)
