"""Reading a clip of the sprite world: what its sprite is and where it goes, from the pixels alone.

The detector knows the world: sprites are saturated and grounds are not, hues and shapes are those of the grammar. It
says of a generated clip whether it shows what its caption asked for. On rendered clips it is right nearly always
(tests/test_clips.py states how often), so what it finds wrong in a generated clip is the generator's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from retake.synthetic import grammar
from retake.synthetic.clips import RADIUS, render
from retake.synthetic.motion import Pose
from retake.synthetic.scene import Scene, Sprite

Image = NDArray[np.uint8]
Floats = NDArray[np.float64]

COLOURED = 0.3  # of chroma (largest minus smallest channel, of 255): above it a pixel is a sprite's
APART = 0.09  # of the colour circle: a hue's pixels lie within
VEINS = 0.14  # those of its second, lighter colour lie within, on one side
RESTS = 0.08  # a sprite that comes less far than this, in widths of the frame, rests
CANVAS, UNIT = 33, 11.0  # a silhouette's canvas, and the radius of a disc on it


@dataclass(frozen=True)
class Seen:
    """What a clip shows. hue, shape and direction as in the grammar (direction: "resting", too); None where no sprite
    was found. speed: pixels a frame. velocity: (x, y). present: the share of frames that show the sprite. centres:
    float64 [F, 2] (x, y), NaN where it is not seen."""

    hue: str | None
    shape: str | None
    direction: str | None
    speed: float
    velocity: tuple[float, float]
    present: float
    centres: Floats


def read(frames: Image, named: str | None = None) -> Seen:
    """What a clip uint8 [F, H, W, 3] of one sprite shows, or that sprite of several which has the hue `named`."""
    named, found = bodies(frames, named)
    size = frames.shape[2]
    centres = np.full((len(frames), 2), np.nan)
    if named is None:
        return Seen(None, None, None, 0.0, (0.0, 0.0), 0.0, centres)
    for t, body in enumerate(found):
        if body.any():
            rows, columns = np.nonzero(body)
            centres[t] = columns.mean(), rows.mean()
    seen = np.flatnonzero(~np.isnan(centres[:, 0]))
    present = len(seen) / len(frames)
    if len(seen) < 2:
        return Seen(named, None, None, 0.0, (0.0, 0.0), present, centres)
    slope = np.polyfit(seen, centres[seen], 1)[0]
    speed = float(np.hypot(*slope))
    angle = math.atan2(slope[1], slope[0])
    moves = speed * (len(frames) - 1) >= RESTS * size
    direction = grammar.DIRECTIONS[round(angle / (math.pi / 4)) % 8] if moves else "resting"
    shape = shape_of([body for body in found if body.any()])
    return Seen(named, shape, direction, speed, (float(slope[0]), float(slope[1])), present, centres)


def bodies(frames: Image, named: str | None = None) -> tuple[str | None, NDArray[np.bool_]]:
    """The hue of a clip's sprite (`named`, where one is given), and its mask bool [F, H, W], empty where it is not
    seen."""
    chroma, hue = colours(frames)
    named = named or main_hue(chroma, hue)
    found = np.zeros(frames.shape[:3], bool)
    if named is None:
        return None, found
    # A cross fills half of its disc; a third of that will do.
    smallest = 0.3 * math.pi * (RADIUS[0] * frames.shape[2]) ** 2 * 0.5
    for t in range(len(frames)):
        away = (hue[t] - grammar.HUES[named] + 0.5) % 1 - 0.5
        body = filled((chroma[t] > COLOURED) & (away > -APART) & (away < VEINS))
        if body.sum() >= smallest:
            found[t] = body
    return named, found


def colours(frames: Image) -> tuple[Floats, Floats]:
    """Chroma 0..1 and hue 0..1, float64 [F, H, W] each."""
    import cv2

    flat = np.ascontiguousarray(frames).reshape(1, -1, 3)
    hsv = cv2.cvtColor(flat.astype(np.float32) / 255, cv2.COLOR_RGB2HSV).reshape(*frames.shape)
    chroma = (frames.max(-1).astype(float) - frames.min(-1)) / 255
    return chroma, hsv[..., 0].astype(float) / 360


def main_hue(chroma: Floats, hue: Floats) -> str | None:
    """The hue of the grammar that most coloured pixels have; None where next to nothing is coloured."""
    weight = np.clip(chroma - COLOURED, 0, None)
    votes = {}
    for name, at in grammar.HUES.items():
        away = np.abs((hue - at + 0.5) % 1 - 0.5)
        votes[name] = float((weight * (away < APART)).sum())
    best = max(votes, key=lambda name: votes[name])
    return best if votes[best] > 0.2 * len(chroma) else None


def filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest piece of a mask, its holes (the light spot is one) filled."""
    import cv2

    _, labels, stats, _ = cv2.connectedComponentsWithStats(np.pad(mask, 1).astype(np.uint8), connectivity=4)
    if len(stats) < 2:
        return np.zeros_like(mask)
    piece = labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    _, ground = cv2.connectedComponents((~piece).astype(np.uint8), connectivity=4)
    return (ground != ground[0, 0])[1:-1, 1:-1]


def shape_of(bodies: list[NDArray[np.bool_]]) -> str | None:
    """The shape whose silhouette, turned as it may be, fits the mean of the bodies best; None without bodies."""
    if not bodies:
        return None
    mean = np.mean([silhouette(body) for body in bodies], axis=0)

    def fit(outline: Floats) -> float:
        return float(np.minimum(mean, outline).sum() / np.maximum(mean, outline).sum())

    return max(grammar.SHAPES, key=lambda shape: max(fit(outline) for outline in outlines(shape)))


def silhouette(body: NDArray[np.bool_]) -> Floats:
    """A body float64 [CANVAS, CANVAS] 0..1 about its centroid, at the size at which it has a disc's area."""
    import cv2

    rows, columns = np.nonzero(body)
    scale = UNIT * math.sqrt(math.pi / len(rows))
    middle = CANVAS // 2
    place = np.array([[scale, 0, middle - scale * columns.mean()], [0, scale, middle - scale * rows.mean()]])
    turned = cv2.warpAffine(body.astype(np.float64), place, (CANVAS, CANVAS), flags=cv2.INTER_LINEAR)
    return np.asarray(turned, np.float64)


@cache
def outlines(shape: str) -> list[Floats]:
    """What `filled` finds of a shape, in every turn, five degrees apart: silhouettes of rendered sprites."""
    found = []
    size = 64
    for degrees in range(0, 360, 5):
        pose = Pose((size - 1) / 2, (size - 1) / 2, math.radians(degrees))
        sprite = Sprite(shape, size * sum(RADIUS) / 2, 0.64, 0, 1, (pose,), texture="plain", nose=1.0)
        frames = render(Scene(size, size, 1, 1.0, (sprite,), (Pose(),)))
        chroma, _ = colours(frames)
        found.append(silhouette(filled(chroma[0] > COLOURED)))
    return found
