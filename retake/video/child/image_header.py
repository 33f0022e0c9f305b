"""What stands in a picture's file before its pixels: size, orientation, colour profile. Nothing is decoded here."""

from __future__ import annotations

import contextlib
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from retake.errors import MediaError

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8"
HINT = "Give a PNG, JPEG, WebP, BMP or TIFF of 8 or 16 bits."
_MAX_PROFILE = 4 << 20  # bytes, unpacked; those of printers, the largest, have some 2 MiB
_MAX_SEGMENTS = 10_000  # of a JPEG's header
_MAX_TAGS = 1000  # of a TIFF's directory
_NOT_FILL = re.compile(rb"[^\xff]")
_MAX_CHUNKS = 1 << 17  # of a PNG: half a gigabyte in pieces of 4 KiB
_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_WIDTH, _HEIGHT, _ORIENTATION, _PROFILE = 256, 257, 274, 34675  # tags of TIFF and EXIF


@dataclass
class Header:
    """Size in pixels as stored; `orientation` 1 to 8 as EXIF counts; `profile` an ICC profile, or empty."""

    width: int = 0
    height: int = 0
    orientation: int = 1
    profile: bytes = b""


def read_header(path: str, data: bytes) -> Header:
    """The header of a whole file. Raises MediaError E420 where it is none that is known, or has no size."""
    readers = [
        (data[:8] == PNG, _png),
        (data[:2] == JPEG, _jpeg),
        (data[:4] == b"RIFF" and data[8:12] == b"WEBP", _webp),
        (data[:2] == b"BM", _bmp),
        (data[:4] in (b"II*\0", b"MM\0*"), _tiff),
    ]
    reader = next((read for match, read in readers if match), None)
    if reader is None:
        start = "".join(chr(c) if 32 <= c < 127 else "." for c in data[:24])
        raise MediaError("E420", f"{path} is not an image of a known kind; it starts with '{start}'", HINT)
    try:
        header = reader(data)
    except (struct.error, IndexError):
        header = Header()
    if header.width < 1 or header.height < 1:
        raise MediaError("E420", f"{path} has no readable size in its header", HINT)
    return header


def _png(data: bytes) -> Header:
    header = Header(*struct.unpack(">II", data[16:24]))
    found: dict[bytes, bytes] = {}
    for kind, start, end in _chunks(data):
        if kind in (b"eXIf", b"iCCP"):
            found.setdefault(kind, data[start:end])  # the first alone: each may unpack to the limit
    header.orientation = _exif_orientation(found.get(b"eXIf", b""))
    packed = found.get(b"iCCP", b"").partition(b"\0")[2][1:]  # behind a name and the number of the method
    with contextlib.suppress(zlib.error):
        header.profile = zlib.decompressobj().decompress(packed, _MAX_PROFILE)
    return header


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end of its content) of a PNG's chunks, as far as they are whole."""
    at, kind = len(PNG), b""
    for _ in range(_MAX_CHUNKS):
        if at + 12 > len(data) or kind == b"IEND":
            return
        length, kind = struct.unpack(">I", data[at : at + 4])[0], data[at + 4 : at + 8]
        end = at + 8 + length
        if end + 4 > len(data):
            return
        yield kind, at + 8, end
        at = end + 4


def without_ancillary_chunks(path: str, data: bytes, header: Header) -> bytes:
    """The PNG with only the chunks its pixels need: texts, profiles and further frames may unpack to any size, and the
    decoder would allocate memory for a chunk that claims to be longer than the file. Raises MediaError E420."""
    kept, kind, packed = [PNG], b"", 0
    for number, (kind, start, end) in enumerate(_chunks(data)):
        if (number == 0) != (kind == b"IHDR"):
            raise _damaged(path)
        if kind in _PIXELS:
            kept.append(data[start - 8 : end + 4])
            packed += end - start if kind == b"IDAT" else 0
    pixels = header.width * header.height
    if kind != b"IEND" or packed > 16 * pixels + 2 * header.height + 4096:  # twice four channels of 16 bits
        raise _damaged(path)
    return b"".join(kept)


def _damaged(path: str) -> MediaError:
    return MediaError("E420", f"{path} is damaged or cut off", HINT)


def _jpeg(data: bytes) -> Header:
    # Every frame header counts, not the first alone: decoders differ on which of two they believe.
    at, header, parts = 2, Header(), {}
    for _ in range(_MAX_SEGMENTS):
        if data[at : at + 2] == b"\xff\xff":  # fill bytes, as many as there are
            at = found.start() - 1 if (found := _NOT_FILL.search(data, at)) else len(data)
        if at + 9 > len(data) or data[at] != 0xFF or data[at + 1] == 0xDA:
            break
        marker = data[at + 1]
        length = struct.unpack(">H", data[at + 2 : at + 4])[0]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            rows, columns = struct.unpack(">HH", data[at + 5 : at + 9])
            header.width, header.height = max(header.width, columns), max(header.height, rows)
        elif marker == 0xE2 and data[at + 4 : at + 16] == b"ICC_PROFILE\0" and length > 16:
            parts.setdefault(data[at + 16], data[at + 18 : at + 2 + length])
        at += 2 + length
    else:
        return Header()
    header.profile = b"".join(part for _, part in sorted(parts.items()))[:_MAX_PROFILE]
    return header


def _webp(data: bytes) -> Header:
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", data[26:30])
        return Header(width & 0x3FFF, height & 0x3FFF)
    if kind == b"VP8L":
        bits = struct.unpack("<I", data[21:25])[0]
        return Header((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    header = Header(1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little"))
    at = 12
    for _ in range(_MAX_SEGMENTS):
        if at + 8 > len(data):
            break
        kind, length = struct.unpack("<4sI", data[at : at + 8])
        content = data[at + 8 : at + 8 + min(length, _MAX_PROFILE)]
        if kind == b"EXIF":
            header.orientation = _exif_orientation(content.removeprefix(b"Exif\0\0"))
        elif kind == b"ICCP":
            header.profile = content
        at += 8 + length + length % 2
    return header


def _bmp(data: bytes) -> Header:
    if struct.unpack("<I", data[14:18])[0] == 12:
        return Header(*struct.unpack("<HH", data[18:22]))
    width, height = struct.unpack("<ii", data[18:26])
    return Header(width, abs(height))


def _tiff(data: bytes) -> Header:
    """The first picture of a TIFF. Its orientation stays 1: OpenCV's reader turns it."""
    tags = _tags(data)
    header = Header(tags.get(_WIDTH, (0, 0))[1], tags.get(_HEIGHT, (0, 0))[1])
    length, at = tags.get(_PROFILE, (0, 0))
    header.profile = data[at : at + min(length, _MAX_PROFILE)]
    return header


def _tags(data: bytes) -> dict[int, tuple[int, int]]:
    """Tag -> (count, value or place of the values) of the first directory of a TIFF; empty if it is too long."""
    order = "<" if data[:2] == b"II" else ">"
    at = struct.unpack(order + "I", data[4:8])[0]
    count, found = struct.unpack(order + "H", data[at : at + 2])[0], {}
    if count > _MAX_TAGS:
        return {}
    for k in range(count):
        entry = data[at + 2 + 12 * k : at + 14 + 12 * k]
        tag, kind, number = struct.unpack(order + "HHI", entry[:8])
        short = kind == 3 and number == 1
        value = struct.unpack(order + ("H" if short else "I"), entry[8:10] if short else entry[8:12])[0]
        found[tag] = number, value
    return found


def _exif_orientation(exif: bytes) -> int:
    """1 to 8; 1 where it is not said, or nothing that can be read."""
    try:
        value = _tags(exif).get(_ORIENTATION, (1, 1))[1]
    except struct.error:
        return 1
    return value if 1 <= value <= 8 else 1
