"""IVEDiff: put what a picture shows into the masked part of a clip.

An editing network fills the mask of every frame, told by a reference picture (MimicBrush's), with motion modules and a
motion reference network that carries features along the source's flow. Denoising starts from pure noise; what lies
outside the mask is the source's, pixel for pixel. Source: IVEDiff (Li et al. 2025, https://arxiv.org/abs/2501.04325,
sec. 4 and appendix C): 50 steps, 16 frames at once. Its guidance is 7.5; the small network that ships is best at 2, the
default here. Longer clips go in overlapping windows.

Two applications. *Texture transfer*: the object's own mask, and its depth, so that it keeps its shape. *Object
modification*: a rectangle around it and no depth, so that the picture says the shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from retake.errors import ConfigError
from retake.formats import LatentSeries
from retake.methods import Inputs, Patch
from retake.methods.canvas import begun, chunk_starts, painted, parts_of, shown
from retake.methods.ivediff.targets import Target
from retake.video import read_image

if TYPE_CHECKING:
    from retake.diffusion.families.ivediff.adapter import IVEDiff

VERSION = 2
NEEDS = ("latents", "optical_flow", "depth", "masks", "region")

KEPT = 8  # denoising steps that a kill costs at most
FAMILY = "ivediff"  # of models that it works with


class Params(Target, frozen=True, extra="forbid"):
    """The first target, those after it, and how the clip is denoised."""

    name: Literal["ivediff"] = "ivediff"
    also: tuple[Target, ...] = Field(
        (), description="further targets, one after another, each in the clip as the one before left it"
    )
    guidance: float = Field(
        2.0, ge=0, le=50, description="weight of the picture (classifier-free guidance); 1: none; the paper has 7.5"
    )
    steps: int = Field(50, ge=1, le=1000, description="denoising steps from pure noise on")
    overlap: int = Field(8, ge=0, le=512, description="frames that windows of a long clip share")
    grow: float = Field(1.0, ge=-50, le=50, description="how far the edge is moved outwards, working pixels")
    feather: float = Field(3.0, ge=0.5, le=100, description="width of the soft edge, working pixels")
    ablation: Literal["none", "frame_wise", "no_reference_motion", "shuffled_flow"] = Field(
        "none",
        description="for evaluations: frames one by one, the motion reference network at rest, or with flow of other "
        "frames",
    )
    seed: int = Field(0, ge=0, description="of the noise")

    @property
    def chain(self) -> tuple[Target, ...]:
        """All of them, in their order."""
        return Target(**{name: getattr(self, name) for name in Target.model_fields}), *self.also


def needs(params: Params) -> tuple[str, ...]:
    """What its targets read: no depth where none keeps its shape, masks for one object and region for all, no flow
    where frames do not see it."""
    wanted = {"latents"}
    for target in params.chain:
        wanted |= {"region" if target.object_id is None else "masks"} | ({"depth"} if target.keeps_shape else set())
    if params.ablation not in ("frame_wise", "no_reference_motion"):
        wanted.add("optical_flow")
    return tuple(name for name in NEEDS if name in wanted)


def check_settings(params: Params, beside: Mapping[str, Any]) -> None:
    """Raises ConfigError E230 (a target without a picture), E273 (a model that is no editing network)."""
    for n, target in enumerate(params.chain):
        if not target.reference:
            where = "edit.reference" if n == 0 else f"edit.also[{n - 1}].reference"
            raise ConfigError("E230", "ivediff has no picture to put in", f"Give {where}=IMAGE, a PNG or JPEG.")
    if beside["model"].family != FAMILY:
        raise ConfigError(
            "E273",
            f"edit=ivediff needs an editing network, and model={beside['model'].name} is none",
            "Add model=embedded_ivediff, which ships, or a model of family=ivediff.",
        )


def check(params: Params, frames: Mapping[str, Any]) -> None:
    """Raises what reading the pictures raises, and ConfigError E259 for one of which nothing is seen."""
    for target in params.chain:
        picture = read_image(str(target.reference))
        if picture.ndim == 3 and picture.shape[2] == 4 and not picture[..., 3].any():
            raise ConfigError("E259", f"{target.reference} is transparent everywhere", "Give a picture of something.")


def asked(params: Params, steps: int, window: int, frames: int) -> tuple[int, int, float, bool]:
    """What a plan reckons with: (steps, frames that windows share, guidance, no queue)."""
    return params.steps, params.overlap, params.guidance, False


def describe(params: Params) -> str:
    """What its targets ask for, one after another."""
    return "; then ".join(map(str, params.chain))


def one_by_one(params: Params) -> tuple[Params, ...]:
    """Settings of the stages of a chain of targets: each holds those before it, and its own as the last."""
    return tuple(params.model_copy(update={"also": params.also[:n]}) for n in range(len(params.also) + 1))


def edit(
    latents: LatentSeries,
    backbone: IVEDiff,
    priors: Mapping[str, Any],
    inputs: Inputs,
    params: Params,
    rng: np.random.Generator,
) -> Iterator[Patch]:
    """One Patch a chunk of 16 frames: of the last target, laid over those before it (`priors["before"]`). Every few
    steps the clip's latents are kept, and a killed edit goes on from these.

    Raises ConfigError E248 for an object that the masks do not hold, E233 where nothing is masked in any frame, and
    what the network raises."""
    from retake.diffusion.sampling.ddim import noise, sample
    from retake.diffusion.sampling.windows import Reel, Windows
    from retake.methods.ivediff.masked_clip import MaskedClip

    target = params.chain[-1]
    shuffled = params.seed if params.ablation == "shuffled_flow" else None
    clip = MaskedClip(latents, backbone, priors, inputs, target, params, shuffled)
    shape = tuple(latents.meta[name] for name in ("count", "channels", "height", "width"))
    z = Reel(inputs.scratch / "z.latents", shape)
    start = begun(z, inputs, lambda level, span: noise(params.seed, span, shape[1:]), params.steps)

    def stepped(done: int, todo: int) -> None:
        inputs.progress(params.steps - todo + done, params.steps)
        if (todo - done) % KEPT == 0:
            inputs.keep({"level": np.array(todo - done), **parts_of(at, z=z)} for at in chunk_starts(z))

    # The model sees the clip at its own height and width: the picture comes out of shape as the clip does.
    high, wide = latents.meta["pixels"]
    aspect = backbone.width / backbone.height * (clip.frames.width * high) / (clip.frames.height * wide)
    picture = backbone.condition(None, shown(str(target.reference), aspect))
    with backbone.ablated(params.ablation):
        sample(
            backbone,
            z,
            lambda spans: clip.condition(picture, spans),
            steps=params.steps,
            start=start,
            guidance=params.guidance,
            windows=Windows.of(backbone, shape[0], params.overlap),
            batch=inputs.batch,
            progress=stepped,
        )
    for index, patch in enumerate(painted(backbone, z, inputs, clip.alpha), inputs.first_chunk):
        yield clip.over(index, patch)
