"""Descriptions of a clip, a selection of frames, limits and an encoded file. Nothing here opens a file."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from fractions import Fraction
from typing import Any

from retake.errors import ConfigError
from retake.imaging.colour.coding import Coding, turned


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video file. Sizes in pixels, times in seconds, `rotation` in degrees clockwise."""

    container: str
    """Demuxer name, for example `mov,mp4,m4a,3gp,3g2,mj2`."""
    codec: str
    pix_fmt: str
    width: int
    """Width as shown: after rotation, with square pixels. Frames are delivered at this size."""
    height: int
    coded_width: int
    """Width as stored in the file."""
    coded_height: int
    rotation: int
    """0, 90, 180 or 270: how far the stored picture must be turned clockwise to stand upright."""
    mirrored: bool
    """The stored picture is also flipped left to right, before it is turned."""
    pixel_aspect: str
    """Width to height of a stored pixel, `1:1` for square ones."""
    frames: int
    """Frames that will be shown, counted over the packets of the whole file."""
    promised: int
    """Number of frames according to the container's index; 0 if it has none."""
    fps: float
    """Average rate from the true timestamps."""
    variable: bool
    """True when frames are not evenly spaced, beyond the rounding of the container's clock."""
    duration: float
    """From the first frame's start to the last frame's end."""
    interlaced: bool
    """The first frame is two woven fields; frames are delivered as they are, not deinterlaced."""
    coding: Coding
    """How the stored code values stand for colours."""
    matrix_assumed: bool
    """True when the file has no matrix tag: BT.709 from 720 stored lines upwards, else BT.601."""
    audio: str | None
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """A dict of JSON types; `from_json` reads it back."""
        return {**asdict(self), "coding": self.coding.as_json(), "notes": list(self.notes)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> VideoInfo:
        """The record from `as_json`. Raises TypeError for a missing or unknown field."""
        return cls(**{**data, "coding": Coding.from_json(data["coding"]), "notes": tuple(data.get("notes", ()))})

    @property
    def bit_depth(self) -> int:
        return self.coding.depth

    @property
    def color_matrix(self) -> str:
        """`bt709`, `bt601`, `bt2020`, `fcc`, `smpte240m`, `ycgco`, or `rgb` where there is none."""
        return self.coding.matrix

    @property
    def color_range(self) -> str:
        """`limited` or `full`."""
        return "full" if self.coding.full else "limited"

    @property
    def shown(self) -> Coding:
        """How code values stand for colours in frames as `decode_codes` gives them: upright, with square pixels."""
        coding = turned(self.coding, (self.coded_width, self.coded_height), self.rotation, self.mirrored)
        return coding if self.pixel_aspect == "1:1" else replace(coding, step=(1, 1), siting=(0.0, 0.0))


@dataclass(frozen=True)
class Selection:
    """Which frames to decode; by default the whole clip.

    Times count from the clip's first frame. `start` is inclusive, `end` exclusive. `first` and `last`
    are indices of source frames, both inclusive. With `fps`, tick k lies at `begin + k / fps` and takes
    the frame that is on screen then: the last one whose timestamp is not after the tick (timestamps are
    known to half a unit of the container's clock). `begin` is `start`, or the time of frame `first`.
    `max_frames` is a guard: a selection with more frames is refused (E414), never cut short.

    Raises ConfigError E210 for values that contradict each other.
    """

    start: float = 0.0
    end: float | None = None
    first: int | None = None
    last: int | None = None
    fps: float | None = None
    max_frames: int | None = None

    def __post_init__(self) -> None:
        problem = _contradiction(self)
        if problem:
            raise ConfigError("E210", f"frames selection: {problem}", "Give start < end and first <= last, from 0.")

    @property
    def rate(self) -> Fraction | None:
        """`fps` as an exact fraction, so that ticks never drift."""
        return None if self.fps is None else exact_rate(self.fps)

    def as_json(self) -> dict[str, Any]:
        """A dict of JSON types; `Selection(**data)` reads it back."""
        return asdict(self)


@dataclass(frozen=True)
class Limits:
    """Limits on time, memory and size for one clip. Exceeding one raises MediaError with the code given below."""

    stall: float = 30.0
    """Seconds without any sign of life from the child before it is killed (E408)."""
    wall: float = 120.0
    """Seconds that a clip may keep its caller waiting, before the two allowances below (E408)."""
    wall_per_frame: float = 1.0
    """Further seconds a frame."""
    wall_bytes_per_second: float = 10e6
    """Slowest disk that is waited for: size / this is added to `wall`."""
    data_bytes: int = 4 << 30
    """Private memory of the child (RLIMIT_DATA), in bytes (E414)."""
    max_pixels: int = 8192 * 4096
    """Pixels of one stored frame (E414)."""
    max_frames: int = 1_000_000
    """Frames of one clip (E414)."""
    output_bytes: int | None = None
    """Largest file the child may write (RLIMIT_FSIZE); None leaves it to the disk (E503)."""

    def as_json(self) -> dict[str, Any]:
        """A dict of JSON types; `Limits(**data)` reads it back."""
        return asdict(self)


@dataclass(frozen=True)
class EncodeInfo:
    """Properties of the file written. `padded` is (right, bottom): columns and rows added to reach an even size."""

    path: str
    width: int
    height: int
    padded: tuple[int, int]
    frames: int
    fps: float
    duration: float
    bytes: int
    audio: str | None
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """A dict of JSON types."""
        return {**asdict(self), "padded": list(self.padded), "notes": list(self.notes)}


def exact_rate(fps: float | Fraction) -> Fraction:
    """The nearest fraction with a denominator up to 1001: 29.97002997 is 30000/1001."""
    return Fraction(fps).limit_denominator(1001)


def _contradiction(selection: Selection) -> str:
    numbers = [getattr(selection, f.name) for f in fields(selection)]
    if any(n is not None and not math.isfinite(n) for n in numbers):
        return "a value is not finite"
    if selection.start < 0 or (selection.end is not None and selection.end <= selection.start):
        return f"start {selection.start:g} s and end {selection.end} s leave nothing"
    first = selection.first or 0
    if first < 0 or (selection.last is not None and selection.last < first):
        return f"first {selection.first} and last {selection.last} leave nothing"
    if selection.fps is not None and not 0.001 <= selection.fps <= 1000:
        return f"fps {selection.fps:g} is outside 0.001 to 1000"
    if selection.max_frames is not None and selection.max_frames < 1:
        return f"max_frames {selection.max_frames} is not positive"
    return ""
