"""Clips made for tests. Every frame carries its number as a barcode, so a wrong frame is provable.

make_clip(tmp_path / "a.mp4", frames=24, size=(128, 96), fps=24)
read_barcode(rgb)        the number of the frame that `rgb` shows
picture(7, (128, 96))    the very frame, before compression
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

CELLS = 11  # ten bits and their parity, in the bottom quarter of the frame
PATCHES = ((200, 40, 40), (40, 180, 60), (50, 60, 200), (190, 170, 40), (128, 128, 128), (60, 190, 200))
MATRIX = {"bt709": 1, "bt601": 5, "bt2020": 9}


def picture(number: int, size: tuple[int, int]) -> np.ndarray:
    """uint8 RGB [H, W, 3]: colour patches, a white square that walks with the number, the barcode below."""
    width, height = size
    rgb = np.zeros((height, width, 3), np.uint8)
    edges = [round(k * width / len(PATCHES)) for k in range(len(PATCHES) + 1)]
    for k, colour in enumerate(PATCHES):
        rgb[:, edges[k] : edges[k + 1]] = colour
    side = max(4, height // 8)
    x = (number * 3) % max(1, width - side)
    rgb[height // 2 : height // 2 + side, x : x + side] = 255
    bits = [number >> k & 1 for k in range(CELLS - 1)]
    for k, bit in enumerate([*bits, sum(bits) % 2]):
        rgb[height - height // 4 :, k * width // CELLS : (k + 1) * width // CELLS] = 255 * bit
    return rgb


def read_barcode(rgb: np.ndarray) -> int:
    """The number in a frame's barcode, at any size. Raises ValueError when its parity is wrong."""
    height, width = rgb.shape[:2]
    row = rgb[height - height // 8 - 1].astype(float).mean(axis=1)
    bits = [int(row[int((k + 0.5) * width / CELLS)] > 128) for k in range(CELLS)]
    if sum(bits[:-1]) % 2 != bits[-1]:
        raise ValueError(f"no barcode here: {bits}")
    return sum(bit << k for k, bit in enumerate(bits[:-1]))


def patch_error(rgb: np.ndarray) -> int:
    """Largest difference between the colour patches of `picture` and those in `rgb`, in levels."""
    height, width = rgb.shape[:2]
    centres = [int((k + 0.5) * width / len(PATCHES)) for k in range(len(PATCHES))]
    got = np.array([rgb[height // 4, x] for x in centres], int)
    return int(np.abs(got - np.array(PATCHES)).max())


def vfr_times(frames: int, fps: float) -> list[float]:
    """Uneven times in seconds: every third frame lasts twice as long as the others."""
    ticks = np.cumsum([0] + [2 if k % 3 == 0 else 1 for k in range(frames - 1)])
    return [float(t) / fps for t in ticks]


def make_clip(
    path: str | Path,
    frames: int = 24,
    size: tuple[int, int] = (128, 96),
    fps: float | Fraction = 24,
    codec: str = "libx264",
    audio: bool = False,
    rotation: int = 0,
    mirror: str = "",
    vfr: bool = False,
    pix_fmt: str = "yuv420p",
    matrix: str | None = None,
    full_range: bool = False,
    pixel_aspect: Fraction | None = None,
    transfer: int | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    numbers: Sequence[int] | None = None,
) -> Path:
    """Write a clip whose frame k shows `picture(numbers[k], size)`, or `picture(k, size)`.

    The container follows from the file's name. `size` is (width, height) as stored before turning;
    `rotation` turns the stored picture so that it must be turned back clockwise by so many degrees, then
    mirrored along `mirror` (`h` or `v`).
    `matrix` (`bt601`, `bt709`, `bt2020`) is converted with and tagged; None converts with BT.601 and
    tags nothing. `audio` adds a 440 Hz tone.
    """
    import av
    from av.video.reformatter import VideoReformatter

    rate = Fraction(fps).limit_denominator(1001)
    chosen = numbers if numbers is not None else range(frames)
    times = vfr_times(len(chosen), float(rate)) if vfr else None
    with ordinary_scheduling(), av.open(str(path), "w", options=container_options or {}) as container:
        stream: Any = container.add_stream(codec, rate=rate, options=options or {})
        turned = size if rotation % 180 == 0 else (size[1], size[0])
        stream.width, stream.height, stream.pix_fmt = turned[0], turned[1], pix_fmt
        context = stream.codec_context
        context.time_base = Fraction(1, 90000) if vfr else 1 / rate
        if matrix:
            context.colorspace = context.color_primaries = context.color_trc = MATRIX[matrix]
        if full_range or matrix:
            context.color_range = 2 if full_range else 1
        if transfer:
            context.color_trc = transfer
        if pixel_aspect:
            context.sample_aspect_ratio = pixel_aspect
        if rotation or mirror:
            # PyAV counts counterclockwise, and mirrors after it has turned
            stream.set_display_rotation(-rotation, hflip=mirror == "h", vflip=mirror == "v")
        tone: Any = container.add_stream("aac", rate=44100) if audio else None
        convert = VideoReformatter().reformat
        for k, number in enumerate(chosen):
            rgb = {"h": np.fliplr, "v": np.flipud}.get(mirror, np.asarray)(picture(number, size))
            rgb = np.ascontiguousarray(np.rot90(rgb, rotation // 90))
            frame: Any = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            if pix_fmt != "rgb24":
                frame = convert(
                    frame,
                    format=pix_fmt,
                    dst_colorspace=MATRIX[matrix or "bt601"],
                    src_color_range=2,
                    dst_color_range=2 if full_range else 1,
                )
            frame.time_base = context.time_base
            frame.pts = round(times[k] * 90000) if times else k
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if tone is not None:
            _add_tone(container, tone, len(chosen) / float(rate))
    return Path(path)


@contextmanager
def ordinary_scheduling() -> Iterator[None]:
    """SVT-AV1, run by root, makes the thread that opens it a real-time one, and with it every child that is started
    later: two of those can starve a machine of two cores."""
    policy, param = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, param)


def make_sound(path: str | Path, seconds: float = 0.5) -> Path:
    """Write a file with a tone and no picture."""
    import av

    with av.open(str(path), "w") as container:
        _add_tone(container, container.add_stream("aac", rate=44100), seconds)
    return Path(path)


def packets(path: str | Path, kind: str) -> list[bytes]:
    """The payloads of all packets of the first `video` or `audio` stream."""
    import av

    with av.open(str(path)) as container:
        return [bytes(p) for p in container.demux(getattr(container.streams, kind)[0]) if p.size]


def boxes(path: str | Path) -> list[str]:
    """Names of the top-level boxes of an MP4, in order."""
    data, at, names = Path(path).read_bytes(), 0, []
    while at + 8 <= len(data):
        names.append(data[at + 4 : at + 8].decode("latin-1"))
        at += int.from_bytes(data[at : at + 4], "big") or len(data)
    return names


def flip_bytes(path: str | Path, target: str | Path, count: int = 3, seed: int = 0) -> Path:
    """Copy an MP4 with `count` bytes of its picture data inverted."""
    data = bytearray(Path(path).read_bytes())
    start = data.index(b"mdat") + 4
    rng = np.random.default_rng(seed)
    for at in rng.integers(start + (len(data) - start) // 4, len(data) - 16, count):
        data[at] ^= 0xFF
    Path(target).write_bytes(bytes(data))
    return Path(target)


def _add_tone(container: Any, stream: Any, seconds: float) -> None:
    import av

    rate, block = 44100, 1024
    for k in range(math.ceil(seconds * rate / block)):
        wave = 0.2 * np.sin(2 * np.pi * 440 * (np.arange(block) + k * block) / rate)
        frame: Any = av.AudioFrame.from_ndarray(wave.astype(np.float32)[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, k * block, Fraction(1, rate)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
