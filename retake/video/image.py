"""Still images: the size from the header first, then the pixels. Runs in the child."""

from __future__ import annotations

import struct

import numpy as np

from retake.errors import MediaError

_MAX_BYTES = 1 << 29
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
        (data[:8] == b"\x89PNG\r\n\x1a\n", _png),
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


def _jpeg(data: bytes) -> tuple[int, int]:
    # Every frame header counts, not the first alone: decoders differ on which of two they believe.
    at, width, height = 2, 0, 0
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == 0xDA:
            break
        length = struct.unpack(">H", data[at + 2 : at + 4])[0]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            rows, columns = struct.unpack(">HH", data[at + 5 : at + 9])
            width, height = max(width, columns), max(height, rows)
        at += 2 + length
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
    size = {256: 0, 257: 0}
    for k in range(struct.unpack(order + "H", data[at : at + 2])[0]):
        entry = data[at + 2 + 12 * k : at + 14 + 12 * k]
        tag, kind = struct.unpack(order + "HH", entry[:4])
        if tag in size:
            size[tag] = struct.unpack(order + ("H" if kind == 3 else "I"), entry[8:10] if kind == 3 else entry[8:12])[0]
    return size[256], size[257]
