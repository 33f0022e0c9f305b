"""tracks: points on the object, followed through the clip, with visibility."""

from __future__ import annotations

from typing import Any

import numpy as np

from retake.artifact import Artifact, Frames, Tracks
from retake.formats import CHUNK, FrameSeries, MaskSeries, Tensors, chunk_range
from retake.lookup import lookup
from retake.stage import Work, stage


@stage("tracks", version=1, makes="tracks", backends=("opencv-python-headless",), group="priors.tracks")
def stage_tracks(work: Work, params: Any, frames: Frames, masks: Artifact) -> Tracks:
    """From the mask's prompt frame forwards to the end, then backwards to the start; new points are laid inside the
    mask every `reseed` frames. A point that is lost stays lost; its chunks list it while it lives."""
    series: FrameSeries = work.open(frames)
    mask: MaskSeries = work.open(masks)
    module = lookup("priors.tracks", params.name)
    home = int(mask.meta.get("frame", 0)) // CHUNK
    order = [*range(home, series.chunks()), *range(home - 1, -1, -1)]
    state = work.state() or {"next_id": np.array(0, np.int64)}
    for index in order:
        if index in work.done:
            continue
        chunk, state = follow_chunk(module, params, series, mask, index, home, state)
        work.commit(index, chunk, state)
        work.progress(min(len(work.done) * CHUNK, len(series)), len(series))
    return work.finish(count=len(series), width=series.width, height=series.height, name=params.name)  # type: ignore[return-value]


def follow_chunk(
    module: Any, params: Any, series: FrameSeries, mask: MaskSeries, index: int, home: int, state: Tensors
) -> tuple[Tensors, Tensors]:
    """Tensors of one chunk, and the points to go on from at its far end."""
    span = chunk_range(index, len(series))
    prompt = int(mask.meta.get("frame", 0))
    table = Table(span, int(state["next_id"]))
    state = dict(state)
    if index >= home:
        origin = prompt if index == home else span.start - 1
        begin = (state["last.ids"], state["last.xy"]) if index > home else (np.zeros(0, np.int64), empty())
        ends = walk(module, params, series, mask, table, range(origin, span.stop), begin)
        state["last.ids"], state["last.xy"] = ends
    if index <= home:
        origin = prompt if index == home else span.stop
        begin = table.at(prompt) if index == home else (state["first.ids"], state["first.xy"])
        ends = walk(module, params, series, mask, table, range(origin, span.start - 1, -1), begin)
        state["first.ids"], state["first.xy"] = ends
    state["next_id"] = np.array(table.next_id, np.int64)
    return table.tensors(), state


def walk(
    module: Any,
    params: Any,
    series: FrameSeries,
    mask: MaskSeries,
    table: Table,
    times: range,
    begin: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Carry points along `times`, whose first frame they stand on; returns those alive at the end."""
    ids, xy = begin
    previous = None
    for t in times:
        rgb = series[t]
        gray = module.gray(rgb)
        if previous is not None and len(ids):
            xy, ok = module.step(previous, gray, xy, params, mask[t])
            ids, xy = ids[ok], xy[ok]
        due = t == times[0] or (params.reseed > 0 and t % params.reseed == 0)
        if t in table.span and due:
            fresh = module.seed(mask[t], rgb, params, xy)
            ids, xy = np.concatenate([ids, table.fresh_ids(len(fresh))]), np.concatenate([xy, fresh])
        table.record(t, ids, xy)
        previous = gray
    return ids, xy


class Table:
    """Positions of the points of one chunk, filled frame by frame."""

    def __init__(self, span: range, next_id: int) -> None:
        self.span, self.next_id = span, next_id
        self.frames: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def fresh_ids(self, count: int) -> np.ndarray:
        self.next_id += count
        return np.arange(self.next_id - count, self.next_id, dtype=np.int64)

    def record(self, t: int, ids: np.ndarray, xy: np.ndarray) -> None:
        if t in self.span:
            self.frames[t] = ids, xy

    def at(self, t: int) -> tuple[np.ndarray, np.ndarray]:
        return self.frames[t]

    def tensors(self) -> Tensors:
        """Dense arrays over the ids that live anywhere in the chunk; where a point is not seen its nearest known
        position stands."""
        every = np.unique(np.concatenate([ids for ids, _ in self.frames.values()]))
        xy = np.full((len(self.span), len(every), 2), np.nan, np.float32)
        visible = np.zeros(xy.shape[:2], bool)
        for t, (ids, places) in self.frames.items():
            columns = np.searchsorted(every, ids)
            xy[t - self.span.start, columns] = places
            visible[t - self.span.start, columns] = True
        for row in range(1, len(xy)):
            xy[row] = np.where(np.isfinite(xy[row]), xy[row], xy[row - 1])
        for row in range(len(xy) - 2, -1, -1):
            xy[row] = np.where(np.isfinite(xy[row]), xy[row], xy[row + 1])
        return {"ids": every, "xy": xy, "visible": visible}


def empty() -> np.ndarray:
    return np.zeros((0, 2), np.float32)
