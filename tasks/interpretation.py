"""interpretation: what moves as a point of the clip does, by a diffusion model's features of motion."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, Field

from retake.artifact import Frames, Interpretation, Latents, MotionChannels
from retake.diffusion.model import Modelled
from retake.errors import ConfigError
from retake.formats import LatentSeries, MotionChannelsFile, pack
from retake.stage import Work, stage
from tasks.pool import backbone_of


class Params(BaseModel, frozen=True, extra="forbid"):
    """Which point of which frame, and what is compared."""

    point: tuple[float, float] | None = Field(
        None, description="(x, y) in pixels of the clip; null: the middle of the picture"
    )
    frame: int = Field(
        0,
        ge=0,
        description="frame of the point; a window of the model's length is read, from it on where there are enough",
    )
    share: float = Field(0.04, gt=0, le=1, description="share of the channels that are compared, of each axis")
    level: int = Field(5, ge=1, le=25, description="steps of 25 up the inversion at which features are read")


@stage("interpretation", version=1, makes="interpretation")
def stage_interpretation(
    work: Work, params: Modelled, frames: Frames, latents: Latents, motion_channels: MotionChannels
) -> Interpretation:
    """Cosine similarity of the point's features with those of every cell: as they are, without the content that frames
    share, and of the channels that hold motion; over the window's frames one by one, and of all of them together.

    Raises ConfigError E231 for a frame that there is not, E221 for a point beside the picture.
    """
    import torch

    from retake.diffusion.motion_channels import Channels
    from retake.diffusion.motion_feature import content_removed, similarity
    from retake.diffusion.sampling.motion_reading import read

    settings = params.settings
    assert isinstance(settings, Params)
    series: LatentSeries = work.open(latents)
    file: MotionChannelsFile = work.open(motion_channels)
    known = file.tensors()
    x, y = place(settings, frames)
    backbone = backbone_of(params.model)
    own = min(-(-settings.frame // series.meta["time"]), len(series) - 1)  # the latent frame that holds it
    first = max(0, min(own, len(series) - backbone.length))
    span = range(first, min(first + backbone.length, len(series)))
    z = torch.from_numpy(series.span(span))
    site = file.meta["site"]
    features = read(backbone, z, site, settings.level).cpu()
    channels = Channels.from_arrays(known)
    some = channels.of(("horizontal", "vertical"), settings.share)
    removed = content_removed(features[None])[0]
    height, width = features.shape[-2:]
    at = int(y * height), int(x * width)
    found: dict[str, np.ndarray] = {}
    for name, of in (("raw", features), ("removed", removed), ("channels", removed[:, some])):
        found[f"{name} each"] = similarity(of, at, together=False, frame=own - first).numpy()
        found[f"{name} all"] = similarity(of, at, together=True).numpy()
    found["trend"] = removed[:, :, at[0], at[1]].numpy()
    work.add("maps.safetensors", pack(found))
    return work.finish(  # type: ignore[return-value]
        site=site,
        point=[x * frames.meta["source_width"], y * frames.meta["source_height"]],
        frame=settings.frame,
        latent_frames=[span.start, span.stop],
        row=own - first,
        times=[frame_of(k, series, frames) for k in span],
        channels=len(some),
        share=settings.share,
        pans=float(np.mean([np.sqrt(np.square(curve).mean()) for curve in known["curve"].values()])),
        moves=float(removed[:, :, at[0], at[1]].square().mean().sqrt()),
    )


def frame_of(latent: int, series: LatentSeries, frames: Frames) -> int:
    """The frame that a latent frame is shown by: the last that it holds."""
    return min(series.meta["time"] * latent, frames.meta["count"] - 1)


def place(settings: Params, frames: Frames) -> tuple[float, float]:
    """(x, y) of the point as shares of the picture."""
    if settings.frame >= frames.meta["count"]:
        raise ConfigError(
            "E231", f"there is no frame {settings.frame}", f"The clip has frames 0 to {frames.meta['count'] - 1}."
        )
    if settings.point is None:
        return 0.5, 0.5
    (x, y), size = settings.point, (frames.meta["source_width"], frames.meta["source_height"])
    if not (0 <= x < size[0] and 0 <= y < size[1]):
        raise ConfigError(
            "E221",
            f"the point {x:g},{y:g} lies beside the frame, which is {size[0]}x{size[1]}",
            "Read it from the grid of `retake frame CLIP 0`.",
        )
    return (x + 0.5) / size[0], (y + 0.5) / size[1]
