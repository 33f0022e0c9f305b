"""Motion smoothness of VBench: how well every second frame is guessed from its two neighbours. Higher is better.

    score = (255 - mean over dropped frames of MAE(x_t, midpoint(x_{t-1}, x_{t+1}))) / 255        0..1, t odd

MAE is over pixels and channels, in levels 0..255. The last frame of a clip of even length is never guessed.

Source: Huang et al., VBench, CVPR 2024, motion smoothness, whose midpoints come from AMT-S (Li et al., CVPR 2023).
`interpolator: flow` puts other midpoints in its place, made from DIS optical flow without any weights: a definition of
its own, whose numbers are not VBench's and are named so.

For an edit the informative number is the difference to the source. A frozen picture scores 1: read it beside dynamics,
which guard.py does.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from retake.machine import device
from retake.machine.device import Device
from retake.metrics.common.sample import Frame, Interpolator, Result, Sample
from retake.metrics.common.values import same_size

VERSION = 1
NEEDS: tuple[str, ...] = ()
DESCRIPTIONS = {
    "smoothness": ("1 - mean absolute error of midpoints against the frames dropped / 255, result", "higher"),
    "smoothness_source": ("the same of the source", "higher"),
    "smoothness_delta": ("result minus source; below 0: the edit moves less smoothly than its source", "higher"),
}


class Params(BaseModel, frozen=True, extra="forbid"):
    """Who guesses the dropped frames."""

    name: Literal["smoothness"] = Field(default="smoothness", description="the metric's name")
    interpolator: Literal["amt_s", "flow"] = Field(
        default="amt_s",
        description="amt_s is VBench's and needs its weights and the package vbench; flow needs neither, and its "
        "numbers are not VBench's",
    )
    weights: str = Field(
        default="amt_s",
        description="weights of amt_s: a catalogue name or a local file",
        json_schema_extra={"weights": ""},
    )
    device: Device = Field(default="auto", description="where the network runs", json_schema_extra=device.INERT)


def weights(params: Params) -> dict[str, str]:
    """Role -> reference of the weights that these settings use; none for `flow`."""
    return {"interpolator": params.weights} if params.interpolator == "amt_s" else {}


def networks(params: Params) -> dict[str, Interpolator]:
    """Role -> interpolator. Raises MachineError E302 when weights are missing, E261 when the package vbench is."""
    from retake.networks import interpolation

    if params.interpolator == "flow":
        return {"interpolator": interpolation.Flow()}
    return {"interpolator": interpolation.load_amt(params.weights, params.device)}


class Metric:
    """Accumulates motion smoothness of a result and of its source. Keeps two frames of each."""

    def __init__(self, params: Params, *, interpolator: Interpolator) -> None:
        self.params, self.interpolator = params, interpolator
        self._values: dict[str, dict[int, float]] = {name: {} for name in DESCRIPTIONS}
        self._even: tuple[Frame, Frame] | None = None
        self._odd: tuple[Frame, Frame] | None = None

    def networks(self) -> dict[str, str]:
        """Value name -> the network that it comes from."""
        return dict.fromkeys(DESCRIPTIONS, self.interpolator.name)

    def update(self, sample: Sample) -> None:
        """Take the next frame, in order. Raises MediaError E440 when sizes differ."""
        same_size(source=sample.source, result=sample.result)
        here = sample.result, sample.source
        if sample.t % 2:
            self._odd = here
            return
        if self._even is not None and self._odd is not None:
            mine, source = (
                guessed(self.interpolator, before, dropped, after)
                for before, dropped, after in zip(self._even, self._odd, here, strict=True)
            )
            for name, value in zip(DESCRIPTIONS, (mine, source, mine - source), strict=True):
                self._values[name][sample.t - 1] = value
        self._even = here

    def result(self) -> Result:
        """Everything taken so far. The value of a dropped frame stands at that frame."""
        return Result(self._values)


def guessed(interpolator: Interpolator, before: Frame, dropped: Frame, after: Frame) -> float:
    """(255 - MAE) / 255 of one dropped frame, uint8 [H, W, 3] each: 1 = guessed exactly."""
    import cv2

    return 1 - float(cv2.absdiff(dropped, interpolator.midpoint(before, after)).mean()) / 255
