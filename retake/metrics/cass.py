"""CASS, our definition: does the result move towards the reference and away from what the source was? Higher is better.

With likeness = 100 x cosine of two CLIP embeddings, V the source and V' the result, each a mean over frames:

    cass_image = CLIP-I(V', reference) - CLIP-I(V, reference)                     how much nearer the reference
    cass_text  = CLIP-T(V', source prompt) - CLIP-T(V, source prompt)             how much nearer the source's own words
    CASS       = cass_image - cass_text                                           0 for no edit at all
    relCASS    = CASS / (CLIP-I(V, reference) + CLIP-T(V, source prompt))         no number unless this is positive

relCASS is a ratio of means over the clip. Its denominator is a sum of cosines: on networks whose embeddings are centred
it comes near zero and changes sign, and then the ratio says nothing of the result. No single denominator fits the
published pairs of CASS and relCASS (4.01, 3.97, 1.19 in one table, 51 to 147 and -1.7 in the other), which a mean of
such ratios would explain. So there is no value where the denominator is not positive; where it is small, distrust the
value, and take CASS.

What fools it: frames that show the reference and nothing else win. Read it beside `ssim` and `psnr_unedited`. The two
terms live on different scales (pictures are nearer to pictures than to words), so their sum favours cass_image.

Source: the name, and that it measures alignment with the reference, from MoCA-Video (arXiv 2506.01004) and its README,
"directional concept alignment". The formula was not found: this is ours, so values must not be set beside published
ones as if they were the same. Whole frames (`where: frame`) are inferred.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from retake.metrics.common.crop import square
from retake.metrics.common.likeness import ClipParams, Likeness, load_clips, scores
from retake.metrics.common.sample import NO_REGION, ImagesAndTexts, Result, Sample
from retake.metrics.common.values import mean, same_size

VERSION = 2
NEEDS = ("region",)
DESCRIPTIONS = {
    "cass": ("cass_image minus cass_text, our definition: towards the reference, away from the source", "higher"),
    "relcass": ("cass over the source's own likeness to both, our definition", "higher"),
    "cass_image": ("100 x cosine with the reference picture, result minus source, our definition", "higher"),
    "cass_text": ("100 x cosine with the source's own prompt, result minus source, our definition", "lower"),
}
NO_REFERENCE = "no reference picture: metrics.cass.reference=IMAGE"
NO_PROMPT = "no words for the source: metrics.cass.source_prompt='...'"


class Params(ClipParams, frozen=True):
    """What the result should come near, what it should leave, and which CLIP looks."""

    name: Literal["cass"] = Field(default="cass", description="the metric's name")
    reference: str | None = Field(
        default=None,
        description="picture whose looks the edit brings in (alpha is honoured); null: no CASS",
        json_schema_extra={"file": ""},
    )
    source_prompt: str | None = Field(
        default=None, description="words for the SOURCE, not for the result; null: no CASS"
    )
    where: Literal["frame", "edit"] = Field(
        default="frame", description="what CLIP looks at: the whole frame, or the square around the edited region"
    )


def weights(params: Params) -> dict[str, str]:
    """Role -> reference of the weights that these settings use; none without a reference and words."""
    return {"clip": params.weights} if params.reference or params.source_prompt else {}


def networks(params: Params) -> dict[str, ImagesAndTexts]:
    """Role -> network, loaded from local weights. Raises MachineError E302 when they are missing."""
    return load_clips(weights(params), params.device)


class Metric:
    """Accumulates CASS of a result. The reference and the words are embedded once.

    Raises MediaError E400, E401, E420 or E421 when the reference cannot be read.
    """

    def __init__(self, params: Params, *, clip: ImagesAndTexts | None = None) -> None:
        self.params, self.clip = params, clip
        self._likeness = Likeness(clip, params.reference, params.source_prompt)
        self._values: dict[str, dict[int, float]] = {name: {} for name in ("cass", "cass_image", "cass_text")}
        self._own: list[float] = []  # the source's likeness to both, of frames that have a CASS

    def networks(self) -> dict[str, str]:
        """Value name -> the network that it comes from."""
        return dict.fromkeys(DESCRIPTIONS, self.clip.name) if self.clip else {}

    def update(self, sample: Sample) -> None:
        """Take the next frame, in order. Raises MediaError E440 when sizes differ."""
        same_size(source=sample.source, result=sample.result, region=sample.region)
        mine, source = sample.result, sample.source
        if self.params.where == "edit":
            mine, source = (square(frame, sample.region, blank=False) for frame in (mine, source))
        seen = self._likeness.vectors(mine, source)
        image, image_source = scores(seen, self._likeness.reference)
        text, text_source = scores(seen, self._likeness.words)
        changes = {"cass_image": image - image_source, "cass_text": text - text_source}
        changes["cass"] = changes["cass_image"] - changes["cass_text"]
        for name, value in changes.items():
            self._values[name][sample.t] = value
        self._own.append(image_source + text_source if math.isfinite(changes["cass"]) else math.nan)

    def result(self) -> Result:
        """Everything taken so far; `reasons` says what was not given."""
        cass, own = mean(self._values["cass"].values()), mean(self._own)
        relative = cass / own if own > 0 else math.nan
        unseen = [NO_REGION] if self.params.where == "edit" else []
        image = unseen if self.params.reference else [NO_REFERENCE]
        text = unseen if self.params.source_prompt else [NO_PROMPT]
        lacks = {"cass_image": image, "cass_text": text, "cass": [*dict.fromkeys(image + text)]}
        why = {name: "; ".join(reasons) for name, reasons in lacks.items() if reasons}
        if own <= 0:
            why["relcass"] = f"the source's own likeness to reference and words is {own:.2f}: nothing to divide by"
        elif "cass" in why:
            why["relcass"] = why["cass"]
        return Result(self._values, why, {"relcass": relative})
