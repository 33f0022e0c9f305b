"""Tracks that somebody made already: another tracker's, or tracks edited by hand (an npz or JSON file)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from retake.errors import ConfigError, MediaError
from retake.exchange.files import check_shape
from retake.exchange.tracks import Block, PointTracks, open_tracks

VERSION = 1
NEEDS: tuple[str, ...] = ()

_HINT = "Give tracks made from this clip, uncropped; `size` in the file is (width, height)."


class Params(BaseModel, frozen=True, extra="forbid"):
    """Which tracks."""

    name: Literal["given"] = "given"
    path: str | None = Field(
        None,
        description="npz or JSON with xy [T,P,2], visible [T,P], optional ids [P] and size [2] (docs/formats.md)",
        json_schema_extra={"file": ""},
    )
    own: bool = Field(
        False,
        description="the tracks that the clip itself knows, in place of a path: of pairs of the sprite world",
        json_schema_extra={"inert": "the clip is an ingredient of such tracks"},
    )


def check_settings(params: Params) -> None:
    """Raises ConfigError E251 when no path is given, or one beside the clip's own tracks."""
    if not params.own:
        _path(params)
    elif params.path:
        raise ConfigError("E251", "tracks.own=true has no use for tracks.path", "Give one of them.")


def _path(params: Params) -> Path:
    if not params.path:
        raise ConfigError(
            "E251", "tracks=given needs tracks.path", "Give tracks.path=FILE: an .npz or .json file of tracks."
        )
    return Path(params.path)


def check(params: Params, frames: Mapping[str, Any]) -> None:
    """Before anything runs: raises ConfigError E251 when no path is given, MediaError E400 when nothing is there,
    E436 when the file holds no tracks, E437 when it holds another number of frames or another shape than the clip."""
    if not params.own:
        tracks(params, frames)


def tracks(params: Params, frames: Mapping[str, Any]) -> PointTracks:
    """The tracks of the file in working pixels, ids and columns in ascending order of the ids.

    frames: meta of the frames artifact. The file counts frames as they are selected. Positions move between sizes by
    pixel centres, (x + 0.5) * s - 0.5; where the sizes are equal they stay bit for bit. Raises what `check` raises,
    and its blocks MediaError E436 for positions that make no sense.
    """
    path = _path(params)
    found = open_tracks(path)
    if found.count != frames["count"]:
        raise MediaError(
            "E437",
            f"{path} holds tracks over {found.count} frames, the clip has {frames['count']}",
            "Give one row a frame of those that are selected: see frames.first, last and fps.",
        )
    width, height = found.size or (frames["source_width"], frames["source_height"])
    check_shape(path, (height, width), (frames["width"], frames["height"]), "E437", _HINT)
    order = np.argsort(found.ids, kind="stable")
    scale = np.array([frames["width"] / width, frames["height"] / height])

    def blocks() -> Iterator[Block]:
        for xy, visible in found.blocks():
            if (scale != 1).any():
                xy = ((xy.astype(np.float64) + 0.5) * scale - 0.5).astype(np.float32)
            yield xy[:, order], visible[:, order]

    return PointTracks(found.ids[order], found.count, (frames["width"], frames["height"]), blocks)
