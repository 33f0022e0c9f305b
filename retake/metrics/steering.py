"""Does an object go where it was told to? Its points are followed in the result, and compared with its path.

Points of the object on its first frame (a grid within its mask) are followed through the result by Lucas-Kanade; d_t is
the median displacement of those still there at frame t, p_t the path's. Object 0 is what no mask holds.

    steering_distance   mean over t of |d_t - p_t| over the diagonal                    lower
    steering_angle      between d_T and p_T, the last, degrees 0..180                   lower
    steering_speed      d_T along p_T over |p_T|: 1 is as far as told, 0 is at rest     neither

Means over the targets that name a direction or a drag (edit.targets). A target that shall rest, grow or shrink has a
distance alone. Source of the distance: MOFT (Xiao et al., NeurIPS 2024, table 2, "mean distance"; by what it is divided
they do not say).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, field_validator

from retake.metrics.common.sample import Result, Sample
from retake.metrics.common.values import mean
from retake.motion_targets import MotionTarget, path_of
from retake.params import as_written

VERSION = 1
NEEDS = ("masks",)
DESCRIPTIONS = {
    "steering_distance": ("mean distance of steered objects from their paths, of the frame's diagonal", "lower"),
    "steering_angle": ("between where steered objects went and where they were told to, degrees", "lower"),
    "steering_speed": ("how far steered objects went along their paths, of how far they were told to", ""),
}
SPACING = 6  # px between points
NONE = "nothing was told where to go: edit.targets with a direction or a drag"
RESTS = "nothing was told to go anywhere: a target that rests has a distance alone"
LOST = "no point of the steered objects could be followed to the end"


class Params(BaseModel, frozen=True, extra="forbid"):
    """Where objects were told to go."""

    name: Literal["steering"] = Field(default="steering", description="the metric's name")
    targets: tuple[MotionTarget, ...] = Field(
        default=(), description="as edit.targets of edit=moft, which are taken where none are given here"
    )

    @field_validator("targets", mode="before")
    @classmethod
    def written(cls, targets: Any) -> Any:
        """Also as JSON."""
        return as_written(targets, "metrics.steering.targets=[{object: 1, direction: right}]")


class Metric:
    """Follows points of each target. Keeps one frame in grey levels, and how far they have gone on each frame."""

    def __init__(self, params: Params) -> None:
        self.targets = [one for one in params.targets if not one.reference]
        self.at: dict[int, NDArray[np.float32]] = {}  # by target: the points that are still followed
        self.begun: dict[int, NDArray[np.float32]] = {}
        self.gone: dict[int, dict[int, NDArray[np.float64]]] = {}
        self.radius: dict[int, float] = {}
        self.count, self.scale, self.size = 0, (1.0, 1.0), (1, 1)
        self._gray: NDArray[np.uint8] | None = None

    def update(self, sample: Sample) -> None:
        """Take the next frame, in order."""
        from retake.priors.tracks import lucas_kanade

        self.count, self.scale, self.size = sample.t + 1, sample.scale, sample.source.shape[:2]
        gray = lucas_kanade.gray(sample.result)
        for n, target in enumerate(self.targets):
            if n not in self.at:
                if (mask := mask_of(target.object, sample.objects or {})) is not None and mask.any():
                    self.at[n] = self.begun[n] = within(mask)
                    self.gone[n] = {sample.t: np.zeros(2)}
                    self.radius[n] = math.sqrt(float(mask.sum()) / math.pi)
            elif self._gray is not None and len(self.at[n]):
                params = lucas_kanade.Params.model_validate({})
                found, good = lucas_kanade.step(self._gray, gray, self.at[n], params)
                self.at[n], self.begun[n] = found[good], self.begun[n][good]
                if len(self.at[n]):
                    self.gone[n][sample.t] = np.median(self.at[n] - self.begun[n], 0).astype(np.float64)
        self._gray = gray

    def result(self) -> Result:
        """A distance for every frame; angle and speed of the whole clip."""
        distance: dict[int, list[float]] = {t: [] for t in range(self.count)}
        angles, speeds = [], []
        for n, gone in self.gone.items():
            path = path_of(self.targets[n], self.count, self.scale, self.radius[n])[:, :2]
            first = path[min(gone)]
            for t, d in gone.items():
                distance[t].append(float(np.hypot(*(d - (path[t] - first)))) / math.hypot(*self.size))
            last = max(gone)
            told, went = path[last] - first, gone[last]
            if np.hypot(*told) > 0:
                angles.append(angle(told, went))
                speeds.append(float(told @ went / (told @ told)))
        why = NONE if not self.targets else RESTS if any(map(len, self.gone.values())) and not angles else LOST
        curve = {t: mean(values) for t, values in distance.items() if values}
        whole = {"steering_angle": mean(angles), "steering_speed": mean(speeds)}
        return Result({"steering_distance": curve}, dict.fromkeys(DESCRIPTIONS, why), whole)


def mask_of(identity: int, objects: Mapping[int, NDArray[np.bool_]]) -> NDArray[np.bool_] | None:
    """Where an object is; of 0, where none is."""
    if identity or not objects:
        return objects.get(identity)
    return ~np.logical_or.reduce(list(objects.values()))


def within(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Points of a grid inside a mask, float32 [P, 2] (x, y); of a small one, its middle."""
    rows, columns = np.nonzero(mask[::SPACING, ::SPACING])
    if not len(rows):
        rows, columns = (np.array([values.mean() / SPACING]) for values in np.nonzero(mask))
    return np.stack([columns * SPACING, rows * SPACING], 1).astype(np.float32)


def angle(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Between two vectors, degrees; 180 where b has no length: what rests does not go where it was told."""
    length = float(np.hypot(*a) * np.hypot(*b))
    return math.degrees(math.acos(float(np.clip(a @ b / length, -1, 1)))) if length > 0 else 180.0
