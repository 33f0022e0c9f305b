"""The motion of one thing over a clip, fitted to points that lie on it: of the camera, where they lie on the ground."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np

Model = Literal["translation", "similarity", "affine", "homography"]
LEAST = {"translation": 1, "similarity": 2, "affine": 3, "homography": 4}
INLIER = 1.5  # px
KEEP = 0.4  # of the base's points: with fewer the fit goes on from a later base
Found = tuple[np.ndarray, np.ndarray]
"""ids int64 [P], ascending, and xy float [P, 2] of the points seen on a frame."""


def motions(seen: Callable[[int], Found], count: int, to: int, model: Model) -> np.ndarray:
    """Matrices float64 [count, 3, 3] that take places on a frame to places on frame `to`; NaN from the frame on that
    has too few points in common with its neighbours. Each frame is fitted to the base directly as long as enough of
    the base's points live, so that errors do not add up."""
    found = np.tile(np.eye(3), (count, 1, 1))
    for way in (range(to + 1, count), range(to - 1, -1, -1)):
        base, base_matrix, previous = seen(to), np.eye(3), to
        for t in way:
            here = seen(t)
            a, b = common(here, base)
            if len(a) < max(LEAST[model], KEEP * len(base[0])):
                base, base_matrix = seen(previous), found[previous]
                a, b = common(here, base)
            if len(a) < LEAST[model]:
                found[(t if way.step > 0 else 0) : (count if way.step > 0 else t + 1)] = np.nan
                break
            found[t] = base_matrix @ fitted(a, b, model)
            previous = t
    return found


def common(a: Found, b: Found) -> tuple[np.ndarray, np.ndarray]:
    """Places, in a and in b, of the points that both hold."""
    _, in_a, in_b = np.intersect1d(a[0], b[0], assume_unique=True, return_indices=True)
    return a[1][in_a], b[1][in_b]


def fitted(a: np.ndarray, b: np.ndarray, model: Model) -> np.ndarray:
    """float64 [3, 3] that takes points a to points b, float [P, 2], outliers rejected."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    matrix = np.eye(3)
    if model == "translation" or len(a) < 2:
        matrix[:2, 2] = np.median(b - a, axis=0)
        return matrix
    if model == "homography" and len(a) >= 4:
        found, _ = cv2.findHomography(a, b, cv2.RANSAC, INLIER)
        return matrix if found is None else np.asarray(found, np.float64)
    fit = cv2.estimateAffinePartial2D if model == "similarity" else cv2.estimateAffine2D
    found, _ = fit(a, b, method=cv2.RANSAC, ransacReprojThreshold=INLIER)
    if found is not None:
        matrix[:2] = found
    return matrix


def placed(matrices: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Places float64 [P, 2] through one matrix [3, 3] or a matrix each [P, 3, 3]."""
    out = np.einsum("...ij,pj->pi" if matrices.ndim == 2 else "pij,pj->pi", matrices, np.c_[xy, np.ones(len(xy))])
    return out[:, :2] / out[:, 2:]
