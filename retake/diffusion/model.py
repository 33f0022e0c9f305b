"""Which diffusion model is used, and how it runs: settings only, read by plans, so nothing heavy is imported here."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, Field, model_validator

from retake.lookup import lookup, names
from retake.machine.device import INERT, Device, Dtype
from retake.weights.local import local_path, locate

if TYPE_CHECKING:
    Family = str
else:
    Family = Literal[tuple(names("diffusion.families", "NETWORK"))]
WEIGHTS = {"weights": ""}  # a name of the catalogue, a folder, or org/repo@revision: see weights/local.py


class Noise(BaseModel, frozen=True, extra="forbid"):
    """What to change in the schedule that stands beside the weights; null leaves it."""

    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] | None = Field(
        default=None, description="how noise grows from the first timestep to the last"
    )
    spacing: Literal["leading", "trailing", "linspace"] | None = Field(
        default=None, description="which timesteps a short run takes"
    )
    zero_terminal_snr: bool | None = Field(
        default=None, description="stretch the schedule so that nothing of the clip is left at its last timestep"
    )
    prediction: Literal["epsilon", "v_prediction", "sample"] | None = Field(
        default=None, description="what the network predicts"
    )


class Model(BaseModel, frozen=True, extra="forbid"):
    """A diffusion model: its weights, the clips it works on, and how it runs."""

    name: str = Field(default="embedded", description="what it is called here", json_schema_extra={"inert": "a label"})
    family: Family = Field(default="unet_motion", description="which classes of diffusers it is made of")
    weights: str = Field(
        default="embedded",
        description="a name, a folder, or org/repo@revision of a pipeline in diffusers' format",
        json_schema_extra={**WEIGHTS},
    )
    parts: str | None = Field(
        default=None,
        description="where VAE, encoders and tokenizer are taken from when `weights` lacks them; null: nowhere else",
        json_schema_extra={**WEIGHTS},
    )
    motion: str | None = Field(
        default=None,
        description="a motion adapter (AnimateDiff) for the image model in `weights`; null: the one that lies there",
        json_schema_extra={**WEIGHTS},
    )
    image_adapter: str | None = Field(
        default=None,
        description="an IP-Adapter (a safetensors file, or a folder with one and its image_encoder), by which an image "
        "model takes a reference image; null: none",
        json_schema_extra={**WEIGHTS},
    )
    lora: str | None = Field(
        default=None, description="a LoRA: a safetensors file, or a folder with one", json_schema_extra={**WEIGHTS}
    )
    lora_scale: float = Field(default=1.0, ge=-4, le=4, description="how strongly the LoRA counts")
    checkpoint: str | None = Field(
        default=None,
        description="own weights of the network (a safetensors file or folder), laid over those in `weights`",
        json_schema_extra={**WEIGHTS},
    )
    height: int = Field(default=64, ge=8, le=4096, description="of the clips it works on, in pixels")
    width: int = Field(default=64, ge=8, le=4096, description="of the clips it works on, in pixels")
    frames: int = Field(default=16, ge=1, le=1024, description="of the clips it works on; longer ones go in windows")
    schedule: Noise = Field(default=Noise(), description="changes to the schedule of noise; null as the weights say")
    dtype: Dtype = Field(default="float32", description="precision of the networks")
    device: Device = Field(default="auto", description="where it runs", json_schema_extra={**INERT})
    offload: Literal["none", "model", "sequential"] = Field(
        default="none",
        description="what waits in main memory: nothing; networks that are not in use; every layer until its turn",
        json_schema_extra={"inert": "where weights wait does not change what they compute"},
    )
    batch: int = Field(
        default=1,
        ge=1,
        le=64,
        description="clips or windows at once",
        json_schema_extra={"inert": "batches agree to 1e-5"},
    )

    @model_validator(mode="after")
    def _fits(self) -> Model:
        for name in ("motion", "image_adapter"):
            if getattr(self, name) is not None and name not in family_of(self.family).SETTINGS:
                raise ValueError(f"models of family={self.family} take no {name}")
        return self


def family_of(name: str) -> ModuleType:
    """What a family says of itself: see families/__init__.py."""
    return lookup("diffusion.families", name, "NETWORK")


class Modelled(BaseModel, frozen=True):
    """What a stage that runs a diffusion model is called with: its own settings and the model's. The model's fields are
    keyed as they are declared: where it runs and how many windows at once stay out of the key."""

    settings: BaseModel = Field(description="the stage's own")
    model: Model = Field(description="the model")


def weights_of(model: Model) -> dict[str, str]:
    """The references that a model loads, by role: what stands in keys, and what must be on this machine."""
    roles = ("weights", "parts", "motion", "image_adapter", "lora", "checkpoint")
    found = {role: reference for role in roles if (reference := getattr(model, role)) is not None}
    # The content of an adapter's file says nothing of the encoder that is read with it.
    if model.image_adapter is not None and (path := local_path(model.image_adapter)) is not None:
        encoder = image_encoder_of(path / "any" if path.is_dir() else path)
        found |= {} if encoder is None else {"image_encoder": str(encoder)}
    return found


def takes_images(model: Model) -> bool:
    """Whether it reads reference images: through an adapter, or an image encoder as wide as its text encoder beside it.
    True also where its weights are not on this machine."""
    if model.image_adapter is not None:
        return True
    folders = [locate(reference) for reference in (model.weights, model.parts) if reference is not None]
    if None in folders:
        return True
    widths = []
    for role in ("image_encoder", "text_encoder"):
        files = [folder / role / "config.json" for folder in folders if folder is not None]
        file = next((file for file in files if file.is_file()), None)
        try:
            widths.append(json.loads(file.read_text()).get("hidden_size") if file else None)
        except ValueError:
            return True  # loading says what is wrong with it
    return widths[0] is not None and widths[0] == widths[1]


def image_encoder_of(adapter: Path) -> Path | None:
    """The image encoder that lies beside an IP-Adapter's file, or one folder above, as in h94/IP-Adapter."""
    above = (adapter.parent / "image_encoder", adapter.parent.parent / "image_encoder")
    return next((folder for folder in above if folder.is_dir()), None)
