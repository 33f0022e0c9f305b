"""A video file as a clip."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from retake.errors import MediaError
from retake.imaging.colour.coding import Coding
from retake.store import Store
from retake.video import Selection, VideoInfo, decode, decode_codes, probe, selection_end

from .base import Clip, ClipInfo, Frame


@dataclass(frozen=True)
class VideoClip(Clip):
    """A video file. It is probed and decoded in a child process. sha256: the expected hash, if any."""

    sha256: str | None = None

    def expected(self, sha256: str | None) -> Clip:
        return replace(self, sha256=sha256.lower()) if sha256 else self

    def digest(self, store: Store) -> str:
        """Content digest. Raises MediaError E417 if it differs from `sha256`."""
        found = store.source_digest(self.spec)
        if self.sha256 not in (None, found):
            raise MediaError(
                "E417",
                f"{self.spec} has the SHA-256 {found[:12]}..., not {self.sha256[:12]}... as frames.sha256 says",
                "Copy it again; or where it was changed on purpose: sha256sum FILE prints its own.",
            )
        return found

    def paths(self) -> list[str]:
        return [self.spec]

    @property
    def audio(self) -> Path | None:
        return Path(self.spec) if self._probed.audio else None

    @property
    def file(self) -> Path | None:
        return Path(self.spec)

    @cached_property
    def _probed(self) -> VideoInfo:
        return probe(self.spec)

    def info(self, folder_fps: float) -> ClipInfo:
        v = self._probed
        return ClipInfo(v.width, v.height, v.frames, v.fps, v.audio, v.notes)

    def end(self, selection: Selection) -> float | None:
        return selection_end(self.spec, selection)

    def read(
        self, selection: Selection, size: tuple[int, int] | None, folder_fps: float, **reading: Any
    ) -> Iterator[Frame]:
        return decode(self.spec, selection, size, **reading)

    @property
    def coding(self) -> Coding:
        return self._probed.shown

    def codes(self, selection: Selection, folder_fps: float, **reading: Any) -> Iterator[list[np.ndarray]]:
        return (planes for _, planes in decode_codes(self.spec, selection, **reading))
