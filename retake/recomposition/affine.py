"""Affine maps of places as float64 [3, 3], and their fits to points."""

from __future__ import annotations

import numpy as np

IDENTITY = np.eye(3)
SPREAD = 2.0  # px: points that lie closer to one line than this say nothing of what happens across it


def placed(matrix: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Places [..., 2] through a matrix, float64."""
    return xy @ matrix[:2, :2].T + matrix[:2, 2]


def exact(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """float64 [3, 3] that takes points a to b, [P, 2], by least squares: an affine where the points span an area, a
    similarity where they span a line, a shift of one point."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    if len(a) == 0:
        return IDENTITY
    middle, to = a.mean(0), b.mean(0)
    spans = np.linalg.svd(a - middle, compute_uv=False) / np.sqrt(len(a)) if len(a) > 1 else np.zeros(2)
    if len(a) > 2 and spans[1] > SPREAD:
        turn = np.linalg.lstsq(a - middle, b - to, rcond=None)[0].T
    elif spans[0] > SPREAD:
        (x, y), (u, v) = (a - middle).T, (b - to).T
        size = (x * x + y * y).sum()
        cos, sin = (x * u + y * v).sum() / size, (x * v - y * u).sum() / size
        turn = np.array([[cos, -sin], [sin, cos]])
    else:
        return shifted(to - middle)
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = turn, to - turn @ middle
    return matrix


def shifted(by: np.ndarray) -> np.ndarray:
    matrix = np.eye(3)
    matrix[:2, 2] = by
    return matrix
