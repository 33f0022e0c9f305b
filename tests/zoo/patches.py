"""Clips changed below the encoder: boxes of an MP4 found and rewritten, packets moved in time, files cut and joined.

A change of a few bytes that are looked up by name, so that a test can say what is wrong with its file.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

BIT_EXACT = {"fflags": "+bitexact"}  # no random ids, no dates


def box(data: bytes, *names: bytes) -> tuple[int, int]:
    """(start, length) of the first box at the path `names` of an MP4. Raises KeyError when it is not there."""
    start, stop = 0, len(data)
    for name in names:
        start, stop = _child(data, start if name == names[0] else start + 8, stop, name)
    return start, stop - start


def _child(data: bytes, at: int, stop: int, name: bytes) -> tuple[int, int]:
    while at + 8 <= stop:
        length = int.from_bytes(data[at : at + 4], "big") or stop - at
        if data[at + 4 : at + 8] == name:
            return at, at + length
        at += max(length, 8)
    raise KeyError(name)


def stbl(*names: bytes) -> tuple[bytes, ...]:
    """The path of a box in the first track's sample table."""
    return (b"moov", b"trak", b"mdia", b"minf", b"stbl", *names)


def patched(source: Path, target: Path, change: Callable[[bytearray], Any]) -> Path:
    """Copy `source`, with `change` done to its bytes."""
    data = bytearray(source.read_bytes())
    change(data)
    target.write_bytes(bytes(data))
    return target


def over_report(data: bytearray, extra: int = 20) -> None:
    """Let the index of an MP4 that ends in it name `extra` samples behind the others, past the end of the file.

    Sizes, times and chunks agree, and all boxes are well formed: only what they promise is not there.
    """
    for name, at_count in ((b"stts", 16), (b"stsc", 20), (b"stsz", 16)):
        at, length = box(bytes(data), *stbl(name))
        count = at + at_count
        data[count : count + 4] = struct.pack(">I", struct.unpack(">I", data[count : count + 4])[0] + extra)
    data[at + length : at + length] = struct.pack(">I", 200) * extra
    for depth in range(1, 7):
        start, size = box(bytes(data), *stbl(b"stsz")[:depth])
        data[start : start + 4] = struct.pack(">I", size + 4 * extra)


def extra_samples(data: bytearray, extra: int = 5) -> None:
    """Let the index's times name `extra` samples more than its sizes do."""
    at = box(bytes(data), *stbl(b"stts"))[0] + 16
    data[at : at + 4] = struct.pack(">I", struct.unpack(">I", data[at : at + 4])[0] + extra)


def skip_by_edit_list(data: bytearray, media_time: int) -> None:
    """Let the first track's edit list begin at `media_time` of its own clock."""
    at = box(bytes(data), b"moov", b"trak", b"edts", b"elst")[0] + 20
    data[at : at + 4] = struct.pack(">i", media_time)


def end_by_edit_list(data: bytearray, milliseconds: int) -> None:
    """Let the first track's edit list end after so long."""
    at = box(bytes(data), b"moov", b"trak", b"edts", b"elst")[0] + 16
    data[at : at + 4] = struct.pack(">I", milliseconds)


def unknown_codec(data: bytearray) -> None:
    """Name the first track's codec `qqqq`, and its configuration, which would tell it, too."""
    at, length = box(bytes(data), *stbl(b"stsd"))
    for name in (b"avc1", b"avcC"):
        found = bytes(data).index(name, at, at + length)
        data[found : found + 4] = b"qqqq"


def claim_size(data: bytearray, name: bytes, length: int) -> None:
    """Let the top-level box `name` claim `length` bytes."""
    at, _ = box(bytes(data), name)
    data[at : at + 4] = struct.pack(">I", length)


def invert(data: bytearray, share: float = 0.7) -> None:
    """Invert one byte, at `share` of the file."""
    data[int(len(data) * share)] ^= 0xFF


def zero(data: bytearray, share: float = 0.6, count: int = 600) -> None:
    """Zero `count` bytes from `share` of the file."""
    at = int(len(data) * share)
    data[at : at + count] = bytes(count)


def empty_samples(data: bytearray) -> None:
    """Zero the payload of a file whose index stands in front."""
    at, length = box(bytes(data), b"mdat")
    data[at + 8 : at + length] = bytes(length - 8)


def cut(source: Path, target: Path, share: float) -> Path:
    """Copy the first `share` of a file."""
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def in_one_stream(sources: list[Path], target: Path) -> Path:
    """The packets of several clips as one stream of `target`, which is told the form of the first only."""
    import av

    with av.open(str(target), "w", options=BIT_EXACT) as new:
        stream: Any = None
        count = 0
        for source in sources:
            with av.open(str(source)) as old:
                stream = stream or new.add_stream_from_template(old.streams.video[0])
                for packet in (p for p in old.demux(video=0) if p.size):
                    packet.stream = stream
                    packet.pts = packet.dts = 3600 * count
                    new.mux(packet)
                    count += 1
    return target


def retimed(source: Path, target: Path, time: Callable[[int], int]) -> Path:
    """Copy the packets of a clip without B-frames, packet k at `time(k)` of the container's clock."""
    import av

    with av.open(str(source)) as old, av.open(str(target), "w", options=BIT_EXACT) as new:
        stream: Any = new.add_stream_from_template(old.streams.video[0])
        for k, packet in enumerate(p for p in old.demux(video=0) if p.size):
            packet.stream = stream
            packet.pts = packet.dts = time(k)
            new.mux(packet)
    return target
