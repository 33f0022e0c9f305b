"""MotionV2V: a clip made anew with the same content and another motion, by a video transformer with a control branch.

The branch reads three videos: the tracks as they shall be, the tracks as they are, and the clip itself; points are
soft blobs, of one colour in both. Denoising starts from pure noise. Source: MotionV2V (Burgert et al. 2025,
https://arxiv.org/abs/2511.20640, sec. 3 and 4): about twenty points, and a target that is shaken a little, since a
branch copies the clip where both tracks agree for long. Theirs makes all of the frame anew; `area` can keep it to where
something moves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from retake.diffusion import control_branch
from retake.diffusion.control_branch import Beside
from retake.errors import ConfigError
from retake.formats import CHUNK, LatentSeries
from retake.imaging.signed import to_signed
from retake.methods import Inputs, Patch
from retake.methods.canvas import begun, chunk_starts, edge, painted, parts_of, source_of, touched_cells
from retake.video import resize

if TYPE_CHECKING:
    from retake.diffusion.backbone import Backbone, Condition
    from retake.diffusion.model import Model
    from retake.diffusion.sampling.windows import Reel
    from retake.methods.motionv2v.control_points import Pictures, Told

VERSION = 3
NEEDS = ("latents", "masks", "tracks", "edited_tracks")

KEPT = 8  # denoising steps that a kill costs at most
MANY = 20  # points beyond which the paper's network no longer follows all of them (sec. 4)


class Params(BaseModel, frozen=True, extra="forbid"):
    """What the branch is told, and how the clip is made anew. Lengths in working pixels unless said otherwise."""

    name: Literal["motionv2v"] = "motionv2v"
    branch: str = Field(
        "motionv2v",
        description="the trained control branch, made for the model: the one that ships is for model=embedded_dit; or "
        "a folder that training exported",
        json_schema_extra={"weights": ""},
    )
    prompt: str = Field("", description="text that describes the edited clip")
    unwanted: str = Field("", description="text that describes what it should not be")
    scale: float = Field(1.0, ge=0, le=4, description="weight of what the branch adds to the network; 0: no branch")
    points: int = Field(MANY, ge=1, le=512, description="points that the branch is told of, on every frame")
    jitter: float = Field(0.2, ge=0, le=5, description="by how many sigmas of their blobs target places are shaken")
    guidance: float = Field(3.0, ge=0, le=50, description="weight of the prompt, where there is one; 1: none")
    steps: int = Field(50, ge=1, le=1000, description="denoising steps from pure noise on")
    overlap: int = Field(4, ge=0, le=512, description="latent frames that windows of a long clip share")
    area: Literal["frame", "moved"] = Field(
        "frame", description="what is made anew: all of the frame, or where something was or shall be"
    )
    order: tuple[int, ...] = Field(
        (), description="with area=moved, ids of objects from back to front; others that move lie in front of all"
    )
    feather: float = Field(3.0, ge=0.5, le=100, description="with area=moved, width of the soft edge")
    grow: float = Field(2.0, ge=-50, le=50, description="with area=moved, how far the edge is moved outwards")
    margin: float = Field(4.0, ge=0, le=100, description="with area=moved, how far beyond a mask is made anew, too")
    ablation: Literal["none", "first_frame", "one_colour", "shuffled"] = Field(
        "none",
        description="for evaluations, what is kept from the branch: the clip after its first frame, which point is "
        "which, or whose path is whose",
    )
    seed: int = Field(0, ge=0, description="of the noise, the colours and the shaking")


def needs(params: Params) -> tuple[str, ...]:
    """No masks where all of the frame is made anew."""
    return tuple(name for name in NEEDS if name != "masks" or params.area == "moved")


def weights(params: Params) -> dict[str, str]:
    """The branch."""
    return {"branch": params.branch}


def check_settings(params: Params, beside: Mapping[str, Any]) -> None:
    """Raises ConfigError E258 for a model that takes no branch, or another's."""
    control_branch.check(params.branch, beside["model"])


def asked(params: Params, steps: int, window: int, frames: int) -> tuple[int, int, float, bool]:
    """What a plan reckons with: (steps, latent frames that windows share, guidance, no queue)."""
    return params.steps, params.overlap, guidance_of(params), False


def branch(params: Params, model: Model) -> Beside:
    """What works beside the model's network."""
    return control_branch.beside(params.branch, model)


def guidance_of(params: Params) -> float:
    """Without words both halves would be the same."""
    return params.guidance if params.prompt != params.unwanted else 1.0


def edit(
    latents: LatentSeries,
    backbone: Backbone,
    priors: Mapping[str, Any],
    inputs: Inputs,
    params: Params,
    rng: np.random.Generator,
) -> Iterator[Patch]:
    """One Patch a chunk of 16 frames. Every few steps the clip's latents are kept, and a killed edit goes on from
    these. Raises ConfigError E239 for a clip in which no point is followed, E238 for an object in `order` that is none,
    E258 for a branch of another model, and what the network raises."""
    from retake.diffusion.sampling.ddim import noise, sample
    from retake.diffusion.sampling.windows import Reel, Windows
    from retake.recomposition.crude import moved
    from retake.weights.local import require

    frames, shape = inputs.frames, tuple(latents.meta[name] for name in ("count", "channels", "height", "width"))
    size, area = latents.meta["pixels"][::-1], None
    if params.area == "moved":
        area = moved(frames, priors, params, size, inputs.scratch).edited
    told = told_of(latents, priors, inputs, params)
    shown = still_of(inputs, told.size) if params.ablation == "first_frame" else None
    control = control_of(backbone, latents, told, shown, inputs)
    z = Reel(inputs.scratch / "z.latents", shape)
    start = begun(z, inputs, lambda level, span: noise(params.seed, span, shape[1:]), params.steps)

    def stepped(done: int, todo: int) -> None:
        inputs.progress(params.steps - todo + done, params.steps)
        if (todo - done) % KEPT == 0:
            inputs.keep({"level": np.array(todo - done), **parts_of(at, z=z)} for at in chunk_starts(z))

    words = backbone.condition([params.prompt], None, params.unwanted)
    with backbone.controlled(require(params.branch), params.scale):
        sample(
            backbone,
            z,
            lambda spans: conditioned(words, control, spans),
            steps=params.steps,
            start=start,
            guidance=guidance_of(params),
            windows=Windows.of(backbone, shape[0], params.overlap),
            batch=inputs.batch,
            source=source_of(latents, None, backbone, params.steps, params.seed),
            mask=touched_cells(latents, len(frames), lambda t: area[t], 1, inputs.scratch)
            if area is not None
            else None,
            progress=stepped,
        )
    yield from painted(backbone, z, inputs, (lambda t: edge(area[t] > 0, params)) if area is not None else None)


def told_of(latents: LatentSeries, priors: Mapping[str, Any], inputs: Inputs, params: Params) -> Told:
    """The points that the branch is told of. Raises ConfigError E239 where there is none."""
    from retake.methods.motionv2v.control_points import Told, chosen

    tracks, edited, frames = priors["tracks"], priors["edited_tracks"], inputs.frames
    ids, stays, lost = chosen(tracks, edited, params.points)
    if not len(ids):
        raise ConfigError(
            "E239", "no point of this clip is followed: motionv2v has nothing to tell", "Try tracks.queries=grid."
        )
    if not stays:
        inputs.tell("no point of what stays is followed, so that it is free to move: tracks.queries=grid follows some")
    if lost:
        inputs.tell(
            f"on {lost} of {len(frames)} frames no point of what moves is followed: there the branch is not told where "
            "it is. Look with retake tracks show; other tracks: tracks.spacing, tracks.window, tracks=given"
        )
    if params.ablation == "shuffled" and len(ids) == 1:
        inputs.tell("edit.ablation=shuffled: a single point is told, and keeps its own path")
    if params.points > MANY:
        inputs.tell(f"edit.points={params.points}: with more than about {MANY} points the network follows some of them")
    height, width = latents.meta["pixels"]
    space, working = latents.meta["space"], (frames.width, frames.height)
    colours: Any = params.ablation if params.ablation in ("one_colour", "shuffled") else "apart"
    return Told(tracks, edited, ids, working, (width, height), space, params.jitter, colours, params.seed)


def still_of(inputs: Inputs, size: tuple[int, int]) -> Pictures:
    """The clip's first frame as a clip, at size = (width, height)."""
    picture = resize(inputs.frames[0], size)
    return lambda span: np.repeat(picture[None], len(span), 0)


def control_of(backbone: Backbone, latents: LatentSeries, told: Told, shown: Pictures | None, inputs: Inputs) -> Reel:
    """What the branch reads of every latent frame, [F, 3 C, h, w]: target tracks, source tracks, the clip or what is
    shown in its place. In a scratch file."""
    import torch

    from retake.diffusion.sampling.chunked_vae import encoded
    from retake.diffusion.sampling.windows import Reel

    count, channels, height, width = (latents.meta[name] for name in ("count", "channels", "height", "width"))
    reel = Reel(inputs.scratch / "control.latents", (count, 3 * channels, height, width))

    def coded(pictures: Pictures) -> Iterator[Any]:
        signed = lambda span: to_signed(torch.from_numpy(pictures(span).transpose(0, 3, 1, 2).copy()))  # noqa: E731
        return encoded(backbone, signed, len(inputs.frames))

    def clip() -> Iterator[Any]:
        chunks = (range(at, min(at + CHUNK, count)) for at in range(0, count, CHUNK))
        return (torch.from_numpy(latents.span(span)) for span in chunks)

    videos = coded(told.target), coded(told.source), clip() if shown is None else coded(shown)
    for index, parts in enumerate(zip(*videos, strict=True)):
        reel[index * CHUNK : index * CHUNK + len(parts[0])] = torch.cat(parts, 1)
    return reel


def conditioned(words: Condition, control: Reel, spans: Sequence[range]) -> Condition:
    """Words for several windows, and what the branch reads of each."""
    import torch

    from retake.diffusion.backbone import Condition
    from retake.diffusion.sampling.windows import repeated

    said = repeated(words, len(spans))
    read = {"control": torch.stack([control[span.start : span.stop] for span in spans])}
    return Condition({**said.positive, **read}, {**said.negative, **read})
