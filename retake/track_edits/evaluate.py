"""Edited places of points, frame by frame: nothing of the clip is held but the frames that an operator asks for.

An operator that moves changes places on its frame; one that acts on time asks those before it for another frame. So
every operator sees what the ones before it made, also at other moments. The middle of every object goes through the
operators as a point of its own, since turning and scaling about it must follow it where it was moved to.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from retake.errors import ConfigError
from retake.track_edits import camera
from retake.track_edits import operators as op
from retake.track_edits.keys import as_key, grown, interpolated
from retake.track_edits.program import Program

Floats = np.ndarray
FAR = -(1 << 40)  # id of the middle of object 0; that of object k is FAR + k


@dataclass(frozen=True)
class Points:
    """Points on one frame. ids int64 [P], ascending; xy float64 [P, 2] in working pixels; visible bool [P]; objects
    int64 [P], 0 for the background; time float64 [P], the source frame that they show; hidden bool [P]: taken away by
    the edit, not by what covers them."""

    ids: np.ndarray
    xy: Floats
    visible: np.ndarray
    objects: np.ndarray
    time: Floats
    hidden: np.ndarray

    def where(self, chosen: np.ndarray | slice) -> Points:
        return Points(**{name: array[chosen] for name, array in vars(self).items()})


class Source(Protocol):
    """Tracks of a clip, and where its objects are."""

    count: int
    size: tuple[int, int]  # width and height, working pixels

    def points(self, t: int) -> tuple[np.ndarray, Floats, np.ndarray, np.ndarray]:
        """ids int64 [P], ascending, xy [P, 2], visible bool [P], objects int64 [P]."""
        ...

    def middles(self, t: int) -> dict[int, tuple[float, float]]:
        """Where the middle of every object is, by its id."""
        ...


class Edit:
    """A program over a source. scale: working pixels a pixel of the source's frame, across and down.

    Raises ConfigError E239 where an operator finds no points that it needs.
    """

    def __init__(self, program: Program, source: Source, scale: tuple[float, float] = (1.0, 1.0)) -> None:
        self.source, self.scale = source, np.array(scale, np.float64)
        self.size = np.array(source.size, np.float64)
        self._listed: tuple[np.ndarray, ...] = (np.zeros(0),) * 4
        self.chosen = [self._chosen(one.points) for one in program.edits]
        self.steps = [self._step(n, one, program.edits[:n]) for n, one in enumerate(program.edits)]
        self._state = lru_cache(maxsize=64)(self._evaluated)

    def at(self, t: int) -> Points:
        """The points of frame t as edited."""
        found = self._state(len(self.steps), t)
        return found.where(slice(int(np.searchsorted(found.ids, 0)), None))

    def _evaluated(self, steps: int, t: int) -> Points:
        """What the first so many operators make of frame t."""
        if steps == 0:
            return self._of_source(t)
        one, step = self.steps[steps - 1]
        if isinstance(one, (op.Retime, op.Reverse, op.Freeze)):
            now, then = self._state(steps - 1, t), float(step(t))
            if then == t:
                return now
            other = self._between(steps - 1, then)
            mine, theirs = self._mask(steps - 1, now), self._mask(steps - 1, other)
            return other if mine.all() and theirs.all() else merged(now.where(~mine), other.where(theirs))
        now = self._state(steps - 1, t)
        mask = self._mask(steps - 1, now)
        return step(t, now, mask) if mask.any() else now

    def _between(self, steps: int, t: float) -> Points:
        """The state at a moment between two frames: places between, the rest of the nearer frame."""
        low, share = math.floor(t), t - math.floor(t)
        if share == 0:
            return self._state(steps, low)
        a, b = self._state(steps, low), self._state(steps, low + 1)
        near = b if share >= 0.5 else a
        _, in_near, in_a, in_b = _thrice(near.ids, a.ids, b.ids)
        xy, time = near.xy.copy(), near.time.copy()
        xy[in_near] = (1 - share) * a.xy[in_a] + share * b.xy[in_b]
        time[in_near] = (1 - share) * a.time[in_a] + share * b.time[in_b]
        return replace(near, xy=xy, time=time)

    def _of_source(self, t: int) -> Points:
        ids, xy, visible, objects = self.source.points(t)
        middles = self.source.middles(t) | {0: tuple((self.size - 1) / 2)}
        known = sorted(middles)
        if ids is not self._listed[0]:  # the same for all frames of a chunk
            every = np.concatenate([np.array([FAR + k for k in known], np.int64), ids])
            self._listed = ids, every, np.concatenate([np.array(known, np.int64), objects]), np.zeros(len(every), bool)
        _, ids, objects, hidden = self._listed
        xy = np.concatenate([[middles[k] for k in known], xy])
        visible = np.concatenate([np.ones(len(known), bool), visible])
        return Points(ids, xy, visible, objects, np.full(len(ids), float(t)), hidden)

    # ---- which points ------------------------------------------------------------------------------------------------

    def _chosen(self, points: Any) -> Any:
        """ "all", "objects", an object's id, or the ids of points as a set in an array."""
        if isinstance(points, str):
            return points
        if points.object is not None:
            return points.object
        if points.ids is not None:
            return np.array(sorted(points.ids), np.int64)
        ids, xy, _, _ = self.source.points(points.frame)
        x0, y0, x1, y1 = points.box
        low, high = self._place((x0, y0)), self._place((x1, y1))
        inside = ids[((xy >= low) & (xy <= high)).all(1)]
        if not len(inside):
            raise ConfigError(
                "E239",
                f"no point lies in the box {points.box} on frame {points.frame}",
                "Draw the points there are: retake tracks show. tracks.queries=grid follows the whole picture.",
            )
        return inside

    def _mask(self, step: int, points: Points) -> np.ndarray:
        """Which of the points an operator takes, bool [P]."""
        chosen = self.chosen[step]
        if isinstance(chosen, str):
            return np.ones(len(points.ids), bool) if chosen == "all" else points.objects > 0
        if isinstance(chosen, int):
            return points.objects == chosen
        return np.isin(points.ids, chosen)

    def _place(self, xy: op.Pair) -> Floats:
        """Working pixels of a place in the source's frame."""
        return (np.array(xy) + 0.5) * self.scale - 0.5

    # ---- what is done ------------------------------------------------------------------------------------------------

    def _step(self, number: int, one: Any, before: Iterable[Any]) -> tuple[Any, Any]:
        """The operator beside a function: of time (t -> t'), or of (t, points, mask) -> points."""
        last = self.source.count - 1
        span = one.frames or (0, last)
        if isinstance(one, op.Reverse):
            return one, lambda t: span[0] + span[1] - t if span[0] <= t <= span[1] else t
        if isinstance(one, op.Freeze):
            return one, lambda t: one.at if span[0] <= t <= span[1] else t
        if isinstance(one, op.Retime):
            return one, lambda t: retimed(t, one, last) if span[0] <= t <= span[1] else t
        if isinstance(one, op.Hide):
            return one, lambda t, p, mask: hidden(p, mask) if span[0] <= t <= span[1] else p
        if isinstance(one, op.Anchor):
            return one, lambda t, p, mask: self._anchored(t, p, mask) if span[0] <= t <= span[1] else p
        if isinstance(one, op.Mirror):
            return one, lambda t, p, mask: self._mirrored(one, p, mask) if span[0] <= t <= span[1] else p
        if isinstance(one, op.Stabilise):
            motions = self._motions(number, one)
            return one, lambda t, p, mask: taken_out(motions, p, mask) if span[0] <= t <= span[1] else p
        if isinstance(one, op.Reapply):
            last_one = next((b for b in reversed(list(before)) if isinstance(b, op.Stabilise)), None)
            if last_one is None:
                raise ConfigError(
                    "E237", f"edits.{number} (reapply): nothing before it was stabilised", "Put a stabilise before it."
                )
            motions = np.linalg.inv(self._motions(number, last_one))
            return one, lambda t, p, mask: put_back(motions[t], p, mask) if span[0] <= t <= span[1] else p
        keys = one.keys if isinstance(one, op.Keys) else grown(as_key(one), one.frames)
        about: op.About = "centre" if isinstance(one, op.Move) else one.about
        weights = self._weights(one.falloff) if isinstance(one, op.Move) and one.falloff else None
        return one, lambda t, p, mask: self._keyed(keys, about, weights, t, p, mask)

    def _keyed(
        self,
        keys: tuple[op.Key, ...],
        about: op.About,
        weights: Any,
        t: int,
        points: Points,
        mask: np.ndarray,
    ) -> Points:
        """Places shifted, scaled and turned as the keys say at t."""
        by, scale, angle = interpolated(keys, t)
        shift = np.array(by) * self.scale
        if scale == 1 and not angle and weights is None and mask.all():
            return replace(points, xy=points.xy + shift)
        xy = points.xy.copy()
        if scale != 1 or angle:
            cos, sin = scale * math.cos(math.radians(angle)), scale * math.sin(math.radians(angle))
            turn = np.array([[cos, -sin], [sin, cos]])
            for part, centre in self._centres(about, points, mask):
                xy[part] = (points.xy[part] - centre) @ turn.T + centre
        if weights is not None:
            shift = shift * weights(points.ids)[mask, None]
        xy[mask] += shift
        return replace(points, xy=xy)

    def _centres(self, about: op.About, points: Points, mask: np.ndarray) -> list[tuple[np.ndarray, Floats]]:
        """Parts of the chosen points, each with the place about which it turns: an object about its own middle."""
        if about == "frame":
            return [(mask, (self.size - 1) / 2)]
        if not isinstance(about, str):
            return [(mask, self._place(about))]
        found, rest = [], mask.copy()
        for row in np.flatnonzero(mask & (points.ids < 0)):
            part = mask & (points.objects == points.objects[row])
            found.append((part, points.xy[row]))
            rest &= ~part
        if rest.any():
            seen = rest & points.visible
            found.append((rest, points.xy[seen if seen.any() else rest].mean(0)))
        return found

    def _mirrored(self, one: op.Mirror, points: Points, mask: np.ndarray) -> Points:
        xy, axis = points.xy.copy(), 0 if one.axis == "horizontal" else 1
        for part, centre in self._centres(one.about, points, mask):
            xy[part, axis] = 2 * centre[axis] - xy[part, axis]
        return replace(points, xy=xy)

    def _anchored(self, t: int, points: Points, mask: np.ndarray) -> Points:
        now = self._of_source(t)
        return merged(points.where(~mask), now.where(np.isin(now.ids, points.ids[mask])))

    def _weights(self, falloff: op.Falloff) -> Any:
        """(ids) -> weights in 0..1: less for points that lie further from a place, on the frame it is said of."""
        of = self._of_source(falloff.frame)
        far = np.linalg.norm((of.xy - self._place(falloff.centre)) / self.scale, axis=1) / falloff.radius
        share = np.clip(1 - far, 0, 1)
        share = share * share * (3 - 2 * share)

        def weights(ids: np.ndarray) -> Floats:
            place = np.searchsorted(of.ids, ids).clip(max=max(len(of.ids) - 1, 0))
            return np.where(of.ids[place] == ids, share[place], 0.0) if len(of.ids) else np.zeros(len(ids))

        return weights

    def _motions(self, number: int, one: op.Stabilise) -> np.ndarray:
        chosen = self._chosen(one.reference)

        def seen(t: int) -> camera.Found:
            points = self._of_source(t)
            inside = points.objects == chosen if isinstance(chosen, int) else np.isin(points.ids, chosen)
            keep = inside & points.visible & (points.ids >= 0)
            return points.ids[keep], points.xy[keep]

        found = camera.motions(seen, self.source.count, one.to, one.model)
        if not np.isfinite(found).all():
            raise ConfigError(
                "E239",
                f"edits.{number}: too few points to fit a {one.model} to the camera",
                "Follow the background, too: tracks.queries=grid",
            )
        return found


def retimed(t: int, one: op.Retime, last: int) -> float:
    """The source frame that stands at t."""
    if t < one.start:
        return t
    return min(max(one.start + one.speed * max(t - one.start - one.delay, 0.0), 0.0), float(last))


def hidden(points: Points, mask: np.ndarray) -> Points:
    return replace(points, hidden=points.hidden | mask, visible=points.visible & ~mask)


def taken_out(motions: np.ndarray, points: Points, mask: np.ndarray) -> Points:
    """Places as seen from the one frame. A point that shows another moment has that moment's camera in it."""
    xy, low = points.xy.copy(), np.floor(points.time[mask]).astype(int)
    share = (points.time[mask] - low)[:, None, None]
    high = np.minimum(low + 1, len(motions) - 1)
    xy[mask] = camera.placed((1 - share) * motions[low] + share * motions[high], xy[mask])
    return replace(points, xy=xy)


def put_back(motion: np.ndarray, points: Points, mask: np.ndarray) -> Points:
    xy = points.xy.copy()
    xy[mask] = camera.placed(motion, xy[mask])
    return replace(points, xy=xy)


def merged(a: Points, b: Points) -> Points:
    """The points of both, in order; of one that is in both, b's."""
    a = a.where(~np.isin(a.ids, b.ids))
    order = np.argsort(np.concatenate([a.ids, b.ids]), kind="stable")
    return Points(**{name: np.concatenate([getattr(a, name), getattr(b, name)])[order] for name in vars(a)})


def _thrice(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Values that all three hold, and their places in each."""
    both = np.intersect1d(np.intersect1d(a, b, assume_unique=True), c, assume_unique=True)
    return both, np.searchsorted(a, both), np.searchsorted(b, both), np.searchsorted(c, both)
