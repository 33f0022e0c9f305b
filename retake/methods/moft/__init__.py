"""MOFT: objects moved by what a video model's own features say of motion, without training.

A few steps of gradient descent on the noisy latents, early on, take the motion feature of each object to that of its
new motion: a direction, a drag, or what moves in another clip. Source: "Video Diffusion Models are Training-free Motion
Interpreter and Controller" (Xiao et al., NeurIPS 2024, sec. 4; defaults of its published pipeline at f57184b where the
paper is silent). Theirs steers clips that are generated; here a clip of one's own is, from its inversion: looks come
from its keys and values at the same level, and what no object touches is put back at every level.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, Field, field_validator

from retake.errors import ConfigError
from retake.formats import InversionSeries, LatentSeries
from retake.methods import Inputs, Patch
from retake.methods.canvas import (
    begun,
    check_steps,
    chunk_starts,
    edge,
    painted,
    parts_of,
    resumed,
    source_of,
    touched_cells,
)
from retake.methods.moft.reference import check_reference
from retake.motion_targets import MotionTarget, check_targets
from retake.params import as_written

if TYPE_CHECKING:
    from retake.diffusion.backbone import Backbone

VERSION = 3
NEEDS = ("latents", "inversion", "masks", "motion_channels")

STEPS = 50
KEPT = 8  # denoising steps that a kill costs at most
OVERLAP = 4
HOW = {"relative": (0.05, 1.0, 1.0), "squared": (0.5, 6.0, 0.04)}
"""Rate, weight of motion and share of the channels, by distance. Those of squares are published."""
DRAGGED = 0.24, 0.8  # shares of the steps between which points are dragged (the paper's eq. 9)


class Params(BaseModel, frozen=True, extra="forbid"):
    """What shall move and how, and how strongly it is steered."""

    name: Literal["moft"] = "moft"
    targets: tuple[MotionTarget, ...] = Field(
        (), description="motions of objects: {object: 1, direction: right, speed: 2}, or with drag or reference"
    )
    prompt: str = Field("", description="text that describes the edited clip")
    unwanted: str = Field("", description="text that describes what it should not be")
    source: Literal["inversion", "noise"] = Field(
        "inversion",
        description="what the clip is made of: its inversion, which keeps its looks, or noise, which makes a new one",
    )
    strength: float = Field(1.0, gt=0, le=1, description="level of noise to start from; 1: the noisiest")
    guidance: float = Field(3.0, ge=0, le=50, description="weight of the prompt (classifier-free guidance); 1: none")
    steps: int | None = Field(
        None, ge=1, le=1000, description="denoising steps from pure noise on; null: 50, or the inversion's"
    )
    overlap: int | None = Field(
        None, ge=0, le=512, description="latent frames that windows of a long clip share; null: 4, or the inversion's"
    )
    first: float = Field(0.12, ge=0, le=1, description="share of the steps after which motion is steered")
    last: float = Field(0.48, ge=0, le=1, description="share of the steps until which motion is steered")
    updates: int = Field(2, ge=1, le=50, description="steps of gradient descent in each of them")
    distance: Literal["relative", "squared"] = Field(
        "relative",
        description="how motion is compared: the feature's course over time against its own size, or squares, as "
        "published, whose weight depends on the model",
    )
    amplitude: float = Field(
        3.0,
        ge=0,
        description="size of the wanted course against the feature's own, at the speed of the clips in which channels "
        "were found; not with distance=squared",
    )
    rate: float | None = Field(
        None,
        ge=0,
        description="how far an update moves the latents, in standard deviations of their noise; with "
        "distance=squared: of gradient descent; null: 0.05, with squared 0.5",
    )
    weight: float | None = Field(
        None, ge=0, description="of motion, beside drags; 0: motion is not steered; null: 1, with distance=squared 6"
    )
    drag_weight: float = Field(
        1.0, ge=0, description="of keeping a dragged point's looks along its way (DIFT); 0: drags are motion alone"
    )
    share: float | None = Field(
        None,
        gt=0,
        le=1,
        description="share of the channels that are compared, of each axis; null: all, with distance=squared 0.04",
    )
    remove_content: bool = Field(
        True, description="take what frames share off the features; false, an ablation, with references alone"
    )
    clip_frames: int | None = Field(
        None, ge=0, description="frames from the first on that change inside the objects' areas alone; null: all"
    )
    shared: bool = Field(
        True, description="take keys and values, which hold looks, from the clip that is not steered, where a model can"
    )
    mask: bool = Field(True, description="paint where objects are and shall be only; false: the whole frame")
    margin: int = Field(
        1, ge=0, le=64, description="latent cells around these places that are painted, and then hidden"
    )
    grow: float = Field(2.0, ge=-50, le=50, description="how far the edge is moved outwards, working pixels")
    feather: float = Field(3.0, ge=0.5, le=100, description="width of the soft edge, working pixels")
    seed: int = Field(0, ge=0, description="of the noise")

    @field_validator("targets", mode="before")
    @classmethod
    def written(cls, targets: Any) -> Any:
        """Also as JSON."""
        return as_written(targets, "edit.targets=[{object: 1, direction: right}]")


def needs(params: Params) -> tuple[str, ...]:
    """No inversion where noise is added."""
    return tuple(name for name in NEEDS if name != "inversion" or params.source == "inversion")


def check_settings(params: Params, beside: Mapping[str, Any]) -> None:
    """Raises ConfigError E230 (no target), E248 (an object that is not followed), E249 (a target that makes no sense),
    E291 (a strength that makes no step), E292 (steps or overlap beside an inversion, which has its own)."""
    if not params.targets:
        raise ConfigError(
            "E230",
            "moft has nothing to move",
            "Say what goes where: 'edit.targets=[{object: 1, direction: right, speed: 2}]'",
        )
    check_targets(params.targets)
    check_objects(params.targets, beside.get("masks"))
    if not params.remove_content and not all(target.reference for target in params.targets):
        raise ConfigError(
            "E249",
            "edit.remove_content=false compares features as they are, of which a direction says nothing",
            "Give every target a reference, or leave it out.",
        )
    check_steps(params, beside["inversion"].steps, STEPS)


def check_objects(targets: Sequence[MotionTarget], masks: Any) -> None:
    """Raises ConfigError E248 for an object that the settings `masks` do not follow. Masks that are given, or found by
    words, tell theirs when they are there."""
    known = () if getattr(masks, "text", None) or not hasattr(masks, "prompts") else tuple(masks.prompts())
    for n, target in enumerate(targets):
        if known and target.object not in (0, *known):
            raise ConfigError(
                "E248",
                f"edit.targets.{n}: there is no object {target.object} in the masks, which follow "
                f"{', '.join(map(str, known))}",
                f"Give object: {known[0]}, or 0 for what is no object; masks.objects follows several.",
            )


def check(params: Params, frames: Mapping[str, Any]) -> None:
    """Raises ConfigError E221 for a drag with a place beside the picture, and what `check_reference` raises. frames:
    meta of the frames artifact."""
    for n, target in enumerate(params.targets):
        for x, y in target.drag:
            if not (0 <= x < frames["source_width"] and 0 <= y < frames["source_height"]):
                raise ConfigError(
                    "E221",
                    f"edit.targets.{n}.drag: {x:g},{y:g} lies beside the frame of "
                    f"{frames['source_width']}x{frames['source_height']} px",
                    "Read places from the grid of `retake frame CLIP 0`.",
                )
        if target.reference:
            check_reference(target, f"edit.targets.{n}")


def asked(params: Params, steps: int, window: int, frames: int) -> tuple[int, int, float, bool]:
    """What a plan reckons with: (steps, latent frames that windows share, guidance, no queue). steps: of the inversion,
    where that is the source. From noise the clip that is not steered is sampled, too, while steering lasts."""
    if params.source == "inversion":
        return steps, OVERLAP, params.guidance, False
    own = params.steps or STEPS
    among = steered_steps(params, own) if params.shared else ()
    beside = 1 + max(among) - min(among) if among else 0
    return own + beside, OVERLAP if params.overlap is None else params.overlap, params.guidance, False


def gradients(params: Params, steps: int) -> int:
    """How often a plan reckons with a gradient of the features."""
    return params.updates * len(steered_steps(params, steps if params.source == "inversion" else params.steps or STEPS))


def steered_steps(params: Params, steps: int) -> set[int]:
    """Numbers of the steps that take a gradient, 0 the first of all from pure noise."""
    shares = [(params.first, params.last)] if params.weight != 0 else []
    shares += [DRAGGED] if params.drag_weight and any(target.drag for target in params.targets) else []
    found = {step for first, last in shares for step in range(round(first * steps), round(last * steps))}
    return {step for step in found if step >= steps - round(params.strength * steps)}


def edit(
    latents: LatentSeries,
    backbone: Backbone,
    priors: Mapping[str, Any],
    inputs: Inputs,
    params: Params,
    rng: np.random.Generator,
) -> Iterator[Patch]:
    """One Patch a chunk of 16 frames. Every few steps the clip's latents are kept, and a killed edit goes on from
    these. Raises ConfigError E248 for an object that no mask holds, E249 for a reference without motion, and what the
    network raises."""
    from retake.diffusion.sampling.chunked_vae import latent_count
    from retake.diffusion.sampling.ddim import sample
    from retake.diffusion.sampling.motion_guidance import Guide, Steering, Unsteered
    from retake.diffusion.sampling.windows import Reel, Windows
    from retake.methods.moft.guidance_targets import Compared, GuidanceTargets

    inversion: InversionSeries | None = priors.get("inversion")
    steps = inversion.steps if inversion else params.steps or STEPS
    overlap = inversion.meta["overlap"] if inversion else OVERLAP if params.overlap is None else params.overlap
    start = round(params.strength * steps)
    shape = tuple(latents.meta[name] for name in ("count", "channels", "height", "width"))
    source = source_of(latents, inversion, backbone, steps, params.seed)
    windows = Windows.of(backbone, shape[0], overlap)
    rate, weight, share = (
        standard if told is None else told
        for standard, told in zip(HOW[params.distance], (params.rate, params.weight, params.share), strict=True)
    )
    compared = Compared(share, params.remove_content)
    goals = GuidanceTargets(params.targets, backbone, latents, priors, inputs, compared, windows)
    alpha = (lambda t: edge(goals.area(t), params)) if params.mask else None
    condition = backbone.condition([params.prompt], None, params.unwanted)
    sampling: dict[str, Any] = {
        "steps": steps,
        "guidance": params.guidance,
        "windows": windows,
        "batch": inputs.batch,
        "source": source,
        "mask": touched_cells(latents, len(inputs.frames), alpha, params.margin, inputs.scratch) if alpha else None,
    }
    z = Reel(inputs.scratch / "z.latents", shape)
    level, unsteered = begun(z, inputs, source, start), None
    if params.shared and backbone.appearance and not inversion:
        plain = Reel(inputs.scratch / "plain.latents", shape)
        unsteered = Unsteered(
            plain,
            lambda z, level: sample(backbone, z, condition, start=level, stop=level - 1, **sampling),
            halves=params.guidance != 1,
            level=resumed(plain, inputs, "plain"),
        )
    guide = Guide(
        priors["motion_channels"].meta["site"],
        params.first,
        params.last,
        params.updates,
        params.distance,
        params.amplitude,
        rate,
        weight,
        drag=params.drag_weight,
        dragged=DRAGGED,
        clip=latent_count(params.clip_frames, backbone.time) if params.clip_frames else params.clip_frames,
        shared=backbone.appearance if params.shared else None,
        remove_content=params.remove_content,
    )
    steering = Steering(
        backbone,
        z,
        condition,
        goals.targets,
        guide,
        steps=steps,
        windows=windows,
        plain=unsteered or source,
    )

    def stepped(done: int, todo: int, top: int = level) -> None:
        inputs.progress(start - top + done, start)
        if done % KEPT == 0:
            levels, kept = {"level": np.array(top - done)}, {"z": z}
            if unsteered and unsteered.level is not None:
                levels["plain level"], kept["plain"] = np.array(unsteered.level), plain
            inputs.keep({**levels, **parts_of(at, **kept)} for at in chunk_starts(z))

    sample(backbone, z, condition, start=level, before=steering, progress=stepped, **sampling)
    yield from painted(backbone, z, inputs, alpha)
