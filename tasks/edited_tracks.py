"""edited_tracks: where the points of the clip shall be, beside where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from retake.artifact import EditedTracks, Frames, Masks, Tracks
from retake.clip import Clip
from retake.errors import MediaError
from retake.formats import CHUNK, MaskSeries, Tensors, TrackSeries, chunk_range
from retake.lookup import lookup
from retake.stage import Work, stage
from retake.track_edits.clip_source import ClipTracks
from retake.track_edits.evaluate import Edit, Points, merged
from retake.track_edits.program import check
from tasks.tracks import own_tracks

NOTHING = (
    "nothing moves: the edits choose no point, or change none; see which there are: retake tracks show (background and "
    "whole picture: tracks.queries=grid)"
)


@stage(
    "edited_tracks", version=2, makes="editedtracks", backends=("opencv-python-headless",), group="priors.edited_tracks"
)
def stage_edited_tracks(
    work: Work, params: Any, frames: Frames, masks: Masks, tracks: Tracks, clip: Clip | None = None
) -> EditedTracks:
    """Chunk by chunk: of every point the edited place, the source frame that it shows, and where it stands there.
    `clip`: it knows where its points shall be.

    Raises ConfigError E238 (an object that the masks do not hold), E239 (too few points for an operator)."""
    series: TrackSeries = work.open(tracks)
    objects: MaskSeries = work.open(masks)
    meta = frames.meta
    module, source = lookup("priors.edited_tracks", params.name), ClipTracks(series, objects)
    if hasattr(module, "program"):
        program = module.program(params)
        check(program, len(series), meta["source_width"], meta["source_height"], objects.ids)
        scale = (meta["width"] / meta["source_width"], meta["height"] / meta["source_height"])
        at: Callable[[int], Points] = Edit(program, source, scale).at
    else:
        given = own_tracks(clip, work.open(frames), edited=True) if clip is not None else module.tracks(params, meta)
        at = Replaced(given, source).at
    for index in range(series.chunks()):
        if index in work.done:
            continue
        span = chunk_range(index, len(series))
        work.commit(index, tensors([at(t) for t in span], source))
        work.progress(span.stop, len(series))
    changed = any(changes(work.read(index), index) for index in range(series.chunks()))
    return work.finish(
        count=len(series),
        width=series.width,
        height=series.height,
        name=params.name,
        objects=list(objects.ids),
        notes=[] if changed else [NOTHING],
    )  # type: ignore[return-value]


def changes(chunk: Tensors, index: int) -> bool:
    """Whether anything in a chunk of edited tracks is not as in the source."""
    now = np.arange(len(chunk["frame"]))[:, None] + index * CHUNK
    return bool(
        (np.abs(chunk["xy"] - chunk["source"]).max(initial=0) > 0.05)
        or chunk["hidden"].any()
        or (chunk["frame"] != now).any()
    )


class Replaced:
    """The clip's tracks with the places that a file gives for some of them. Frames are asked for in their order."""

    def __init__(self, given: Any, source: ClipTracks) -> None:
        self.given, self.source = given, source
        if not np.isin(given.ids, source.ids).any():
            raise MediaError(
                "E437",
                "the file of edited tracks holds none of the clip's own points",
                "Start from them: retake export CLIP --what tracks, with the same settings.",
            )
        self._rows = self._read()
        self._row, self._t = next(self._rows), 0

    def _read(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for xy, visible in self.given.blocks():
            yield from zip(xy, visible, strict=True)

    def at(self, t: int) -> Points:
        while self._t < t:
            self._row, self._t = next(self._rows), self._t + 1
        ids, xy, visible, objects = self.source.points(t)
        time, hidden = np.full(len(ids), float(t)), np.zeros(len(ids), bool)
        now = Points(ids, xy.astype(np.float64), visible, objects, time, hidden)
        theirs, seen = self._row
        _, here, there = np.intersect1d(ids, self.given.ids, assume_unique=True, return_indices=True)
        known = np.isfinite(theirs[there]).all(1)
        here, there = here[known], there[known]
        changed = now.where(here)
        changed.xy[:], changed.visible[:] = theirs[there], seen[there]
        return merged(now, changed)


def tensors(edited: list[Points], source: ClipTracks) -> Tensors:
    """Dense arrays of consecutive frames over the ids that stand on any of them."""
    every = np.unique(np.concatenate([points.ids for points in edited]))
    shape = (len(edited), len(every))
    objects = np.zeros(len(every), np.int64)
    xy, stood = np.zeros((*shape, 2), np.float32), np.zeros((*shape, 2), np.float32)
    visible, hidden = np.zeros(shape, bool), np.zeros(shape, bool)
    shown = np.zeros(shape, np.int32)
    for row, points in enumerate(edited):
        columns = np.searchsorted(every, points.ids)
        objects[columns] = points.objects
        frame = np.rint(points.time).astype(np.int32)
        xy[row, columns], hidden[row, columns], shown[row, columns] = points.xy, points.hidden, frame
        stood[row, columns] = points.xy
        known = np.zeros(len(points.ids), bool)
        for t in np.unique(frame):
            ids, there, _, _ = source.points(int(t))
            _, mine, theirs = np.intersect1d(points.ids, ids, assume_unique=True, return_indices=True)
            some = frame[mine] == t
            stood[row, columns[mine[some]]] = there[theirs[some]]
            known[mine[some]] = True
        visible[row, columns] = points.visible & known
    return {
        "ids": every,
        "objects": objects,
        "xy": xy,
        "source": stood,
        "frame": shown,
        "visible": visible,
        "hidden": hidden,
    }
