"""Subject and background consistency of VBench: how alike each frame is to the one before it and to the first.

    score = mean over t >= 1 of 1/2 [ max(0, cos(f_t, f_{t-1})) + max(0, cos(f_t, f_0)) ]        0..1, higher is better

Subject: f is the class token of DINO ViT-B/16. Background: f is CLIP's image embedding, of the whole frame in spite of
the name. Both see frames as VBench prepares them.

Source: Huang et al., VBench, CVPR 2024. For an edit the informative numbers are the differences to the source: motion
that both share cancels. A frozen picture scores 1: read them beside dynamics, which guard.py does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from retake.machine import device
from retake.machine.device import Device
from retake.metrics.common.sample import Images, Result, Sample, cosine
from retake.metrics.common.values import same_size

Dimension = Literal["subject", "background"]

VERSION = 1
NEEDS: tuple[str, ...] = ()
DESCRIPTIONS = {
    "subject_consistency": ("likeness of frames to the one before and to the first, DINO, result, 0..1", "higher"),
    "subject_consistency_source": ("the same of the source", "higher"),
    "subject_consistency_delta": ("result minus source", "higher"),
    "background_consistency": ("likeness of frames to the one before and to the first, CLIP, result, 0..1", "higher"),
    "background_consistency_source": ("the same of the source", "higher"),
    "background_consistency_delta": ("result minus source", "higher"),
}


class Params(BaseModel, frozen=True, extra="forbid"):
    """Which of the two, and which networks look."""

    name: Literal["consistency"] = Field(default="consistency", description="the metric's name")
    dimensions: tuple[Dimension, ...] = Field(
        default=("subject", "background"), description="VBench dimensions to score"
    )
    subject_weights: str = Field(
        default="dino_vit_b_16",
        description="DINO ViT: a catalogue name, a local folder or org/repo",
        json_schema_extra={"weights": ""},
    )
    background_weights: str = Field(
        default="clip_vit_b_32",
        description="CLIP: a catalogue name, a local folder or org/repo",
        json_schema_extra={"weights": ""},
    )
    device: Device = Field(default="auto", description="where the networks run", json_schema_extra=device.INERT)


def weights(params: Params) -> dict[str, str]:
    """Role -> reference of the weights that these settings use."""
    both: dict[str, str] = {"subject": params.subject_weights, "background": params.background_weights}
    return {role: both[role] for role in params.dimensions}


def networks(params: Params) -> dict[str, Images]:
    """Role -> network, loaded from local weights. Raises MachineError E302 when they are missing."""
    from retake.networks import clip, dino
    from retake.weights.local import require

    wanted = weights(params)
    for reference in wanted.values():
        require(reference)
    loaded: dict[str, Images] = {}
    if "subject" in wanted:
        loaded["subject"] = dino.load(wanted["subject"], params.device)
    if "background" in wanted:
        loaded["background"] = clip.load(wanted["background"], params.device, preparation="vbench")
    return loaded


def without(params: Params, roles: Collection[str]) -> Params:
    """The settings without the dimensions whose network is not here."""
    return params.model_copy(update={"dimensions": tuple(d for d in params.dimensions if d not in roles)})


class Metric:
    """Accumulates both consistencies of a result and of its source. Keeps the first and the last embedding only."""

    def __init__(self, params: Params, *, subject: Images | None = None, background: Images | None = None) -> None:
        self.params = params
        given: Mapping[str, Images | None] = {"subject": subject, "background": background}
        self._networks = {role: network for role, network in given.items() if network is not None}
        ends = ("", "_source", "_delta")
        self._values: dict[str, dict[int, float]] = {
            f"{r}_consistency{end}": {} for r in self._networks for end in ends
        }
        self._first: dict[str, np.ndarray] = {}
        self._before: dict[str, np.ndarray] = {}

    def networks(self) -> dict[str, str]:
        """Value name -> the network that it comes from."""
        return {name: self._networks[name.partition("_")[0]].name for name in self._values}

    def update(self, sample: Sample) -> None:
        """Take the next frame, in order. Raises MediaError E440 when sizes differ."""
        same_size(source=sample.source, result=sample.result)
        for role, network in self._networks.items():
            here = network.images(np.stack([sample.result, sample.source]))
            if role in self._before:
                mine, source = (likeness(here[i], self._before[role][i], self._first[role][i]) for i in (0, 1))
                for end, value in (("", mine), ("_source", source), ("_delta", mine - source)):
                    self._values[f"{role}_consistency{end}"][sample.t] = value
            self._first.setdefault(role, here)
            self._before[role] = here

    def result(self) -> Result:
        """Everything taken so far. The value of frame t stands at t: it compares t with t-1 and with the first."""
        return Result(self._values)


def likeness(here: np.ndarray, before: np.ndarray, first: np.ndarray) -> float:
    """VBench's score of one frame from embeddings [D]: 1/2 [max(0, cos to before) + max(0, cos to first)]."""
    return (max(0.0, cosine(here, before)) + max(0.0, cosine(here, first))) / 2
