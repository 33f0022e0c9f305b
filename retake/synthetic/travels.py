"""Scenes in which a camera travels past layers at several depths, and those in which it only seems to.

Sprites rest in the world; what moves them on the screen is the camera. A layer of inverse depth g (1 / distance, the
start's nearest distance being 1) under a camera that has gone (x, y, z) shows its points, measured from the middle of
the frame, at (p - g (x, y)) / (1 - g z). After that the whole picture may pan, turn and zoom, which tells nothing about
depth. `World.depth` says the truth: by order, nearer is larger.

    sideways  the camera goes left and right: nearer layers move further
    dolly     it goes forward and back: nearer layers grow more
    orbit     it goes sideways and pans against it, holding a middle layer: farther layers move the other way
    turn      it pans, rolls and zooms from one place: no parallax, depth cannot be told
    crowd     it rests, and the sprites move by themselves: motion that is no parallax
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from retake.synthetic.motion import Pose

GROUND = 0.12  # inverse depth of the background
HELD = 0.45  # of the layer that "orbit" keeps in its place
LAYERS = (  # shape, radius in those of the main sprite, place in fractions of the frame, inverse depth
    ("disc", 1.0, (0.44, 0.52), 0.45),
    ("box", 1.0, (0.17, 0.28), 0.25),
    ("flower", 0.8, (0.76, 0.27), 0.34),
    ("box", 0.9, (0.74, 0.76), 0.62),
    ("star", 0.9, (0.2, 0.78), 0.8),
)


class View(NamedTuple):
    """One frame's camera: place in pixels that a layer of inverse depth 1 moves by, `z` as a share of the nearest
    distance, then pan in pixels, roll in radians, zoom."""

    x: float = 0.0
    y: float = 0.0
    z: float = 0.0
    pan: tuple[float, float] = (0.0, 0.0)
    roll: float = 0.0
    zoom: float = 1.0


def layered(
    views: list[View], places: list[tuple[float, float]], middle: tuple[float, float]
) -> tuple[list[list[Pose]], list[Pose]]:
    """Poses of the sprites of LAYERS, which stand at `places` (pixels) in frame 0, and of the camera.

    The world's camera pose moves the background; a sprite's pose is what is left between the two.
    """
    sprites: list[list[Pose]] = [[] for _ in LAYERS]
    camera = []
    for view in views:
        base = 1 / (1 - GROUND * view.z)
        off = np.array([view.x, view.y])
        cos, sin = np.cos(view.roll), np.sin(view.roll)
        shift = np.array(view.pan) - view.zoom * base * GROUND * np.array([[cos, -sin], [sin, cos]]) @ off
        camera.append(Pose(float(shift[0]), float(shift[1]), view.roll, view.zoom * base))
        for k, (_, _, _, near) in enumerate(LAYERS):
            grown = 1 / (1 - near * view.z) / base
            at = middle + (np.array(places[k]) - middle - near * off) * grown + GROUND * off
            sprites[k].append(Pose(float(at[0]), float(at[1]), 0.0, grown))
    return sprites, camera


def sideways(seconds: list[float], unit: float, way: float) -> list[View]:
    """Left and right in four seconds, with a little up and down."""
    return [View(way * 70 * unit * np.sin(np.pi * s / 2), 10 * unit * np.sin(np.pi * s / 3)) for s in seconds]


def dolly(seconds: list[float], unit: float, way: float) -> list[View]:
    """Forward and back in four seconds."""
    return [View(z=0.6 * (1 - np.cos(np.pi * s / 2)) / 2) for s in seconds]


def orbit(seconds: list[float], unit: float, way: float) -> list[View]:
    """As sideways; the pan holds the layer HELD where it was."""
    return [v._replace(pan=(HELD * v.x, HELD * v.y)) for v in sideways(seconds, unit, way)]


def turn(seconds: list[float], unit: float, way: float) -> list[View]:
    """Pan, roll and zoom, from one place."""
    return [
        View(
            pan=(12 * unit * np.sin(np.pi * s / 2), 5 * unit * np.sin(np.pi * s / 3)),
            roll=way * 0.06 * np.sin(np.pi * s / 2),
            zoom=1 + 0.1 * (1 - np.cos(np.pi * s / 2)),
        )
        for s in seconds
    ]


VIEWS: dict[str, Callable[[list[float], float, float], list[View]]] = {
    "sideways": sideways,
    "dolly": dolly,
    "orbit": orbit,
    "turn": turn,
}


def orders() -> list[int]:
    """Order of each sprite of LAYERS: 1 for the farthest."""
    ranks = sorted(near for *_, near in LAYERS)
    return [ranks.index(near) + 1 for *_, near in LAYERS]
