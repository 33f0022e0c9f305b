"""CLIP scores: does the edit look like its reference picture, and like its prompt? Higher is better.

    score = 100 x mean over frames of cos(E(picture), E(reference or prompt))        -100..100, not clamped

CLIP-I compares the square around the edited region with the reference picture. CLIP-T compares the whole frame
(`clip_t`) and that square (`clip_t_edit`) with the prompt's words. The source's own scores are the floor: what the
clip scored before the edit. Picture-picture and picture-text scores live on different scales (unrelated pictures
score far above unrelated words): compare each with its own floor, never with each other.

Source: Hessel et al., CLIPScore, EMNLP 2021, with the factor 100 and without its clamp at 0, as the clip-score
package computes it; CLIP-I as in Ruiz et al., DreamBooth, CVPR 2023.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from retake.metrics.common.crop import square
from retake.metrics.common.likeness import ClipParams, Likeness, load_clips, scores
from retake.metrics.common.sample import NO_REGION, ImagesAndTexts, Result, Sample
from retake.metrics.common.values import same_size

VERSION = 2
NEEDS = ("region",)
DESCRIPTIONS = {
    "clip_i": ("100 x cosine of the edited region's square and the reference picture", "higher"),
    "clip_i_source": ("the same of the source: the floor", "higher"),
    "clip_t": ("100 x cosine of the whole frame and the prompt", "higher"),
    "clip_t_source": ("the same of the source: the floor", "higher"),
    "clip_t_edit": ("100 x cosine of the edited region's square and the prompt", "higher"),
    "clip_t_edit_source": ("the same of the source: the floor", "higher"),
}
NO_REFERENCE = "no reference picture: metrics.clip_score.reference=IMAGE"
NO_PROMPT = "no prompt: metrics.clip_score.prompt='...'"


class Params(ClipParams, frozen=True):
    """What the edit is compared with, and which CLIP looks."""

    name: Literal["clip_score"] = Field(default="clip_score", description="the metric's name")
    reference: str | None = Field(
        default=None,
        description="picture that the edited region should look like (alpha is honoured); null: no CLIP-I",
        json_schema_extra={"file": ""},
    )
    prompt: str | None = Field(default=None, description="words that the result should look like; null: no CLIP-T")


def weights(params: Params) -> dict[str, str]:
    """Role -> reference of the weights that these settings use; none without a reference and a prompt."""
    return {"clip": params.weights} if params.reference or params.prompt else {}


def networks(params: Params) -> dict[str, ImagesAndTexts]:
    """Role -> network, loaded from local weights. Raises MachineError E302 when they are missing."""
    return load_clips(weights(params), params.device)


class Metric:
    """Accumulates CLIP scores of a result and of its source. The reference and the prompt are embedded once.

    Raises MediaError E400, E401, E420 or E421 when the reference cannot be read.
    """

    def __init__(self, params: Params, *, clip: ImagesAndTexts | None = None) -> None:
        self.params, self.clip = params, clip
        self._values: dict[str, dict[int, float]] = {name: {} for name in DESCRIPTIONS}
        self._likeness = Likeness(clip, params.reference, params.prompt)

    def networks(self) -> dict[str, str]:
        """Value name -> the network that it comes from."""
        return dict.fromkeys(DESCRIPTIONS, self.clip.name) if self.clip else {}

    def update(self, sample: Sample) -> None:
        """Take the next frame, in order. Raises MediaError E440 when sizes differ."""
        same_size(source=sample.source, result=sample.result, region=sample.region)
        like, both = self._likeness, (sample.result, sample.source)
        frames = like.vectors(*both) if like.words is not None else None
        crops = like.vectors(*(square(frame, sample.region, blank=False) for frame in both))
        for name, seen, wanted in (
            ("clip_i", crops, like.reference),
            ("clip_t", frames, like.words),
            ("clip_t_edit", crops, like.words),
        ):
            mine, source = scores(seen, wanted)
            self._values[name][sample.t], self._values[name + "_source"][sample.t] = mine, source

    def result(self) -> Result:
        """Everything taken so far; `reasons` says what was not given."""
        why = dict.fromkeys(DESCRIPTIONS, NO_REGION)
        for name in DESCRIPTIONS:
            if name.startswith("clip_i") and not self.params.reference:
                why[name] = NO_REFERENCE
            elif name.startswith("clip_t") and not self.params.prompt:
                why[name] = NO_PROMPT
        return Result(self._values, why)
