"""SDEdit: let a diffusion model paint the object anew, from noise that still holds the clip's motion.

The clip is taken up to a level of noise by inversion, or by adding noise, and denoised again under a prompt, a
reference image or both (Meng et al. 2022, https://arxiv.org/abs/2108.01073, algorithm 1). After every step what lies
outside the region is the source's own at that level (their algorithm 3; Lugmayr et al. 2022, eq. 8), so that the object
is painted into the clip around it. The higher the level (`strength`), the freer the edit and the less of the source is
left in it. It is the baseline of the methods that use a diffusion model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from retake.diffusion.model import takes_images
from retake.edge import box_of, soft_mask
from retake.errors import ConfigError
from retake.formats import CHUNK, InversionSeries, LatentSeries, RegionSeries
from retake.methods import Inputs, Patch
from retake.video import read_image, resize

if TYPE_CHECKING:
    from torch import Tensor

    from retake.diffusion.backbone import Backbone
    from retake.diffusion.sampling import Mask, Source
    from retake.diffusion.windows import Reel

VERSION = 1
NEEDS = ("latents", "inversion", "region")

STEPS = 50
KEPT = 8  # denoising steps that a kill costs at most
OVERLAP = 4
BEHIND = 127  # grey behind a transparent reference, and around one that is not square


class Params(BaseModel, frozen=True, extra="forbid"):
    """What is painted, how freely, and where."""

    name: Literal["sdedit"] = "sdedit"
    prompt: str | None = Field(None, description="text that describes the edited clip")
    unwanted: str = Field("", description="text that describes what it should not be")
    reference: str | None = Field(
        None,
        description="picture of what to put into the object, for models that take one (PNG, JPEG)",
        json_schema_extra={"file": ""},
    )
    strength: float = Field(
        0.7, ge=0, le=1, description="level of noise to start from: 0 is the source, 1 nothing of its looks"
    )
    guidance: float = Field(
        7.5, ge=0, le=50, description="weight of prompt and reference (classifier-free guidance); 1: none"
    )
    source: Literal["inversion", "noise"] = Field(
        "inversion", description="how the level is reached: by inversion, or by adding noise (cheaper, keeps less)"
    )
    steps: int | None = Field(
        None, ge=1, le=1000, description="denoising steps from pure noise on; null: 50, or the inversion's"
    )
    overlap: int | None = Field(
        None, ge=0, le=512, description="latent frames that windows of a long clip share; null: 4, or the inversion's"
    )
    mask: bool = Field(True, description="edit the region only; false: the whole frame")
    grow: float = Field(1.0, ge=-50, le=50, description="how far the edge is moved outwards, working pixels")
    feather: float = Field(3.0, ge=0.5, le=100, description="width of the soft edge, working pixels")
    margin: int = Field(1, ge=0, le=64, description="latent cells around the edge that are painted, and then hidden")
    seed: int = Field(0, ge=0, description="of the noise")


def needs(params: Params) -> tuple[str, ...]:
    """No inversion where noise is added, no region where the whole frame is edited."""
    unread = {"inversion" if params.source == "noise" else "", "" if params.mask else "region"}
    return tuple(name for name in NEEDS if name not in unread)


def check(params: Params, frames: Mapping[str, Any], beside: Mapping[str, Any]) -> None:
    """Raises ConfigError E230 (nothing to paint), E273 (a reference for a model of text alone), E291 (a strength that
    makes no step), E292 (steps or overlap beside an inversion, which has its own), and what reading the reference
    raises."""
    if not params.prompt and not params.reference:
        raise ConfigError(
            "E230", "sdedit has nothing to paint", 'Give edit.prompt="a red disc", edit.reference=IMAGE, or both.'
        )
    if params.source == "inversion":
        for name in ("steps", "overlap"):
            if getattr(params, name) is not None:
                raise ConfigError(
                    "E292",
                    f"edit.{name} stands beside an inversion, which has its own",
                    f"Set inversion.{name}={getattr(params, name)}, or edit.source=noise.",
                )
    steps = beside["inversion"].steps if params.source == "inversion" else params.steps or STEPS
    if round(params.strength * steps) == 0:
        raise too_weak(params, steps)
    if params.reference:
        read_image(params.reference)
        if not takes_images(beside["model"]):
            raise ConfigError(
                "E273",
                "edit.reference: this model takes no reference image",
                "Give edit.prompt alone, another model (model=embedded), or an IP-Adapter: model.image_adapter=...",
            )


def edit(
    latents: LatentSeries,
    backbone: Backbone,
    priors: Mapping[str, Any],
    inputs: Inputs,
    params: Params,
    rng: np.random.Generator,
) -> Iterator[Patch]:
    """One Patch a chunk of 16 frames. The noise is drawn frame by frame from `params.seed`.

    Every few steps the clip's latents are kept, and a killed edit goes on from these. Raises what the network raises.
    """
    from retake.diffusion.coding import decoded
    from retake.diffusion.sampling import sample
    from retake.diffusion.windows import Reel, Windows

    inversion: InversionSeries | None = priors.get("inversion")
    region: RegionSeries | None = priors.get("region")
    steps = inversion.steps if inversion else params.steps or STEPS
    overlap = inversion.meta["overlap"] if inversion else OVERLAP if params.overlap is None else params.overlap
    start = round(params.strength * steps)
    shape = tuple(latents.meta[name] for name in ("count", "channels", "height", "width"))
    source = source_of(latents, inversion, backbone, steps, params.seed)
    z = Reel(inputs.scratch / "z.latents", shape)
    level = begun(z, inputs, source, start)

    def stepped(done: int, todo: int) -> None:
        inputs.progress(start - todo + done, start)
        if (todo - done) % KEPT == 0:
            inputs.keep({"level": np.array(todo - done), "z": z[at : at + CHUNK].numpy()} for at in chunk_starts(z))

    sample(
        backbone,
        z,
        told(backbone, params),
        steps=steps,
        start=level,
        guidance=params.guidance,
        windows=Windows.of(backbone, shape[0], overlap),
        batch=inputs.batch,
        source=source,
        mask=free_cells(latents, region, params, inputs.scratch) if region else None,
        progress=stepped,
    )
    frames = inputs.frames
    pictures = decoded(backbone, z, len(frames), inputs.first_chunk)
    for index, pixels in enumerate(pictures, inputs.first_chunk):
        span = range(index * CHUNK, min((index + 1) * CHUNK, len(frames)))
        rgb = [resize(picture, (frames.width, frames.height)) for picture in as_rgb(pixels)]
        yield patch(np.stack(rgb), [edge(region[t], params) for t in span] if region else None)


def begun(z: Reel, inputs: Inputs, source: Source, start: int) -> int:
    """Fill z [F, C, h, w] with what a killed run kept, else with the source at level `start`; returns z's level."""
    import torch

    level, at = start, 0
    for part in inputs.kept():
        z[at : at + len(part["z"])] = torch.from_numpy(part["z"])
        level, at = int(part["level"]), at + len(part["z"])
    if at == 0:
        for first in chunk_starts(z):
            z[first : first + CHUNK] = source(start, range(first, min(first + CHUNK, z.shape[0])))
    return level


def chunk_starts(z: Reel) -> range:
    return range(0, z.shape[0], CHUNK)


def source_of(
    latents: LatentSeries, inversion: InversionSeries | None, backbone: Backbone, steps: int, seed: int
) -> Source:
    """The source clip at every level, from its inversion or by adding noise."""
    import torch

    from retake.diffusion.sampling import forward

    clean = lambda frames: torch.from_numpy(latents.span(frames))  # noqa: E731
    if inversion is None:
        return forward(backbone.schedule, clean, steps, seed)
    return lambda level, frames: torch.from_numpy(inversion.level(level, frames)) if level else clean(frames)


def told(backbone: Backbone, params: Params) -> Any:
    """The condition for one clip. Raises ConfigError E273 for a kind that the model does not take."""
    text = [params.prompt] if params.prompt else None
    return backbone.condition(text, reference(params.reference) if params.reference else None, params.unwanted)


def reference(path: str) -> Tensor:
    """A picture as float32 [1, 3, H, W] in -1..1: square, so that nothing of it is stretched or cut."""
    import torch

    image = read_image(path)
    rgb = image[..., :3].astype(np.float32)
    if image.shape[2] == 4:
        rgb = BEHIND + (rgb - BEHIND) * (image[..., 3:].astype(np.float32) / 255)
    side, (height, width) = max(rgb.shape[:2]), rgb.shape[:2]
    square = np.full((side, side, 3), BEHIND, np.float32)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = rgb
    return torch.from_numpy(square.transpose(2, 0, 1)[None].copy()) / 127.5 - 1


def free_cells(latents: LatentSeries, region: RegionSeries, params: Params, scratch: Path) -> Mask:
    """Latent cells that may change: all that the soft edge touches, and `margin` around them. In a scratch file."""
    import torch

    from retake.diffusion.grid import to_grid
    from retake.diffusion.windows import Reel

    meta = latents.meta
    reel = Reel(scratch / "mask.latents", (len(latents), 1, meta["height"], meta["width"]), torch.uint8)
    for t in range(len(region)):
        touched = np.where(edge(region[t], params) > 0, 255, 0).astype(np.uint8)
        pixels = torch.from_numpy(resize(touched, (meta["pixels"][1], meta["pixels"][0])) > 0)
        cells = (to_grid(pixels[None], "masks", meta["space"], 1) > 0).float()
        grown = torch.nn.functional.max_pool2d(cells[None], 2 * params.margin + 1, 1, params.margin)
        k = -(-t // meta["time"])  # the latent frame that holds frame t
        reel[k : k + 1] = torch.maximum(reel[k : k + 1], grown.to(torch.uint8))
    return lambda frames: reel[frames.start : frames.stop].float()


def edge(mask: np.ndarray, params: Params) -> np.ndarray:
    """Opacity of one frame's edit, uint8 [H, W]."""
    return np.rint(255 * soft_mask(mask, params.feather, params.grow)).astype(np.uint8)


def as_rgb(pixels: Tensor) -> np.ndarray:
    """uint8 [n, H, W, 3] of float32 [n, 3, H, W] in -1..1."""
    return ((pixels + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()


def patch(rgb: np.ndarray, alpha: list[np.ndarray] | None) -> Patch:
    """A chunk cropped to where its edit is seen; without alpha, all of it."""
    count, height, width = rgb.shape[:3]
    if alpha is None:
        return Patch((0, 0, width, height), rgb, np.full((count, height, width), 255, np.uint8))
    box = box_of(np.logical_or.reduce([a > 0 for a in alpha]), 0)
    if box is None:
        return Patch((0, 0, 0, 0), np.zeros((count, 0, 0, 3), np.uint8), np.zeros((count, 0, 0), np.uint8))
    x0, y0, x1, y1 = box
    return Patch(box, rgb[:, y0:y1, x0:x1], np.stack(alpha)[:, y0:y1, x0:x1])


def too_weak(params: Params, steps: int) -> ConfigError:
    return ConfigError(
        "E291",
        f"edit.strength={params.strength:g} of {steps} steps makes none: nothing would change",
        f"Give {1 / steps:.2g} or more, up to 1.",
    )
