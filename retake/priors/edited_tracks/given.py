"""Edited tracks that somebody made already: written by `retake export --what tracks`, changed by any tool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field

from retake.errors import ConfigError
from retake.exchange.tracks import PointTracks
from retake.priors.tracks import given

VERSION = 1
NEEDS: tuple[str, ...] = ("masks", "tracks")


class Params(BaseModel, frozen=True, extra="forbid"):
    """Which tracks."""

    name: Literal["given"] = "given"
    path: str | None = Field(
        None,
        description="npz or JSON of tracks with the ids of the clip's own (docs/formats.md); others stay",
        json_schema_extra={"file": ""},
    )
    own: bool = Field(
        False,
        description="where the clip itself knows its points shall be, in place of a path: pairs of the sprite world",
        json_schema_extra={"inert": "the clip is an ingredient of such tracks"},
    )


def check_settings(params: Params) -> None:
    """Raises ConfigError E251 when no path is given, or one beside the clip's own."""
    if params.own and params.path:
        raise ConfigError("E251", "edited_tracks.own=true has no use for edited_tracks.path", "Give one of them.")
    if not params.path and not params.own:
        raise ConfigError(
            "E251",
            "edited_tracks=given needs edited_tracks.path",
            "Give edited_tracks.path=FILE: retake export CLIP --what tracks writes one to change.",
        )


def check(params: Params, frames: Mapping[str, Any]) -> None:
    """Raises what `tracks` raises, but for positions, which are read later."""
    if not params.own:
        tracks(params, frames)


def tracks(params: Params, frames: Mapping[str, Any]) -> PointTracks:
    """The tracks of the file in working pixels. Raises ConfigError E251, MediaError E400, E436, E437 as tracks=given
    does."""
    check_settings(params)
    return given.tracks(given.Params(path=params.path, own=False), frames)
