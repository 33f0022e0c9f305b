"""MoCA-Video: mix what a picture shows into an object of the clip, without training.

Noise is laid over the frames and taken off again level by level, and once it is low enough every step moves the object,
found by its mask, towards the reference's latents, corrected by a momentum. Frames pass through a queue of rising noise
as published, or all stand at one level, in overlapping windows (retake/diffusion/sampling/fifo.py has both).
Zhang et al. 2025, https://arxiv.org/abs/2506.01004. Text and published code of it disagree, so there are presets
(presets.py holds their numbers, steps.py their formulas):

    recommended   the paper's parts with units that agree, in windows, over the levels that the edit needs and no others
    paper         the text, as far as it gives formulas
    code          one published revision (presets.CODE_OF), in which the reference hardly reaches the picture

Each part is switched off by one setting: iou=0 (the gate, which has work where masks are found anew in every step, or
with compare=neighbour), kappa=0 (momentum), gamma=0 (residual noise), weight=0 (the injection). diagonal=true is the
queue, diagonal=false the windows, in any preset; of themselves clips of more than presets.TOGETHER frames take the
queue, whose memory does not grow with a clip.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from retake.diffusion.model import takes_images
from retake.errors import ConfigError
from retake.formats import InversionSeries, LatentSeries, RegionSeries
from retake.methods import Inputs, Patch
from retake.methods.canvas import covered_cells, edge_of, painted, shown, source_of, touched_cells
from retake.methods.moca.presets import LOOKED_AT, TIMESTEPS, Masks, Place, Preset, Rule, diagonally, rule_of
from retake.video import read_image

if TYPE_CHECKING:
    from retake.diffusion.attention_maps import Concepts
    from retake.diffusion.backbone import Backbone, Condition

VERSION = 5
NEEDS = ("latents", "inversion", "region")

STEPS = 64


class Params(BaseModel, frozen=True, extra="forbid"):
    """What is mixed into what, and how. null: as the preset has it. Timesteps are of 1000."""

    name: Literal["moca"] = "moca"
    preset: Preset = Field(
        "recommended", description="recommended, paper (the text), code (its code's revision da53798)"
    )
    source_prompt: str = Field("", description="text that describes the clip as it is; empty: none")
    object: str | None = Field(None, description="words of source_prompt that name the object, for masks=attention")
    unwanted: str = Field("", description="text that describes what it should not be")
    reference: str | None = Field(
        None, description="picture of what to mix in (PNG, JPEG; alpha is honoured)", json_schema_extra={"file": ""}
    )
    reference_text: str | None = Field(None, description="text that describes the reference, put behind source_prompt")
    below: float | None = Field(None, ge=0, le=1000, description="timestep from which on it is mixed (the paper's t')")
    enter: float | None = Field(
        None, gt=0, le=1000, description="timestep at which source frames enter the queue; the lower, the quicker"
    )
    masks: Masks | None = Field(
        None,
        description="where masks come from: region (the masks stage), segmenter (GrabCut on the estimate), attention",
    )
    iou: float | None = Field(None, ge=0, le=1, description="overlap above which a new mask is taken; 0: always")
    compare: Literal["itself", "neighbour"] = Field(
        "itself", description="what a new mask is compared with: the frame's own, or the frame's before it"
    )
    weight: float | None = Field(None, ge=0, le=4, description="lambda of the injection; 0: none")
    falling: bool | None = Field(None, description="lambda falls with the timestep (times t/1000); false: constant")
    beta: float | None = Field(None, ge=0, lt=1, description="how long the momentum remembers")
    kappa: float | None = Field(None, ge=0, le=10, description="strength of the momentum; 0: none")
    drift: float | None = Field(None, ge=0, le=10, description="share of the step's direction in the momentum")
    gamma: float | None = Field(None, ge=0, le=4, description="residual noise at the mask's edge; 0: none")
    place: Place | None = Field(
        None, description="where the reference lies: over the object's box in every frame, or over the whole frame"
    )
    hold: bool | None = Field(None, description="outside the edge the source's own latents, at every level")
    look: bool | None = Field(None, description="show the model the reference, where it reads pictures")
    eta: float | None = Field(None, ge=0, le=1, description="noise of a step: 0 none, 1 as much as DDPM")
    guidance: float | None = Field(None, ge=0, le=50, description="weight of the prompt; 1: none")
    source: Literal["noise", "inversion"] = Field(
        "noise", description="how frames get their level: noise is added, or by inversion (dearer)"
    )
    steps: int | None = Field(
        None, ge=1, le=1000, description="denoising steps from pure noise on; null: 64, or the inversion's"
    )
    lookahead: int | None = Field(
        None,
        ge=0,
        le=512,
        description="frames that windows share, or only look at; null: a quarter of a window (other presets: half)",
    )
    diagonal: bool | None = Field(
        None,
        description="true: a queue; false: all frames at one level, windows blended; the latents are in memory",
    )
    grow: float = Field(1.0, ge=-50, le=50, description="how far the edge is moved outwards, working pixels")
    feather: float = Field(3.0, ge=0.5, le=100, description="width of the soft edge, working pixels")
    margin: int = Field(1, ge=0, le=64, description="latent cells around the edge that may change, with hold")
    seed: int = Field(0, ge=0, description="of the noise")
    keep: int = Field(
        16,
        ge=1,
        le=4096,
        description="frames whose work a kill costs at most: how often the state to go on from is kept",
        json_schema_extra={"inert": "a resumed edit is the same"},
    )


def needs(params: Params) -> tuple[str, ...]:
    """No inversion where noise is added."""
    return tuple(name for name in NEEDS if name != "inversion" or params.source == "inversion")


def check_settings(params: Params, beside: Mapping[str, Any]) -> None:
    """Raises ConfigError E230 (nothing to mix in), E273 (a picture to look at for a model of text alone), E290 (a
    lookahead as long as a window), E292 (steps beside an inversion, which has its own), E294 (masks by attention
    without words)."""
    if not params.reference and not params.reference_text:
        raise ConfigError(
            "E230", "moca has nothing to mix in", "Give edit.reference=IMAGE, edit.reference_text='a cat', or both."
        )
    if params.source == "inversion" and params.steps is not None:
        raise ConfigError(
            "E292",
            "edit.steps does not apply beside an inversion, which has its own",
            f"Set inversion.steps={params.steps}, or edit.source=noise.",
        )
    if params.lookahead is not None and params.lookahead >= beside["model"].frames:
        raise ConfigError(
            "E290",
            f"edit.lookahead={params.lookahead} of windows of {beside['model'].frames} frames leaves none to denoise",
            "Give less than a window's latent frames, or leave it out.",
        )
    rule = rule_of(params.preset, numbers(params))
    if rule.masks == "attention" and not (params.object and within(params.object, params.source_prompt)):
        raise ConfigError(
            "E294",
            "masks by attention need the object's words, and they must be in edit.source_prompt",
            'Give edit.source_prompt="a red disc moves right" edit.object="disc", or edit.masks=region.',
        )
    if params.reference and params.look and not takes_images(beside["model"]):
        raise ConfigError(
            "E273",
            "edit.look: this model takes no reference image",
            "Leave edit.look out, give edit.reference_text, or an IP-Adapter: model.image_adapter=...",
        )


def check(params: Params, frames: Mapping[str, Any]) -> None:
    """Raises what reading the reference raises."""
    if params.reference:
        read_image(params.reference)


def within(words: str, prompt: str) -> bool:
    """Whether whole words of a prompt are these."""
    return re.search(rf"\b{re.escape(words)}\b", prompt) is not None


def numbers(params: Params) -> dict[str, Any]:
    """The settings that stand in a preset's place."""
    return {name: getattr(params, name) for name in Rule.__dataclass_fields__}


def asked(params: Params, steps: int, window: int, frames: int) -> tuple[int, int, float, bool]:
    """What a plan reckons with: (levels, frames of a window that are only looked at or shared, guidance, whether by a
    queue), for a model of windows of so many latent frames and a clip of so many frames. steps: of the inversion, where
    that is the source."""
    rule = rule_of(params.preset, numbers(params))
    steps = steps if params.source == "inversion" else params.steps or STEPS
    ahead = window // LOOKED_AT[params.preset] if params.lookahead is None else params.lookahead
    return max(1, math.ceil(steps * rule.enter / TIMESTEPS)), ahead, rule.guidance, diagonally(rule, frames)


def edit(
    latents: LatentSeries,
    backbone: Backbone,
    priors: Mapping[str, Any],
    inputs: Inputs,
    params: Params,
    rng: np.random.Generator,
) -> Iterator[Patch]:
    """One Patch a chunk of 16 frames; output k is made of source frame k.

    What is in flight is kept every few frames, and a killed edit goes on from there, bit-equal. Memory holds
    the queue's latents, or those of all frames several times over (presets.TOGETHER). Raises ConfigError E275 where no
    level lies below `enter`, E290 for a lookahead that the model's windows do not have, E294 for words that the prompt
    does not hold.
    """
    from retake.diffusion.sampling.fifo import Diagonal
    from retake.diffusion.sampling.fifo_queue import Denoiser, keep_outside
    from retake.methods.moca.masks import from_attention, from_estimate, from_region, gated
    from retake.methods.moca.steps import mixing
    from retake.methods.moca.stream import Stream

    rule = rule_of(params.preset, numbers(params))
    rule = rule if params.reference else replace(rule, weight=0)
    inversion: InversionSeries | None = priors.get("inversion")
    region: RegionSeries = priors["region"]
    steps = inversion.steps if inversion else params.steps or STEPS
    ahead = backbone.length // LOOKED_AT[params.preset] if params.lookahead is None else params.lookahead
    diagonal = Diagonal.of(backbone, steps, levels_below(backbone, steps, rule.enter), ahead)
    source = source_of(latents, inversion, backbone, steps, params.seed)
    where, concepts = covered_cells(latents, region, inputs.scratch), None
    if rule.masks == "attention":
        concepts = listener(backbone, latents, params, rule)
        candidate = from_attention(concepts)
    else:
        candidate = from_region(where) if rule.masks == "region" else from_estimate(backbone, where)
    step = mixing(
        params.preset,
        rule,
        partial(gated, candidate, rule.iou, params.compare),
        reference_of(backbone, latents, inputs, region, params, rule),
    )
    if rule.hold:
        free = touched_cells(latents, len(region), edge_of(region, params), params.margin, inputs.scratch)
        step = keep_outside(free, source, step)
    condition = condition_of(backbone, params, rule)
    denoiser = Denoiser(backbone, condition, rule.guidance, inputs.batch, rule.eta, params.seed, step)
    stream = Stream(
        denoiser,
        diagonal,
        source,
        inputs,
        shape=tuple(latents.meta[name] for name in ("count", "channels", "height", "width")),
        keep=params.keep,
        diagonally=diagonally(rule, len(inputs.frames)),
    )
    with backbone.attention({"*": concepts}) if concepts else contextlib.nullcontext():
        yield from painted(backbone, stream, inputs, edge_of(region, params))


def reference_of(
    backbone: Backbone, latents: LatentSeries, inputs: Inputs, region: RegionSeries, params: Params, rule: Rule
) -> Any:
    """The reference's latents, frames -> [n, C, h, w]."""
    from retake.methods.moca.reference import over_frame, over_object

    if not params.reference or not rule.weight:
        return None
    image = read_image(params.reference)
    if rule.place == "frame":
        return over_frame(backbone, latents, image)
    return over_object(backbone, latents, inputs.frames, region, image, inputs.scratch)


def listener(backbone: Backbone, latents: LatentSeries, params: Params, rule: Rule) -> Concepts:
    """What hears where the network looks for the object."""
    from retake.diffusion.attention_maps import Concepts

    words = backbone.tokens_of(params.source_prompt, params.object or "")
    frames = min(backbone.length, latents.meta["count"])
    return Concepts(words, (frames, latents.meta["height"], latents.meta["width"]), rule.guidance != 1)


def levels_below(backbone: Backbone, steps: int, enter: float) -> int:
    """The highest level whose timestep is not above `enter`. 0 is refused by the queue, E275."""
    share = TIMESTEPS / backbone.schedule.length
    return sum(t * share <= enter for t, _ in backbone.schedule.step_pairs(steps))


def condition_of(backbone: Backbone, params: Params, rule: Rule) -> Condition:
    """The condition: the prompt, behind it the reference's text, and the picture where the model looks at it."""
    image = shown(params.reference) if params.reference and rule.look and backbone.reads_images else None
    extra = [params.reference_text] if params.reference_text else []
    return backbone.condition([params.source_prompt], image, params.unwanted, extra)
