"""The dataset: which clips, which edits of each. A plain list in params/dataset, or a manifest of any length."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field, field_validator, model_validator

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Entry(BaseModel, frozen=True, extra="forbid"):
    """A name, and settings that this entry lays over the common ones (group -> key -> value)."""

    id: str = Field(description="folder name under artifacts/: letters, digits, . _ -")
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict, description="group -> key -> value")

    @field_validator("id")
    @classmethod
    def _safe(cls, value: str) -> str:
        if not NAME.fullmatch(value):
            raise ValueError(f"an id is letters, digits, '.', '_' and '-', at most 128: {value!r}")
        return value


class ClipEntry(Entry, frozen=True):
    """One clip of the dataset."""

    clip: str = Field(description="a video file, an image folder, DAVIS_ROOT:name or sprites:name")


class Rules(BaseModel, frozen=True, extra="forbid"):
    """Clips that are left out, by what the container says of them: known before anything is decoded."""

    shorter_than: int = Field(0, ge=0, description="frames; 0: none is too short")
    longer_than: int = Field(0, ge=0, description="frames; 0: none is too long")
    smaller_than: int = Field(0, ge=0, description="pixels of the shorter side; 0: none is too small")


class Dataset(BaseModel, frozen=True, extra="forbid"):
    """Every edit is made of every clip."""

    clips: tuple[ClipEntry, ...] = Field((), description="clips, each with an id of its own")
    manifest: str | None = Field(
        None, description="more clips: a CSV, JSON lines, a DAVIS tree, or a folder of videos (an inbox)"
    )
    settle: float = Field(5.0, ge=0, description="seconds that a file of a folder must not have been written for")
    edits: tuple[Entry, ...] = Field(description="edits, each with an id of its own", min_length=1)
    skip: Rules = Field(Rules.model_construct(), description="clips that are left out by rule")
    attempts: int = Field(3, ge=1, le=20, description="how often what may pass is tried")

    @model_validator(mode="after")
    def _distinct(self) -> Dataset:
        for what, entries in (("clips", self.clips), ("edits", self.edits)):
            ids = [e.id.lower() for e in entries]
            if twice := sorted({i for i in ids if ids.count(i) > 1}):
                raise ValueError(f"{what}: the id {twice[0]!r} stands twice")
        return self


def overlaid(common: Mapping[str, Any], *entries: Entry) -> dict[str, Any]:
    """Common settings with those of the entries laid over them, key by key."""
    merged = {group: dict(values) for group, values in common.items()}
    for entry in entries:
        for group, values in entry.settings.items():
            merged[group] = {**merged.get(group, {}), **values}
    return merged
