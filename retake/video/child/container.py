"""Opening an untrusted file. Runs in the child.

Only regular local files and only the demuxers listed here are opened: a playlist is a program that
names other files, so no text demuxer is among them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.stream import Disposition

from retake.errors import MediaError

_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,ogg,gif,flv,asf,mxf,apng"
_PICTURES = {b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
_PLAYLISTS = (b"#extm3u", b"ffconcat", b"<mpd", b"<smil", b"[playlist]", b"[reference]", b"v=0\r\n", b"v=0\n")


def open_container(path: str, limits: dict[str, Any], **demuxer: str) -> Any:
    """An open PyAV InputContainer; `demuxer` are further options. Raises MediaError E402, E403, E405 or E406."""
    with open(path, "rb") as file:
        head = file.read(4096)
    _refuse_playlist(path, head)
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": _FORMATS,
        "max_pixels": str(limits["max_pixels"]),
        "max_streams": "64",
        **demuxer,
    }
    try:
        return av.open(path, options=options, metadata_errors="replace")
    except MemoryError:
        raise
    except (FFmpegError, OSError, ValueError) as error:
        raise _unreadable(path, head, error) from None


def video_stream(path: str, container: Any) -> Any:
    """The stream to decode: the default one, else the first, of those that are no cover art. Raises MediaError E409 or
    E413."""
    moving = moving_pictures(container)
    if not moving:
        listed = ", ".join(_name(s) for s in container.streams) or "none"
        raise MediaError(
            "E409", f"{path} has no video stream; its streams: {listed}", "Give a file with moving pictures."
        )
    stream = next((s for s in moving if s.disposition & Disposition.default), moving[0])
    if stream.codec_context is None:
        raise MediaError(
            "E413",
            f"{path}: no decoder here for its video codec",
            "Convert it: ffmpeg -i IN -c:v libx264 -crf 12 OUT.mp4",
        )
    return stream


def decoder_of(stream: Any) -> Any:
    """The codec context to decode a stream with: its own, but for VP8 and VP9 with alpha, which FFmpeg's own decoders
    do not see, libvpx's."""
    own = stream.codec_context
    libvpx = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(own.codec.canonical_name)
    if libvpx is None or stream.metadata.get("alpha_mode") != "1":
        return own
    try:
        context = av.CodecContext.create(libvpx, "r")
    except (FFmpegError, ValueError):  # not built in
        return own
    for name in ("color_range", "color_primaries", "color_trc", "colorspace"):
        setattr(context, name, getattr(own, name))
    return context


def moving_pictures(container: Any) -> list[Any]:
    """The picture tracks that are no cover art."""
    return [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]


def next_packet(packets: Iterator[Any]) -> Any | None:
    """The next packet of a demuxer, None at the end. Raises FFmpegError where it cannot go on."""
    try:
        return next(packets, None)
    except IndexError:  # PyAV, when a damaged place announces one more stream
        raise FFmpegError(0, "a stream that was not announced") from None


def audio_stream(container: Any) -> Any | None:
    """The first audio stream, or None."""
    return next(iter(container.streams.audio), None)


def check_memory(width: int, height: int) -> None:
    """Raise MemoryError if memory for a few frames cannot be allocated.

    Called after a decoder failed: FFmpeg reports a failed allocation as invalid data.
    """
    np.empty(16 * max(width, 256) * max(height, 256), np.uint8)


def _name(stream: Any) -> str:
    codec = stream.codec_context.name if stream.codec_context else "unknown"
    return f"#{stream.index} {stream.type} ({codec})"


def _refuse_playlist(path: str, head: bytes) -> None:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"<?xml"):
        text = text[text.find(b"?>") + 2 :].lstrip()
    if text.startswith(_PLAYLISTS):
        raise MediaError(
            "E403",
            f"{path} is a playlist, which names other files; it starts with {_printable(head)}",
            "Give the media file itself, or join the parts into one file first.",
        )


def _unreadable(path: str, head: bytes, error: Exception) -> MediaError:
    boxes = _boxes(path) if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip") else None
    if boxes is not None and ("moov" not in boxes or boxes[-1] == "moov (cut)"):
        return MediaError(
            "E405",
            f"{path} has no complete index (moov): it holds {', '.join(boxes[:6]) or 'nothing'}",
            "Most likely an incomplete copy or recording: copy it again.",
        )
    kinds = [kind for start, kind in _PICTURES.items() if head.startswith(start)]
    kinds += ["WebP"] * (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
    kinds += ["BMP"] * (head[:2] == b"BM" and head[6:10] == bytes(4))  # "BM" alone may begin a text
    if kind := next(iter(kinds), None):
        return MediaError(
            "E402", f"{path} is a {kind} picture, not a video", "A clip of pictures is a folder of them: give its name."
        )
    if head[:4] in (b"fLaC", b"ID3\x03", b"ID3\x04") or (head[:4] == b"RIFF" and head[8:12] == b"WAVE"):
        return MediaError("E402", f"{path} is a sound file, not a video", "Give a file with moving pictures.")
    known = boxes is not None or head[:4] in (b"RIFF", b"\x1aE\xdf\xa3", b"OggS", b"GIF8")
    why = error.strerror if isinstance(error, OSError) else error
    said = f"is damaged at its start ({why})" if known else "is not a video file of a known kind"
    return MediaError(
        "E402",
        f"{path} {said}; it starts with {_printable(head)}",
        "Known: MP4/MOV, MKV/WebM, AVI, MPEG-TS/PS, Ogg, GIF.",
    )


def _boxes(path: str) -> list[str]:
    """Names of the top-level boxes of an MP4; the one that the end of the file cuts is marked."""
    names: list[str] = []
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        at = 0
        while at + 8 <= size and len(names) < 64:
            file.seek(at)
            length, kind = struct.unpack(">I4s", file.read(8))
            if length == 1:
                extended = file.read(8)
                length = struct.unpack(">Q", extended)[0] if len(extended) == 8 else size
            name = "".join(chr(c) if 32 < c < 127 else "?" for c in kind)
            length = length or size - at
            names.append(name if at + length <= size else f"{name} (cut)")
            if length < 8:
                break
            at += length
    return names


def _printable(head: bytes) -> str:
    return "'" + "".join(chr(c) if 32 <= c < 127 else "." for c in head[:24]) + "'"
