"""Settings of SAM 2 masks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from retake.machine.device import INERT, Device, Dtype
from retake.priors.masks.prompt import Prompted

DEFAULTS = {"transformers": "sam2_small", "sam2": "sam2_small_pt"}


class Params(Prompted, frozen=True, extra="forbid"):
    """What is to be followed, with which weights, and how objects are found by words."""

    name: Literal["sam2"] = "sam2"
    backend: Literal["transformers", "sam2"] = Field(
        "transformers", description="library that runs the network: transformers, or the sam2 package with .pt weights"
    )
    weights: str | None = Field(
        None,
        description="weights of SAM 2: a name of `retake weights`, a local folder (or .pt file for backend sam2), or "
        "org/repo; none takes sam2_small, or sam2_small_pt for backend sam2",
        json_schema_extra={"weights": ""},
    )
    text: str | None = Field(
        None,
        description="finds the objects by words on the prompt frame, in place of box and points; several things are "
        "parted by full stops; ids are 1, 2, ... by score, the surest first",
    )
    detector: str = Field(
        "grounding_dino_tiny",
        description="weights of Grounding DINO; read only with text",
        json_schema_extra={"weights": ""},
    )
    box_threshold: float = Field(0.35, description="least score of an object found by words", ge=0, le=1)
    text_threshold: float = Field(
        0.25, description="least score of a word that names a box; boxes that no word names are dropped", ge=0, le=1
    )
    max_objects: int = Field(10, description="most objects that words find", ge=1, le=255)
    threshold: float = Field(0.0, description="a pixel belongs to the object where its logit is above this")
    device: Device = Field("auto", description="where the networks run", json_schema_extra=INERT)
    dtype: Dtype = Field("float32", description="precision of SAM 2; bfloat16 halves its memory on a GPU")


def reference(params: Params) -> str:
    """The weights of SAM 2 that these settings mean."""
    return params.weights or DEFAULTS[params.backend]
