"""What a metric is given frame by frame, what it asks of its networks, and what it hands back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from retake.metrics.common.values import mean

Frame = NDArray[np.uint8]
NO_REGION = "no mask of the edited region (--mask, --box), or it is empty on every frame"
NO_FLOW = "no optical flow of the source was given"


class Tracks(NamedTuple):
    """Points of the SOURCE followed over N frames: xy float32 [N, P, 2] in pixels, visible bool [N, P]."""

    xy: NDArray[np.float32]
    visible: NDArray[np.bool_]


class Sample(NamedTuple):
    """Frame t of a clip, everything at one size H x W.

    source, result: uint8 RGB [H, W, 3]. region: bool [H, W], True = edited, or None.
    flow: float32 [H, W, 2] in pixels, the SOURCE's forward flow from t-1 to t on the grid of t-1, or None (at t = 0).
    fps: frames a second of the clip, or None where that is not known.
    backward: float32 [H, W, 2] in pixels, the SOURCE's flow from t back to t-1 on the grid of t; None where flow is.
    tracks: the SOURCE's points over the N frames from t on, at frames where such a window begins; None at the others.
    objects: bool [H, W] of the SOURCE's objects by id, where masks are read. scale: pixels of H x W a pixel of the
    clip, across and down.
    """

    t: int
    source: Frame
    result: Frame
    region: NDArray[np.bool_] | None = None
    flow: NDArray[np.float32] | None = None
    fps: float | None = None
    backward: NDArray[np.float32] | None = None
    tracks: Tracks | None = None
    objects: Mapping[int, NDArray[np.bool_]] | None = None
    scale: tuple[float, float] = (1.0, 1.0)


class Network(Protocol):
    """Anything that a number comes from. `name` says exactly which."""

    @property
    def name(self) -> str: ...


class Images(Network, Protocol):
    """Turns pictures into vectors."""

    def images(self, frames: Frame) -> NDArray[np.float32]:
        """uint8 [B, H, W, 3] -> float32 [B, D], not normalised."""
        ...


class ImagesAndTexts(Images, Protocol):
    """Turns pictures and words into vectors of one space."""

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """B texts -> float32 [B, D], not normalised."""
        ...


class Distance(Network, Protocol):
    """How different two pictures look."""

    def pairs(self, first: Frame, second: Frame) -> NDArray[np.float32]:
        """Two uint8 [B, H, W, 3] -> float32 [B], 0 for equal pictures."""
        ...


class Interpolator(Network, Protocol):
    """Guesses the picture half way between two."""

    def midpoint(self, first: Frame, second: Frame) -> Frame:
        """Two uint8 [H, W, 3] -> uint8 [H, W, 3]."""
        ...


@dataclass(frozen=True)
class Result:
    """values: name -> {frame: number or NaN}; whole: numbers that only the whole clip has; why: name -> the reason
    that is given when the clip has no number for it, by default that it is too short; None: no reasons are given."""

    values: Mapping[str, dict[int, float]]
    why: Mapping[str, str] | None = field(default_factory=dict)
    whole: Mapping[str, float] = field(default_factory=dict)

    def per_frame(self) -> dict[str, dict[int, float]]:
        """Name -> {frame: value}; the value of a pair of frames stands at the first of them."""
        return dict(self.values)

    def summary(self) -> dict[str, float]:
        """Name -> number for the clip: the mean of the finite values, NaN where there is none."""
        return {name: mean(series.values()) for name, series in self.values.items()} | dict(self.whole)

    def reasons(self) -> dict[str, str]:
        """Name -> why there is no number, for the names of `summary` that are NaN."""
        if self.why is None:
            return {}
        missing = (name for name, value in self.summary().items() if math.isnan(value))
        return {name: self.why.get(name, "the clip is too short") for name in missing}

    def files(self) -> dict[str, bytes]:
        """File name -> content of what is kept beside the numbers: nothing."""
        return {}


def cosine(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Cosine of the angle between two vectors [D], in -1..1; NaN when one of them is zero."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return min(1.0, max(-1.0, float(a @ b) / length)) if length > 0 else math.nan
