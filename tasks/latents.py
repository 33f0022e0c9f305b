"""latents: the clip as a diffusion model's autoencoder sees it, at the model's size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, Field

from retake.artifact import Frames, Latents
from retake.diffusion.model import Model, Modelled
from retake.errors import ConfigError
from retake.formats import FrameSeries
from retake.imaging.signed import to_signed
from retake.stage import Work, stage
from retake.video import resize

if TYPE_CHECKING:
    from torch import Tensor

CELLS = 8  # a side that is not the model's is a multiple of so many latent cells: networks halve their grid three times
LONGEST = 4  # as long as the short side, at most: no film was wider, and time and memory grow faster than the side


class Params(BaseModel, frozen=True, extra="forbid"):
    """How frames are brought to the model's size."""

    fit: Literal["stretch", "short_side"] = Field(
        "stretch",
        description="stretch: to the model's height and width; short_side: the clip's shape stays, its short side is "
        "the model's (the longer side costs more; it may be four times as long)",
    )


def of_latents(model: Model) -> Model:
    """The model without what its autoencoder does not depend on: latents are the same for every motion adapter, LoRA,
    checkpoint, schedule and length of window."""
    others = ("motion", "image_adapter", "lora", "lora_scale", "checkpoint", "schedule")
    plain = {name: Model.model_fields[name].default for name in others}
    return model.model_copy(update={**plain, "frames": 1})


@stage("latents", version=1, makes="latents", backends=("opencv-python-headless",))
def stage_latents(work: Work, params: Modelled, frames: Frames) -> Latents:
    """Chunk by chunk; a chunk does not depend on where a killed run goes on. float16: their rounding is a hundred times
    smaller than what the autoencoder loses."""
    from retake.diffusion.loading.load import load_coder
    from retake.diffusion.sampling.chunked_vae import encoded, latent_count

    series: FrameSeries = work.open(frames)
    backbone = load_coder(params.model)
    size = fitted(params, (series.width, series.height), backbone.space)

    def pixels(times: range) -> Tensor:
        return as_pixels(np.stack([resize(series[t], size) for t in times]))

    count, start = latent_count(len(series), backbone.time), len(work.done)
    for index, z in enumerate(encoded(backbone, pixels, len(series), start), start):
        work.commit(index, {"z": z.half().numpy()})
        work.progress(min((index + 1) * 16, count), count)
    grid = backbone.grid(1, size[1], size[0])
    return work.finish(
        count=count,
        frames=len(series),
        channels=grid.channels,
        height=grid.height,
        width=grid.width,
        pixels=[size[1], size[0]],
        space=backbone.space,
        time=backbone.time,
    )  # type: ignore[return-value]


def check(settings: Params, size: tuple[int, int]) -> None:
    """Refuse frames of `size`, (width, height) in pixels, whose shape short_side would keep at a size out of all
    proportion to the model's. Raises ConfigError E295."""
    width, height = size
    if settings.fit == "short_side" and max(size) > LONGEST * min(size):
        raise ConfigError(
            "E295",
            f"frames of {width}x{height} are {max(size) / min(size):.3g} times as long as wide, and latents.fit="
            f"short_side takes them up to {LONGEST} times",
            "latents.fit=stretch, or crop the clip first.",
        )


def fitted(params: Modelled, size: tuple[int, int], space: int) -> tuple[int, int]:
    """(width, height) at which frames of `size` go into the model, in pixels."""
    model, settings = params.model, params.settings
    assert isinstance(settings, Params)
    if settings.fit == "stretch":
        return model.width, model.height
    short, step = min(model.width, model.height), CELLS * space
    long = max(short, round(short * max(size) / min(size) / step) * step)
    return (long, short) if size[0] > size[1] else (short, long)


def as_pixels(rgb: np.ndarray) -> Tensor:
    """float32 [n, 3, H, W] in -1..1 of uint8 [n, H, W, 3]."""
    import torch

    return to_signed(torch.from_numpy(np.ascontiguousarray(rgb.transpose(0, 3, 1, 2))))
