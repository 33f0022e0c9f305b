"""Poses, and the 2x3 matrices they stand for.

A matrix [A | c] maps body coordinates to pixels: p = A b + c, x to the right, y down, the centre of the
first pixel at (0, 0). Everything the sprite world promises to be exact is a product of such matrices.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


class Pose(NamedTuple):
    """Where a body is in one frame: shear, then scale, then rotation, then shift.

    x, y: the body's origin in pixels. angle: radians, positive turns the x axis towards the y axis
    (clockwise on the screen). scale: pixels per body unit, above 0. shear: x grows by shear * y.
    """

    x: float = 0.0
    y: float = 0.0
    angle: float = 0.0
    scale: float = 1.0
    shear: float = 0.0


def matrix(pose: Pose) -> Matrix:
    """The matrix float64 [2, 3] that maps body coordinates to pixels."""
    cos, sin = np.cos(pose.angle), np.sin(pose.angle)
    linear = pose.scale * np.array([[cos, cos * pose.shear - sin], [sin, sin * pose.shear + cos]])
    return _joined(linear, (pose.x, pose.y))


def about(pose: Pose, x: float, y: float) -> Matrix:
    """The matrix float64 [2, 3] of a pose that turns and scales about the point (x, y): a camera's view."""
    linear = matrix(pose)[:, :2]
    return _joined(linear, np.array([x + pose.x, y + pose.y]) - linear @ (x, y))


def compose(outer: Matrix, inner: Matrix) -> Matrix:
    """The matrix of `inner` first, `outer` second."""
    return _joined(outer[:, :2] @ inner[:, :2], outer[:, :2] @ inner[:, 2] + outer[:, 2])


def invert(m: Matrix) -> Matrix:
    """The inverse matrix, in closed form: exact where the entries are whole numbers and halves."""
    (a, b, x), (c, d, y) = m.tolist()
    inverse = np.array([[d, -b], [-c, a]]) / (a * d - b * c)
    return _joined(inverse, -(inverse @ (x, y)))


def apply(m: Matrix, points: NDArray) -> NDArray[np.float64]:
    """Map points [..., 2] (x, y), float64 out."""
    x, y = points[..., 0], points[..., 1]
    mapped = np.empty(points.shape)
    mapped[..., 0] = m[0, 0] * x + m[0, 1] * y + m[0, 2]
    mapped[..., 1] = m[1, 0] * x + m[1, 1] * y + m[1, 2]
    return mapped


def magnification(m: Matrix) -> float:
    """Pixels per body unit: the square root of the area factor."""
    return float(np.sqrt(abs(np.linalg.det(m[:, :2]))))


def reflected(start: float, way: float, low: float, high: float) -> float:
    """A place that has gone `way` from `start`, reflected at `low` and `high`; whole steps stay whole."""
    span = high - low
    if span <= 0:
        return start
    place = (start - low + way) % (2 * span)
    return low + min(place, 2 * span - place)


def _joined(linear: NDArray, shift: NDArray | tuple[float, float]) -> Matrix:
    m = np.empty((2, 3))
    m[:, :2], m[:, 2] = linear, shift
    return m
