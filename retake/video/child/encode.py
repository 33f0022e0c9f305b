"""RGB frames into an MP4 for people. Runs in the child, since the audio's source is as hostile as any clip."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import Interpolation, VideoReformatter

from retake.errors import MachineError

from .audio import open_audio
from .channel import Channel, Stopped

_THREADS = 2  # the bytes that x264 writes depend on it, so it is the same on every machine
_VFR_UNIT = Fraction(1, 90000)
FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
_BT709, _LIMITED, _FULL = 1, 1, 2
# x264's macroblock tree reads memory that nobody wrote (its AVX-512 code; seen with MALLOC_PERTURB_): without it equal
# frames give equal bytes, whatever ran in the process before.
_X264 = "mbtree=0"
# Slower than the default, but the same arithmetic on every processor.
_EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT | Interpolation.FULL_CHR_H_INT


def encode(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Serve one encode request: take `frame` messages until `end`. Returns {"written": fields of EncodeInfo}.

    Raises MachineError E503 (disk full), E502 (not writable) or E504 (no H.264 encoder).
    """
    try:
        return {"written": _write(request, channel)}
    except (OSError, FFmpegError) as error:
        raise disk_error(request, error) from None


def _write(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    tracks, notes = open_audio(request["audio"], request["audio_start"], request["limits"], channel.keep_alive)
    channel.send({"event": "ready"})
    frames = _frames(channel)
    first, time = next(frames)
    height, width = first.shape[:2]
    padded = (width % 2, height % 2)
    rate = Fraction(request["fps"])
    container = av.open(request["part"], "w", format="mp4", options={"movflags": "+faststart"})
    try:
        if request["comment"]:
            container.metadata["comment"] = request["comment"]
        stream = _video_stream(container, request, rate, width + padded[0], height + padded[1])
        for track in tracks:
            track.attach(container)
        unit = Fraction(stream.codec_context.time_base)
        reformat = VideoReformatter().reformat
        count, at, step, begun = 0, Fraction(0), 1 / rate, None
        for at, step, rgb in _timed(itertools.chain([(first, time)], frames), rate):
            picture = _yuv(reformat, rgb, padded)
            picture.pts, picture.time_base = round(at / unit), unit
            for packet in stream.encode(picture):
                begun = packet.dts if begun is None else begun
                container.mux(packet)
            count += 1
            for track in tracks:
                track.write_until(container, at + step)
        last = stream.encode_lazy(None)
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
            notes += track.notes
    except BaseException:
        with contextlib.suppress(Exception):
            container.close()
        raise
    container.close()
    return {
        "width": width + padded[0],
        "height": height + padded[1],
        "padded": list(padded),
        "frames": count,
        "fps": float(count / (at + step)),
        "duration": float(at + step),
        "bytes": _sync(request["part"]),
        "audio": tracks[0].codec if tracks else None,
        "notes": notes,
    }


def _timed(
    frames: Iterable[tuple[np.ndarray, float | None]], rate: Fraction
) -> Iterator[tuple[Fraction, Fraction, np.ndarray]]:
    """(start, length, frame) in seconds; a timed frame is taken to last as long as the one before it."""
    zero, at, step = 0.0, Fraction(0), 1 / rate
    for count, (rgb, time) in enumerate(frames):
        if time is None:
            at = count / rate
        elif count == 0:
            zero = time
        else:
            before, at = at, round((time - zero) / _VFR_UNIT) * _VFR_UNIT
            step = at - before
        yield at, step, rgb


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


def _yuv(reformat: Any, rgb: np.ndarray, padded: tuple[int, int]) -> Any:
    if any(padded):
        rgb = np.pad(rgb, ((0, padded[1]), (0, padded[0]), (0, 0)), mode="edge")
    return reformat(
        av.VideoFrame.from_ndarray(rgb, format="rgb24"),
        format="yuv420p",
        dst_colorspace=_BT709,
        src_color_range=_FULL,
        dst_color_range=_LIMITED,
        interpolation=_EXACT,
    )


def _frames(channel: Channel) -> Iterator[tuple[np.ndarray, float | None]]:
    while True:
        message, payload = channel.receive()
        if message.get("op") == "end":
            return
        if message.get("op") != "frame":
            raise Stopped
        yield payload.reshape(message["shape"]), message.get("time")


def _video_stream(container: Any, request: dict[str, Any], rate: Fraction, width: int, height: int) -> Any:
    options = {"crf": str(request["crf"]), "preset": request["preset"], "x264-params": _X264}
    try:
        stream = container.add_stream("libx264", rate=rate, options=options)
    except (FFmpegError, ValueError) as error:
        raise MachineError(
            "E504",
            f"no H.264 encoder here ({error})",
            "pip install --force-reinstall av, whose wheel carries x264.",
        ) from None
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    codec = stream.codec_context
    codec.time_base = _VFR_UNIT if request["timed"] else 1 / rate
    codec.thread_count = _THREADS
    codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
    codec.color_range = _LIMITED
    if request["keyint"]:
        codec.gop_size = request["keyint"]
    return stream


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
