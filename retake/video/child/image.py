"""Still images: the size from the header first, then the pixels. Runs in the child."""

from __future__ import annotations

import re
import struct

import numpy as np

from retake.errors import MediaError

_MAX_BYTES = 1 << 29
_MAX_SEGMENTS = 10_000  # of a JPEG's header
_MAX_TAGS = 1000  # of a TIFF's directory
_PNG = b"\x89PNG\r\n\x1a\n"
_NOT_FILL = re.compile(rb"[^\xff]")
_MAX_CHUNKS = 1 << 17  # of a PNG: half a gigabyte in pieces of 4 KiB
_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_HINT = "Give a PNG, JPEG, WebP, BMP or TIFF of 8 or 16 bits."


def read(path: str, max_pixels: int) -> np.ndarray:
    """The image as uint8 RGB [H, W, 3] or RGBA [H, W, 4]; gray is repeated, 16 bits are rounded to 8.

    A JPEG is turned as its EXIF tag says. Raises MediaError E420 (unreadable) or E421 (too large).
    """
    import cv2

    with open(path, "rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise MediaError("E421", f"{path} is larger than {_MAX_BYTES >> 20} MiB", "Scale it down first.")
    width, height = _header_size(path, data)
    if width * height > max_pixels:
        raise MediaError(
            "E421",
            f"{path} is {width}x{height}, more than the {max_pixels} pixels allowed",
            "Scale it down first.",
        )
    if data.startswith(_PNG):
        data = _without_ancillary_chunks(path, data)
    how = cv2.IMREAD_COLOR if data[:2] == b"\xff\xd8" else cv2.IMREAD_UNCHANGED
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), how)
    except cv2.error:
        image = None
    if image is None or not image.size:
        raise MediaError("E420", f"{path} cannot be decoded: it is damaged or of an unusual kind", _HINT)
    return _as_rgb(path, image)


def _as_rgb(path: str, image: np.ndarray) -> np.ndarray:
    import cv2

    if image.dtype == np.uint16:
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    channels = image.shape[2] if image.ndim == 3 else 1
    to_rgb = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}
    if image.dtype != np.uint8 or channels not in to_rgb:
        raise MediaError("E420", f"{path} holds {channels} channels of {image.dtype}", _HINT)
    return cv2.cvtColor(image, to_rgb[channels])


def _header_size(path: str, data: bytes) -> tuple[int, int]:
    readers = [
        (data[:8] == _PNG, _png),
        (data[:2] == b"\xff\xd8", _jpeg),
        (data[:4] == b"RIFF" and data[8:12] == b"WEBP", _webp),
        (data[:2] == b"BM", _bmp),
        (data[:4] in (b"II*\0", b"MM\0*"), _tiff),
    ]
    reader = next((read for match, read in readers if match), None)
    if reader is None:
        start = "".join(chr(c) if 32 <= c < 127 else "." for c in data[:24])
        raise MediaError("E420", f"{path} is not an image of a known kind; it starts with '{start}'", _HINT)
    try:
        width, height = reader(data)
    except (struct.error, IndexError):
        width, height = 0, 0
    if width < 1 or height < 1:
        raise MediaError("E420", f"{path} has no readable size in its header", _HINT)
    return width, height


def _png(data: bytes) -> tuple[int, int]:
    return struct.unpack(">II", data[16:24])


def _without_ancillary_chunks(path: str, data: bytes) -> bytes:
    """The PNG with only the chunks its pixels need: texts, profiles and further frames may unpack to any size, and the
    decoder would allocate memory for a chunk that claims to be longer than the file."""
    kept, kind, at, packed = [_PNG], b"", len(_PNG), 0
    for number in range(_MAX_CHUNKS):
        if at + 12 > len(data) or kind == b"IEND":
            break
        length, kind = struct.unpack(">I", data[at : at + 4])[0], data[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(data) or (number == 0) != (kind == b"IHDR"):
            raise _damaged(path)
        if kind in _PIXELS:
            kept.append(data[at:end])
            packed += length if kind == b"IDAT" else 0
        at = end
    width, height = _png(data)
    if kind != b"IEND" or packed > 16 * width * height + 2 * height + 4096:  # twice four channels of 16 bits
        raise _damaged(path)
    return b"".join(kept)


def _damaged(path: str) -> MediaError:
    return MediaError("E420", f"{path} is damaged or cut off", _HINT)


def _jpeg(data: bytes) -> tuple[int, int]:
    # Every frame header counts, not the first alone: decoders differ on which of two they believe.
    at, width, height = 2, 0, 0
    for _ in range(_MAX_SEGMENTS):
        if data[at : at + 2] == b"\xff\xff":  # fill bytes, as many as there are
            at = found.start() - 1 if (found := _NOT_FILL.search(data, at)) else len(data)
        if at + 9 > len(data) or data[at] != 0xFF or data[at + 1] == 0xDA:
            break
        marker = data[at + 1]
        length = struct.unpack(">H", data[at + 2 : at + 4])[0]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            rows, columns = struct.unpack(">HH", data[at + 5 : at + 9])
            width, height = max(width, columns), max(height, rows)
        at += 2 + length
    else:
        return 0, 0
    return width, height


def _webp(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", data[26:30])
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        bits = struct.unpack("<I", data[21:25])[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")


def _bmp(data: bytes) -> tuple[int, int]:
    if struct.unpack("<I", data[14:18])[0] == 12:
        return struct.unpack("<HH", data[18:22])
    width, height = struct.unpack("<ii", data[18:26])
    return width, abs(height)


def _tiff(data: bytes) -> tuple[int, int]:
    order = "<" if data[:2] == b"II" else ">"
    at = struct.unpack(order + "I", data[4:8])[0]
    size, tags = {256: 0, 257: 0}, struct.unpack(order + "H", data[at : at + 2])[0]
    if tags > _MAX_TAGS:
        return 0, 0
    for k in range(tags):
        entry = data[at + 2 + 12 * k : at + 14 + 12 * k]
        tag, kind = struct.unpack(order + "HH", entry[:4])
        if tag in size:
            size[tag] = struct.unpack(order + ("H" if kind == 3 else "I"), entry[8:10] if kind == 3 else entry[8:12])[0]
    return size[256], size[257]
