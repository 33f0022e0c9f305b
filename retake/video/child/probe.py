"""Properties of a clip, from demuxing all of it and decoding its first frame. Runs in the child."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from av.error import DecoderNotFoundError, FFmpegError
from av.error import EOFError as FFmpegEOFError
from av.error import OSError as FFmpegOSError

from retake.errors import MediaError

from ..info import VideoInfo
from .container import (
    audio_stream,
    check_memory,
    decoder_of,
    moving_pictures,
    next_packet,
    open_container,
    video_stream,
)
from .packets import Packets, numbered, read_packets
from .planes import coding_of
from .truncation import describe_truncation


@dataclass(frozen=True)
class Probed:
    """VideoInfo, and what only the decoder needs: the packets, and what is missing at the end ("" if nothing)."""

    info: VideoInfo
    packets: Packets
    truncated: str


_cache: dict[tuple[Any, ...], Probed] = {}


def probe(path: str, limits: dict[str, Any], keep_alive: Callable[[], None]) -> Probed:
    """Probe the file at `path`, an absolute name. `keep_alive` is called once a packet.

    A file is demuxed once for as long as it is the same file (inode, size, times). Raises MediaError for
    everything that is refused before decoding: E402, E403, E405, E409 to E411, E413 to E415.
    """
    stat = os.stat(path)
    key = (path, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, *sorted(limits.items()))
    if key not in _cache:
        while len(_cache) >= 4:
            _cache.pop(next(iter(_cache)))
        _cache[key] = _probe(path, limits, keep_alive)
    return _cache[key]


def _probe(path: str, limits: dict[str, Any], keep_alive: Callable[[], None]) -> Probed:
    with open_container(path, limits) as container:
        stream = video_stream(path, container)
        _refuse_size(path, stream.codec_context.width, stream.codec_context.height, limits)
        packets = read_packets(path, container, stream, limits, keep_alive)
        promised = stream.frames
        rates = [stream.average_rate, stream.guessed_rate, stream.base_rate]
    with open_container(path, limits) as container:
        stream, audio = video_stream(path, container), audio_stream(container)
        frame = _first_frame(path, container, stream, keep_alive)
        packets = packets.beginning_with(frame.opaque if frame is not None else None)
        if frame is None or not len(packets.pts):
            raise MediaError(
                "E410",
                f"{path}: none of its {packets.total} packets decodes to a frame",
                "Copy it again, or re-encode it from its source.",
            )
        _refuse_size(path, frame.width, frame.height, limits)
        promised = promised if container.format.name.startswith(("mov", "avi")) else 0
        truncation = describe_truncation(path, limits, keep_alive, promised, packets.total)
        info = _describe(path, container, stream, audio, frame, packets, promised, rates, truncation)
    return Probed(info, packets, truncation)


def _first_frame(path: str, container: Any, stream: Any, keep_alive: Callable[[], None]) -> Any | None:
    """The first that comes, with its packet's number as `opaque`."""
    stream.thread_type = "NONE"
    decoder = decoder_of(stream)
    packets = numbered(container, stream, decoder)
    while True:
        try:
            packet = next_packet(packets)
            if packet is None:
                return None
            keep_alive()
            for frame in decoder.decode(packet):
                return frame
        except DecoderNotFoundError:
            raise _no_decoder(path, stream) from None
        except MemoryError:
            raise
        except (FFmpegEOFError, FFmpegOSError):
            return None
        except FFmpegError:
            check_memory(stream.codec_context.width, stream.codec_context.height)


def _no_decoder(path: str, stream: Any) -> MediaError:
    return MediaError(
        "E413",
        f"{path}: no decoder here for {stream.codec_context.name}",
        "Convert it: ffmpeg -i IN -c:v libx264 -crf 12 OUT.mp4",
    )


def _refuse_size(path: str, width: int, height: int, limits: dict[str, Any]) -> None:
    if width * height > limits["max_pixels"]:
        raise MediaError(
            "E414",
            f"{path} is {width}x{height}, more than the {limits['max_pixels']} pixels allowed",
            "Scale it down first: ffmpeg -i IN -vf scale=3840:-2 OUT.mp4",
        )
    if width <= 0 or height <= 0:
        return  # not known before the first frame
    if min(width, height) < 16 or max(width, height) > 20 * min(width, height):
        raise MediaError(
            "E411",
            f"{path} is {width}x{height}: a side needs at least 16 pixels, and one side at most 20 times the other",
            "Crop, pad or scale it first.",
        )


def _describe(
    path: str,
    container: Any,
    stream: Any,
    audio: Any,
    frame: Any,
    packets: Packets,
    promised: int,
    rates: list[Fraction | None],
    truncation: str,
) -> VideoInfo:
    rotation, mirrored, odd_angle = orientation(frame)
    codec = stream.codec_context.codec.canonical_name  # the format's; `name` is the decoder's, libdav1d
    coding, assumed = coding_of(path, frame, codec)
    aspect = stream.codec_context.sample_aspect_ratio or stream.sample_aspect_ratio or Fraction(1)
    aspect = Fraction(aspect) if aspect > 0 and Fraction(1, 8) <= aspect <= 8 else Fraction(1)
    width, height = round(frame.width * aspect), frame.height
    if rotation % 180:
        width, height = height, width
    fps, variable = _rate(packets, rates)
    span = int(packets.pts[-1] - packets.pts[0]) + packets.last_length
    info = VideoInfo(
        container=container.format.name,
        codec=codec,
        pix_fmt=frame.format.name,
        width=width,
        height=height,
        coded_width=frame.width,
        coded_height=frame.height,
        rotation=rotation,
        mirrored=mirrored,
        pixel_aspect=f"{aspect.numerator}:{aspect.denominator}",
        frames=len(packets.pts),
        promised=promised,
        fps=float(fps),
        variable=variable,
        duration=float(span * packets.unit) or 1 / float(fps),
        interlaced=bool(frame.interlaced_frame),
        coding=coding,
        matrix_assumed=assumed,
        audio=audio.codec_context.codec.canonical_name if audio is not None and audio.codec_context else None,
    )
    others = len(moving_pictures(container)) - 1
    return replace(info, notes=_notes(info, packets, odd_angle, truncation, others))


def _notes(info: VideoInfo, packets: Packets, odd_angle: float, truncation: str, others: int) -> tuple[str, ...]:
    coding = info.coding
    said = [
        (
            info.rotation or info.mirrored,
            f"turned {info.rotation} degrees clockwise" + ", mirrored" * info.mirrored,
        ),
        (odd_angle, f"its display matrix turns by {odd_angle:g} degrees, which is not applied"),
        (info.pixel_aspect != "1:1", f"pixels of {info.pixel_aspect} resampled to square ones"),
        (coding.hdr, f"HDR ({coding.transfer.upper()}): stages work on a tone-mapped view of it"),
        (coding.wide and not coding.hdr, f"primaries of {coding.primaries}: stages work on a view in BT.709"),
        (coding.depth > 8 and not coding.hdr, f"{coding.depth}-bit colour: stages work on a view of 8 bits"),
        (info.matrix_assumed, f"no colour matrix tagged: {info.color_matrix} assumed from its height"),
        (coding.alpha, "stages do not see its transparency"),
        (info.interlaced, "interlaced: fields are kept woven, not deinterlaced"),
        (others, f"further picture tracks, left out: {others}"),
        (info.variable, "frames are not evenly spaced; true timestamps are kept"),
        *((True, note) for note in packets.notes),
        (truncation, f"truncated: {truncation}"),
        (packets.cut and not truncation, "reading stops at a damaged place before the end"),
    ]
    return tuple(text for true, text in said if true)


def _rate(packets: Packets, declared: list[Fraction | None]) -> tuple[Fraction, bool]:
    """Average frames a second, and whether the frames leave the even grid by more than the clock's rounding."""
    pts, unit = packets.pts - packets.pts[0], packets.unit
    usable = [Fraction(r) for r in declared if r and 0 < r <= 1000]
    if len(pts) < 2 or not pts[-1]:
        length = packets.last_length * unit
        return (1 / length if length else usable[0] if usable else Fraction(25)), False
    average = Fraction(len(pts) - 1) / (int(pts[-1]) * unit)
    # Below a frame in half an hour no fraction with so small a denominator is left but 0.
    for rate in (*usable, average.limit_denominator(1001) or average, average):
        even = np.arange(len(pts)) * float(1 / (rate * unit))
        if np.abs(pts - even).max() <= 1.001:
            return rate, False
    return average, True


def orientation(frame: Any) -> tuple[int, bool, float]:
    """(degrees clockwise, mirrored, angle that is no quarter turn) from the frame's display matrix.

    The matrix (a, b; c, d) maps a stored (x, y) to a shown (ax + cy, bx + dy), y downwards. Mirroring is
    undone first, then the quarter turn.
    """
    data = next((bytes(s) for s in frame.side_data if s.type.name == "DISPLAYMATRIX"), b"")
    if len(data) < 36:
        return 0, False, 0.0
    values = np.array(struct.unpack("<9i", data[:36]), float)
    a, b, c, d = values[0], values[1], values[3], values[4]
    mirrored = bool(a * d - b * c < 0)
    if mirrored:
        a, b = -a, -b
    angle = float(np.degrees(np.arctan2(b, a))) % 360
    quarter = round(angle / 90) % 4 * 90
    if abs((angle - quarter + 180) % 360 - 180) > 1 or not any((a, b)):
        return 0, False, angle
    return quarter, mirrored, 0.0
