"""The targets of an edit on the latent grid, window by window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.lib.format import open_memmap

from retake.diffusion.motion_channels import Channels
from retake.formats import LatentSeries
from retake.methods import Inputs
from retake.methods.moft.reference import ReferenceClip
from retake.methods.moft.targets import Course, Object, curves, halves, objects_of, pace
from retake.motion_targets import MotionTarget, path_of
from retake.video import resize

if TYPE_CHECKING:
    from torch import Tensor

    from retake.diffusion.backbone import Backbone
    from retake.diffusion.sampling.motion_guidance import Target
    from retake.diffusion.sampling.windows import Windows


class Compared(NamedTuple):
    """How features are compared: the share of the channels of each axis, and whether what frames share is taken off."""

    share: float
    remove_content: bool


class GuidanceTargets:
    """What each object's motion feature shall be, and where. Areas wait in scratch files, a byte a pixel."""

    def __init__(
        self,
        targets: Sequence[MotionTarget],
        backbone: Backbone,
        latents: LatentSeries,
        priors: Mapping[str, Any],
        inputs: Inputs,
        how: Compared,
        windows: Windows,
    ) -> None:
        frames, masks = inputs.frames, priors["masks"]
        self.frames, self.latents, self.size, self.count = frames, latents, (frames.width, frames.height), len(frames)
        self.how, self.site = how, priors["motion_channels"].meta["site"]
        self.step = priors["motion_channels"].meta["step"] * latents.meta["time"]
        self.backbone, self.channels = backbone, Channels.from_arrays(priors["motion_channels"].tensors())
        clip = frames.meta["source_width"], frames.meta["source_height"]
        scale = frames.width / clip[0], frames.height / clip[1]
        self.objects = list(zip(targets, objects_of(targets, masks), strict=True))
        self.shown = {
            n: ReferenceClip(target, latents, len(frames), inputs.scratch, str(n))
            for n, target in enumerate(targets)
            if target.reference
        }
        self.paths = [
            counted_from(
                self.shown[n].path(self.size) if n in self.shown else path_of(target, len(frames), scale, one.radius),
                one.first,
            )
            for n, (target, one) in enumerate(self.objects)
        ]
        shape = len(self.objects), len(frames), frames.height, frames.width
        self.areas = open_memmap(inputs.scratch / "areas.npy", "w+", bool, shape)
        for span in windows.spans:
            times = self.frames_of(span)
            for n, (_, one) in enumerate(self.objects):
                self.areas[n, times.start : times.stop] |= one.area(times, self.paths[n])

    def frames_of(self, span: range) -> range:
        """Frames of the clip that latent frames hold."""
        time = self.latents.meta["time"]
        first = time * (span.start - 1) + 1 if span.start else 0
        return range(first, min(time * (span.stop - 1) + 1, self.count))

    def area(self, t: int) -> np.ndarray:
        """Where anything that is steered is or shall be in the windows of frame t, bool [H, W]."""
        return np.asarray(self.areas[:, t].any(0))

    def targets(self, span: range) -> list[Target]:
        """Of the latent frames of a window."""
        from retake.diffusion.sampling.motion_guidance import Target

        found = []
        for n, (_, one) in enumerate(self.objects):
            mask = self.cells_of(one.area(self.frames_of(span), self.paths[n]))
            if mask.max() <= 0:
                continue
            parts = {"": mask} | {way: half for way, half in halves(mask).items() if half.any()}
            for way, course in self.wanted(n, span, one).items():
                whole = self.tensor(parts[way]).expand(len(span), -1, -1)
                found.append(Target(whole, course.channels, course.curve, self.places(n, span), course.pace))
        return found

    def wanted(self, n: int, span: range, one: Object) -> dict[str, Course]:
        """What a target shall show, by the part of its area. A whole picture, which has no path, has the pace of the
        clips in which the channels were found."""
        grid = np.array([self.latents.meta["pixels"][1], self.latents.meta["pixels"][0]]) / self.size
        path = self.paths[n][self.last_of(span)] * [*grid, 1.0]
        if n in self.shown:
            some = self.channels.of(("horizontal", "vertical"), self.how.share)
            curve = self.shown[n].curve(self.backbone, self.site, span, self.how.remove_content)[:, some]
            goes = self.shown[n].masks is not None
            return {"": Course(some, curve, pace(path[:, :2], self.step) if goes else 1.0)}
        return curves(self.channels, path, self.how.share, one.radius * float(grid.mean()), self.step)

    def places(self, n: int, span: range) -> Tensor | None:
        """Where a dragged point shall be on latent frames, as shares of the picture."""
        target = self.objects[n][0]
        if not target.drag:
            return None
        clip = self.frames.meta["source_width"], self.frames.meta["source_height"]
        first = (np.array(target.drag[0]) + 0.5) / clip
        return self.tensor(first + self.paths[n][self.last_of(span), :2] / self.size)

    def last_of(self, span: range) -> list[int]:
        """The last frame that each latent frame holds."""
        return [min(self.latents.meta["time"] * k, self.count - 1) for k in span]

    def cells_of(self, area: np.ndarray) -> np.ndarray:
        """Coverage 0..1 of the latent grid, float32 [h, w]."""
        height, width = self.latents.meta["pixels"]
        pixels = resize(np.uint8(255) * area, (width, height)).astype(np.float32) / 255
        space = self.latents.meta["space"]
        return pixels.reshape(height // space, space, width // space, space).mean((1, 3))

    def tensor(self, array: np.ndarray) -> Tensor:
        import torch

        return torch.from_numpy(np.ascontiguousarray(array, np.float32))


def counted_from(path: np.ndarray, first: int) -> np.ndarray:
    """A path [F, 3] against the frame on which its object is seen first: until then it rests there."""
    x, y, scale = path[first]
    moved = np.stack([path[:, 0] - x, path[:, 1] - y, path[:, 2] / scale], 1)
    moved[:first] = (0, 0, 1)
    return moved
