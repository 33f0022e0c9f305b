"""What a stage with a diffusion model takes, looked up: operations and memory, before anything heavy is imported.

costs.json holds, for the models of params/model/ at their own clip size, what measure.py found on the meta device. Here
those figures are put together for a stage: how many windows a clip makes, how often the network is asked, and what
lies in memory at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from retake.diffusion.control_branch import NOTHING, Beside
from retake.diffusion.model import Model

TABLE = Path(__file__).with_name("costs.json")
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
Work = Literal["text", "encode", "decode", "evaluation", "gradient"]
WORKS: tuple[Work, ...] = get_args(Work)
Stage = Literal["latents", "inversion", "edit"]
# Which networks are at work; the others only lie there.
ROLES: dict[str, tuple[str, ...]] = {
    "text": ("text_encoder", "image_encoder"),
    "encode": ("vae",),
    "decode": ("vae",),
    "evaluation": ("network",),
    "gradient": ("network",),
}


class Tally(NamedTuple):
    """flops: floating-point operations, a multiplication and an addition are two. peak: bytes of live tensors beside
    the weights."""

    flops: int
    peak: int


@dataclass(frozen=True)
class Cost:
    """One model on one clip of its own size.

    parameters: numbers by role (network, vae, text_encoder, image_encoder). layers: of those, the most in one layer.
    works: `text` encodes one prompt, of models that read none one
    picture; `encode` and `decode` take the whole clip through the VAE, chunk by chunk;
    `evaluation` is the network once (guidance makes a batch of two of it); `gradient` runs it up to `site` and back to
    the latents.
    """

    family: str
    frames: int
    height: int
    width: int
    dtype: str
    time: int
    site: str
    parameters: Mapping[str, int]
    layers: Mapping[str, int]
    works: Mapping[str, Tally]

    def latent_frames(self, frames: int) -> int:
        """Latent frames of a clip of so many."""
        return 1 + -(-(frames - 1) // self.time)

    def weights(self, dtype: str | None = None) -> int:
        """Bytes of all weights."""
        return sum(self.parameters.values()) * BYTES[dtype or self.dtype]

    def memory(self, work: Work, offload: str = "none", batch: int = 1, dtype: str | None = None) -> int:
        """Bytes at the peak of a work on `batch` clips: its activations, and the weights that lie beside them. These
        are all of them without offload, with `model` the one at work, with `sequential` the largest layer of the
        denoiser or the whole of another (loading/offload.py)."""
        size = BYTES[dtype or self.dtype]
        roles = [role for role in ROLES[work] if role in self.parameters]
        if offload == "none":
            weights = sum(self.parameters.values())
        else:
            streamed = self.layers if offload == "sequential" else {}
            weights = max(streamed[role] if role == "network" and streamed else self.parameters[role] for role in roles)
        return weights * size + self.works[work].peak * batch * size // BYTES[self.dtype]


class Predicted(NamedTuple):
    """flops: of the whole stage. memory: bytes at its peak on the device. evaluations: how often a window goes through
    the network; with guidance two for one."""

    flops: int
    memory: int
    evaluations: int


def predicted(
    model: Model,
    stage: Stage,
    frames: int,
    *,
    steps: int = 50,
    guidance: float = 1.0,
    iterations: int = 0,
    overlap: int = 0,
    gradients: int = 0,
    branch: Beside = NOTHING,
    queue: tuple[int, int] | None = None,
) -> Predicted | None:
    """What a stage takes for a clip of so many frames; None for a model or clip size that costs.json does not hold.

    steps: of denoising or inversion, those that are made. iterations: refinements of each step of an inversion (they
    may end earlier). overlap: of windows, in latent frames. gradients: how many of the steps take a gradient of the
    network's features as well. branch: what works beside the network in all of them. queue: of diagonal denoising, in
    place of steps and overlap: its levels, and the frames of a window that are only looked at.
    """
    cost = table().get(model.name)
    if cost is None or cost.family != model.family:
        return None
    if (cost.height, cost.width) != (model.height, model.width):
        return None
    if stage != "latents" and cost.frames != model.frames:  # the autoencoder goes chunk by chunk, whatever the window
        return None
    if queue is None:
        windows = window_count(cost, frames, overlap)
    else:  # one frame comes out an iteration; before the first, the queue fills
        levels, ahead = queue
        most = min(levels, cost.latent_frames(frames))  # frames that are in the queue at once
        windows = -(-most // max(cost.latent_frames(cost.frames) - ahead, 1))
        steps = cost.latent_frames(frames) + levels
    batch, halves = min(model.batch, windows), 1 if guidance == 1.0 else 2
    pixels = frames / cost.frames  # of the clip that was tallied

    def memory(work: Work, clips: int = 1) -> int:
        return cost.memory(work, model.offload, clips, model.dtype)

    works = cost.works
    if stage == "latents":
        alone = cost.memory("encode", "model", dtype=model.dtype)  # only the autoencoder is loaded
        return Predicted(round(works["encode"].flops * pixels), alone, 0)
    if stage == "inversion":
        asked = windows * steps * (1 + iterations)
        flops = works["text"].flops + asked * works["evaluation"].flops
        return Predicted(flops, max(memory("text"), memory("evaluation", batch)), asked)
    asked = windows * steps * halves
    flops = halves * works["text"].flops + round(asked * works["evaluation"].flops * (1 + branch.share))
    flops += round((works["decode"].flops + branch.videos * works["encode"].flops) * pixels)
    flops += windows * gradients * works["gradient"].flops
    evaluation = memory("evaluation", batch * halves) + branch.parameters * BYTES[model.dtype]
    most = max(memory("text"), evaluation, memory("decode"))
    return Predicted(flops, max(most, memory("gradient", batch)) if gradients else most, asked)


def window(model: Model) -> int:
    """Latent frames that a model sees at once."""
    cost = table().get(model.name)
    return cost.latent_frames(model.frames) if cost else model.frames


def window_count(cost: Cost, frames: int, overlap: int = 0) -> int:
    """How many windows of the model's length cover a clip, neighbours sharing at least `overlap` latent frames."""
    count, length = cost.latent_frames(frames), cost.latent_frames(cost.frames)
    return 1 if count <= length else 1 + -(-(count - length) // max(length - overlap, 1))


@cache
def table() -> Mapping[str, Cost]:
    """costs.json, by the names of models."""
    return {name: from_json(entry) for name, entry in json.loads(TABLE.read_text(encoding="utf-8")).items()}


def from_json(entry: Mapping[str, Any]) -> Cost:
    """One entry of the table."""
    works = {work: Tally(*numbers) for work, numbers in entry["works"].items()}
    return Cost(**{**entry, "works": works})
