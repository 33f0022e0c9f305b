"""A stage's own settings beside the diffusion model that it runs: together they are what its key is made of."""

from __future__ import annotations

from pydantic import BaseModel, Field

from retake.diffusion.model import Model


class Modelled(BaseModel, frozen=True):
    """What a stage that runs a diffusion model is called with. The model's fields are keyed as they are declared: where
    it runs and how many windows at once stay out of the key."""

    settings: BaseModel = Field(description="the stage's own")
    model: Model = Field(description="the model")
