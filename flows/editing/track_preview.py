"""Source and edited tracks drawn over the clip, before anything moves: the work behind `retake tracks show`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flows import graph
from flows.editing import result_folder
from flows.places import edits_home, open_store
from flows.runners import Local
from flows.settings.compose import settings
from retake.clip import open_clip
from retake.formats import EditedTrackSeries, FrameSeries
from retake.machine.disk import require_writable
from retake.report import layers
from retake.video import encode, write_png

SIDE = 854  # px, longest side of the video
STRIP = 6  # frames of the strip
MOST = 60  # points drawn: more hide what they lie on


def show(
    clip: str, overrides: Sequence[str] = (), out: Path | None = None, runner: Local | None = None
) -> dict[str, Any]:
    """Draw the edited tracks of a clip: `tracks.mp4`, and `tracks.png` with six frames of it, in a folder beside the
    clip's edits or in `out`.

    Each point stands where it shall be, with a line from where it is in the source. Returns the paths of both, and what
    `counted` says. Raises what the stages raise.
    """
    opened, p = open_clip(clip), settings(list(overrides), clip)
    runner = runner or Local(open_store())
    folder = out or edits_home() / opened.name / f"tracks-{result_folder.edit_id(runner.store, opened, p)}"
    require_writable(folder)

    def build() -> dict[str, Any]:
        made = graph.edit_graph(runner, opened, p, "edited_tracks", report=False)
        frames = FrameSeries(runner.store, made["frames"])
        tracks = EditedTrackSeries(runner.store, made["edited_tracks"])
        folder.mkdir(parents=True, exist_ok=True)
        size = layers.tile_size(frames.width, frames.height, SIDE)
        wanted = np.unique(np.linspace(0, len(frames) - 1, STRIP).astype(int))
        strip: list[np.ndarray] = []

        def drawn() -> Iterator[np.ndarray]:
            for t, rgb in enumerate(frames):
                picture = with_points(layers.resize_to(rgb, size), tracks[t], (frames.width, frames.height))
                if t in wanted:
                    strip.append(picture)
                yield picture

        encode(folder / "tracks.mp4", drawn(), frames.meta["fps"], crf=20)
        write_png(folder / "tracks.png", in_rows([layers.resize_to(s, half(size)) for s in strip]))
        return {
            "video": str(folder / "tracks.mp4"),
            "strip": str(folder / "tracks.png"),
            **counted(tracks, frames.meta["source_width"] / frames.width),
        }

    return runner.healed(build)


def counted(tracks: EditedTrackSeries, scale: float) -> dict[str, Any]:
    """How many points there are, are moved, show another moment and are hidden, at any time; the longest way in px of
    the source, of which `scale` make one of the working size."""
    found: dict[str, set[int]] = {"points": set(), "moved": set(), "retimed": set(), "hidden": set()}
    longest = 0.0
    for t in range(len(tracks)):
        now = tracks[t]
        way = np.linalg.norm(now["xy"] - now["source"], axis=1)
        longest = max(longest, float(way.max(initial=0)))
        every = np.ones(len(way), bool)
        for name, which in zip(found, (every, way > 0.5, now["frame"] != t, now["hidden"]), strict=True):
            found[name] |= set(now["ids"][which].tolist())
    return {name: len(ids) for name, ids in found.items()} | {"longest_px": round(longest * scale, 1)}


def with_points(picture: np.ndarray, now: dict[str, np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """A picture, uint8 [h, w, 3] of a frame of `size`, with the points of the frame."""
    shown = np.flatnonzero(now["visible"] | now["hidden"])
    shown = shown[:: -(-len(shown) // MOST) or 1]
    scale = picture.shape[1] / size[0], picture.shape[0] / size[1]
    source, edited = (layers.scale_points(now[name][shown], scale) for name in ("source", "xy"))
    dark = (picture.astype(np.uint16) * 3 // 4).astype(np.uint8)
    return layers.draw_moved(dark, source, edited, now["ids"][shown], now["hidden"][shown])


def in_rows(pictures: list[np.ndarray], across: int = 3) -> np.ndarray:
    """Pictures uint8 [h, w, 3] side by side, so many across."""
    blank = [np.zeros_like(pictures[0])] * (-len(pictures) % across if len(pictures) > across else 0)
    every = [*pictures, *blank]
    return np.concatenate([np.concatenate(every[n : n + across], 1) for n in range(0, len(every), across)])


def half(size: tuple[int, int]) -> tuple[int, int]:
    return size[0] // 2, size[1] // 2
