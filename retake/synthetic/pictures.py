"""Reference pictures that an edit can put on a sprite: drawn, RGBA, any size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from retake.errors import ConfigError, did_you_mean

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]

CANVAS = 1024  # every picture is drawn at this size, then shrunk: lines come out smooth

SETS: tuple[tuple[Colour, ...], ...] = (
    ((226, 62, 69), (250, 243, 224), (38, 92, 168), (250, 243, 224), (246, 184, 51), (250, 243, 224)),
    ((0, 121, 140), (255, 250, 235), (237, 174, 73), (255, 250, 235), (209, 73, 91), (255, 250, 235)),
    ((91, 80, 166), (252, 246, 238), (66, 176, 131), (252, 246, 238), (239, 111, 108), (252, 246, 238)),
)


def reference_image(kind: str, size: int = 256, seed: int = 0) -> Image:
    """A picture uint8 [size, size, 4] RGBA, alpha 0 outside its outline. kind: a name of `PICTURES`.

    The same arguments give the same bytes; the seed chooses colours and arrangement.
    Raises ConfigError E240 for an unknown kind, E243 for a size outside 8..4096 pixels or a negative seed.
    """
    if kind not in PICTURES:
        raise ConfigError("E240", f"There is no picture '{kind}'.", did_you_mean(kind, list(PICTURES)))
    if not 8 <= size <= 4096 or seed < 0:
        raise ConfigError(
            "E243",
            f"A picture of {size} pixels with seed {seed} cannot be drawn.",
            "Give a size from 8 to 4096 and a seed of 0 or more.",
        )
    import cv2

    canvas = PICTURES[kind](np.random.default_rng([seed, 4]), SETS[seed % len(SETS)])
    how = cv2.INTER_AREA if size < CANVAS else cv2.INTER_LINEAR
    fitted = cv2.resize(canvas.astype(np.float32), (size, size), interpolation=how)
    return np.clip(np.rint(np.asarray(fitted)), 0, 255).astype(np.uint8)


def _ball(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Image:
    """A beach ball: six bowed wedges that meet in a cap, lit from above."""
    import cv2

    y, x = np.mgrid[:CANVAS, :CANVAS]
    x, y = (x + 0.5) / CANVAS * 2 - 1, (y + 0.5) / CANVAS * 2 - 1
    cx, cy = rng.uniform(-0.3, -0.15), rng.uniform(-0.3, -0.15)
    angle = np.arctan2(y - cy, x - cx) + 0.9 * np.hypot(x - cx, y - cy) + rng.uniform(0, 2 * np.pi)
    wedge = np.floor(angle / (2 * np.pi) * len(colours)).astype(int) % len(colours)
    canvas = np.array(colours, np.float32)[wedge]
    spot = int((cx + 1) / 2 * CANVAS), int((cy + 1) / 2 * CANVAS)
    cv2.circle(canvas, spot, CANVAS // 11, colours[1], -1)
    cv2.circle(canvas, spot, CANVAS // 11, (70, 60, 70), CANVAS // 110)
    return _cut(canvas * _roundness(x, y), np.hypot(x, y) <= 1)


def _patchwork(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Image:
    """A quilt of 4 x 4 patches: plain, dotted, striped, halved, with stitched seams."""
    import cv2

    canvas = np.zeros((CANVAS, CANVAS, 3), np.float32)
    cells, bright = 4, [c for c in colours if c != colours[1]]
    step = CANVAS // cells
    for row, column in np.ndindex(cells, cells):
        # Neighbours along rows and columns take different colours of the set.
        main = bright[(row + column) % len(bright)]
        motif = int(rng.integers(4))
        patch = np.full((step, step, 3), main, np.float32)
        if motif == 0:
            for j, i in np.ndindex(3, 3):
                at = (step * (2 * i + 1) // 6, step * (2 * j + 1) // 6)
                cv2.circle(patch, at, step // 11, colours[1], -1)
        elif motif == 1:
            for i in range(-4, 5, 2):
                left, right = i * step // 4, (i + 1) * step // 4
                corners = [(left, 0), (right, 0), (right + step, step), (left + step, step)]
                cv2.fillPoly(patch, [np.array(corners, np.int32)], colours[1])
        elif motif == 2:
            corners = np.array([(0, 0), (step, 0), (0, step)], np.int32)
            cv2.fillPoly(patch, [corners], colours[1])
        canvas[row * step : (row + 1) * step, column * step : (column + 1) * step] = np.rot90(
            patch, int(rng.integers(4))
        )
    for n in range(1, cells):
        for start in range(0, CANVAS, CANVAS // 24):
            a, b = (n * step, start), (n * step, start + CANVAS // 40)
            cv2.line(canvas, a, b, (60, 50, 60), CANVAS // 100)
            cv2.line(canvas, a[::-1], b[::-1], (60, 50, 60), CANVAS // 100)
    return _cut(canvas, np.ones((CANVAS, CANVAS), bool))


def _face(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Image:
    """A round face with big eyes, cheeks and a smile."""
    import cv2

    y, x = np.mgrid[:CANVAS, :CANVAS]
    x, y = (x + 0.5) / CANVAS * 2 - 1, (y + 0.5) / CANVAS * 2 - 1
    canvas = np.empty((CANVAS, CANVAS, 3), np.float32)
    canvas[:] = colours[4]
    canvas *= _roundness(x, y)
    ink, white, tongue = (52, 38, 46), (255, 252, 245), (232, 92, 92)

    def at(u: float, v: float) -> tuple[int, int]:
        return int((u + 1) / 2 * CANVAS), int((v + 1) / 2 * CANVAS)

    def length(u: float) -> int:
        return int(u / 2 * CANVAS)

    look = rng.uniform(-0.05, 0.05, 2)
    for side in (-1, 1):
        cv2.circle(canvas, at(side * 0.62, 0.22), length(0.15), colours[0], -1)
        cv2.ellipse(canvas, at(side * 0.33, -0.18), (length(0.2), length(0.27)), 0, 0, 360, white, -1)
        cv2.circle(canvas, at(side * 0.31 + look[0], -0.14 + look[1]), length(0.115), ink, -1)
        cv2.circle(canvas, at(side * 0.31 + look[0] + 0.04, -0.19 + look[1]), length(0.035), white, -1)
        tilt = side * rng.uniform(6, 16)
        cv2.ellipse(canvas, at(side * 0.34, -0.5), (length(0.2), length(0.1)), tilt, 190, 350, ink, length(0.06))
    cv2.ellipse(canvas, at(0, 0.22), (length(0.42), length(0.4)), 0, 0, 180, ink, -1)
    cv2.ellipse(canvas, at(0, 0.5), (length(0.2), length(0.11)), 0, 0, 360, tongue, -1)
    cv2.ellipse(canvas, at(0, 0.22), (length(0.34), length(0.09)), 0, 0, 180, white, -1)
    return _cut(canvas, np.hypot(x, y) <= 1)


def _roundness(x: NDArray, y: NDArray) -> NDArray[np.float32]:
    """Brightness [CANVAS, CANVAS, 1] of a sphere lit from the upper left."""
    away = np.hypot(x + 0.3, y + 0.35)
    return (1.08 - 0.2 * np.clip(away, 0, 1.6) ** 2)[..., None].astype(np.float32)


def _cut(canvas: NDArray, inside: NDArray) -> Image:
    alpha = np.where(inside, 255, 0).astype(np.uint8)[..., None]
    return np.concatenate([np.clip(np.rint(canvas), 0, 255).astype(np.uint8), alpha], axis=-1)


PICTURES: dict[str, Callable[[np.random.Generator, tuple[Colour, ...]], Image]] = {
    "ball": _ball,
    "patchwork": _patchwork,
    "face": _face,
}
