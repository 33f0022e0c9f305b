"""Encoding and tagging files from the parent process: requests to the child and its answers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

from retake.imaging.colour.coding import VIEW, Coding
from retake.imaging.colour.planes import joined, shapes
from retake.machine.disk import atomic_path, explain_write_errors

from .client import PathLike, local_file, time_limit
from .info import EncodeInfo, Limits, exact_rate
from .process import Worker, borrow

Codec = Literal["h264", "hevc10", "prores", "ffv1"]

_PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo")


def encode(
    target: PathLike,
    frames: Iterable[np.ndarray | Sequence[np.ndarray]],
    fps: float | Fraction,
    timestamps: Iterable[float] | None = None,
    last_length: float | None = None,
    audio_from: PathLike | None = None,
    audio_start: float = 0.0,
    belongings_from: PathLike | None = None,
    until: float | None = None,
    comment: str | None = None,
    codec: Codec = "h264",
    coding: Coding = VIEW,
    crf: int = 18,
    keyint: int | None = None,
    preset: str = "medium",
    limits: Limits | None = None,
) -> EncodeInfo:
    """Encode frames, all of one size: uint8 RGB [H, W, 3], or with a `coding` the planes of that coding (as
    `decode_codes` gives them).

    `codec` h264 plays everywhere: an MP4, yuv420p, limited range, with the source's matrix, primaries and transfer;
    HDR is tone-mapped, RGB becomes BT.709. hevc10 is an MP4 of 10 bits, 4:2:0, prores a MOV of 10 bits, 4:2:2 or
    4:4:4 with alpha; both keep matrix, primaries and transfer. ffv1 is a Matroska file of the very code values.
    The index lies in front; two encoder threads, so that equal frames give equal bytes. An odd size is padded to even
    by repeating the edge. `timestamps` (seconds, rising, one a frame) make a variable rate; the first becomes 0.
    `last_length` is how long the last frame stays, seconds; by default as long as the one before it. `audio_from` is
    a clip whose sound tracks are copied, from `audio_start` seconds after that clip's first frame for as long as the
    video lasts, the default one first; one in a codec that MP4 does not carry is encoded as AAC, with a note.
    `belongings_from` is a clip whose title, date, timecode, chapters and subtitles are carried, from `audio_start` to
    `until` seconds after its first frame. `comment` is the comment tag, `crf` 0 (finest) to 51 and `preset` (x264's and
    x265's speeds) hold for h264 and hevc10, `keyint` is the longest distance of key frames in frames.

    The file appears under its name when it is complete. Raises MachineError E503 when the disk is full,
    E502 when it is not writable, ValueError for frames or settings that do not fit, what `probe` raises for
    the audio's clip.
    """
    if preset not in _PRESETS or not 0 <= crf <= 51 or not 0.001 <= fps <= 1000 or not audio_start >= 0:
        raise ValueError(f"preset {preset!r}, crf {crf}, fps {fps}, audio_start {audio_start}: see the docstring")
    limits = limits or Limits()
    goal = Path(target)
    request: dict[str, Any] = {"op": "encode", "path": str(goal), "codec": codec, "coding": coding.as_json()}
    request |= {
        "fps": str(exact_rate(fps)),
        "comment": comment and _escaped(comment),
        "crf": crf,
        "keyint": keyint,
        "preset": preset,
    }
    request |= {"audio": local_file(audio_from) if audio_from else None, "audio_start": audio_start}
    request |= {"belongings": local_file(belongings_from) if belongings_from else None, "until": until}
    request |= {"limits": limits.as_json(), "timed": timestamps is not None, "last_length": last_length}
    pictures = ([frame] if isinstance(frame, np.ndarray) else frame for frame in frames)
    first = next(pictures, None)
    if first is None:
        raise ValueError("no frames to encode")
    request["size"] = [*first[0].shape[1::-1]]
    with explain_write_errors(goal):
        goal.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(goal, durable=True) as part, borrow() as worker:
            worker.begin(str(goal), limits.stall, limits.wall)
            worker.send(request | {"part": str(part.absolute())})
            worker.receive()  # ready: the sound's clip is open
            written = _feed(worker, itertools.chain([first], pictures), coding, timestamps, limits)
    return EncodeInfo(
        **{**written, "path": str(goal), "padded": tuple(written["padded"]), "notes": tuple(written["notes"])}
    )


def set_comment(path: PathLike, comment: str, limits: Limits | None = None) -> None:
    """Set the comment tag of an MP4 in place, without encoding anything again; the file is replaced when the new one
    is complete. Raises MachineError E503 when the disk is full, E502 when it is not writable, what `probe` raises for
    a bad file."""
    limits = limits or Limits()
    file = local_file(path)
    goal = Path(file)
    with explain_write_errors(goal), atomic_path(goal) as part, borrow() as worker:
        worker.begin(file, limits.stall, time_limit(file, limits))
        request = {"op": "tag", "path": file, "part": str(part), "comment": _escaped(comment)}
        worker.send(request | {"limits": limits.as_json()})
        worker.receive()


def _feed(
    worker: Worker,
    frames: Iterable[Sequence[np.ndarray]],
    coding: Coding,
    timestamps: Iterable[float] | None,
    limits: Limits,
) -> dict[str, Any]:
    clock = iter(timestamps) if timestamps is not None else None
    last, expected = -float("inf"), list[tuple[int, ...]]()
    for count, planes in enumerate(frames):
        expected = expected or shapes(coding, planes[0].shape[1::-1])
        _check_planes(planes, expected, coding, count)
        message: dict[str, Any] = {"op": "frame"}
        if clock is not None:
            time = next(clock, None)
            if time is None or not time > last:
                raise ValueError(f"timestamps: frame {count} has {time}, its predecessor {last}; they must rise")
            message["time"] = last = float(time)
        worker.wall += limits.wall_per_frame
        flat = np.ascontiguousarray(planes[0]) if len(planes) == 1 else joined(planes)
        worker.send(message, flat.data.cast("B"))
        if worker.has_message():
            break  # nothing but an error comes before the end
    else:
        worker.send({"op": "end"})
    return worker.receive()[0]["written"]


def _check_planes(planes: Sequence[np.ndarray], expected: list[tuple[int, ...]], coding: Coding, count: int) -> None:
    sample = np.uint8 if coding.depth == 8 else np.uint16
    found = [plane.shape for plane in planes]
    if found != expected or any(plane.dtype != sample or not plane.size for plane in planes):
        is_ = ", ".join(f"{plane.dtype} {plane.shape}" for plane in planes)
        raise ValueError(f"frame {count} is {is_}, expected {np.dtype(sample)} {', '.join(map(str, expected))}")


def _escaped(text: str) -> str:
    """Text in which what is no UTF-8, of a file's name, reads \\udcXX."""
    return text.encode("utf-8", "backslashreplace").decode()
