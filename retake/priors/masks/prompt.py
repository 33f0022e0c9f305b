"""What a person points at: boxes and points, for one object or several, and corrections on later frames.

Every implementation that follows objects takes its settings from `Prompted` and offers a `Tracker`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from pydantic import BaseModel, Field

from retake.errors import ConfigError

Box = tuple[float, float, float, float]
Point = tuple[float, float, int]
MIN_SIDE = 4  # px, the smallest box side
GIVE = "Give --box x0,y0,x1,y1, masks.box or masks.points: `retake pick CLIP` writes a page to point at them."


class Prompt(BaseModel, frozen=True, extra="forbid"):
    """One object on one frame: a box, points, or a box corrected by points. Pixels of the source frame."""

    box: Box | None = Field(None, description="x0, y0, x1, y1 around the object, x1 and y1 exclusive")
    points: tuple[Point, ...] = Field((), description="(x, y, label); label 1 lies on the object, 0 beside it")


class Correction(Prompt, frozen=True):
    """What was wrong on a later (or earlier) frame. From that frame on, away from the prompt, masks are made anew."""

    frame: int = Field(description="working frame that the correction is given on", ge=0)
    object: int | None = Field(
        None, description="id of the object; null: the only one, or with masks.text the first", ge=1, le=255
    )


class Prompted(BaseModel, frozen=True, extra="forbid"):
    """Settings that say what is to be followed. One object: box and points. Several: objects."""

    box: Box | None = Field(
        None, description="x0, y0, x1, y1 around the object, px of the source frame, x1 and y1 exclusive"
    )
    points: tuple[Point, ...] = Field(
        (), description="(x, y, label), px of the source frame; label 1 lies on the object, 0 beside it"
    )
    objects: dict[int, Prompt] | None = Field(
        None, description="several objects, {id: {box: ..., points: ...}}, in place of box and points"
    )
    frame: int = Field(0, description="working frame that box, points and objects are given on", ge=0)
    corrections: tuple[Correction, ...] = Field(
        (), description="[{frame: 40, points: [[x, y, 1]]}, ...]; each re-runs from its frame on only"
    )

    def prompts(self) -> dict[int, Prompt]:
        """The prompt of each object, by id; one object given by box and points has the id 1."""
        if self.objects:
            return dict(sorted(self.objects.items()))
        return {1: Prompt(box=self.box, points=self.points)} if self.box or self.points else {}

    def corrected(self, correction: Correction) -> int:
        """The id of the object that a correction is of."""
        return correction.object if correction.object is not None else next(iter(self.prompts()), 1)


class Moment(NamedTuple):
    """A frame as a tracker meets it: its number, uint8 RGB [H, W, 3], and, for implementations that NEED flow, the
    flow on its grid into the neighbour that masks come from (float32 [H, W, 2]) and what that neighbour hides."""

    t: int
    rgb: np.ndarray
    flow: np.ndarray | None = None
    hidden: np.ndarray | None = None


class Followed(NamedTuple):
    """One object on one frame: bool [H, W], and how much the mask agrees with what was expected, 0..1."""

    mask: np.ndarray
    overlap: float = 1.0


class Tracker(Protocol):
    """Follows objects frame by frame in one direction of time. An implementation offers

        tracker(params, size: (width, height), state: Tensors | None, reverse: bool) -> Tracker

    A tracker without a state is to be begun; one made from `state()` goes on as if it had never stopped, bit for bit.
    Prompts are in working pixels here.
    """

    def begin(self, moment: Moment, prompts: Mapping[int, Prompt]) -> dict[int, Followed]:
        """The prompt frame's masks by object id. Raises ConfigError E220 when nothing can be found."""
        ...

    def step(self, moment: Moment) -> dict[int, Followed]:
        """Masks of the next frame: t + 1, or t - 1 in reverse."""
        ...

    def correct(self, moment: Moment, object: int, prompt: Prompt) -> Followed:
        """The mask of one object on the frame that was just stepped to, put right by a prompt."""
        ...

    def state(self) -> dict[str, np.ndarray]:
        """Plain arrays that `tracker` goes on from."""
        ...


def check_prompts(params: Prompted, name: str, text: bool = False) -> None:
    """Refuse prompts that cannot work, whatever the clip. `text`: the object is named in words, so no prompt is needed.

    Raises ConfigError E222 (nothing to follow), E224 (objects beside box or points, an id out of range, a correction of
    an object that is not followed or on the prompt's own frame).
    """
    prompts = params.prompts()
    if params.objects and (params.box is not None or params.points):
        raise ConfigError(
            "E224", "masks.objects excludes masks.box and masks.points", "Give each object its own box and points."
        )
    if strange := [i for i in params.objects or {} if not 1 <= i <= 255]:
        raise ConfigError("E224", f"masks.objects has the id {strange[0]}", "Ids are 1 to 255, as in DAVIS palettes.")
    if not prompts and not text:
        raise ConfigError("E222", f"masks={name} needs to know what to follow", GIVE)
    for prompt in prompts.values():
        require_prompt(prompt, name)
    for correction in params.corrections:
        if correction.object is None and len(prompts) > 1:
            raise ConfigError(
                "E224",
                f"the correction on frame {correction.frame} does not say of which object",
                f"Add object: one of {', '.join(map(str, prompts))}.",
            )
        if params.corrected(correction) not in prompts and not text:
            raise ConfigError(
                "E224",
                f"a correction names object {correction.object}, which is not followed",
                f"Followed: {', '.join(map(str, prompts))}. New objects belong in masks.objects.",
            )
        if correction.frame == params.frame:
            raise ConfigError(
                "E224",
                f"a correction is on frame {params.frame}, where the prompt is",
                "Put its box or points into the prompt itself.",
            )
        if correction.box is None and not correction.points:
            raise ConfigError(
                "E224", f"the correction on frame {correction.frame} is empty", "Give it points or a box."
            )


def check_places(params: Prompted, frames: Mapping[str, Any]) -> None:
    """Refuse prompts that the clip has no place for, before anything expensive runs.

    frames: meta of the frames artifact. Raises ConfigError E221 (a box or point outside the frame, or a box of less
    than 4 px), E231 (no such frame).
    """
    for number in (params.frame, *(c.frame for c in params.corrections)):
        if number >= frames["count"]:
            raise ConfigError("E231", f"there is no frame {number}", f"The clip has frames 0 to {frames['count'] - 1}.")
    for prompt in (*params.prompts().values(), *params.corrections):
        check_prompt(prompt, frames["source_width"], frames["source_height"])


def require_prompt(prompt: Prompt, name: str) -> None:
    """Raises ConfigError E222 unless there is a box or a point on the object."""
    if prompt.box is None and not any(label for _, _, label in prompt.points):
        raise ConfigError("E222", f"masks={name} needs to know what to follow", GIVE)


def check_prompt(prompt: Prompt, width: int, height: int) -> None:
    """Raises ConfigError E221 for a box or point that does not fit a frame of that size."""
    if prompt.box is not None:
        whole_box(prompt.box, width, height)
    for x, y, label in prompt.points:
        if not (0 <= x < width and 0 <= y < height) or label not in (0, 1):
            raise ConfigError(
                "E221",
                f"point ({x:g}, {y:g}, {label}) does not fit: the frame has {width}x{height} px, labels are 0 and 1",
                "A point is x,y,label: label 1 on the object, 0 beside it.",
            )


def whole_box(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """The box in whole pixels, cut to the frame. Raises ConfigError E221."""
    shown = ", ".join(f"{value:g}" for value in box)
    hint = "A box is x0,y0,x1,y1 in pixels: `retake pick CLIP` writes a page to point at it."
    if not all(math.isfinite(value) for value in box) or box[0] >= box[2] or box[1] >= box[3]:
        raise ConfigError("E221", f"box ({shown}) is empty; the frame has {width}x{height} px", hint)
    x0, y0 = max(0, math.floor(box[0])), max(0, math.floor(box[1]))
    x1, y1 = min(width, math.ceil(box[2])), min(height, math.ceil(box[3]))
    if x1 - x0 < MIN_SIDE or y1 - y0 < MIN_SIDE:
        inside = f"holds less than {MIN_SIDE}x{MIN_SIDE} px of the frame, which has {width}x{height} px"
        raise ConfigError("E221", f"box ({shown}) {inside}", hint)
    return x0, y0, x1, y1


def scaled(prompt: Prompt, meta: Mapping[str, Any]) -> Prompt:
    """Box edges and point centres from source pixels to working pixels. meta: of the frames artifact."""
    sx, sy = meta["width"] / meta["source_width"], meta["height"] / meta["source_height"]
    box = None
    if prompt.box is not None:
        x0, y0, x1, y1 = prompt.box
        box = (x0 * sx, y0 * sy, x1 * sx, y1 * sy)
    # A point within half a source pixel of the frame's edge would land just outside.
    points = tuple(
        (
            min(max((x + 0.5) * sx - 0.5, 0.0), meta["width"] - 1.0),
            min(max((y + 0.5) * sy - 0.5, 0.0), meta["height"] - 1.0),
            label,
        )
        for x, y, label in prompt.points
    )
    return Prompt(box=box, points=points)
