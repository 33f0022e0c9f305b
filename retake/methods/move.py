"""Move what is already in the clip, without a model: the clip as layers (retake/recomposition/), its objects laid where
their edited tracks are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from retake.formats import MaskSeries, chunk_range
from retake.machine.threads import single_threaded
from retake.methods import Inputs, Patch
from retake.methods.patches import assembled
from retake.recomposition.background import Background
from retake.recomposition.scene import Scene

VERSION = 1
NEEDS = ("masks", "edited_tracks")
UNSEEN = "of the background behind what moved is seen in no frame"


class Params(BaseModel, frozen=True, extra="forbid"):
    """How the objects sit on the picture. Lengths in working pixels."""

    name: Literal["move"] = "move"
    order: tuple[int, ...] = Field(
        (), description="ids of objects from back to front; moved ones that are not named lie in front of all"
    )
    feather: float = Field(2.0, ge=0.5, le=100, description="width of an object's soft edge")
    grow: float = Field(0.0, ge=-50, le=50, description="how far an object's edge is moved outwards")
    margin: float = Field(4.0, ge=0, le=100, description="how far beyond a mask the background is taken from elsewhere")


def edit(
    latents: None, backbone: None, priors: Mapping[str, Any], inputs: Inputs, params: Params, rng: np.random.Generator
) -> Iterator[Patch]:
    """One Patch a chunk. Raises ConfigError E238 where `order` names an object that the masks do not hold."""
    masks: MaskSeries = priors["masks"]
    with single_threaded():
        scene = Scene(inputs.frames, masks, priors["edited_tracks"], params)
        behind = Background(inputs.frames, (scene.hole(t) for t in range(len(masks))), inputs.scratch)
        for state in inputs.kept():
            if int(state["chunk"]) == inputs.first_chunk:
                behind.restore(state)
                scene.outside = dict(zip(masks.ids, state["outside"].tolist(), strict=True))
        for index in range(inputs.first_chunk, inputs.frames.chunks()):
            before = {**behind.state(), **scene.state(), "chunk": np.array(index)}
            patch = assembled([scene.render(t, behind) for t in chunk_range(index, len(masks))])
            # A kill may come before the chunk is committed or after it: both have what they go on from.
            inputs.keep([before, {**behind.state(), **scene.state(), "chunk": np.array(index + 1)}])
            yield patch
    if behind.unseen:
        share = behind.unseen / behind.asked
        inputs.tell(f"{max(share, 0.01):.0%} {UNSEEN}: filled from its surroundings")
    for identity, count in scene.outside.items():
        if count:
            inputs.tell(f"object {identity} is moved out of the picture on {count} of {len(masks)} frames")
