"""Probing, decoding, encoding and reading images from the parent process: requests to the child and its answers."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

from retake.errors import MediaError, did_you_mean
from retake.imaging.colour.coding import VIEW, Coding
from retake.imaging.colour.planes import joined, shapes, split
from retake.machine.disk import atomic_path, explain_write_errors

from . import wire
from .info import EncodeInfo, Limits, Selection, VideoInfo, exact_rate
from .process import Worker, borrow

PathLike = str | os.PathLike[str]

Backend = Literal["auto", "decord", "pyav"]
OnDamage = Literal["fail", "conceal"]
Codec = Literal["h264", "hevc10", "prores", "ffv1"]

_PROTOCOL = re.compile(r"[A-Za-z][A-Za-z0-9+.,-]*:")
_PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo")


def probe(path: PathLike, limits: Limits | None = None) -> VideoInfo:
    """Properties of the clip at `path`. Demuxes the whole file and decodes its first frame.

    Raises MediaError (exit status 4): E400 missing, E401 empty, E402 unknown container, E403 playlist,
    E404 URL, E405 no index, E408 time, E409 no video, E410 nothing decodes, E411 too small or too narrow,
    E413 no decoder, E414 too large, E415 a colour coding that is not read, E416 the child crashed.
    """
    limits = limits or Limits()
    file = local_file(path)
    with borrow() as worker:
        worker.begin(file, limits.stall, _time_limit(file, limits))
        worker.send({"op": "probe", "path": file, "limits": limits.as_json()})
        return VideoInfo.from_json(worker.receive()[0]["info"])


def selection_end(path: PathLike, selection: Selection, limits: Limits | None = None) -> float:
    """When the last selected frame of the clip at `path` is over, in seconds from the clip's first frame.

    Raises what `probe` raises, and ConfigError E211 when the selection leaves no frame.
    """
    limits = limits or Limits()
    file = local_file(path)
    with borrow() as worker:
        worker.begin(file, limits.stall, _time_limit(file, limits))
        request = {"op": "probe", "path": file, "limits": limits.as_json(), "selection": selection.as_json()}
        worker.send(request)
        return float(worker.receive()[0]["end"])


def decode(
    path: PathLike,
    selection: Selection | None = None,
    size: tuple[int, int] | None = None,
    backend: Backend = "auto",
    on_damage: OnDamage = "fail",
    limits: Limits | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Iterator[tuple[float, np.ndarray]]:
    """Yield (seconds from the clip's first frame, uint8 RGB [H, W, 3]) in order, upright and square.

    The picture is the view of the clip's colours (retake/imaging/colour/view.py), by the file's matrix, range,
    primaries and transfer. `size` is (width, height), None for the size as shown; the resizing is `resize`. `backend`
    auto is PyAV; decord's colours are up to 2.8 levels darker than the code values say. With `on_damage="fail"` the
    first damaged packet (E407), a cut file or a missing frame (E406) ends the clip; most codecs carry no checksum, so a
    flipped bit that decodes to other pixels is not always seen. With `conceal` what decodes is
    delivered, by PyAV. The consumer may stop at any time, and may take its time: only waiting for the
    child counts against the limits. A `selection` with `fps` yields tick times. `on_note` is called
    after the last frame with what to record: frames lost or concealed, a change of decoder.

    Raises what `probe` raises, and MediaError E406, E407, E412 (the resolution changes); ConfigError E211
    when the selection leaves no frame; ValueError for an unknown `backend` or `on_damage`.
    """
    request = {"size": list(size) if size else None, "codes": False}
    for seconds, flat, shape in _decode(path, request, selection, backend, on_damage, limits, on_note):
        yield seconds, wire.as_frame(flat, shape)


def decode_codes(
    path: PathLike,
    selection: Selection | None = None,
    backend: Backend = "auto",
    on_damage: OnDamage = "fail",
    limits: Limits | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Iterator[tuple[float, list[np.ndarray]]]:
    """Yield (seconds, planes of code values) of the very frames that `decode` gives, upright and square, at the size as
    shown. Planes are as in retake/imaging/colour/planes.py, uint8 or uint16; their coding is `VideoInfo.shown`.

    Raises what `decode` raises.
    """
    info = probe(path, limits)
    for seconds, flat, _ in _decode(
        path, {"size": None, "codes": True}, selection, backend, on_damage, limits, on_note
    ):
        yield seconds, split(flat, info.shown, (info.width, info.height))


def _decode(
    path: PathLike,
    wanted: dict[str, Any],
    selection: Selection | None,
    backend: str,
    on_damage: str,
    limits: Limits | None,
    on_note: Callable[[str], None] | None,
) -> Iterator[tuple[float, np.ndarray, list[int]]]:
    """(seconds, all bytes of a picture uint8 [n], its shape)"""
    if backend not in ("auto", "decord", "pyav") or on_damage not in ("fail", "conceal"):
        raise ValueError(f"backend {backend!r}, on_damage {on_damage!r}: see the docstring for what exists")
    notify = on_note or (lambda note: None)
    file, limits = local_file(path), limits or Limits()
    request: dict[str, Any] = {"op": "decode", "path": file, "limits": limits.as_json(), **wanted}
    request |= {"selection": (selection or Selection()).as_json()}
    request |= {"backend": backend, "on_damage": on_damage, "skip": 0}
    sent, used = 0, backend
    while True:
        try:
            with borrow() as worker:
                worker.begin(file, limits.stall, _time_limit(file, limits))
                worker.send(request)
                while True:
                    message, payload = worker.receive()
                    if message.get("event") == "info":
                        used = message["backend"]
                        worker.wall += limits.wall_per_frame * message["info"]["frames"]
                    elif message.get("event") == "frame":
                        sent += 1
                        yield float(message["time"]), payload, message["shape"]
                    else:
                        for note in message.get("notes", []):
                            notify(str(note))
                        return
        except MediaError as error:
            # decord can hang or crash where PyAV does not.
            if not (used == "decord" and error.code in ("E408", "E416")):
                raise
            notify(f"decord failed at frame {sent} ({error.code}): PyAV went on from there")
            request["backend"] = used = "pyav"
            request["skip"] = sent


def read_image(path: PathLike, max_pixels: int = Limits.max_pixels, limits: Limits | None = None) -> np.ndarray:
    """A PNG, JPEG, WebP, BMP or TIFF as uint8 RGB [H, W, 3], or RGBA [H, W, 4] where it has alpha.

    As viewers show it: turned as its EXIF tag says, and in sRGB where an ICC profile says what its colours are. 16 bits
    are rounded to 8. Raises MediaError E400 missing, E401 empty, E404 URL, E420 unreadable, E421 over `max_pixels`.
    """
    limits = limits or Limits()
    file = local_file(path)
    with borrow() as worker:
        worker.begin(file, limits.stall, _time_limit(file, limits))
        worker.send({"op": "image", "path": file, "max_pixels": max_pixels, "limits": limits.as_json()})
        message, payload = worker.receive()
        image = wire.as_frame(payload, message["shape"])
        worker.receive()
        return image


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
        worker.begin(file, limits.stall, _time_limit(file, limits))
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


def _time_limit(file: str, limits: Limits) -> float:
    return limits.wall + os.path.getsize(file) / limits.wall_bytes_per_second


def local_file(path: PathLike) -> str:
    """The absolute name of an existing, regular, non-empty local file. Raises MediaError E400, E401 or E404."""
    name = os.fspath(path)
    if "\0" in name:
        raise MediaError("E400", f"{name!r} is not a file name", "Give the path of a local file.")
    exists = os.path.lexists(name)
    if _PROTOCOL.match(name) and not exists:
        raise MediaError(
            "E404", f"{name} looks like a URL; only local files are read", "Download it and give its path."
        )
    if not os.path.isfile(name):
        raise _missing(name)
    if os.path.getsize(name) == 0:
        raise MediaError("E401", f"{name} is empty (0 bytes)", "Copy it again from where it came.")
    return os.path.abspath(name)


def _missing(name: str) -> MediaError:
    if os.path.exists(name):
        kind = "a folder" if os.path.isdir(name) else "not a regular file"
        return MediaError("E400", f"{name} is {kind}, a file was expected", "Give the path of one clip or image.")
    folder, base = os.path.split(os.path.abspath(name))
    try:
        with os.scandir(folder) as entries:
            near = did_you_mean(base, [e.name for e, _ in zip(entries, range(5000), strict=False)])
    except OSError:
        return MediaError("E400", f"no such file: {name} (there is no folder {folder})", "Check the path.")
    return MediaError("E400", f"no such file: {name}", near if near.startswith("Did") else "Check the path.")
