"""Outlines of sprites: signed functions of body coordinates, negative inside.

Each outline has a radius (body units, pixels at scale 1). `disc`, `box` and, outside, `cross` are true distances;
`star` and `flower` are radial curves divided by their gradient on the outline, so that they are distances near it.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Box = tuple[float, float, float, float]

BOX_ASPECT, BOX_CORNER = 0.8, 0.3  # height to width, and corner radius to radius
CROSS_ARM = 0.34  # half an arm's width to radius


def distance(shape: str, radius: float, points: NDArray) -> Floats:
    """Signed distance float64 [...] in body units of points [..., 2]; at most 0 inside."""
    x, y = points[..., 0], points[..., 1]
    if shape == "disc":
        return np.hypot(x, y) - radius
    if shape == "box":
        corner = BOX_CORNER * radius
        return _rectangle(x, y, radius - corner, BOX_ASPECT * radius - corner) - corner
    if shape == "cross":
        long, short = radius, CROSS_ARM * radius
        return np.minimum(_rectangle(x, y, long, short), _rectangle(x, y, short, long))
    rho, slope = _curve(shape, np.arctan2(x, -y))
    return (np.hypot(x, y) - radius * rho) / np.sqrt(1 + (slope / rho) ** 2)


def bounds(shape: str, radius: float) -> Box:
    """The bounding box x0, y0, x1, y1 of an outline in body units."""
    x0, y0, x1, y1 = _unit_bounds(shape)
    return x0 * radius, y0 * radius, x1 * radius, y1 * radius


@cache
def _unit_bounds(shape: str) -> Box:
    if shape in ("disc", "cross"):
        return -1.0, -1.0, 1.0, 1.0
    if shape == "box":
        return -1.0, -BOX_ASPECT, 1.0, BOX_ASPECT
    theta = np.linspace(0, 2 * np.pi, 7201)
    rho, _ = _curve(shape, theta)
    x, y = rho * np.sin(theta), -rho * np.cos(theta)
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def _rectangle(x: NDArray, y: NDArray, half_width: float, half_height: float) -> Floats:
    dx, dy = np.abs(x) - half_width, np.abs(y) - half_height
    return np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0)


def _curve(shape: str, theta: Floats) -> tuple[Floats, Floats]:
    """Radius and its slope over the angle, for radius 1; the angle runs clockwise from straight up."""
    lobes, inner, power = {"star": (5, 0.52, 1.5), "flower": (7, 0.8, 1.0)}[shape]
    swing = (1 + np.cos(lobes * theta)) / 2
    rho = inner + (1 - inner) * swing**power
    slope = -(1 - inner) * power * swing ** (power - 1) * np.sin(lobes * theta) * lobes / 2
    return rho, slope


SHAPES = ("disc", "box", "star", "flower", "cross")
