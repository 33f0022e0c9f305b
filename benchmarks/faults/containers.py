"""Files as FFmpeg's muxers write them by default, each with its default codecs: what is read of them.

40 pictures at 25 a second with their number as a bar code; *variable* leaves out three of them, as screen recordings
do, and *sound* adds a tone. *Frames* and *times* are ours against those written: the greatest error of a time says how
finely the container's clock counts, or that the muxer wrote other times than it was given. The peer is PyAV as it
comes: frames in the order of decoding, with their own times.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import zoo
from av.error import FFmpegError

from retake import video
from retake.errors import RetakeError

SIZE, RATE, FRAMES = (176, 144), 25, 40
LEFT_OUT = (10, 11, 20)
# Ending, muxer; the codec of pictures where the default takes none of 25 a second at this size.
KINDS = (
    ("mp4", "mp4", None),
    ("mov", "mov", None),
    ("m4v", "ipod", None),
    ("3gp", "3gp", "h263"),
    ("mkv", "matroska", None),
    ("webm", "webm", None),
    ("avi", "avi", None),
    ("ts", "mpegts", None),
    ("mpg", "mpeg", None),
    ("vob", "vob", None),
    ("flv", "flv", None),
    ("wmv", "asf", None),
    ("ogv", "ogg", "libvpx"),  # the wheel has no encoder of Theora
    ("mxf", "mxf", None),
    ("gif", "gif", None),
    ("apng", "apng", None),
    ("webp", "webp", "libwebp_anim"),
)
NO_SOUND = ("gif", "apng", "webp")
SMOKE: dict[str, Any] = {"kinds": KINDS[:2]}


def run(kinds: tuple[tuple[str, str, str | None], ...] = KINDS) -> list[dict[str, Any]]:
    """A row for each file."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="retake-containers-") as folder:
        for ending, muxer, codec in kinds:
            for variable in (False, True):
                for sound in (False, True):
                    if sound and ending in NO_SOUND:
                        continue
                    path = Path(folder) / f"{len(rows)}.{ending}"
                    rows.append(_row(path, muxer, codec, variable, sound))
    video.shutdown()
    return rows


def _row(path: Path, muxer: str, codec: str | None, variable: bool, sound: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"table": "Files of default settings", "file": path.suffix[1:]}
    row |= {"rate": "variable" if variable else "even", "sound": "yes" if sound else "no"}
    try:
        row["codecs"], numbers = write(path, muxer, codec, variable, sound)
    except (FFmpegError, ValueError, OSError) as error:
        return {**row, "codecs": "", "frames": "", "times": "", "peer": "", "read": f"cannot be written: {error}"[:60]}
    times = np.array(numbers) / RATE
    return {**row, **_read(path, numbers, times), "peer": _peer(path, numbers, times)}


def _read(path: Path, numbers: list[int], times: np.ndarray) -> dict[str, Any]:
    try:
        info = video.probe(path)
        found = [(at, zoo.read_barcode(rgb)) for at, rgb in video.decode(path)]
    except RetakeError as error:
        said = error.message.replace(str(path), path.suffix)
        return {"frames": "", "times": "", "read": f"{error.code} {said}"[:90]}
    right = [n for _, n in found] == numbers
    off = np.abs(np.array([at for at, _ in found]) - times).max() if len(found) == len(times) else np.inf
    notes = "; ".join(note for note in info.notes if "matrix" not in note)
    verdict = "right" if right and off < 0.011 else "right, at other times" if right else "other frames"
    return {
        "frames": f"{len(found)} of {len(numbers)}",
        "times": f"{1000 * off:.1f} ms" if np.isfinite(off) else "",
        "read": f"{verdict}{f' ({notes})' if notes else ''}"[:120],
    }


def _peer(path: Path, numbers: list[int], times: np.ndarray) -> str:
    try:
        with av.open(str(path)) as container:
            found = [(f.time, zoo.read_barcode(f.to_ndarray(format="rgb24"))) for f in container.decode(video=0)]
    except (FFmpegError, IndexError) as error:
        return f"{type(error).__name__}"
    if [n for _, n in found] != numbers or any(at is None for at, _ in found):
        return f"{len(found)} of {len(numbers)}"
    clock = np.array([at for at, _ in found], float)
    return f"{len(found)}, {1000 * np.abs(clock - clock[0] - times).max():.1f} ms"


def write(path: Path, muxer: str, codec: str | None, variable: bool, sound: bool) -> tuple[str, list[int]]:
    """Write a file; (its codecs, its pictures' numbers). Raises FFmpegError or ValueError where that cannot be."""
    numbers = [k for k in range(FRAMES) if not (variable and k in LEFT_OUT)]
    with zoo.ordinary_scheduling(), av.open(str(path), "w", format=muxer) as container:
        chosen = codec or container.default_video_codec
        stream: Any = container.add_stream(chosen, rate=RATE)
        formats = [f.name for f in stream.codec_context.codec.video_formats or ()]
        stream.pix_fmt = "yuv420p" if not formats or "yuv420p" in formats else formats[0]
        stream.width, stream.height, stream.bit_rate = *SIZE, 4_000_000
        tone = _sound(container, path.suffix) if sound else None
        for k in numbers:
            frame: Any = av.VideoFrame.from_ndarray(zoo.picture(k, SIZE), format="rgb24").reformat(
                format=stream.pix_fmt
            )
            frame.pts, frame.time_base = k, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if tone is not None:
            for packet in _tone(tone):
                container.mux(packet)
    names = [stream.codec_context.name, *([tone.codec_context.name] if tone is not None else [])]
    return " + ".join(names), numbers


def _sound(container: Any, suffix: str) -> Any:
    name = "aac" if suffix == ".3gp" else container.default_audio_codec
    rate = 48000 if name in ("libopus", "opus") or suffix == ".mxf" else 44100
    stream = container.add_stream(name, rate=rate, layout="stereo")
    stream.bit_rate = 128_000
    return stream


def _tone(stream: Any) -> Iterator[Any]:
    context, rate = stream.codec_context, stream.codec_context.sample_rate
    resample, at = av.AudioResampler(context.format, context.layout, rate), 0
    size = 1920 if "pcm" in context.name else context.frame_size or 1024
    while at < rate * FRAMES / RATE:
        wave = 0.3 * np.sin(2 * np.pi * 440 * (at + np.arange(size)) / rate)
        frame: Any = av.AudioFrame.from_ndarray(np.array([wave, wave], np.float32), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = rate, at, Fraction(1, rate)
        at += size
        for one in resample.resample(frame):
            yield from stream.encode(one)
    yield from stream.encode(None)
