"""Time-to-Move: a crude move of what is in the clip, painted anew by a diffusion model, without training.

The clip is moved as edit=move does it, noise is added, and it is denoised again, by two clocks (Singer et al. 2025,
https://arxiv.org/abs/2511.08633, dual-clock denoising): objects at their new places follow the crude move down to the
level `hold`; what is around them is free from the higher level `strength` on, so that it fits. Beyond the edge the
source is put back at every level, and in the result. Theirs is an image-to-video model that has seen the first frame,
and they leave the place that an object left free; a model of text alone paints the object there again, so the fill is
held, too, unless `fill` says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from retake.errors import ConfigError
from retake.formats import CHUNK, LatentSeries
from retake.methods import Inputs, Patch
from retake.methods.canvas import begun, cells, check_strength, chunk_starts, edge, painted, parts_of
from retake.recomposition.crude import moved

if TYPE_CHECKING:
    from torch import Tensor

    from retake.diffusion.backbone import Backbone
    from retake.diffusion.sampling.ddim import Mask

VERSION = 1
NEEDS = ("latents", "masks", "edited_tracks")

KEPT = 8  # denoising steps that a kill costs at most


class Params(BaseModel, frozen=True, extra="forbid"):
    """What is moved, and how freely the model paints over it. Lengths in working pixels unless said otherwise."""

    name: Literal["timetomove"] = "timetomove"
    prompt: str = Field("", description="text that describes the edited clip")
    unwanted: str = Field("", description="text that describes what it should not be")
    strength: float = Field(
        0.9, gt=0, le=1, description="level of noise from which what is around the moved objects is painted anew"
    )
    hold: float = Field(0.5, ge=0, le=1, description="level down to which the crude move is followed; at most strength")
    fill: Literal["held", "free"] = Field(
        "held", description="whether what shows behind objects that left follows the crude move as they do, or is free"
    )
    guidance: float = Field(2.0, ge=0, le=50, description="weight of the prompt (classifier-free guidance); 1: none")
    steps: int = Field(50, ge=1, le=1000, description="denoising steps from pure noise on")
    overlap: int = Field(4, ge=0, le=512, description="latent frames that windows of a long clip share")
    order: tuple[int, ...] = Field(
        (), description="ids of objects from back to front; moved ones that are not named lie in front of all"
    )
    feather: float = Field(3.0, ge=0.5, le=100, description="width of the soft edge")
    grow: float = Field(2.0, ge=-50, le=50, description="how far the edge is moved outwards")
    margin: float = Field(4.0, ge=0, le=100, description="how far beyond a mask the background is taken from elsewhere")
    seed: int = Field(0, ge=0, description="of the noise")


def check_settings(params: Params, beside: Mapping[str, Any]) -> None:
    """Raises ConfigError E291 for a strength that makes no step, or a hold above it."""
    check_strength(params.strength, params.steps)
    if params.hold > params.strength:
        raise ConfigError(
            "E291",
            f"edit.hold={params.hold:g} lies above edit.strength={params.strength:g}: objects would be held at levels "
            "that are not painted",
            f"Give edit.hold={params.strength:g} or less.",
        )


def edit(
    latents: LatentSeries,
    backbone: Backbone,
    priors: Mapping[str, Any],
    inputs: Inputs,
    params: Params,
    rng: np.random.Generator,
) -> Iterator[Patch]:
    """One Patch a chunk of 16 frames. Every few steps the clip's latents are kept, and a killed edit goes on from
    these. Raises what the network raises, and ConfigError E238 for an object in `order` that is none."""
    from retake.diffusion.sampling.chunked_vae import encoded
    from retake.diffusion.sampling.ddim import forward, sample
    from retake.diffusion.sampling.windows import Reel, Windows

    frames, shape = inputs.frames, tuple(latents.meta[name] for name in ("count", "channels", "height", "width"))
    height, width = latents.meta["pixels"]
    crude = moved(frames, priors, params, (width, height), inputs.scratch)
    clean = Reel(inputs.scratch / "crude.latents", shape)
    for index, part in enumerate(encoded(backbone, crude.pixels, len(frames))):
        clean[index * CHUNK : index * CHUNK + len(part)] = part
    source = forward(backbone.schedule, lambda span: clean[span.start : span.stop], params.steps, params.seed)
    start, hold = round(params.strength * params.steps), round(params.hold * params.steps)
    z = Reel(inputs.scratch / "z.latents", shape)
    level = begun(z, inputs, source, start)
    touched = cells(latents, len(frames), lambda t: crude.edited[t], grown, inputs.scratch / "touched.latents")
    held = crude.edited if params.fill == "held" else crude.laid
    follows = cells(latents, len(frames), lambda t: held[t], lambda share: share, inputs.scratch / "held.latents")
    clocks: tuple[tuple[int, Mask], ...] = ((hold, lambda span: touched(span) * (1 - follows(span))), (0, touched))
    for stop, mask in clocks:

        def stepped(done: int, todo: int, top: int = level) -> None:
            inputs.progress(start - top + done, start)
            if done % KEPT == 0 or done == todo:
                inputs.keep({"level": np.array(top - done), **parts_of(at, z=z)} for at in chunk_starts(z))

        if level > stop:
            sample(
                backbone,
                z,
                backbone.condition([params.prompt], None, params.unwanted),
                steps=params.steps,
                start=level,
                stop=stop,
                guidance=params.guidance,
                windows=Windows.of(backbone, shape[0], params.overlap),
                batch=inputs.batch,
                source=source,
                mask=mask,
                progress=stepped,
            )
            level = stop
    yield from painted(backbone, z, inputs, lambda t: edge(crude.edited[t] > 0, params))


def grown(coverage: Tensor) -> Tensor:
    """The cells that are touched, and those beside them."""
    import torch

    return torch.nn.functional.max_pool2d((coverage > 0).float(), 3, 1, 1)
