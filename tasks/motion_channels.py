"""motion_channels: which channels of a diffusion model's features hold motion, found once for each model.

Clips rendered here, of pictures that pan or sprites that pass, go through the model; no clip of the user's is read, so
that all edits share it.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from retake.artifact import MotionChannels
from retake.diffusion.model import Modelled
from retake.formats import pack
from retake.imaging.signed import to_signed
from retake.stage import Work, stage
from retake.weights.local import ships
from tasks.pool import backbone_of


class Params(BaseModel, frozen=True, extra="forbid"):
    """Where features are read, and of which clips."""

    site: str | None = Field(
        None,
        description="layer whose features are read; null: the block half-way up a U-Net (the second of four), three "
        "fifths of the way through a transformer",
    )
    clips: Literal["pans", "sprites"] | None = Field(
        None,
        description="pictures that pan, as published, or sprites that pass; null: sprites for the small models that "
        "ship, which know nothing else, pictures for others",
    )
    scenes: int | None = Field(
        None, ge=1, le=64, description="pictures, or sprites, that go each way; null: 4 pictures, 12 sprites"
    )
    step: float = Field(0.025, gt=0, le=0.2, description="how far they go from frame to frame, of the frame's width")
    level: int = Field(5, ge=1, le=25, description="steps of 25 up the inversion at which features are read")

    def shown(self, weights: str) -> tuple[str, int]:
        """The kind of clips and how many of them go each way, for a model of such weights."""
        clips = self.clips or ("sprites" if ships(weights) else "pans")
        return clips, self.scenes or {"pans": 4, "sprites": 12}[clips]


@stage("motion_channels", version=2, makes="motionchannels", backends=("opencv-python-headless",))
def stage_motion_channels(work: Work, params: Modelled) -> MotionChannels:
    """`scenes` clips of the model's own length and size that go each way, and as many that rest. Raises ConfigError
    E274 for a site that the model has not."""
    import torch

    from retake.diffusion import motion_channels
    from retake.diffusion.sampling.motion_reading import read
    from retake.synthetic.panning import WAYS, panning
    from retake.synthetic.passing import passing

    settings = params.settings
    assert isinstance(settings, Params)
    backbone = backbone_of(params.model)
    site = settings.site or backbone.motion_site
    frames, size = backbone.frames, max(backbone.height, backbone.width)
    step = settings.step * backbone.width
    clips, scenes = settings.shown(params.model.weights)
    found: dict[tuple[str, int], motion_channels.Panned] = {}
    top, left = (size - backbone.height) // 2, (size - backbone.width) // 2
    seen = slice(None), slice(top, top + backbone.height), slice(left, left + backbone.width)  # the middle of a square
    for scene in range(scenes):
        for way in WAYS:
            passed = None
            if clips == "pans":
                rgb = panning(way, scene, size, frames, step)
            else:
                rgb, masks = passing(way, scene, size, frames, step)
                passed = torch.from_numpy(masks[seen])
            pixels = to_signed(torch.from_numpy(np.ascontiguousarray(rgb[seen].transpose(0, 3, 1, 2))))
            with torch.no_grad():
                z = backbone.encode(pixels[None].to(backbone.device))[0]
            found[way, scene] = motion_channels.reduced(read(backbone, z, site, settings.level).cpu(), passed)
            work.progress(len(found), len(WAYS) * scenes)
    shifts = step * torch.arange(0, frames, backbone.time).float()
    channels = motion_channels.find(found, shifts)
    shown = {
        **vars(channels),
        "curve": motion_channels.curves(found),
        "raw": motion_channels.scatter(found, removed=False),
        "removed": motion_channels.scatter(found, removed=True),
    }
    tensors = {f"{kind} {name}": value.numpy() for kind, by in shown.items() for name, value in by.items()}
    work.add("channels.safetensors", pack(tensors))
    return work.finish(site=site, channels=len(channels.slope["left"]), step=step, scenes=scenes, clips=clips)  # type: ignore[return-value]
