"""The motion of another clip, as a target: what its frames show of it in the model's features."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.format import open_memmap

from retake.clip import open_clip
from retake.errors import ConfigError, about
from retake.formats import LatentSeries
from retake.imaging.signed import to_signed
from retake.motion_targets import MotionTarget
from retake.priors.masks import given
from retake.video import Selection, resize

if TYPE_CHECKING:
    from torch import Tensor

    from retake.diffusion.backbone import Backbone

FPS = 24.0  # of folders of pictures
READING = given.Params.model_validate({})  # of masks


def check_reference(target: MotionTarget, setting: str) -> None:
    """Raises ConfigError E249 for a reference of one frame, and what opening it and its masks raises, each with the
    setting that names them."""
    assert target.reference is not None
    with about(f"{setting}.reference"):
        info = open_clip(target.reference).info(FPS)
    if info.frames < 2:
        raise ConfigError(
            "E249",
            f"{setting}.reference: {target.reference} has one frame, which shows no motion",
            "Give a clip of two frames or more, or a direction in its place.",
        )
    if target.reference_mask:
        with about(f"{setting}.reference_mask, for the {info.frames} frames of {target.reference}"):
            given.masks(target.reference_mask, READING, info.frames, (info.width, info.height))


class ReferenceClip:
    """A reference at the model's size, stretched over `count` frames of the edited clip, with the masks of what moves
    in it. Only the frames that are shown are kept, in scratch files. Raises ConfigError E249 for a reference without
    anything in its masks, and what reading it raises."""

    def __init__(self, target: MotionTarget, latents: LatentSeries, count: int, scratch: Path, name: str) -> None:
        assert target.reference is not None
        self.height, self.width = latents.meta["pixels"]
        self.time, self.count = latents.meta["time"], count
        clip = open_clip(target.reference)
        info = clip.info(FPS)
        self.length = info.frames
        shape = count, self.height, self.width
        self.frames = open_memmap(scratch / f"reference-{name}.npy", "w+", np.uint8, (*shape, 3))
        for n, (_, rgb) in enumerate(clip.read(Selection(), (self.width, self.height), FPS)):
            self.frames[self.shown_at(n)] = rgb
        self.masks: np.ndarray | None = None
        if target.reference_mask:
            self.masks = open_memmap(scratch / f"reference-masks-{name}.npy", "w+", bool, shape)
            own = info.width, info.height
            found = given.masks(target.reference_mask, READING, self.length, own)
            for n, by_object in enumerate(found):
                whole = np.logical_or.reduce([np.asarray(one) > 0 for one in by_object.values()])
                self.masks[self.shown_at(n)] = resize(np.uint8(255) * whole, (self.width, self.height)) > 127
            if not self.masks.any():
                raise ConfigError(
                    "E249",
                    f"edit.targets: the masks in {target.reference_mask} are empty on every frame",
                    "Give masks of what moves in the reference, or leave reference_mask out.",
                )

    def shown_at(self, number: int) -> np.ndarray:
        """Frames of the edited clip for which frame `number` of the reference stands."""
        at = np.rint(np.arange(self.count) * (self.length - 1) / max(self.count - 1, 1)).astype(int)
        return np.flatnonzero(at == number)

    def path(self, size: tuple[int, int]) -> np.ndarray:
        """(x, y, 1) float64 [count, 3]: how far the middle of its mask has gone, in working pixels of the edited
        clip, whose `size` is (width, height); of the whole picture, nowhere."""
        path = np.tile([0.0, 0.0, 1.0], (self.count, 1))
        if self.masks is not None:
            places = np.array([middle(mask) for mask in self.masks])
            known = np.flatnonzero(np.isfinite(places[:, 0]))
            for axis in (0, 1):
                filled = np.interp(np.arange(self.count), known, places[known, axis])
                path[:, axis] = (filled - filled[0]) * size[axis] / (self.width, self.height)[axis]
        return path

    def curve(self, backbone: Backbone, site: str, span: range, remove_content: bool = True) -> Tensor:
        """The motion feature float32 [f, C] of what moves, on latent frames of the edited clip."""
        import torch

        from retake.diffusion.sampling.motion_guidance import motion
        from retake.diffusion.sampling.motion_reading import read

        # From the last of the frames that the first latent frame holds to those of the last: as a clip of its own.
        times = range(self.time * span.start, self.time * (span.stop - 1) + 1)
        along = [min(t, self.count - 1) for t in times]
        pixels = to_signed(torch.from_numpy(self.frames[along].transpose(0, 3, 1, 2).copy()))
        inside = np.ones((len(along), self.height, self.width), bool) if self.masks is None else self.masks[along]
        with torch.no_grad():
            z = backbone.encode(pixels[None].to(backbone.device))[0]
            cells = backbone.to_grid(torch.from_numpy(inside), "masks").to(z.device)
            return motion(read(backbone, z, site)[None], cells, remove_content).cpu()


def middle(mask: np.ndarray) -> tuple[float, float]:
    """(x, y) of a mask's middle; NaN of an empty one."""
    rows, columns = np.nonzero(mask)
    return (float(columns.mean()), float(rows.mean())) if len(rows) else (np.nan, np.nan)
