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

    Each point stands where it shall be, with a line from where it is in the source. Returns the paths of both, how many
    points there are, how many of them are moved, and the longest way in working pixels. Raises what the stages raise.
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
        write_png(folder / "tracks.png", np.concatenate([layers.resize_to(s, half(size)) for s in strip], 1))
        ways = [np.linalg.norm(tracks[t]["xy"] - tracks[t]["source"], axis=1) for t in range(len(tracks))]
        points = {int(i) for t in range(0, len(tracks), 16) for i in tracks[t]["ids"]}
        moved = {int(i) for t, way in enumerate(ways) for i in tracks[t]["ids"][way > 0.5]}
        return {
            "video": str(folder / "tracks.mp4"),
            "strip": str(folder / "tracks.png"),
            "points": len(points),
            "moved": len(moved),
            "longest_px": round(float(max((way.max(initial=0) for way in ways), default=0)), 1),
        }

    return runner.healed(build)


def with_points(picture: np.ndarray, now: dict[str, np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """A picture, uint8 [h, w, 3] of a frame of `size`, with the points of the frame."""
    shown = np.flatnonzero(now["visible"])
    shown = shown[:: -(-len(shown) // MOST) or 1]
    scale = picture.shape[1] / size[0], picture.shape[0] / size[1]
    source, edited = (layers.scale_points(now[name][shown], scale) for name in ("source", "xy"))
    dark = (picture.astype(np.uint16) * 3 // 4).astype(np.uint8)
    return layers.draw_moved(dark, source, edited, now["ids"][shown])


def half(size: tuple[int, int]) -> tuple[int, int]:
    return size[0] // 2, size[1] // 2
