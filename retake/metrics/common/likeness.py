"""How much a picture looks like a reference picture, and like words, to CLIP: what clip_score and cass share.

likeness = 100 x cos(E(picture), E(reference or words))        -100..100, not clamped
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from retake.machine.device import INERT, Device
from retake.metrics.common.crop import whole
from retake.metrics.common.sample import Frame, ImagesAndTexts, cosine


class ClipParams(BaseModel, frozen=True, extra="forbid"):
    """Which CLIP looks, and where it runs."""

    weights: str = Field(
        default="clip_vit_b_32",
        description="CLIP: a catalogue name, a local folder or org/repo",
        json_schema_extra={"weights": ""},
    )
    device: Device = Field(default="auto", description="where the network runs", json_schema_extra=INERT)


def load_clips(weights: Mapping[str, str], device: str) -> dict[str, Any]:
    """Role -> CLIP, loaded from local weights by reference. Raises MachineError E302 when they are missing."""
    from retake.networks import clip

    return {role: clip.load(reference, device) for role, reference in weights.items()}


class Likeness:
    """What pictures are held against: a reference picture (its alpha is honoured) and words, each embedded once.

    `reference`, `words`: float32 [D], or None where it was not given or there is no network. Raises MediaError E400,
    E401, E420 or E421 when the reference cannot be read.
    """

    def __init__(self, clip: ImagesAndTexts | None, reference: str | None, words: str | None) -> None:
        self.clip = clip
        self.reference: NDArray[np.float32] | None = None
        self.words: NDArray[np.float32] | None = None
        if clip is not None and reference:
            from retake.video import read_image

            self.reference = clip.images(whole(read_image(reference))[None])[0]
        if clip is not None and words:
            self.words = clip.texts([words])[0]

    def vectors(self, result: Frame | None, source: Frame | None) -> NDArray[np.float32] | None:
        """Two uint8 [H, W, 3] of one size -> float32 [2, D]; None where a picture or the network is missing."""
        if self.clip is None or result is None or source is None:
            return None
        return self.clip.images(np.stack([result, source]))


def scores(seen: NDArray[np.float32] | None, wanted: NDArray[np.float32] | None) -> tuple[float, float]:
    """Likeness of the result and of the source, from their vectors [2, D] and the wanted one [D]; NaN without them."""
    if seen is None or wanted is None:
        return math.nan, math.nan
    return 100 * cosine(seen[0], wanted), 100 * cosine(seen[1], wanted)
