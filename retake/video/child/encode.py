"""Frames into a video file. Runs in the child, since the audio's source is as hostile as any clip."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import av
from av.error import FFmpegError

from retake.errors import MachineError
from retake.imaging.colour.coding import Coding
from retake.imaging.colour.convert import Planes
from retake.imaging.colour.planes import split
from retake.imaging.colour.recode import padded_to_even, recoded

from .audio import Track, open_audio
from .belongings import belongings_of
from .channel import Channel, Stopped
from .codecs import CODECS, add_stream
from .hdr10 import x265_params
from .planes import frame_of

_VFR_UNIT = Fraction(1, 90000)
_X265_DELAY = 3  # frames; x265 4.2 leaves the dts of a shorter clip to memory that nobody wrote
FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


def encode(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Serve one encode request: take `frame` messages until `end`. Returns {"written": fields of EncodeInfo}.

    Raises MachineError E503 (disk full), E502 (not writable) or E504 (no such encoder).
    """
    try:
        return {"written": _write(request, channel)}
    except (OSError, FFmpegError) as error:
        raise disk_error(request, error) from None


def _write(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    start, reading = request["audio_start"], (request["limits"], channel.keep_alive)
    sounds, notes = open_audio(request["audio"], CODECS[request["codec"]].container, start, *reading)
    others = belongings_of(request["belongings"], start, request["until"], *reading)
    tracks: list[Track] = [*sounds, *others.subtitles]
    notes += others.notes
    graded = request["codec"] == "hevc10" and request["belongings"]
    request["hdr10"] = x265_params(request["belongings"], request["limits"]) if graded else ""
    channel.send({"event": "ready"})
    source, size, codec = Coding.from_json(request["coding"]), tuple(request["size"]), CODECS[request["codec"]]
    target = codec.coding(source)
    frames = _frames(channel, source, size)
    first, time = next(frames)
    first = padded_to_even(recoded(first, source, target), target)
    height, width = first[0].shape[:2]
    padded = (width - size[0], height - size[1])
    rate = Fraction(request["fps"])
    container = av.open(request["part"], "w", format=codec.container, options=codec.container_options)
    try:
        container.metadata.update(others.tags)
        container.set_chapters(others.chapters)
        if request["comment"]:
            container.metadata["comment"] = request["comment"]
        unit = _VFR_UNIT if request["timed"] else 1 / rate
        stream = add_stream(container, request, target, (width, height), unit)
        if others.timecode:
            stream.metadata["timecode"] = others.timecode
        for track in tracks:
            track.attach(container)
        count, at, step, begun = 0, Fraction(0), 1 / rate, None
        recode = ((padded_to_even(recoded(planes, source, target), target), time) for planes, time in frames)
        for at, step, planes in _timed(itertools.chain([(first, time)], recode), rate):
            picture = frame_of(planes, target)
            picture.pts, picture.time_base = round(at / unit), unit
            for packet in stream.encode(picture):
                begun = packet.dts if begun is None else begun
                container.mux(packet)
            count += 1
            for track in tracks:
                track.write_until(container, at + step)
        last = stream.encode_lazy(None)
        if request["codec"] == "hevc10" and count < _X265_DELAY:
            last = _in_order(last)
        if request["last_length"]:
            usual, step = round(step / unit), Fraction(request["last_length"])
            last = _ending(last, begun, round((at + step) / unit), usual)
            for track in tracks:
                track.write_until(container, at + step)
        for packet in last:
            container.mux(packet)
            channel.tick()
        for track in tracks:
            track.finish(container)
            notes += [note for note in track.notes if note not in notes]
    except BaseException:
        with contextlib.suppress(Exception):
            container.close()
        raise
    container.close()
    return {
        "width": width,
        "height": height,
        "padded": list(padded),
        "frames": count,
        "fps": float(count / (at + step)),
        "duration": float(at + step),
        "bytes": _sync(request["part"]),
        "audio": sounds[0].codec if sounds else None,
        "notes": notes,
    }


def _timed(
    frames: Iterable[tuple[Planes, float | None]], rate: Fraction
) -> Iterator[tuple[Fraction, Fraction, Planes]]:
    """(start, length, frame) in seconds; a timed frame is taken to last as long as the one before it."""
    zero, at, step = 0.0, Fraction(0), 1 / rate
    for count, (planes, time) in enumerate(frames):
        if time is None:
            at = count / rate
        elif count == 0:
            zero = time
        else:
            before, at = at, round((time - zero) / _VFR_UNIT) * _VFR_UNIT
            step = at - before
        yield at, step, planes


def _in_order(packets: Iterable[Any]) -> Iterator[Any]:
    for packet in packets:
        packet.dts = packet.pts
        yield packet


def _ending(packets: Iterable[Any], begun: int | None, end: int, usual: int) -> Iterator[Any]:
    """The encoder's last packets, in units of its clock, with the frame shown last lasting until `end`.

    MP4 keeps lengths in the order of writing, and the frame shown last need not be written last. Readers take the
    lesser of two ends: the sum of all lengths, and the latest that a packet says of itself. begun: the first dts.
    usual: how long the frame before it lasts.
    """
    held: list[Any] = []  # from the one shown last on
    for packet in packets:
        begun = packet.dts if begun is None else begun
        if held and packet.pts > held[0].pts:
            yield from held
            held = []
        held.append(packet)
    if held and begun is not None:
        shown, written = held[0], held[-1]
        longer = end - shown.pts > usual
        shown.duration = end - shown.pts
        written.duration = max(1, end - (written.pts if longer else written.dts - begun))
    yield from held


def _frames(channel: Channel, coding: Coding, size: tuple[int, int]) -> Iterator[tuple[Planes, float | None]]:
    while True:
        message, payload = channel.receive()
        if message.get("op") == "end":
            return
        if message.get("op") != "frame":
            raise Stopped
        yield split(payload, coding, size), message.get("time")


def _sync(part: str) -> int:
    with open(part, "rb") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size


def disk_error(request: dict[str, Any], error: Exception) -> MachineError:
    """The error for a `part` that could not be written, after removing it: MachineError E503 (disk full) or E502."""
    part, code = request["part"], getattr(error, "errno", None)
    size = os.path.getsize(part) if os.path.exists(part) else 0
    with contextlib.suppress(OSError):
        os.unlink(part)
    if code not in FULL:
        return MachineError("E502", f"cannot write {request['path']}: {error}", "Check the folder's permissions.")
    return MachineError(
        "E503",
        f"disk full: {request['path']} could not be written, {size} bytes were",
        "Free some space and run the same command again.",
    )
