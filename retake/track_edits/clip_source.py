"""The tracks of a clip as an edit reads them: which object each point lies on, and where the objects' middles are."""

from __future__ import annotations

import numpy as np

from retake.formats import MaskSeries, TrackSeries
from retake.track_edits.camera import Found, motions, placed


class ClipTracks:
    """Tracks and masks of one clip. Reads the masks once; keeps a number a point, and two an object and frame."""

    def __init__(self, tracks: TrackSeries, masks: MaskSeries) -> None:
        self.tracks, self.count, self.size = tracks, len(tracks), (tracks.width, tracks.height)
        votes: dict[int, np.ndarray] = {}  # by point: on how many frames it is seen on each object; [0]: on none
        middles = np.full((len(masks.ids), self.count, 2), np.nan)
        areas = np.zeros((len(masks.ids), self.count), int)
        for t in range(self.count):
            here = {identity: masks.object(t, identity) for identity in masks.ids}
            for k, mask in enumerate(here.values()):
                rows, columns = np.nonzero(mask)
                areas[k, t] = len(rows)
                if len(rows):
                    middles[k, t] = columns.mean(), rows.mean()
            ids, xy, visible = tracks[t]
            x = np.rint(xy[visible, 0]).astype(int).clip(0, self.size[0] - 1)
            y = np.rint(xy[visible, 1]).astype(int).clip(0, self.size[1] - 1)
            found = np.zeros(len(x), np.int64)
            for k, mask in enumerate(here.values(), 1):
                found[mask[y, x]] = k
            for point, k in zip(ids[visible].tolist(), found.tolist(), strict=True):
                votes.setdefault(point, np.zeros(len(masks.ids) + 1, int))[k] += 1
        self.ids = np.array(sorted(votes), np.int64)
        """Of all points that are seen, ascending."""
        # A point at an object's edge lies beside its mask on some frames: most of them tell.
        named = np.array([0, *masks.ids], np.int64)
        self._labels = named[[int(votes[i].argmax()) for i in self.ids.tolist()]] if votes else np.zeros(0, np.int64)
        self._middles = {
            identity: self._carried(identity, middles[k], int(areas[k].argmax()))
            for k, identity in enumerate(masks.ids)
            if areas[k].any()
        }

    def _carried(self, identity: int, middles: np.ndarray, whole: int) -> np.ndarray:
        """Where the middle of an object is on all frames, float64 [F, 2]: that of its mask on the frame `whole`, where
        most of it is seen, moved as its points move. The middle of the mask itself would jump where something covers a
        part of it; it stands in where no points are left."""

        def seen(t: int) -> Found:
            ids, xy, visible, objects = self.points(t)
            keep = visible & (objects == identity)
            return ids[keep], xy[keep]

        back = np.linalg.inv(motions(seen, self.count, whole, "affine"))
        known = np.flatnonzero(np.isfinite(middles[:, 0]))
        found = np.stack([np.interp(np.arange(self.count), known, middles[known, axis]) for axis in (0, 1)], 1)
        moved = np.isfinite(back).all((1, 2))
        found[moved] = placed(back[moved], np.repeat(middles[whole][None], moved.sum(), 0))
        return found

    def points(self, t: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """ids int64 [P], xy float32 [P, 2], visible bool [P], objects int64 [P] of frame t."""
        ids, xy, visible = self.tracks[t]
        if not len(self.ids):
            return ids, xy, visible, np.zeros(len(ids), np.int64)
        place = np.searchsorted(self.ids, ids).clip(max=len(self.ids) - 1)
        return ids, xy, visible, np.where(self.ids[place] == ids, self._labels[place], 0)

    def middles(self, t: int) -> dict[int, tuple[float, float]]:
        """(x, y) of every object's middle, by its id."""
        return {identity: (float(xy[t, 0]), float(xy[t, 1])) for identity, xy in self._middles.items()}
