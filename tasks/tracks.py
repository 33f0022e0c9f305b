"""tracks: points followed through the clip, with visibility."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from retake.artifact import Artifact, Frames, Tracks
from retake.clip import Clip
from retake.exchange.tracks import PointTracks
from retake.formats import CHUNK, FrameSeries, RegionSeries, Tensors, chunk_range
from retake.lookup import lookup
from retake.stage import Work, stage
from retake.video import Selection


@stage("tracks", version=1, makes="tracks", backends=("opencv-python-headless",), group="priors.tracks")
def stage_tracks(
    work: Work, params: Any, frames: Frames, region: Artifact | None = None, clip: Clip | None = None
) -> Tracks:
    """Implementations that read tracks (`tracks`) run from the first frame to the last; those that follow points
    (`lay`, `step`) from the queries' frame to the end, then back to the start. `clip`: tracks are its own."""
    series: FrameSeries = work.open(frames)
    module = lookup("priors.tracks", params.name)
    if clip is not None:
        read_through(work, own_tracks(clip, series, edited=False), series)
    elif hasattr(module, "tracks"):
        read_through(work, module.tracks(params, series.meta), series)
    else:
        follow(work, Following(module, params, series, work.open(region) if region else None))
    return work.finish(count=len(series), width=series.width, height=series.height, name=params.name)  # type: ignore[return-value]


# ---- tracks that exist -------------------------------------------------------------------------------------------


def own_tracks(clip: Clip, series: FrameSeries, edited: bool) -> PointTracks:
    """Tracks that the clip itself knows; or, of the same points, where they shall be."""
    size = series.width, series.height
    xy, visible = clip.tracks(Selection(**series.meta["selection"]), size, edited)
    spans = [chunk_range(index, len(series)) for index in range(series.chunks())]
    return PointTracks(
        np.arange(xy.shape[1]),
        len(series),
        size,
        lambda: ((xy[s.start : s.stop], visible[s.start : s.stop]) for s in spans),
    )


def read_through(work: Work, found: PointTracks, series: FrameSeries) -> None:
    """Tracks that are there already, chunk by chunk. A chunk lists the points of which it knows a place."""
    for index, (xy, visible) in enumerate(found.blocks()):
        if index in work.done:
            continue
        listed = np.isfinite(xy).all(2).any(0)
        chunk = {"ids": found.ids[listed], "xy": filled(xy[:, listed]), "visible": visible[:, listed]}
        work.commit(index, chunk)
        work.progress(chunk_range(index, len(series)).stop, len(series))


# ---- following points --------------------------------------------------------------------------------------------


class Points(NamedTuple):
    """Points on one frame: ids int64 [P], xy float32 [P, 2], seen bool [P]. Of an unseen one the last place stands."""

    ids: np.ndarray
    xy: np.ndarray
    seen: np.ndarray

    def of(self, chosen: np.ndarray) -> Points:
        return Points(self.ids[chosen], self.xy[chosen], self.seen[chosen])

    def state(self, way: str) -> Tensors:
        return {f"{way}.{name}": array for name, array in self._asdict().items()}


NONE = Points(np.zeros(0, np.int64), np.zeros((0, 2), np.float32), np.zeros(0, bool))


@dataclass(frozen=True)
class Following:
    """What a pass over the clip works with, in either direction of time."""

    module: Any
    params: Any
    series: FrameSeries
    region: RegionSeries | None

    @property
    def start(self) -> int:
        """The frame on which the first queries are laid."""
        if self.params.frame is not None:
            return self.params.frame
        return int(self.region.meta["frame"]) if self.region is not None else 0

    @property
    def picked(self) -> bool:
        """Picked points keep their ids to the end, seen or not, and nothing is laid beside them."""
        return self.params.queries == "points"

    def walk(self, table: Table, times: range, points: Points) -> Points:
        """Carry points along `times`, whose first frame they stand on; returns those at the end."""
        previous = None
        for t in times:
            rgb, region = self.series[t], self.region[t] if self.region is not None else None
            gray = self.module.gray(rgb)
            if previous is not None and points.seen.any():
                points = self.stepped(previous, gray, points, region)
            if t in table.span and self.due(t, times[0], points):
                fresh = self.module.lay(rgb, region, self.params, points.xy, self.series.meta)
                ids = np.concatenate([points.ids, table.fresh_ids(len(fresh))])
                points = Points(ids, np.concatenate([points.xy, fresh]), np.ones(len(ids), bool))
            table.frames[t] = points
            previous = gray
        return points

    def stepped(self, previous: np.ndarray, gray: np.ndarray, points: Points, region: np.ndarray | None) -> Points:
        """The points one frame on. Lost ones are dropped; picked ones stay where they were seen last."""
        seen, xy = points.seen.copy(), points.xy.copy()
        moved, ok = self.module.step(previous, gray, xy[seen], self.params, region)
        alive = np.flatnonzero(seen)
        seen[alive] = ok
        xy[alive[ok]] = moved[ok]
        after = Points(points.ids, xy, seen)
        return after if self.picked else after.of(seen)

    def due(self, t: int, first: int, points: Points) -> bool:
        """Whether queries are laid on frame t: at the start unless it has them, then every `reseed` frames."""
        if t == first:
            return len(points.ids) == 0
        return not self.picked and self.params.reseed > 0 and t % self.params.reseed == 0


def follow(work: Work, f: Following) -> None:
    """From the start's chunk onwards to the end, then backwards to the clip's start. A killed run goes on bit for
    bit: each chunk commits the points to go on from at both of its ends."""
    home = f.start // CHUNK
    state = work.state() or {"next_id": np.array(0, np.int64)}
    for index in [*range(home, f.series.chunks()), *range(home - 1, -1, -1)]:
        if index in work.done:
            continue
        chunk, state = follow_chunk(f, index, home, state)
        work.commit(index, chunk, state)
        work.progress(min(len(work.done) * CHUNK, len(f.series)), len(f.series))


def follow_chunk(f: Following, index: int, home: int, state: Tensors) -> tuple[Tensors, Tensors]:
    """Tensors of one chunk, and the points to go on from at its far end."""
    span = chunk_range(index, len(f.series))
    table = Table(span, int(state["next_id"]))
    state = dict(state)
    if index >= home:
        at = f.start if index == home else span.start - 1
        state |= f.walk(table, range(at, span.stop), NONE if index == home else restored(state, "last")).state("last")
    if index <= home:
        at = f.start if index == home else span.stop
        begun = table.frames[at] if index == home else restored(state, "first")
        state |= f.walk(table, range(at, span.start - 1, -1), begun).state("first")
    state["next_id"] = np.array(table.next_id, np.int64)
    return table.tensors(), state


def restored(state: Tensors, way: str) -> Points:
    return Points(*(state[f"{way}.{name}"] for name in Points._fields))


class Table:
    """The points of one chunk, filled frame by frame; frames beside the chunk are forgotten at its end."""

    def __init__(self, span: range, next_id: int) -> None:
        self.span, self.next_id = span, next_id
        self.frames: dict[int, Points] = {}

    def fresh_ids(self, count: int) -> np.ndarray:
        self.next_id += count
        return np.arange(self.next_id - count, self.next_id, dtype=np.int64)

    def tensors(self) -> Tensors:
        """Dense arrays over the ids that stand anywhere in the chunk."""
        every = np.unique(np.concatenate([self.frames[t].ids for t in self.span]))
        xy = np.full((len(self.span), len(every), 2), np.nan, np.float32)
        visible = np.zeros(xy.shape[:2], bool)
        for row, points in enumerate(self.rows()):
            columns = np.searchsorted(every, points.ids)
            xy[row, columns] = points.xy
            visible[row, columns] = points.seen
        return {"ids": every, "xy": filled(xy), "visible": visible}

    def rows(self) -> Iterator[Points]:
        return (self.frames[t] for t in self.span)


def filled(xy: np.ndarray) -> np.ndarray:
    """float32 [n, P, 2] in which a place that is not known is the nearest known one before it, else after it."""
    xy = xy.copy()
    for row in range(1, len(xy)):
        xy[row] = np.where(np.isfinite(xy[row]), xy[row], xy[row - 1])
    for row in range(len(xy) - 2, -1, -1):
        xy[row] = np.where(np.isfinite(xy[row]), xy[row], xy[row + 1])
    return xy
