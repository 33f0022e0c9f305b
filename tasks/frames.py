"""frames: decode a clip to pixels at working size."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from retake.artifact import Frames
from retake.clip import Clip, ClipInfo, select_indices
from retake.errors import ConfigError, MediaError
from retake.formats import CHUNK, TIMES, pack
from retake.stage import Work, stage
from retake.video import Selection
from retake.video.info import exact_rate

ROUNDING = 0.0025  # seconds that a clock may be off


class Params(BaseModel, frozen=True, extra="forbid"):
    """Which frames, at which size."""

    start: float = Field(0.0, ge=0, description="first moment, seconds from the clip's first frame")
    end: float | None = Field(None, gt=0, description="moment to stop before, seconds; null: the clip's end")
    first: int | None = Field(None, ge=0, description="first source frame, counted from 0")
    last: int | None = Field(None, ge=0, description="last source frame, inclusive")
    fps: float | None = Field(None, gt=0, le=1000, description="resample on true timestamps, frames a second")
    short_side: int | None = Field(480, ge=16, description="working size, pixels of the short side; null: the source's")
    decoder: Literal["auto", "decord", "pyav"] = Field(
        "auto", description="auto: PyAV; decord: its colours are up to 2.8 levels darker"
    )
    on_damage: Literal["fail", "conceal"] = Field("fail", description="conceal: keep what a damaged clip still shows")
    sha256: str | None = Field(
        None,
        pattern="^[0-9a-fA-F]{64}$",
        description="SHA-256 of the video file, 64 hexadecimal digits: any other file is refused",
        json_schema_extra={"inert": "a guard"},
    )
    folder_fps: float = Field(24.0, gt=0, description="rate of clips that have no times (image folders)")
    max_frames: int = Field(
        100_000, ge=1, description="guard: more frames are refused", json_schema_extra={"inert": "a guard"}
    )

    def selection(self) -> Selection:
        return Selection(self.start, self.end, self.first, self.last, self.fps, self.max_frames)


def working_size(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """Size at which stages work: the source's, shrunk so that its short side is at most `short_side`; even."""
    scale = min(1.0, short_side / min(width, height)) if short_side else 1.0
    if scale == 1.0:
        return width, height
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


def uneven(times: list[float], fps: float) -> bool:
    """Whether some frame lies off the even course at which a result of `fps` plays, beyond the rounding of a
    container's clock (1 ms in Matroska)."""
    off = np.array(times) - times[0] - np.arange(len(times)) / float(exact_rate(fps))
    return float(np.abs(off).max()) > ROUNDING


def unusual_length(times: list[float], end: float | None, fps: float, variable: bool) -> dict[str, float]:
    """`last_length`, seconds, where the last frame is not shown for as long as the one before it (of an even clip: as
    all others)."""
    if end is None:
        return {}
    usual = times[-1] - times[-2] if variable and len(times) > 1 else 1 / fps
    length = end - times[-1]
    return {"last_length": length} if abs(length - usual) > ROUNDING else {}


def selected(selection: Selection, info: ClipInfo) -> int:
    """How many frames a selection is likely to leave: exactly so where the clip has one rate."""
    try:
        return sum(1 for _ in select_indices(selection, info.frames, info.fps))
    except (ConfigError, MediaError):  # what its real times say is found out by decoding
        return info.frames


@stage("frames", version=3, makes="frames", backends=("av", "decord", "opencv-python-headless"))
def stage_frames(work: Work, params: Params, clip: Clip) -> Frames:
    """Decode in a child process, in chunks; timestamps are the source's own."""
    info = clip.info(params.folder_fps)
    size = working_size(info.width, info.height, params.short_side)
    notes = list(info.notes)
    reading = {"backend": params.decoder, "on_damage": params.on_damage, "on_note": notes.append}
    done, expected = len(work.done), selected(params.selection(), info)
    rgb: list[np.ndarray] = []
    times: list[float] = []

    def commit() -> None:
        index = (len(times) - 1) // CHUNK
        if index >= done:
            work.commit(index, {"rgb": np.stack(rgb)})
        rgb.clear()

    for seconds, frame in clip.read(params.selection(), size, params.folder_fps, **reading):
        rgb.append(frame)
        times.append(seconds)
        if len(times) % CHUNK == 0:
            commit()
            work.progress(len(times), max(expected, len(times)))
    if rgb:
        commit()
    work.progress(len(times), len(times))
    work.add(TIMES, pack({"seconds": np.array(times)}))
    fps = params.fps or info.fps
    variable = uneven(times, fps)
    return work.finish(
        count=len(times),
        width=size[0],
        height=size[1],
        fps=fps,
        source_width=info.width,
        source_height=info.height,
        variable=variable,
        **unusual_length(times, clip.end(params.selection()), fps, variable),
        selection=params.selection().as_json() | {"max_frames": None},
        folder_fps=params.folder_fps,
        decoder=params.decoder,
        on_damage=params.on_damage,
        notes=notes,
    )  # type: ignore[return-value]
