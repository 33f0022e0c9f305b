"""The operators of a track edit, one model each. Lengths and places are pixels of the source's frame, x right and y
down; frames are counted as they are selected; angles are degrees, clockwise on the screen.

`frames: [first, last]` is when: an operator that moves grows from nothing on `first` to all on `last` and stays;
one that acts on time or visibility acts within. Left out, it holds for the whole clip.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Easing = Literal["linear", "ease_in", "ease_out", "ease_in_out", "hold"]
Pair = tuple[float, float]
Frame = Annotated[int, Field(ge=0)]
Span = tuple[Frame, Frame]
About = Literal["centre", "frame"] | Pair


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Points(Model):
    """Which points: those of an object (0: of the background), those with some ids, or those in a box on a frame."""

    object: int | None = Field(default=None, ge=0, description="id of a mask's object; 0: the background")
    ids: tuple[int, ...] | None = Field(default=None, min_length=1, description="ids of points")
    box: tuple[float, float, float, float] | None = Field(default=None, description="x0, y0, x1, y1 on `frame`")
    frame: int = Field(default=0, ge=0, description="where the box is looked at")

    @model_validator(mode="after")
    def one(self) -> Points:
        if sum(value is not None for value in (self.object, self.ids, self.box)) != 1:
            raise ValueError("name one of object, ids and box")
        if self.box is not None and (self.box[0] >= self.box[2] or self.box[1] >= self.box[3]):
            raise ValueError("a box is x0, y0, x1, y1: its top left, then its bottom right")
        return self


class Operator(Model):
    """What all of them say."""

    points: Points | Literal["objects", "all"] = Field(
        default="objects", description="whose points; objects: of every object"
    )
    frames: Span | None = Field(default=None, description="first and last frame")

    @model_validator(mode="after")
    def ordered(self) -> Operator:
        if self.frames is not None and self.frames[1] < self.frames[0]:
            raise ValueError("the last frame comes before the first")
        return self


class Falloff(Model):
    """Less for points that are further from a place."""

    centre: Pair = Field(description="x, y on `frame`")
    radius: float = Field(gt=0, description="px at which nothing is left")
    frame: int = Field(default=0, ge=0)


class Move(Operator):
    """Shift."""

    do: Literal["move"]
    by: Pair = Field(description="px to the right and down")
    easing: Easing = "ease_in_out"
    falloff: Falloff | None = None


class Scale(Operator):
    """Make larger or smaller."""

    do: Literal["scale"]
    by: Annotated[float, Field(gt=0.01, le=100)] = Field(description="factor")
    about: About = "centre"
    easing: Easing = "ease_in_out"


class Rotate(Operator):
    """Turn."""

    do: Literal["rotate"]
    by: float = Field(description="degrees, clockwise")
    about: About = "centre"
    easing: Easing = "ease_in_out"


class Key(Model):
    """How things stand on one frame, against the source."""

    frame: int = Field(ge=0)
    by: Pair = (0.0, 0.0)
    scale: float = Field(default=1.0, gt=0.01, le=100)
    rotate: float = 0.0
    easing: Easing = Field(default="ease_in_out", description="on the way to the next key")


class Keys(Operator):
    """Shift, size and angle by key frames; before the first and after the last they stand."""

    do: Literal["keys"]
    keys: tuple[Key, ...] = Field(min_length=1)
    about: About = "centre"

    @model_validator(mode="after")
    def rising(self) -> Keys:
        frames = [key.frame for key in self.keys]
        for before, after in pairwise(frames):
            if after <= before:
                raise ValueError(f"key {after} comes behind key {before}: frames of keys must rise")
        if self.frames is not None:
            raise ValueError("keys say their frames themselves: leave out `frames`")
        return self


class Mirror(Operator):
    """Reflect across a line: horizontal swaps left and right."""

    do: Literal["mirror"]
    axis: Literal["horizontal", "vertical"] = "horizontal"
    about: About = "centre"


class Retime(Operator):
    """Show another moment: the source frame is start + speed * (frame - start - delay). It does not run past either end
    of the clip."""

    do: Literal["retime"]
    speed: float = Field(default=1.0, ge=-100, le=100)
    start: int = Field(default=0, ge=0, description="frame from which it counts; before it nothing changes")
    delay: float = Field(default=0.0, description="frames by which it comes later")


class Reverse(Operator):
    """Run backwards within the frames, which must be named or are the whole clip."""

    do: Literal["reverse"]


class Freeze(Operator):
    """Stand as on one frame."""

    do: Literal["freeze"]
    at: int = Field(ge=0)


class Hide(Operator):
    """Not be there."""

    do: Literal["hide"]


class Anchor(Operator):
    """Stay as in the source, whatever was said before."""

    do: Literal["anchor"]


class Stabilise(Operator):
    """Take the camera's motion out: what points of the reference do between a frame and `to` is undone."""

    do: Literal["stabilise"]
    to: int = Field(default=0, ge=0, description="the frame whose view stays")
    reference: Points = Points(object=0)
    model: Literal["translation", "similarity", "affine", "homography"] = "similarity"
    points: Points | Literal["objects", "all"] = "all"


class Reapply(Operator):
    """Put the camera's motion back that the last `stabilise` before it took out."""

    do: Literal["reapply"]
    points: Points | Literal["objects", "all"] = "all"


Any = Annotated[
    Move | Scale | Rotate | Keys | Mirror | Retime | Reverse | Freeze | Hide | Anchor | Stabilise | Reapply,
    Field(discriminator="do"),
]
