"""Between a clip and what a diffusion method paints: the source at every level of noise, where it may be painted, how a
picture is shown to a model, and how what was painted goes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from retake.errors import ConfigError
from retake.formats import CHUNK, InversionSeries, LatentSeries, RegionSeries
from retake.imaging.rgba import with_alpha
from retake.imaging.signed import to_signed, to_uint8
from retake.imaging.soft_mask import bounding_box, seam
from retake.methods import Inputs, Patch
from retake.video import read_image, resize

if TYPE_CHECKING:
    from torch import Tensor

    from retake.diffusion.backbone import Backbone
    from retake.diffusion.sampling.ddim import Mask, Source
    from retake.diffusion.sampling.windows import Latents, Reel

BEHIND = 127  # grey behind a transparent reference, and around one that is not square


class Stepped(Protocol):
    """Settings of how a clip is denoised: from where, and in how many steps; None: as the inversion's."""

    @property
    def source(self) -> str: ...
    @property
    def strength(self) -> float: ...
    @property
    def steps(self) -> int | None: ...
    @property
    def overlap(self) -> int | None: ...


class Soft(Protocol):
    """Settings of an edit's edge: how far it is moved outwards and how wide it is, in working pixels."""

    @property
    def grow(self) -> float: ...
    @property
    def feather(self) -> float: ...


def source_of(
    latents: LatentSeries, inversion: InversionSeries | None, backbone: Backbone, steps: int, seed: int
) -> Source:
    """The source clip at every level, from its inversion or by adding noise."""
    import torch

    from retake.diffusion.sampling.ddim import forward

    clean = lambda frames: torch.from_numpy(latents.span(frames))  # noqa: E731
    if inversion is None:
        return forward(backbone.schedule, clean, steps, seed)
    return lambda level, frames: torch.from_numpy(inversion.level(level, frames)) if level else clean(frames)


def shown(path: str, aspect: float = 1.0) -> Tensor:
    """A picture for a model, float32 [1, 3, H, W] in -1..1, on a canvas that is `aspect` times as wide as high, so that
    nothing of it is cut."""
    import torch

    rgba = with_alpha(read_image(path))
    rgb = BEHIND + (rgba[..., :3] - BEHIND) * rgba[..., 3:]
    height, width = rgb.shape[:2]
    wide, high = max(width, round(height * aspect)), max(height, round(width / aspect))
    canvas = np.full((high, wide, 3), BEHIND, np.float32)
    top, left = (high - height) // 2, (wide - width) // 2
    canvas[top : top + height, left : left + width] = rgb
    return to_signed(torch.from_numpy(canvas.transpose(2, 0, 1)[None].copy()))


def touched_cells(
    latents: LatentSeries, frames: int, alpha: Callable[[int], np.ndarray], margin: int, scratch: Path
) -> Mask:
    """Latent cells that may change: all that the edit's opacity touches, and `margin` around them. In a scratch file.
    alpha: a frame's number, of so many -> uint8 [H, W]."""
    import torch

    def touched(t: int) -> np.ndarray:
        return np.where(alpha(t) > 0, 255, 0).astype(np.uint8)

    def grown(coverage: Tensor) -> Tensor:
        return torch.nn.functional.max_pool2d((coverage > 0).float(), 2 * margin + 1, 1, margin)

    return cells(latents, frames, touched, grown, scratch / "touched.latents")


def covered_cells(latents: LatentSeries, region: RegionSeries, scratch: Path) -> Mask:
    """How much of a latent cell the region covers, 0..1; of several frames in one latent frame, the most. In a scratch
    file."""
    return cells(
        latents, len(region), lambda t: np.uint8(255) * region[t], lambda coverage: coverage, scratch / "region.latents"
    )


def cells(
    latents: LatentSeries,
    frames: int,
    drawn: Callable[[int], np.ndarray],
    finished: Callable[[Tensor], Tensor],
    path: Path,
) -> Mask:
    """A region of so many frames on the latent grid. drawn: a frame's number -> its uint8 [H, W]; finished: coverage
    [1, h, w] of its cells -> what is kept of them, 0..1."""
    import torch

    from retake.diffusion.grid import to_grid
    from retake.diffusion.sampling.windows import Reel

    meta = latents.meta
    reel = Reel(path, (len(latents), 1, meta["height"], meta["width"]), torch.uint8)
    for t in range(frames):
        pixels = torch.from_numpy(resize(drawn(t), (meta["pixels"][1], meta["pixels"][0])).astype(np.float32))
        found = finished(to_grid(pixels[None] / 255, "masks", meta["space"], 1))
        k = -(-t // meta["time"])  # the latent frame that holds frame t
        reel[k : k + 1] = torch.maximum(reel[k : k + 1], (found[None] * 255).round().to(torch.uint8))
    return lambda frames: reel[frames.start : frames.stop].float() / 255


def edge(mask: np.ndarray, soft: Soft, opacity: np.ndarray | None = None) -> np.ndarray:
    """Opacity of one frame's edit, uint8 [H, W]; `opacity` of the region, where it is a soft matte."""
    return np.rint(255 * seam(mask, opacity, soft.feather, soft.grow)).astype(np.uint8)


def edge_of(region: RegionSeries, soft: Soft) -> Callable[[int], np.ndarray]:
    """A frame's number -> opacity of its edit, uint8 [H, W]."""
    return lambda t: edge(region[t], soft, region.opacity(t))


def as_rgb(pixels: Tensor) -> np.ndarray:
    """uint8 [n, H, W, 3] of float32 [n, 3, H, W] in -1..1."""
    return to_uint8(pixels).permute(0, 2, 3, 1).contiguous().numpy()


def patch(pixels: Tensor, size: tuple[int, int], alpha: list[np.ndarray] | None) -> Patch:
    """What was painted, float32 [n, 3, h, w] in -1..1, at the working `size` (width, height), cropped to where it is
    seen; without alpha, all of it."""
    rgb = np.stack([resize(picture, size) for picture in as_rgb(pixels)])
    count, height, width = rgb.shape[:3]
    if alpha is None:
        return Patch((0, 0, width, height), rgb, np.full((count, height, width), 255, np.uint8))
    box = bounding_box(np.logical_or.reduce([a > 0 for a in alpha]), 0)
    if box is None:
        return Patch((0, 0, 0, 0), np.zeros((count, 0, 0, 3), np.uint8), np.zeros((count, 0, 0), np.uint8))
    x0, y0, x1, y1 = box
    return Patch(box, rgb[:, y0:y1, x0:x1], np.stack(alpha)[:, y0:y1, x0:x1])


def painted(
    backbone: Backbone, z: Latents, inputs: Inputs, alpha: Callable[[int], np.ndarray] | None
) -> Iterator[Patch]:
    """What was painted, a Patch a chunk of 16 frames: z [F, C, h, w], decoded. alpha: a frame's number -> opacity uint8
    [H, W]; None: all of the frame."""
    from retake.diffusion.sampling.chunked_vae import decoded

    frames = inputs.frames
    for index, pixels in enumerate(decoded(backbone, z, len(frames), inputs.first_chunk), inputs.first_chunk):
        span = range(index * CHUNK, min((index + 1) * CHUNK, len(frames)))
        yield patch(pixels, (frames.width, frames.height), [alpha(t) for t in span] if alpha else None)


def chunk_starts(z: Reel) -> range:
    """First latent frame of every chunk."""
    return range(0, z.shape[0], CHUNK)


def check_steps(params: Stepped, of_inversion: int, default: int) -> None:
    """Raises ConfigError E292 (steps or overlap beside an inversion, which has its own, of so many steps), E291 (a
    strength that makes no step)."""
    steps = params.steps or default
    if params.source == "inversion":
        steps = of_inversion
        for name in ("steps", "overlap"):
            if getattr(params, name) is not None:
                raise ConfigError(
                    "E292",
                    f"edit.{name} does not apply beside an inversion, which has its own",
                    f"Set inversion.{name}={getattr(params, name)}, or edit.source=noise.",
                )
    check_strength(params.strength, steps)


def check_strength(strength: float, steps: int) -> None:
    """Raises ConfigError E291 for a strength that makes none of so many steps."""
    if round(strength * steps) == 0:
        raise ConfigError(
            "E291",
            f"edit.strength={strength:g} of {steps} steps makes none: nothing would change",
            f"Give {1 / steps:.2g} or more, up to 1.",
        )


def parts_of(at: int, **reels: Reel) -> dict[str, np.ndarray]:
    """What to keep of latents from frame `at` on, for `begun`."""
    return {name: reel[at : at + CHUNK].numpy() for name, reel in reels.items()}


def begun(z: Reel, inputs: Inputs, source: Source, start: int) -> int:
    """Fill z [F, C, h, w] with what a killed run kept, else with the source at level `start`; returns z's level."""
    level = resumed(z, inputs)
    if level is None:
        for first in chunk_starts(z):
            z[first : first + CHUNK] = source(start, range(first, min(first + CHUNK, z.shape[0])))
    return start if level is None else level


def resumed(z: Reel, inputs: Inputs, name: str = "z") -> int | None:
    """Fill z [F, C, h, w] with what a killed run kept under that name, and return its level; None where it kept
    nothing."""
    import torch

    level, at = None, 0
    for part in inputs.kept():
        if name in part:
            z[at : at + len(part[name])] = torch.from_numpy(part[name])
            level, at = int(part["level" if name == "z" else f"{name} level"]), at + len(part[name])
    return level
