"""Which points of a clip its control branch is told of, and the two pictures of their tracks that it reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retake.formats import CHUNK, EditedTrackSeries, Tensors, TrackSeries
from retake.imaging.blobs import SIGMA, blobs, colours_of

STILL = 0.25  # share of the points that are left to what does not move, where enough moves
SEEN = 0.5  # of the frames that the longest seen point of a chunk is seen on, among those that move or that stay
MOVED = 0.5  # working pixels beyond which a point counts as moved

Colours = Literal["apart", "one_colour", "shuffled"]
"""Of points: each its own in both pictures, one for all, or each another's in the target."""
Pictures = Callable[[range], NDArray[np.uint8]]
"""Frames of a range, uint8 [n, h, w, 3]."""


class Chosen(NamedTuple):
    """Points that are told of: their ids, int64 [P], in the order in which they are first needed; whether some of them
    stay where they are; and on how many frames, of chunks in which something moves, none that moves is seen."""

    ids: NDArray[np.int64]
    stays: bool
    lost: int


def chosen(tracks: TrackSeries, edited: EditedTrackSeries, count: int) -> Chosen:
    """On every chunk of 16 frames `count` of the points that are seen there, far apart from one another; most are of
    what moves.

    Points that were chosen go on as long as they are seen; where some are lost, others take their places.
    """
    taken: list[int] = []
    stays, lost = False, 0
    for index in range(tracks.chunks()):
        chunk = tracks.chunk(index)
        ids, seen = chunk["ids"], chunk["visible"]
        moves, before = np.isin(ids, moved(edited.chunk(index), tracks, index * CHUNK)), np.isin(ids, taken)
        good = (seen.mean(0) > 0) & (long_seen(seen, moves) | long_seen(seen, ~moves))
        free, room = good & ~before, count - int((good & before).sum())
        most = max(0, min(room, round((1 - STILL) * count) - int((good & before & moves).sum())))
        places = middles(np.where(seen[..., None], chunk["xy"], np.nan))
        for of in (moves, ~moves, moves):  # what is left of one kind goes to the other
            among = np.flatnonzero(free & of)
            picked = among[spread(places[among], most)]
            taken += ids[picked].tolist()
            stays |= bool(len(picked)) and not moves[picked].any()
            free[picked] = False
            room -= len(picked)
            most = room
        if moves.any():
            lost += int((~seen[:, moves & np.isin(ids, taken)].any(1)).sum())
    return Chosen(np.array(taken, np.int64), stays, lost)


def long_seen(seen: NDArray[np.bool_], of: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which points of a kind, bool [P], are seen [n, P] on enough frames beside the longest seen one of the kind."""
    shares = seen.mean(0)
    return of & (shares >= SEEN * shares[of].max(initial=0.0))


def moved(chunk: Tensors, tracks: TrackSeries, first: int) -> NDArray[np.int64]:
    """Ids of the points of a chunk of edited tracks, which begins at frame `first`, that shall be elsewhere than they
    are, shown at another time, or hidden."""
    here = np.arange(first, first + len(chunk["xy"]))
    found = chunk["hidden"].any(0) | (chunk["frame"] != here[:, None]).any(0)
    for row, t in enumerate(here):
        ids, xy, _ = tracks[int(t)]
        _, mine, theirs = np.intersect1d(chunk["ids"], ids, assume_unique=True, return_indices=True)
        found[mine] |= np.abs(chunk["xy"][row, mine] - xy[theirs]).max(-1) > MOVED
    return chunk["ids"][found]


def middles(places: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean places [P, 2] of places [n, P, 2] with NaN where a point is not seen."""
    known = np.isfinite(places[..., :1])
    return np.where(known, places, 0).sum(0, np.float64) / np.maximum(known.sum(0), 1)


def spread(places: NDArray[np.float64], count: int) -> list[int]:
    """Numbers of at most `count` of the places [P, 2], each the farthest from those before it, from the middle on."""
    if not len(places) or count <= 0:
        return []
    picked = [int(np.linalg.norm(places - places.mean(0), axis=1).argmin())]
    nearest = np.linalg.norm(places - places[picked[0]], axis=1)
    while len(picked) < min(count, len(places)):
        picked.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(places - places[picked[-1]], axis=1))
    return picked


@dataclass(frozen=True)
class Told:
    """Points of a clip as pictures of the model's size (width, height), each point in a colour of its own. working: the
    size in whose pixels tracks are; cell: pixels of the model a latent cell; jitter: sigmas by which the places of the
    target are shaken at most (MotionV2V, fig. 12: where both tracks lie on one another for long, networks copy)."""

    tracks: TrackSeries
    edited: EditedTrackSeries
    ids: NDArray[np.int64]
    working: tuple[int, int]
    size: tuple[int, int]
    cell: int
    jitter: float
    colours: Colours
    seed: int

    def target(self, frames: range) -> NDArray[np.uint8]:
        """Where points shall be."""

        def places(t: int) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
            now = self.edited[t]
            return now["ids"], now["xy"], now["visible"] & ~now["hidden"]

        shaken = [np.random.default_rng([self.seed, t, 33]).uniform(-1, 1, (len(self.ids), 2)) for t in frames]
        return self.drawn(places, frames, self.jitter * self.sigma * np.stack(shaken), True)

    def source(self, frames: range) -> NDArray[np.uint8]:
        """Where they are."""
        return self.drawn(lambda t: self.tracks[t], frames, 0.0)

    @property
    def sigma(self) -> float:
        return SIGMA * self.cell

    def drawn(
        self,
        places: Callable[[int], tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]],
        frames: range,
        shaken: NDArray[np.float64] | float,
        target: bool = False,
    ) -> NDArray[np.uint8]:
        """Blobs at (ids, xy, visible) of each frame, moved by `shaken` [n, P, 2] px of the model's pictures."""
        scale = np.array(self.size) / np.array(self.working)
        xy = np.full((len(frames), len(self.ids), 2), np.nan, np.float32)
        visible = np.zeros((len(frames), len(self.ids)), bool)
        order = np.argsort(self.ids)
        for row, t in enumerate(frames):
            ids, at, seen = places(t)
            _, mine, theirs = np.intersect1d(self.ids[order], ids, assume_unique=True, return_indices=True)
            xy[row, order[mine]] = (at[theirs] + 0.5) * scale - 0.5
            visible[row, order[mine]] = seen[theirs]
        colours = colours_of(len(self.ids), np.random.default_rng([self.seed, 34]))
        if self.colours == "one_colour":
            colours[:] = 1
        if target and self.colours == "shuffled":
            colours = np.roll(colours, len(colours) // 2, 0)
        return np.rint(255 * blobs(xy + shaken, visible, colours, self.size, self.sigma)).astype(np.uint8)
