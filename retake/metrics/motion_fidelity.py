"""Motion fidelity: do points of the result move as points of the source do? Higher is better.

Tracks tau of the source and tau' of the result, d_n their displacement from frame n to n+1:

    corr(tau, tau') = mean over steps n visible in both of c_n,    c_n = cos(d_n, d'_n)
    score           = 1/2 [ mean over tau' of max over tau corr + mean over tau of max over tau' corr ]

in -1..1, 1 = every track finds one that always moves in its direction. A displacement shorter than
`static` pixels has no direction: c_n = 1 where both rest, 0 where one rests and the other moves.

Source: Yatim et al., Space-Time Diffusion Features for Zero-Shot Text-Driven Motion Transfer, CVPR 2024,
section 5. Both directions are taken, steps hidden in either track do not count, and a track may match the
one of its own index.

The score sees directions only, neither speed nor place, so it comes with the end-point error of tracks
started at the same points:

    track_error = mean over frames and points visible in both of |xy - xy'|    pixels, lower is better

without each window's first frame, where points that start there agree by construction. Both speak of points that could
be followed in the result alone, so it says of how many that is:

    tracks_followed = of the points and frames that the source's tracks see, the share seen in the result, too

The source's tracks come as windows, each with points of its own, which are followed in the result from the same
places on. Window scores are averaged by their number of steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from retake.errors import ConfigError
from retake.metrics.common.sample import Result, Sample
from retake.metrics.common.values import mean

VERSION = 2
NEEDS = ("tracks",)
DESCRIPTIONS = {
    "motion_fidelity": (
        "agreement of directions of motion between source (of a move: edited) and result tracks, -1..1",
        "higher",
    ),
    "track_error": ("mean distance between tracks started at the same points, pixels", "lower"),
    "tracks_followed": (
        "share of the source's tracks, point by point and frame by frame, that could be followed in the result: the "
        "other two speak of these alone",
        "higher",
    ),
}
BLOCK = 512  # rows of the track-to-track matrix at a time: memory stays small for thousands of tracks


class Params(BaseModel, frozen=True, extra="forbid"):
    """What counts as rest."""

    name: Literal["motion_fidelity"] = Field(default="motion_fidelity", description="the metric's name")
    static: float = Field(default=0.1, description="a step shorter than this many pixels is rest", ge=0)


@dataclass(frozen=True)
class Window:
    """Tracks over N consecutive frames, the first of which is frame `start` of the clip.

    source: [N, P, 2] xy in pixels; source_visible: bool [N, P]. result, result_visible: [N, Q, 2], [N, Q].
    `paired`: point i of both was started at one place, so P == Q and the end-point error has a meaning.
    """

    start: int
    source: NDArray[Any]
    source_visible: NDArray[np.bool_]
    result: NDArray[Any]
    result_visible: NDArray[np.bool_]
    paired: bool = True


def steps(
    xy: NDArray[Any], visible: NDArray[np.bool_], static: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Tracks [N, P, 2], [N, P] as rows per track: unit displacements [P, 2(N-1)] that are zero at rest or
    where hidden, and as 0 or 1 [P, N-1]: resting steps, visible steps."""
    moves = np.diff(xy.astype(np.float64), axis=0)
    seen = visible[:-1] & visible[1:] & np.isfinite(moves).all(-1)
    moves = np.where(seen[..., None], moves, 0)
    length = np.linalg.norm(moves, axis=-1)
    moving = seen & (length >= static) & (length > 0)
    units = np.where(moving[..., None], moves / np.where(moving, length, 1)[..., None], 0)
    rows = units.transpose(1, 0, 2).reshape(xy.shape[1], 2 * len(moves))
    return rows, (seen & ~moving).T.astype(np.float64), seen.T.astype(np.float64)


def fidelity(
    source: NDArray[Any],
    source_visible: NDArray[np.bool_],
    result: NDArray[Any],
    result_visible: NDArray[np.bool_],
    static: float = 0.1,
) -> float:
    """Motion fidelity of one set of tracks: [N, P, 2] and [N, P] against [N, Q, 2] and [N, Q] -> -1..1.

    NaN when no pair of tracks has a step that is visible in both. A track that has none with any other
    track takes no part.
    """
    units, rests, seen = steps(source, source_visible, static)
    other_units, other_rests, other_seen = steps(result, result_visible, static)
    best_row = np.full(len(units), -np.inf)
    best_column = np.full(len(other_units), -np.inf)
    if not units.size or not other_units.size:
        return math.nan
    for i in range(0, len(units), BLOCK):
        rows = slice(i, i + BLOCK)
        common = seen[rows] @ other_seen.T
        agreement = units[rows] @ other_units.T + rests[rows] @ other_rests.T
        corr = np.where(common > 0, agreement / np.maximum(common, 1), -np.inf)
        best_row[rows] = corr.max(1)
        best_column = np.maximum(best_column, corr.max(0))
    return (mean(best_row.tolist()) + mean(best_column.tolist())) / 2


class Metric:
    """Accumulates motion fidelity and track error over the windows of a clip. Keeps one frame in grey levels."""

    def __init__(self, params: Params) -> None:
        self.params = params
        self._fidelity: dict[int, float] = {}
        self._distances: dict[int, tuple[float, int]] = {}  # frame -> (sum in pixels, points)
        self._source_points: dict[int, int] = {}  # frame -> points that the source's tracks see
        self._window: Window | None = None  # the one that is being followed
        self._gray: NDArray[np.uint8] | None = None

    def update(self, sample: Sample) -> None:
        """Take the next frame, in order; frames outside the windows of `sample.tracks` do not count."""
        from retake.priors.tracks import lucas_kanade

        before, window = self._gray, self._window
        if sample.tracks is not None:
            xy, visible = sample.tracks
            begin = visible[0]
            window = Window(sample.t, xy[:, begin], visible[:, begin], xy[:1, begin], visible[:1, begin])
        if window is None:
            return
        self._gray = lucas_kanade.gray(sample.result)
        if sample.tracks is None and before is not None:
            params = lucas_kanade.Params.model_validate({})  # its defaults
            points, found = lucas_kanade.step(before, self._gray, window.result[-1], params)
            seen = window.result_visible[-1] & found  # a lost point stays lost
            window = replace(
                window,
                result=np.concatenate([window.result, points[None]]),
                result_visible=np.concatenate([window.result_visible, seen[None]]),
            )
        complete = len(window.result) == len(window.source)
        self._window = None if complete else window
        if complete:
            self.add(window)

    def add(self, window: Window) -> None:
        """Take the tracks of a whole window. Raises ConfigError E260 when its arrays do not belong together."""
        check(window)
        ours = window.source, window.source_visible, window.result, window.result_visible
        score = fidelity(*ours, static=self.params.static)
        self._fidelity |= {window.start + n: score for n in range(len(window.source) - 1)}
        if window.paired:
            self._measure(window)

    def _measure(self, window: Window) -> None:
        far = np.linalg.norm(window.result.astype(np.float64) - window.source, axis=-1)
        both = window.source_visible & window.result_visible & np.isfinite(far)
        for n in range(1, len(far)):
            total, points = self._distances.get(window.start + n, (0.0, 0))
            added = float(far[n].sum(where=both[n]))
            self._distances[window.start + n] = total + added, points + int(both[n].sum())
            there = self._source_points.get(window.start + n, 0)
            self._source_points[window.start + n] = there + int(window.source_visible[n].sum())

    def result(self) -> Result:
        """Everything taken so far. A window's score stands at each frame t of its steps (t, t+1), and so counts by
        steps; a frame has the mean distance of its points, the clip that of all points."""
        totals, points = zip(*self._distances.values(), strict=True) if self._distances else ((), ())
        error = math.fsum(totals) / sum(points) if sum(points) else math.nan
        curve = {t: total / points for t, (total, points) in sorted(self._distances.items()) if points}
        counts = sorted(self._source_points.items())
        shares = {t: self._distances[t][1] / count for t, count in counts if count}
        share = sum(points) / sum(self._source_points.values()) if shares else math.nan
        values = {"motion_fidelity": self._fidelity, "track_error": curve, "tracks_followed": shares}
        return Result(values, why=None, whole={"track_error": error, "tracks_followed": share})


def check(window: Window) -> None:
    """ConfigError E260 unless the window has one number of frames and, when paired, of points."""
    a, b = window.source.shape, window.result.shape
    fits = a[:2] == window.source_visible.shape and b[:2] == window.result_visible.shape and a[0] == b[0]
    if not fits or (window.paired and a != b):
        raise ConfigError(
            "E260",
            f"tracks of the window at frame {window.start} do not belong together: source {a} with "
            f"visibility {window.source_visible.shape}, result {b} with {window.result_visible.shape}",
            "Both need the same frames and, when they are paired, the same points: track the result from "
            "the source's points, or give paired=False.",
        )
