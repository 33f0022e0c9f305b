"""Depth from parallax: relative inverse depth out of optical flow, without weights.

Every fourth frame is an anchor. Its flow is chained over up to 8 frames in both directions, what a turning and zooming
camera explains is taken off, and what is left along the lines of travel is nearness (camera_motion.py). Where the
chain leaves the picture, the other direction or what lies around fills the place. Frames between two anchors blend
both, carried along the flow.

Which end is near. A camera that travels left past near things and one that travels right past far things look alike
but for what hides what. So: every pixel is sent along its parallax, and where two meet, the one that the other frame
shows is in front. A plane that fills most of the picture tells, too: it must lie in front of the camera. Otherwise two
weak guesses decide: what moves most is near, and so is what lies lowest in the picture. 29 anchors around decide
together: where maps are alike, so are signs. Where evidence cancels out or parallax flickers, the map fades into 50.

It is wrong where objects move by themselves, and a constant 50 where the camera does not travel. A plane's slope rests
on a guessed focal length and on a lens that does not zoom; its direction is right, its size need not be.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from pydantic import BaseModel, Field

from retake.imaging.flow import in_bounds, resize_flow, warp
from retake.machine.threads import single_threaded
from retake.priors.depth.camera_motion import estimate, in_front, likelier, parallax

VERSION = 2
NEEDS: tuple[str, ...] = ("optical_flow",)

FAR, NEAR = 0.0, 100.0
MIDDLE = (FAR + NEAR) / 2

_EVERY = 4  # frames from anchor to anchor
_AROUND = 14  # anchors on each side whose verdicts count; at the clip's ends the missing ones are added inside
_KEPT = 304  # small flows, frames and maps in memory: more than 116 + reach frames on one side need
_REST = 0.35, 0.4  # px over the whole reach, and the share of pixels that move less when the camera rests
_LINK = 2.0  # how firmly two neighbours' signs hold together where their maps are the same
_SURE = 0.1  # evidence of the sign from which a map has its full strength
_GUESS = 0.05, 0.1  # weights of what moves most, and of what lies lowest, being near, against verdicts
_ENOUGH = 30  # collisions of which a verdict counts half


class Params(BaseModel, frozen=True, extra="forbid"):
    """How far flow is followed, and how large."""

    name: Literal["parallax"] = "parallax"
    reach: int = Field(8, ge=1, le=16, description="frames on each side over which motion is added up")
    short_side: int = Field(240, ge=64, le=1080, description="px of the maps' short side while they are computed")


def notes(params: Params) -> list[str]:
    """What to know about the result."""
    return [
        "Depth from parallax: relative, from motion; wrong where objects move by themselves, "
        "constant where the camera does not travel."
    ]


class _Anchor(NamedTuple):
    """What one frame's surroundings say. nearness: float32 [h, w], median 0 and spread 1, of open sign.
    weight: 0 (no parallax) to 1. verdict: evidence that larger is nearer, -1 to 1."""

    nearness: np.ndarray
    weight: float
    verdict: float


def maps(frames: Any, flow: Any, params: Params, first: int = 0) -> Iterator[np.ndarray]:
    """Relative inverse depth of frames first, first + 1, ...: float32 [H, W], 0 to 200, larger is nearer.

    frames: a series of uint8 RGB [H, W, 3]; flow: the pairs between them (retake.formats.FlowSeries). The farthest
    hundredth of each anchor is 0 and the nearest hundredth starts at 100; a frame without parallax is 50 everywhere.
    A map depends on frames at most 116 + reach away, and not on `first`. Costs 35 to 60 ms a 480p frame on one core.
    """
    if first >= len(frames):
        return
    clip = _Clip(frames, flow, params)
    for t in range(first, len(frames)):
        with single_threaded():
            depth = clip.depth(t)
        yield depth


class _Clip:
    """A clip at the size of the computation; small copies and anchors are kept for a while, in a bounded number."""

    def __init__(self, frames: Any, flow: Any, params: Params) -> None:
        self.frames, self.flow, self.params, self.count = frames, flow, params, len(frames)
        height, width = frames[0].shape[:2]
        factor = min(1.0, params.short_side / min(width, height))
        self.full, self.size = (width, height), (max(1, round(width * factor)), max(1, round(height * factor)))
        self._kept: OrderedDict[tuple[str, int], Any] = OrderedDict()

    def depth(self, t: int) -> np.ndarray:
        """The map of frame t at the frames' size."""
        before = t - t % _EVERY
        after = before + _EVERY
        small = self._once("signed", before, self._signed)
        if t != before:
            small = self._carried(small, t, before)
            if after < self.count:
                share = (t - before) / _EVERY
                small = (1 - share) * small + share * self._carried(self._once("signed", after, self._signed), t, after)
        return cv2.resize(small, self.full, interpolation=cv2.INTER_LINEAR).astype(np.float32)

    def _signed(self, t: int) -> np.ndarray:
        """FAR to twice NEAR, the sign settled, of anchor t."""
        own, weight = self._anchor(t), self._weight(t)
        if weight == 0:
            return np.full(own.nearness.shape, MIDDLE, np.float32)
        belief = self._belief(t)
        nearness = own.nearness if belief >= 0 else -own.nearness
        low, high = np.percentile(nearness, (1, 99))
        scaled = np.clip((nearness - low) / max(high - low, 1e-6), 0, 2)
        weight *= min(abs(belief) / _SURE, 1.0)
        return (MIDDLE + (FAR + (NEAR - FAR) * scaled - MIDDLE) * weight).astype(np.float32)

    def _belief(self, t: int) -> float:
        """Evidence that larger nearness of anchor t is nearer, with that of the anchors around, by their likeness."""
        every = range(0, self.count, _EVERY)
        start = max(0, min(t // _EVERY - _AROUND, len(every) - 2 * _AROUND - 1))
        at = every[start : start + 2 * _AROUND + 1]
        evidence = [self._anchor(k).verdict for k in at]
        links = [self._once("alike", k, lambda k: [self._alike(k, k + n * _EVERY) for n in (1, 2)]) for k in at[:-1]]
        return likelier(at.index(t), evidence, *(_LINK * np.array(links).reshape(-1, 2).T))

    def _weight(self, t: int) -> float:
        """That of anchor t, less where a neighbour's is small: parallax that flickers stays faint."""
        every = range(t - 2 * _EVERY, t + 2 * _EVERY + 1, _EVERY)
        own = np.array([self._anchor(k).weight if 0 <= k < self.count else 1.0 for k in every])
        return float(np.minimum(np.minimum(own[:-2], own[1:-1]), own[2:]).mean())

    def _alike(self, t: int, there: int) -> float:
        """Correlation -1 to 1 of the nearness of two anchors, the later carried to the earlier; 0 without one."""
        if there >= self.count or 0 in (self._anchor(t).weight, self._anchor(there).weight):
            return 0.0
        flow, hidden = self._chain(t, there)
        return _correlation(self._anchor(t).nearness, warp(self._anchor(there).nearness, flow), ~hidden)

    def _anchor(self, t: int) -> _Anchor:
        return self._once("anchor", t, self._look)

    def _look(self, t: int) -> _Anchor:
        """Both directions from frame t, put together."""
        views = [view for view in (self._view(t, 1), self._view(t, -1)) if view is not None and view.weight > 0]
        if not views:
            return _Anchor(np.zeros(self.size[::-1], np.float32), 0.0, 0.0)
        views.sort(key=lambda view: -view.weight)
        best = views[0]
        nearness, verdict, hidden = best.nearness, best.weight * best.guess, best.hidden
        for view in views[1:]:
            both = ~best.hidden & ~view.hidden
            alike = _correlation(best.nearness, view.nearness, both)
            if abs(alike) < 0.3:
                continue
            slope, offset = np.polyfit(view.nearness[both][::7], best.nearness[both][::7], 1)
            other = (slope * view.nearness + offset).astype(np.float32)
            verdict += view.weight * view.guess * np.sign(alike)
            verdict += best.weight * self._verdict(t, best, other, view.hidden)
            back = ((best.nearness - offset) / slope).astype(np.float32)
            verdict += view.weight * np.sign(alike) * self._verdict(t, view, back, best.hidden)
            ours, theirs = (one.weight * self._inside(one.hidden) for one in (best, view))
            share = theirs / np.maximum(ours + theirs, 1e-6)
            if best.signed and view.signed:
                # A plane seen from a wrong focal length tilts to one side in one view, to the other in the other.
                apart = _tilt(best.nearness - other, both) / (best.weight + view.weight)
                nearness, other = best.nearness - view.weight * apart, other + best.weight * apart
            nearness, hidden = (1 - share) * nearness + share * other, hidden & view.hidden
        smooth = cv2.medianBlur(_filled(nearness.astype(np.float32), hidden), 5)
        middle, spread = np.median(smooth), np.subtract(*np.percentile(smooth, (97, 3)))
        return _Anchor(((smooth - middle) / max(spread, 1e-6)).astype(np.float32), best.weight, float(verdict))

    def _inside(self, hidden: np.ndarray) -> np.ndarray:
        """0 where hidden, growing to 1 at a distance from it, so that no rim shows where one view ends."""
        return np.minimum(cv2.distanceTransform((~hidden).astype(np.uint8), cv2.DIST_L2, 3) / (min(self.size) / 8), 1)

    def _view(self, t: int, way: int) -> _View | None:
        """Parallax of frame t in one direction of time; None at the clip's end or where too little is seen."""
        last = min(max(t + way * self.params.reach, 0), self.count - 1)
        if last == t:
            return None
        flow, hidden = self._chain(t, last)
        travel = estimate(flow, hidden)
        if travel is None:
            return None
        nearness, turned, along = parallax(flow, travel)
        seen = ~hidden
        length = float(np.median(np.linalg.norm(along, axis=-1)))
        spread = length * float(np.subtract(*np.percentile(nearness[seen], (97, 3))))
        motion = np.linalg.norm(flow, axis=-1)[seen]
        rests = float((motion < _REST[0]).mean()) > _REST[1]
        # Errors of chained flow: what is seen of them across the lines, and a part of the motion itself.
        clear = min(spread, travel.beyond) / (8 * travel.across + 0.08 * float(np.median(motion)) + 0.4)
        weight = 0.0 if rests else float(np.clip(clear - 1, 0, 1))
        with_travel = (flow * along).sum(axis=-1)[seen]
        forth = float(with_travel.sum() / (np.abs(with_travel).sum() + 1e-9))
        guess = 1.0 if travel.signed else _GUESS[0] * forth
        guess += _GUESS[1] * _correlation(nearness, np.mgrid[: seen.shape[0], : seen.shape[1]][0], seen)
        return _View(last, nearness, turned, along, hidden, weight, guess, spread / length, travel.signed)

    def _verdict(self, t: int, view: _View, nearness: np.ndarray, hidden: np.ndarray) -> float:
        """Whether larger `nearness`, seen from the other side and in the unit of `view`, is in front."""
        apart = 0.15 * view.spread
        step = cv2.morphologyEx(nearness, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
        edges = cv2.dilate((step > apart / 2).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        flow = view.turned + nearness[..., None] * view.along
        found, count = in_front(nearness, flow, self._rgb(t), self._rgb(view.last), ~edges & ~hidden, apart)
        return found * count / (count + _ENOUGH)

    def _carried(self, values: np.ndarray, t: int, source: int) -> np.ndarray:
        """Values of frame `source` on the grid of frame t."""
        return warp(values, self._chain(t, source)[0])

    def _chain(self, t: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Motion from frame t into frame `last`, and what of t is lost on the way."""
        way = 1 if last > t else -1
        flow, hidden = self._pair(t, way)
        for at in range(t + way, last, way):
            more, lost = self._pair(at, way)
            hidden = hidden | warp(lost, flow)
            flow = flow + warp(more, flow)
            hidden |= ~in_bounds(flow, 0.5)
        return flow, hidden

    def _pair(self, t: int, way: int) -> tuple[np.ndarray, np.ndarray]:
        """Small flow and occlusion from frame t to its neighbour."""
        one = self._once("pair", t if way > 0 else t - 1, self._read_pair)
        flow, hidden = one[0 if way > 0 else 1]
        return flow.astype(np.float32), hidden

    def _read_pair(self, t: int) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        def small(flow: np.ndarray, hidden: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            share = cv2.resize(hidden.astype(np.float32), self.size, interpolation=cv2.INTER_AREA)
            return resize_flow(flow, self.size).astype(np.float16), share > 0.3

        return (
            small(self.flow.forward(t), self.flow.occluded_forward(t)),
            small(self.flow.backward(t), self.flow.occluded_backward(t)),
        )

    def _rgb(self, t: int) -> np.ndarray:
        return self._once("rgb", t, lambda t: cv2.resize(self.frames[t], self.size, interpolation=cv2.INTER_AREA))

    def _once(self, kind: str, t: int, make: Any) -> Any:
        if (kind, t) not in self._kept:
            self._kept[kind, t] = make(t)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end((kind, t))
        return self._kept[kind, t]


class _View(NamedTuple):
    """One direction of time at an anchor: frame that it looks into, nearness with the fields that it stands for, what
    is hidden, how clear the parallax is (0 to 1), the guess of its sign, its spread, and whether a plane guessed."""

    last: int
    nearness: np.ndarray
    turned: np.ndarray
    along: np.ndarray
    hidden: np.ndarray
    weight: float
    guess: float
    spread: float
    signed: bool


def _filled(values: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Hidden values from those around: a plane through all that is seen, and what the nearest leave of it."""
    if not hidden.any() or (~hidden).sum() < 64:
        return values
    slope = _tilt(values, ~hidden)
    known = (~hidden).astype(np.float32)
    rest, total, weight = (values - slope) * known, np.zeros_like(values), np.full_like(values, 1e-9)
    for size in (5, 17, 65, 257):
        total += cv2.blur(rest, (size, size)) / size
        weight += cv2.blur(known, (size, size)) / size
    return np.where(hidden, slope + total / weight, values)


def _tilt(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The plane over the picture, [h, w], that comes closest to the values there."""
    height, width = values.shape
    ground = np.stack([*np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j], np.ones(values.shape)], axis=-1)
    at = np.flatnonzero(where)[::37]
    return (ground @ np.linalg.lstsq(ground.reshape(-1, 3)[at], values.ravel()[at], rcond=None)[0]).astype(np.float32)


def _correlation(one: np.ndarray, other: np.ndarray, where: np.ndarray) -> float:
    a, b = one[where], other[where]
    if len(a) < 64:
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / max(float(np.sqrt((a * a).sum() * (b * b).sum())), 1e-12))
