"""The motion of another clip, as a target: what its frames show of it in the model's features."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.format import open_memmap

from retake.clip import open_clip
from retake.errors import ConfigError
from retake.formats import LatentSeries
from retake.imaging.signed import to_signed
from retake.motion_targets import MotionTarget
from retake.priors.masks import given
from retake.video import Selection, resize

if TYPE_CHECKING:
    from torch import Tensor

    from retake.diffusion.backbone import Backbone

FPS = 24.0  # of folders of pictures


class Shown:
    """A reference clip at the model's size, in a scratch file, stretched over `count` frames of the edited clip, with
    the masks of what moves in it. Raises ConfigError E249 for a reference of one frame, and what reading it raises."""

    def __init__(self, target: MotionTarget, latents: LatentSeries, count: int, scratch: Path) -> None:
        assert target.reference is not None
        self.height, self.width = latents.meta["pixels"]
        self.time, self.space, self.count = latents.meta["time"], latents.meta["space"], count
        clip = open_clip(target.reference)
        info = clip.info(FPS)
        self.own, self.length = (info.width, info.height), info.frames
        frames = open_memmap(scratch, "w+", np.uint8, (self.length, self.height, self.width, 3))
        read = 0
        for _, rgb in clip.read(Selection(), (self.width, self.height), FPS):
            frames[read] = rgb
            read += 1
        self.frames, self.length = frames, read
        if read < 2:
            raise ConfigError(
                "E249",
                f"edit.targets: the reference {target.reference} has one frame, which shows no motion",
                "Give a clip of two frames or more, or a direction in its place.",
            )
        self.mask = target.reference_mask

    @cached_property
    def masks(self) -> np.ndarray:
        """bool [F, h, w] of what moves in it, at the model's size."""
        if self.mask is None:
            return np.ones((self.length, self.height, self.width), bool)
        masks = []
        for by_object in given.masks(self.mask, given.Params.model_validate({}), self.length, self.own):
            whole = np.logical_or.reduce([np.asarray(one) > 0 for one in by_object.values()])
            masks.append(resize(np.uint8(255) * whole, (self.width, self.height)) > 127)
        return np.stack(masks)

    def at(self, t: int) -> int:
        """The reference's frame for one of the edited clip."""
        return round(t * (self.length - 1) / max(self.count - 1, 1))

    def path(self, size: tuple[int, int]) -> np.ndarray:
        """(x, y, 1) float64 [count, 3]: how far the middle of its mask has gone, in working pixels of the edited
        clip, whose `size` is (width, height)."""
        places = np.array([middle(mask) for mask in self.masks])
        seen = np.isfinite(places[:, 0])
        if not seen.any():
            raise ConfigError(
                "E249",
                f"edit.targets: the masks in {self.mask} are empty on every frame",
                "Give masks of what moves in the reference, or leave reference_mask out.",
            )
        known = np.flatnonzero(seen)
        filled = [np.interp(np.arange(self.length), known, places[known, axis]) for axis in (0, 1)]
        off = (np.stack(filled, 1) - [filled[0][0], filled[1][0]]) * [size[0] / self.width, size[1] / self.height]
        along = [self.at(t) for t in range(self.count)]
        return np.concatenate([off[along], np.ones((self.count, 1))], 1)

    def curve(self, backbone: Backbone, site: str, span: range, removed: bool = True) -> Tensor:
        """The motion feature float32 [f, C] of what moves, on latent frames of the edited clip."""
        import torch

        from retake.diffusion.sampling.motion_guidance import motion
        from retake.diffusion.sampling.motion_reading import read

        # From the last of the frames that the first latent frame holds to those of the last: as a clip of its own.
        times = range(self.time * span.start, self.time * (span.stop - 1) + 1)
        along = [self.at(min(t, self.count - 1)) for t in times]
        pixels = to_signed(torch.from_numpy(self.frames[along].transpose(0, 3, 1, 2).copy()))
        with torch.no_grad():
            z = backbone.encode(pixels[None].to(backbone.device))[0]
            inside = backbone.to_grid(torch.from_numpy(self.masks[along]), "masks")
            return motion(read(backbone, z, site)[None], inside.to(z.device), removed).cpu()


def middle(mask: np.ndarray) -> tuple[float, float]:
    """(x, y) of a mask's middle; NaN of an empty one."""
    rows, columns = np.nonzero(mask)
    return (float(columns.mean()), float(rows.mean())) if len(rows) else (np.nan, np.nan)
