"""Background preservation: PSNR, SSIM and L1 over the pixels that the edit had to leave alone; and how much it changed
of the others, without which no score of steadiness says anything: what is not edited at all is as steady as the source.

    PSNR = -10 log10( mean over p in R of (s(p) - x(p))^2 )     dB, data range 1, at most 100     higher
    SSIM = mean over R eroded by 5 px of the SSIM map           -1..1                             higher
    L1   = mean over p in R of |s(p) - x(p)|                     0..1                              lower

    change = mean over p in the edited region of |s(p) - x(p)|  0..1                              neither is better

R is the unedited region, True = not edited; squares and differences are means over the three channels.
The erosion keeps the 11x11 window of SSIM off edited pixels. A frame whose region is empty has no value.

SSIM: Wang et al., Image Quality Assessment, IEEE TIP 2004, with torchmetrics' conventions: Gaussian
window of sigma 1.5 and 11x11 taps, K1 = 0.01, K2 = 0.03, data range 1, reflected borders, no crop.

Mode `pnp_product` repeats what much published code does, for comparison with such tables only: both
images are multiplied by R and averaged over ALL pixels. Its PSNR is too large by 10 log10(H W / |R|) dB,
and its SSIM and L1 are diluted alike. It is reported under names of its own.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from retake.metrics.common.sample import Result, Sample
from retake.metrics.common.values import same_size, unit

VERSION = 2
NEEDS = ("region",)
DESCRIPTIONS = {
    "psnr_unedited": ("PSNR to the source over the unedited region, dB, at most 100", "higher"),
    "ssim_unedited": ("SSIM to the source over the unedited region, eroded by 5 px", "higher"),
    "l1_unedited": ("mean absolute difference to the source over the unedited region, 0..1", "lower"),
    "change_edited": ("mean absolute difference to the source in the edited region, 0..1: how much was edited", ""),
    "psnr_pnp_product": ("PSNR of masked images over all pixels, dB: too large, to compare tables", "higher"),
    "ssim_pnp_product": ("SSIM of masked images over all pixels: diluted, to compare tables", "higher"),
    "l1_pnp_product": ("L1 of masked images over all pixels: diluted, to compare tables", "lower"),
}
CAP = 100.0  # dB; identical pixels would be infinite, and one such frame would swallow the mean
WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2


class Params(BaseModel, frozen=True, extra="forbid"):
    """How the region enters the averages."""

    name: Literal["region"] = Field(default="region", description="the metric's name")
    mode: Literal["region", "pnp_product"] = Field(
        default="region", description="average over the region, or over all pixels of images multiplied by it"
    )
    margin: int = Field(
        default=4, description="px around the mask that count as edited too: edits have soft edges there", ge=0, le=64
    )


class Scores(NamedTuple):
    """One frame: PSNR in dB, SSIM, L1 in 0..1. NaN where the region has no pixel for it."""

    psnr: float
    ssim: float
    l1: float


def psnr(mse: float) -> float:
    """Mean squared error of values in 0..1 -> dB, at most `CAP`; NaN stays NaN."""
    return mse if math.isnan(mse) else min(CAP, -10 * math.log10(mse)) if mse > 0 else CAP


def ssim_map(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float32]:
    """SSIM at every pixel, mean over channels: two [H, W, 3] of uint8, or float in 0..1 -> [H, W] in -1..1.

    Written in s = a + b and d = a - b, whose moments give those of a and b: four blurs in place of five,
    exactly 1 for equal images, and no cancellation between two nearly equal variances.
    """
    import cv2

    def blur(image: NDArray[Any]) -> NDArray[Any]:
        return cv2.GaussianBlur(image, (WINDOW, WINDOW), SIGMA, borderType=cv2.BORDER_REFLECT_101)  # pyright: ignore[reportReturnType]

    a, b = unit(first), unit(second)
    s, d = a + b - 1, a - b  # centred: variances do not change, float32 rounding shrinks
    mean_s, mean_d = blur(s), blur(d)
    var_s = np.maximum(blur(s * s) - mean_s * mean_s, 0) / 2
    var_d = np.maximum(blur(d * d) - mean_d * mean_d, 0) / 2
    mean_s, mean_d = np.square(mean_s + 1) / 2, np.square(mean_d) / 2
    upper = (mean_s - mean_d + C1) * (var_s - var_d + C2)
    lower = (mean_s + mean_d + C1) * (var_s + var_d + C2)
    return (upper / lower).mean(-1)


def erode(region: NDArray[np.bool_], pixels: int = WINDOW // 2) -> NDArray[np.bool_]:
    """The region without its outer `pixels` (square neighbourhood). The frame's own border does not erode:
    SSIM mirrors there, so its window holds pixels of the region only."""
    import cv2

    side = 2 * pixels + 1
    return cv2.erode(region.astype(np.uint8), np.ones((side, side), np.uint8)).astype(bool)


def frame(source: NDArray[Any], result: NDArray[Any], region: NDArray[np.bool_], mode: str = "region") -> Scores:
    """Scores of one frame.

    source, result: uint8 [H, W, 3], or float in 0..1. region: bool [H, W], True = NOT edited.
    mode: "region" or "pnp_product". Raises MediaError E440 when sizes differ.
    """
    same_size(source=source, result=result, region=region)
    if mode == "pnp_product":
        keep = region[..., None]
        return frame(source * keep, result * keep, np.ones_like(region))
    if not region.any():
        return Scores(math.nan, math.nan, math.nan)
    difference = (unit(source) - unit(result))[region]
    mse = float(np.square(difference).mean(dtype=np.float64))
    inside = erode(region)
    if not inside.any():
        structure = math.nan
    elif mse == 0:
        structure = 1.0  # every window of `inside` lies in the region, where the frames are equal
    else:
        structure = float(ssim_map(source, result).mean(where=inside, dtype=np.float64))
    return Scores(psnr(mse), structure, float(np.abs(difference).mean(dtype=np.float64)))


class Metric:
    """Accumulates background preservation over the frames of a clip."""

    def __init__(self, params: Params) -> None:
        self.params = params
        ending = "unedited" if params.mode == "region" else params.mode
        self._values: dict[str, dict[int, float]] = {name: {} for name in DESCRIPTIONS if name.endswith(f"_{ending}")}
        self._change: dict[int, float] = {}

    def update(self, sample: Sample) -> None:
        """Take the next frame, in order; one without a region has no value. The region grows by `margin` px first.

        Raises MediaError E440 when sizes differ.
        """
        if sample.region is None:
            return
        unedited = erode(~sample.region, self.params.margin)
        scores = frame(sample.source, sample.result, unedited, self.params.mode)
        for series, value in zip(self._values.values(), scores, strict=True):
            series[sample.t] = value
        edited = np.abs(unit(sample.source[sample.region]) - unit(sample.result[sample.region]))
        self._change[sample.t] = float(edited.mean(dtype=np.float64)) if edited.size else math.nan

    def result(self) -> Result:
        """Everything taken so far, of the chosen mode."""
        return Result({**self._values, "change_edited": self._change}, why=None)
