"""What of a clip is edited, and by which picture."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

Application = Literal["texture_transfer", "object_modification"]
Area = Literal["object", "rectangle"]


class Target(BaseModel, frozen=True, extra="forbid"):
    """What goes where."""

    reference: str | None = Field(
        None, description="picture of what to put there (PNG, JPEG)", json_schema_extra={"file": ""}
    )
    object_id: int | None = Field(None, ge=0, description="id of the object that is edited; null: all that masks hold")
    application: Application = Field(
        "texture_transfer",
        description="texture_transfer: the object's mask and depth, it keeps its shape; object_modification: a "
        "rectangle around it and no depth, the picture says the shape",
    )
    area: Area | None = Field(None, description="object or rectangle; null: as the application says")

    @property
    def boxed(self) -> bool:
        """Whether a rectangle around the object is edited."""
        return (self.area or ("object" if self.application == "texture_transfer" else "rectangle")) == "rectangle"

    @property
    def keeps_shape(self) -> bool:
        """Whether the network is shown the clip's depth."""
        return self.application == "texture_transfer"

    def __str__(self) -> str:
        """What reports say: `texture transfer: the object's mask, with depth`."""
        area = "a rectangle around it" if self.boxed else "the object's mask"
        return f"{self.application.replace('_', ' ')}: {area}, {'with' if self.keeps_shape else 'without'} depth"
