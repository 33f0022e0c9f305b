"""Motion fidelity as it is published, for comparison with tables of papers. Higher is better.

    score = mean over tracks tau' of the result of max over tracks tau of the source of (corr(tau, tau') - [same index])

corr is the mean over all steps of cos(d_n, d'_n), whether points are seen or not; between two tracks of one index it is
lowered by 1. A step of no length gives 0 here, where the published script divides by zero.

Source: diffusion_motion_transfer, motion_fidelity_score.py at da9d4c3 (Yatim et al., CVPR 2024), which DiTFlow's
evaluation repeats. motion_fidelity is what the papers' equations say: both directions, and what is seen alone.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from retake.metrics import motion_fidelity
from retake.metrics.common.sample import Result
from retake.metrics.common.values import mean

VERSION = 1
NEEDS = ("tracks",)
DESCRIPTIONS = {
    "motion_fidelity_published": (
        "motion fidelity as published scripts compute it, from the result to the source alone",
        "higher",
    )
}


class Params(BaseModel, frozen=True, extra="forbid"):
    """Nothing but its name."""

    name: Literal["motion_fidelity_published"] = Field(
        default="motion_fidelity_published", description="the metric's name"
    )


def fidelity(source: NDArray[Any], result: NDArray[Any]) -> float:
    """Of tracks [N, P, 2] against [N, Q, 2] of the same N frames: -2..1. NaN where there is no step or no track."""
    units, others = unit_steps(source), unit_steps(result)
    if not units.size or not others.size:
        return math.nan
    best = np.full(len(others), -np.inf)
    for i in range(0, len(units), motion_fidelity.BLOCK):
        corr = units[i : i + motion_fidelity.BLOCK] @ others.T / (len(source) - 1)
        own = np.arange(i, min(i + len(corr), len(others)))
        corr[own - i, own] -= 1
        best = np.maximum(best, corr.max(0))
    return mean(best.tolist())


def unit_steps(xy: NDArray[Any]) -> NDArray[np.float64]:
    """Tracks [N, P, 2] as rows [P, 2(N-1)] of unit displacements, zero where there is none."""
    moves = np.nan_to_num(np.diff(xy.astype(np.float64), axis=0))
    units = moves / np.maximum(np.linalg.norm(moves, axis=-1, keepdims=True), 1e-8)
    return units.transpose(1, 0, 2).reshape(xy.shape[1], 2 * len(moves))


class Metric(motion_fidelity.Metric):
    """Follows points as motion_fidelity does."""

    def __init__(self, params: Params) -> None:
        super().__init__(motion_fidelity.Params())

    def add(self, window: motion_fidelity.Window) -> None:
        """Take the tracks of a whole window. Raises ConfigError E260 when its arrays do not belong together."""
        motion_fidelity.check(window)
        score = fidelity(window.source, window.result)
        self._fidelity |= {window.start + n: score for n in range(len(window.source) - 1)}

    def result(self) -> Result:
        """A window's score stands at each frame t of its steps (t, t+1)."""
        return Result({"motion_fidelity_published": self._fidelity}, why=None)
