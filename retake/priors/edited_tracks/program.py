"""Tracks edited by operators: move, keys, retime and others, from settings or a JSON file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, field_validator

from retake.errors import ConfigError
from retake.params import as_written
from retake.track_edits import program as programs
from retake.track_edits.program import Program

VERSION = 1
NEEDS: tuple[str, ...] = ("masks", "tracks")


class Params(BaseModel, frozen=True, extra="forbid"):
    """What is done to the tracks."""

    name: Literal["program"] = "program"
    edits: tuple[dict[str, Any], ...] = Field((), description="operators, each on what those before it left")
    path: str | None = Field(
        None, description="JSON file of operators (docs/moving.md), in place of `edits`", json_schema_extra={"file": ""}
    )

    @field_validator("edits", mode="before")
    @classmethod
    def written(cls, edits: Any) -> Any:
        """Also as JSON."""
        if isinstance(edits, str) and edits.endswith(".json"):
            raise ValueError(f"that is a file; give edited_tracks.path={edits}")
        return as_written(edits, "edited_tracks.edits=[{do: move, by: [120, 0]}]")


def program(params: Params) -> Program:
    """Raises ConfigError E237 (nothing to do, both an edit and a file, or operators that make no sense), MediaError
    E400 (no such file)."""
    if bool(params.edits) == bool(params.path):
        raise ConfigError(
            "E237",
            "edited_tracks has both edits and a path" if params.path else "nothing says how the tracks shall move",
            "Give one: 'edited_tracks.edits=[{do: move, by: [120, 0]}]', or edited_tracks.path=FILE.json",
        )
    if params.path:
        return programs.read(Path(params.path))
    return programs.parse({"edits": list(params.edits)}, "edited_tracks")


def check_settings(params: Params) -> None:
    """Raises what `program` raises."""
    program(params)


def check(params: Params, frames: Mapping[str, Any]) -> None:
    """Raises ConfigError E238 for what the clip has no place for. frames: meta of the frames artifact."""
    programs.check(program(params), frames["count"], frames["source_width"], frames["source_height"])
