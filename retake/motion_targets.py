"""What shall move, and how: a direction, a drag along places, or the motion of another clip; and the path of that.

Paths are places relative to the first frame, (x, y, scale) frame by frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from retake.errors import ConfigError

WAYS = {
    "right": (1, 0),
    "down right": (1, 1),
    "down": (0, 1),
    "down left": (-1, 1),
    "left": (-1, 0),
    "up left": (-1, -1),
    "up": (0, -1),
    "up right": (1, -1),
    "rest": (0, 0),
    "grow": (0, 0),
    "shrink": (0, 0),
}
SMALLEST = 0.2  # of its first size: no object shrinks further


class MotionTarget(BaseModel, frozen=True, extra="forbid"):
    """The motion of one object: a direction, a drag along places, or that of another clip."""

    object: int = Field(
        1, ge=0, le=255, description="id of an object of the masks; 0: what is no object, as if the camera moved"
    )
    direction: (
        Literal[
            "right",
            "down right",
            "down",
            "down left",
            "left",
            "up left",
            "up",
            "up right",
            "rest",
            "grow",
            "shrink",
        ]
        | None
    ) = Field(None, description="where its content goes on the screen")
    speed: float = Field(
        2.0, gt=0, le=1000, description="of a direction: pixels of the clip a frame, as far as the model follows"
    )
    drag: tuple[tuple[float, float], ...] = Field(
        (), description="places (x, y) in pixels of the clip: a point of the object, and where it shall be later"
    )
    reference: str | None = Field(
        None, description="a clip that moves as the object shall", json_schema_extra={"file": ""}
    )
    reference_mask: str | None = Field(
        None,
        description="masks of what moves in the reference, as masks.path takes them; null: the whole picture",
        json_schema_extra={"file": ""},
    )


def check_targets(targets: Sequence[MotionTarget]) -> None:
    """Raises ConfigError E249 for a target that has not one motion, or half of one."""
    for n, target in enumerate(targets):
        given = [name for name in ("direction", "drag", "reference") if getattr(target, name)]
        wrong, hint = "", f"Give edit.targets.{n} one of direction, drag and reference."
        if not given:
            wrong = "does not say how its object moves"
        elif len(given) > 1:
            wrong = f"says how its object moves in more than one way: by {' and '.join(given)}"
        elif len(target.drag) == 1:
            wrong, hint = "has a drag of one place", "A drag goes from one place to another: give two or more."
        elif target.reference_mask and not target.reference:
            wrong, hint = "has a reference_mask without a reference", "Add reference: CLIP."
        if wrong:
            raise ConfigError("E249", f"edit.targets.{n} {wrong}", hint)


def path_of(target: MotionTarget, count: int, scale: tuple[float, float], radius: float) -> np.ndarray:
    """(x, y, scale) float64 [count, 3] of a direction or a drag: working pixels from the first place, and size against
    the first. scale: working pixels a pixel of the clip; radius: of the object, working pixels."""
    path = np.zeros((count, 3))
    path[:, 2] = 1
    if target.drag:
        places = (np.array(target.drag) - target.drag[0]) * scale
        at = np.linspace(0, len(places) - 1, count)
        for axis in (0, 1):
            path[:, axis] = np.interp(at, np.arange(len(places)), places[:, axis])
        return path
    assert target.direction is not None
    x, y = WAYS[target.direction]
    far = target.speed * np.arange(count)
    path[:, 0], path[:, 1] = (
        far * way / max(math.hypot(x, y), 1) * one for way, one in zip((x, y), scale, strict=True)
    )
    if target.direction in ("grow", "shrink"):
        sign = 1 if target.direction == "grow" else -1
        path[:, 2] = np.maximum(1 + sign * far * scale[0] / max(radius, 1.0), SMALLEST)
    return path
