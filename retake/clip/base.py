"""What every clip can tell and give, and the rules for choosing its frames and naming it."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retake.errors import ConfigError, MediaError
from retake.imaging.colour.coding import VIEW, Coding
from retake.recipe import digest
from retake.store import Store
from retake.video import Selection

RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # names that Windows keeps for itself
Frame = tuple[float, np.ndarray]


@dataclass(frozen=True)
class ClipInfo:
    """Properties of a clip before decoding. Sizes as shown (upright, square pixels), times in seconds."""

    width: int
    height: int
    frames: int
    fps: float
    audio: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Clip:
    """Base class of clips. `spec` is the clip's name as typed."""

    spec: str

    @property
    def name(self) -> str:
        """A safe folder name."""
        return slug(Path(self.spec).stem)

    def digest(self, store: Store) -> str:
        """Content digest; renaming or touching the clip does not change it."""
        raise NotImplementedError

    def paths(self) -> list[str]:
        """Files and folders that must not change during a run."""
        return []

    def expected(self, sha256: str | None) -> Clip:
        """The clip, checked against the SHA-256 of its file. Raises ConfigError E235 if it is not one file."""
        if sha256 is None:
            return self
        raise ConfigError("E235", f"frames.sha256 is of a video file, and {self.spec} is none", "Leave it out.")

    @property
    def audio(self) -> Path | None:
        """The file whose sound goes with the clip, if it has any."""
        return None

    @property
    def file(self) -> Path | None:
        """The video file that the clip is, if it is one."""
        return None

    def info(self, folder_fps: float) -> ClipInfo:
        """Size, count, rate. `folder_fps` is the rate of clips without times. Raises MediaError."""
        raise NotImplementedError

    def end(self, selection: Selection) -> float | None:
        """When the last selected frame is over, seconds from the clip's first frame; None: a step after it began."""
        return None

    def read(
        self, selection: Selection, size: tuple[int, int] | None, folder_fps: float, **reading: Any
    ) -> Iterator[Frame]:
        """(seconds from the clip's first frame, uint8 RGB [H,W,3]) of the selected frames, in order: the view."""
        raise NotImplementedError

    def masks(self, selection: Selection, size: tuple[int, int]) -> Iterator[dict[int, np.ndarray]]:
        """True masks of the selected frames, bool [H, W] by object id, at size = (width, height). Raises ConfigError
        E223 for a clip that knows none."""
        raise ConfigError("E223", f"{self.spec} knows no masks of its own", "Give --box x0,y0,x1,y1, or masks.path.")

    def depth(self, selection: Selection, size: tuple[int, int]) -> Iterator[np.ndarray]:
        """True relative inverse depth of the selected frames, float32 [H, W], larger is nearer, at size = (width,
        height). Raises ConfigError E245 for a clip that knows none."""
        raise ConfigError(
            "E245", f"{self.spec} knows no depth of its own", "Give depth.path, or leave depth=given out."
        )

    def tracks(self, selection: Selection, size: tuple[int, int], edited: bool) -> tuple[np.ndarray, np.ndarray]:
        """True tracks of points: xy float32 [N, P, 2] in pixels at size = (width, height) and visible bool [N, P], of
        the selected frames; where the points shall be, if `edited`. Raises ConfigError E251 for a clip that knows
        none."""
        raise ConfigError("E251", f"{self.spec} knows no tracks of its own", "Give a file of tracks, or leave own out.")

    @property
    def coding(self) -> Coding:
        """How the code values that `codes` gives stand for colours."""
        return VIEW

    def codes(self, selection: Selection, folder_fps: float, **reading: Any) -> Iterator[list[np.ndarray]]:
        """Code values of the selected frames, in order, at the source's size: planes as in
        retake/imaging/colour/planes.py."""
        return ([rgb] for _, rgb in self.read(selection, None, folder_fps, **reading))


def select_indices(selection: Selection, count: int, fps: float) -> Iterator[tuple[float, int]]:
    """(seconds, source index) of the selected frames of a clip whose frame k is shown at k / fps.

    The rules are those of `Selection`: with `selection.fps`, tick k takes the frame that is on screen then.
    Raises ConfigError E211 when nothing is left, MediaError E414 when more than `max_frames` are.
    """
    first = max(selection.first or 0, math.ceil(selection.start * fps - 1e-6))
    ends = [count - 1 if selection.last is None else min(selection.last, count - 1)]
    if selection.end is not None:
        ends.append(math.ceil(selection.end * fps - 1e-6) - 1)
    last = min(ends)
    if first > last:
        raise ConfigError(
            "E211",
            f"the selection leaves no frame: the clip has {count} frames in {count / fps:.3f} s",
            "Choose frames.start and frames.end, or first and last, inside the clip.",
        )
    indices = list(range(first, last + 1))
    if rate := selection.rate:
        begin = selection.start if selection.start * fps > first - 1 else first / fps
        ticks = math.floor(((last + 1) / fps - begin) * float(rate) - 1e-6) + 1
        indices = [max(first, min(last, math.floor((begin + k / float(rate)) * fps + 1e-6))) for k in range(ticks)]
    if selection.max_frames and len(indices) > selection.max_frames:
        raise MediaError(
            "E414",
            f"{len(indices)} frames are more than frames.max_frames={selection.max_frames}",
            "Trim, or raise it.",
        )
    step = 1 / float(selection.rate) if selection.rate else 1 / fps
    return ((indices[0] / fps + k * step, index) for k, index in enumerate(indices))


def slug(text: str) -> str:
    """A folder name that is safe everywhere: letters, digits, '.', '_' and '-', at most 128 characters.

    Letters beyond ASCII lose their accents or are left out; six digits of the text's digest then keep names apart that
    differ in them alone. However a system composes accents, the name is the same.
    """
    text = unicodedata.normalize("NFC", text)
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-._")
    safe = (f"clip-{safe}" if RESERVED.fullmatch(safe) else safe)[:128].rstrip("-._") or "clip"
    return safe if text.isascii() else f"{safe[:121].rstrip('-._')}-{digest(text)[:6]}"
