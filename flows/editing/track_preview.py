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
from retake.report.contact_sheet import Sheet
from retake.video import encode, write_png

SIDE = 854  # px, longest side of the video
LEAST = 384  # px: smaller clips are drawn enlarged
STRIP = 6  # frames of the strip
LEGEND = "dots: where points shall be; lines: from where they are"
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
        own = frames.width, frames.height
        larger = max(1, -(-LEAST // max(own)))
        size = layers.tile_size(own[0] * larger, own[1] * larger, SIDE)
        strip = Sheet(("tracks",), len(frames), STRIP, 320, LEGEND)

        def drawn() -> Iterator[np.ndarray]:
            for t, rgb in enumerate(frames):
                picture = with_points(layers.resize_to(rgb, size), tracks[t], own)
                strip.add(t, (picture,))
                yield picture

        encode(folder / "tracks.mp4", drawn(), frames.meta["fps"], crf=20)
        write_png(folder / "tracks.png", strip.image())
        return {
            "video": str(folder / "tracks.mp4"),
            "strip": str(folder / "tracks.png"),
            **counted(tracks, own, frames.meta["source_width"] / own[0]),
        }

    return runner.healed(build)


def counted(tracks: EditedTrackSeries, size: tuple[int, int], scale: float) -> dict[str, Any]:
    """How many points there are, are moved, show another moment and are hidden, at any time; the longest way in px of
    the source, of which `scale` make one of the working size, (width, height); on how many `frames` no point that is
    edited is followed (`lost`), and on how many all of those that are followed lie outside the picture."""
    found: dict[str, set[int]] = {"points": set(), "moved": set(), "retimed": set(), "hidden": set()}
    longest = 0.0
    for t in range(len(tracks)):
        now = tracks[t]
        way = np.linalg.norm(now["xy"] - now["source"], axis=1)
        longest = max(longest, float(way.max(initial=0)))
        every = np.ones(len(way), bool)
        for name, which in zip(found, (every, way > 0.5, now["frame"] != t, now["hidden"]), strict=True):
            found[name] |= set(now["ids"][which].tolist())
    edited = np.array(sorted(found["moved"] | found["retimed"] | found["hidden"]), np.int64)
    lost = outside = 0
    for t in range(len(tracks) if len(edited) else 0):
        now = tracks[t]
        at = now["xy"][(now["visible"] | now["hidden"]) & np.isin(now["ids"], edited)]
        lost += not len(at)
        outside += bool(len(at)) and bool(((at < 0) | (at > np.array(size) - 1)).any(1).all())
    counts = {name: len(ids) for name, ids in found.items()} | {"longest_px": round(longest * scale, 1)}
    return counts | {"frames": len(tracks), "lost": lost, "outside": outside}


def with_points(picture: np.ndarray, now: dict[str, np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """A picture, uint8 [h, w, 3] of a frame of `size`, with the points of the frame."""
    shown = np.flatnonzero(now["visible"] | now["hidden"])
    shown = shown[:: -(-len(shown) // MOST) or 1]
    scale = picture.shape[1] / size[0], picture.shape[0] / size[1]
    source, edited = (layers.scale_points(now[name][shown], scale) for name in ("source", "xy"))
    dark = (picture.astype(np.uint16) * 3 // 4).astype(np.uint8)
    return layers.draw_moved(dark, source, edited, now["ids"][shown], now["hidden"][shown])
