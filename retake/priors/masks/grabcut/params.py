"""Settings of GrabCut masks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from retake.priors.masks.prompt import Prompted


class Params(Prompted, frozen=True, extra="forbid"):
    """What is to be followed, and how far a re-fit may go."""

    name: Literal["grabcut"] = "grabcut"
    enlarge: float = Field(
        1.5, description="sides of the region that is fitted, as a multiple of the object's box", ge=1.1, le=4
    )
    iterations: int = Field(6, description="GrabCut iterations on the prompt frame", ge=1, le=20)
    band: float = Field(
        0.05, description="rim that a re-fit may change, each way, as a fraction of sqrt(area)", gt=0, le=0.5
    )
    iou_gate: float = Field(
        0.75,
        description="least IoU of a re-fit with the warped mask; below it the warped mask stays",
        ge=0,
        le=1,
    )
    area_gate: float = Field(
        1.25, description="largest factor by which a re-fit may change the warped mask's area", ge=1, le=4
    )
    support: float = Field(
        0.7,
        description="how much the mask's pixels must look like the object by colour, as a fraction of how "
        "much they do on the prompt frame; below it (below 0.7 of it where a re-fit confirms the mask) the "
        "object counts as gone, and its mask stays empty; lower it for strong changes of light, 0 to trust "
        "the flow alone",
        ge=0,
        le=1,
    )
    fit_size: int = Field(
        400,
        description="longest side in px of the region that GrabCut runs on; larger ones are shrunk",
        ge=32,
    )
    seed: int = Field(0, description="seed of the colour clustering", ge=0)
