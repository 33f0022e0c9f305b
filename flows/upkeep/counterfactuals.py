"""Pairs of real clips for the control branch: what a manifest lists, through the cached graph, one shard a clip."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flows import graph
from flows.datasets.sources import entry, list_clips
from flows.places import open_store
from flows.runners import Local
from flows.settings.compose import Settings, compose, for_clip, validate
from flows.settings.dataset import ClipEntry, overlaid
from flows.terminal.console import Console
from retake.clip import open_clip
from retake.errors import MediaError
from retake.formats import EditedTrackSeries, FrameSeries, Tensors, TrackSeries, open_series
from retake.imaging.composite import pasted
from retake.recipe import digest
from retake.store import Store
from retake.training import counterfactuals, motionv2v
from retake.training.motionv2v import Seen
from retake.training.workshop import PairCoding, Workshop

MOVED = 0.5  # share of the pairs whose source is a clip with moved objects; the others' is resampled
TRIES = 20  # at a pair, until both of its videos show enough points
IN_A_ROW = 4  # pairs, of which those of moved objects share one moved clip


def render(manifest: str, shop: Workshop, count: int, console: Console, until: float = math.inf) -> bool:
    """`count` pairs of every clip of a manifest, coded into shards beside the sprite pairs, until a moment of
    time.monotonic(); whether all are there. Those that are there are kept; priors and moved clips come from the store,
    so that a run that was stopped goes on.

    Raises ConfigError E297 and E298 as a dataset does, and what the stages raise.
    """
    rows, _ = list_clips(manifest, settle=0.0)
    store, coding = open_store(), shop.pair_coding()
    runner, folder = Local(store), shop.folder / "pairs"
    for row in rows:
        if time.monotonic() > until:
            return False
        Source(entry(row), runner, console).shard(folder, coding, count)
    return True


@dataclass
class Source:
    """A clip of which pairs are made."""

    clip: ClipEntry
    runner: Local
    console: Console

    def shard(self, folder: Path, coding: PairCoding, count: int) -> Path:
        """Its shard in a folder, made unless it is there. Raises MediaError E439 for a clip that is too short for a
        pair, or whose points are hardly ever seen."""
        made = self.made("edit=propagate", until="tracks")
        what = [made["frames"].digest, made["tracks"].digest, self.clip.settings, count]
        path = folder / motionv2v.REAL.format(digest(what)[:16])
        if path.exists():
            return path
        folder.mkdir(parents=True, exist_ok=True)
        frames = made["frames"].meta["count"]
        if frames < motionv2v.FRAMES:
            raise MediaError(
                "E439",
                f"{self.clip.clip}: {frames} frames make no pair",
                f"Take clips of {motionv2v.FRAMES} frames and more.",
            )
        self.console.say(f"{self.clip.id}: {count} pairs")
        motionv2v.write(path, self.pairs(made, count, coding.size, coding.cell), coding.encode)
        return path

    def pairs(self, made: dict[str, Any], count: int, size: int, cell: int) -> Iterator[motionv2v.Told]:
        """So many pairs, drawn by their number."""
        moved: list[dict[str, Any]] = []
        for n in range(count):
            rng = np.random.default_rng([seed_of(made), n, 35])
            apart = None
            if rng.uniform() < MOVED:
                while len(moved) <= n // IN_A_ROW:
                    moved.append(self.moved(made, len(moved)))
                apart = moved[n // IN_A_ROW]
            yield motionv2v.pictured(*self.pair(rng, made, apart, size), rng, cell)

    def pair(
        self, rng: np.random.Generator, made: dict[str, Any], moved: dict[str, Any] | None, size: int
    ) -> tuple[Seen, Seen]:
        """A target and a source of size x size px, of the clip or of what it was moved to."""
        for _ in range(TRIES):
            found = counterfactuals.framed(rng, *drawn(rng, self.runner.store, made, moved), size)
            if found is not None:
                return found
        raise MediaError(
            "E439",
            f"{self.clip.clip}: its points are seen too briefly to make pairs",
            "Follow more of them, in the manifest's row: tracks.spacing=8, or more often anew: tracks.reseed=8.",
        )

    def moved(self, made: dict[str, Any], number: int) -> dict[str, Any]:
        """The clip along a random program."""
        meta = made["frames"].meta
        rng = np.random.default_rng([seed_of(made), number, 36])
        edits = counterfactuals.program(rng, meta["count"], meta["source_width"], meta["source_height"])
        return self.made("edit=move", f"edited_tracks.edits={json.dumps(edits)}", until="edit")

    def made(self, *words: str, until: str) -> dict[str, Any]:
        common = compose(["tracks.queries=grid", "tracks.spacing=12", *words])
        p: Settings = for_clip(validate(overlaid(common, self.clip)), self.clip.clip)
        return graph.edit_graph(self.runner, open_clip(self.clip.clip), p, until, report=False)


def seed_of(made: dict[str, Any]) -> int:
    """Clips differ in what is drawn for them."""
    return int(digest(made["frames"].digest)[:8], 16)


def drawn(
    rng: np.random.Generator, store: Store, made: dict[str, Any], moved: dict[str, Any] | None
) -> tuple[Seen, Seen]:
    """A target and a source of one clip, at its working size."""
    frames: FrameSeries = open_series(store, made["frames"])
    tracks: TrackSeries = open_series(store, made["tracks"])
    target, source = counterfactuals.moments(rng, len(frames), motionv2v.FRAMES)
    ours, own = [tracks[int(t)] for t in target], [frames[int(t)] for t in target]
    if moved is None:
        theirs, pictures = [tracks[int(t)] for t in source], [frames[int(t)] for t in source]
    else:
        edited: EditedTrackSeries = open_series(store, moved["edited_tracks"])
        patches = open_series(store, moved["edit"])
        theirs = [tracks_of(edited[int(t)]) for t in target]
        pictures = [laid(frame, patches[int(t)]) for frame, t in zip(own, target, strict=True)]
    known, others = (np.concatenate([ids for ids, *_ in some]) for some in (ours, theirs))
    ids = np.intersect1d(known, others)
    return Seen(np.stack(own), *table(ours, ids)), Seen(np.stack(pictures), *table(theirs, ids))


Row = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Points of a frame: ids [P], xy [P, 2], seen [P]."""


def tracks_of(now: Tensors) -> Row:
    return now["ids"], now["xy"], now["visible"] & ~now["hidden"]


def table(rows: list[Row], ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places float32 [F, P, 2] and visibility [F, P] of some ids; on frames that do not know one it is not seen."""
    xy, visible = np.zeros((len(rows), len(ids), 2), np.float32), np.zeros((len(rows), len(ids)), bool)
    for row, (known, at, seen) in enumerate(rows):
        _, mine, theirs = np.intersect1d(ids, known, assume_unique=True, return_indices=True)
        xy[row, mine], visible[row, mine] = at[theirs], seen[theirs]
    return xy, visible


def laid(frame: np.ndarray, patch: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    """A frame of the edit at the working size, uint8 [H, W, 3]."""
    made, ((x0, y0, x1, y1), rgb, alpha) = frame.copy(), patch
    pasted(made, (x0, y0, x1, y1), rgb, alpha)
    return made
