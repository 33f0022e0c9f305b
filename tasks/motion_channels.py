"""motion_channels: which channels of a diffusion model's features hold motion, found once for each model.

Panning clips, rendered here, go through the model; no clip of the user's is read, so that all edits share it.
"""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, Field

from retake.artifact import MotionChannels
from retake.diffusion.model import Modelled
from retake.imaging.signed import to_signed
from retake.stage import Work, stage
from tasks.pool import backbone_of


class Params(BaseModel, frozen=True, extra="forbid"):
    """Where features are read, and of which clips."""

    site: str | None = Field(
        None,
        description="layer whose features are read; null: the second block on the way up of a U-Net, three fifths of "
        "the way through a transformer",
    )
    scenes: int = Field(4, ge=1, le=64, description="pictures that pan each way")
    step: float = Field(0.025, gt=0, le=0.2, description="how far they pan from frame to frame, of the frame's width")
    level: int = Field(5, ge=1, le=25, description="steps of 25 up the inversion at which features are read")


@stage("motion_channels", version=1, makes="motionchannels", backends=("opencv-python-headless",))
def stage_motion_channels(work: Work, params: Modelled) -> MotionChannels:
    """Four ways times `scenes` clips of the model's own length and size. Raises ConfigError E274 for a site that the
    model has not."""
    import torch

    from retake.diffusion import motion_channels
    from retake.diffusion.sampling.motion_reading import read
    from retake.formats import pack
    from retake.synthetic.panning import panning

    settings = params.settings
    assert isinstance(settings, Params)
    backbone = backbone_of(params.model)
    site = settings.site or backbone.motion_site
    frames, size = backbone.frames, max(backbone.height, backbone.width)
    step = settings.step * backbone.width
    found: dict[tuple[str, int], torch.Tensor] = {}
    total = len(motion_channels.WAYS) * settings.scenes
    for scene in range(settings.scenes):
        for way in motion_channels.WAYS:
            rgb = panning(way, scene, size, frames, step)[:, : backbone.height, : backbone.width]
            pixels = to_signed(torch.from_numpy(np.ascontiguousarray(rgb.transpose(0, 3, 1, 2))))
            with torch.no_grad():
                z = backbone.encode(pixels[None].to(backbone.device))[0]
            found[way, scene] = read(backbone, z, site, settings.level).cpu()
            work.progress(len(found), total)
    shifts = step * torch.arange(0, frames, backbone.time).float()
    channels = motion_channels.find(found, shifts)
    tensors = {
        f"{kind} {name}": value.numpy()
        for kind in ("ranked", "loadings", "slope")
        for name, value in getattr(channels, kind).items()
    }
    work.add("channels.safetensors", pack(tensors))
    return work.finish(site=site, channels=len(channels.slope["left"]), step=step, scenes=settings.scenes)  # type: ignore[return-value]
