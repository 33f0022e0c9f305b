"""Whether a file is truncated, as far as its container shows. Runs in the child."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable
from typing import Any

from av.error import FFmpegError

from .container import next_packet, open_container, video_stream


def describe_truncation(
    path: str, limits: dict[str, Any], keep_alive: Callable[[], None], promised: int, total: int
) -> str:
    """What is missing, "" if the file is complete. MP4 and AVI: the index promises `promised` packets, of which `total`
    came. Matroska, AVI, MPEG-TS: the claimed size. GIF, Ogg: the end marker."""
    if promised > total:
        total = _stored(path, limits, keep_alive)
    if promised > total:
        return f"its index lists {promised} frames, {total} are there"
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(4096)
        if head[:4] in (b"GIF8", b"OggS"):
            ended = (_gif_ends if head[:1] == b"G" else _ogg_ends)(file)
            return "" if ended else "the mark of its end is not there"
    claimed = _claimed_size(head, size)
    return f"it should have {claimed} bytes, {size} are there" if claimed > size else ""


def _stored(path: str, limits: dict[str, Any], keep_alive: Callable[[], None]) -> int:
    """Packets, with those that an MP4's edit list leaves out: a trimmed clip is whole."""
    total = 0
    with open_container(path, limits, ignore_editlist="1") as container:
        packets = container.demux(video_stream(path, container))
        while True:
            try:
                packet = next_packet(packets)
            except FFmpegError:
                return total
            if packet is None:
                return total
            keep_alive()
            total += bool(packet.size)


def _claimed_size(head: bytes, size: int) -> int:
    if head[:4] == b"RIFF" and len(head) >= 8:
        return 8 + struct.unpack("<I", head[4:8])[0]
    if head[:1] == head[188:189] == head[376:377] == b"G":
        return -(-size // 188) * 188
    return _segment_end(head) if head[:4] == b"\x1aE\xdf\xa3" else 0


def _segment_end(head: bytes) -> int:
    at = head.find(b"\x18S\x80g") + 4  # the Segment element; its size follows as an EBML number
    first = head[at] if 4 <= at < len(head) else 0
    length = 9 - first.bit_length()
    if not first or at + length > len(head):
        return 0
    size = int.from_bytes(head[at : at + length], "big") - (1 << 7 * length)
    return 0 if size == (1 << 7 * length) - 1 else at + length + size  # all ones: not known, a live stream


def _ogg_ends(file: Any) -> bool:
    """True when the last page is complete, and marked as the last of its stream."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - (1 << 17)))  # a page has at most 64 KiB
    tail = file.read()
    page = tail[max(0, tail.rfind(b"OggS")) :]
    segments = page[27 : 27 + page[26]] if len(page) > 26 else b""
    return bool(segments) and bool(page[5] & 4) and len(page) >= 27 + len(segments) + sum(segments)


def _gif_ends(file: Any) -> bool:
    """True when block follows upon block up to the trailer."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            at = 13 + _colours(data[10])
            while data[at] != 0x3B:
                if data[at] == 0x2C:
                    at += 11 + _colours(data[at + 9])  # descriptor, colours, first code size
                elif data[at] == 0x21:
                    at += 2
                else:
                    return False
                while data[at]:
                    at += 1 + data[at]
                at += 1
        except IndexError:
            return False
    return True


def _colours(packed: int) -> int:
    """Bytes of a GIF's colour table, from the byte that announces it."""
    return 3 << (packed & 7) + 1 if packed & 0x80 else 0
