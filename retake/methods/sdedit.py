"""SDEdit: let a diffusion model paint the object anew, from noise that still holds the clip's motion.

The clip is taken up to a level of noise by inversion, or by adding noise, and denoised again under a prompt, a
reference image or both (Meng et al. 2022, https://arxiv.org/abs/2108.01073, algorithm 1). After every step what lies
outside the region is the source's own at that level (their algorithm 3; Lugmayr et al. 2022, eq. 8), so that the object
is painted into the clip around it. The higher the level (`strength`), the freer the edit and the less of the source is
left in it. It is the baseline of the methods that use a diffusion model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from retake.diffusion.model import takes_images
from retake.errors import ConfigError
from retake.formats import InversionSeries, LatentSeries, RegionSeries
from retake.methods import Inputs, Patch
from retake.methods.canvas import (
    begun,
    check_steps,
    chunk_starts,
    edge_of,
    painted,
    parts_of,
    shown,
    source_of,
    touched_cells,
)
from retake.video import read_image

if TYPE_CHECKING:
    from retake.diffusion.backbone import Backbone

VERSION = 2
NEEDS = ("latents", "inversion", "region")

STEPS = 50
KEPT = 8  # denoising steps that a kill costs at most
OVERLAP = 4


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


def check_settings(params: Params, beside: Mapping[str, Any]) -> None:
    """Raises ConfigError E230 (nothing to paint), E273 (a reference for a model of text alone), E291 (a strength that
    makes no step), E292 (steps or overlap beside an inversion, which has its own)."""
    if not params.prompt and not params.reference:
        raise ConfigError(
            "E230", "sdedit has nothing to paint", 'Give edit.prompt="a red disc", edit.reference=IMAGE, or both.'
        )
    check_steps(params, beside["inversion"].steps, STEPS)
    if params.reference and not takes_images(beside["model"]):
        raise ConfigError(
            "E273",
            "edit.reference: this model takes no reference image",
            "Give edit.prompt alone, another model (model=embedded), or an IP-Adapter: model.image_adapter=...",
        )


def check(params: Params, frames: Mapping[str, Any]) -> None:
    """Raises what reading the reference raises."""
    if params.reference:
        read_image(params.reference)


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
    from retake.diffusion.sampling.ddim import sample
    from retake.diffusion.sampling.windows import Reel, Windows

    inversion: InversionSeries | None = priors.get("inversion")
    region: RegionSeries | None = priors.get("region")
    steps = inversion.steps if inversion else params.steps or STEPS
    overlap = inversion.meta["overlap"] if inversion else OVERLAP if params.overlap is None else params.overlap
    start = round(params.strength * steps)
    shape = tuple(latents.meta[name] for name in ("count", "channels", "height", "width"))
    source = source_of(latents, inversion, backbone, steps, params.seed)
    alpha = edge_of(region, params) if region else None
    z = Reel(inputs.scratch / "z.latents", shape)
    level = begun(z, inputs, source, start)

    def stepped(done: int, todo: int) -> None:
        inputs.progress(start - todo + done, start)
        if (todo - done) % KEPT == 0:
            inputs.keep({"level": np.array(todo - done), **parts_of(at, z=z)} for at in chunk_starts(z))

    sample(
        backbone,
        z,
        condition_of(backbone, params),
        steps=steps,
        start=level,
        guidance=params.guidance,
        windows=Windows.of(backbone, shape[0], overlap),
        batch=inputs.batch,
        source=source,
        mask=touched_cells(latents, len(region), alpha, params.margin, inputs.scratch) if region and alpha else None,
        progress=stepped,
    )
    yield from painted(backbone, z, inputs, alpha)


def condition_of(backbone: Backbone, params: Params) -> Any:
    """The condition for one clip. Raises ConfigError E273 for a kind that the model does not take."""
    text = [params.prompt] if params.prompt else None
    return backbone.condition(text, shown(params.reference) if params.reference else None, params.unwanted)
