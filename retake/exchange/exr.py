"""OpenEXR files of one picture, as far as maps need them, in plain Python: OpenCV's wheel has no EXR.

Written: channels of float or half, scan lines, ZIP. Read: scan lines, uncompressed, RLE, ZIPS or ZIP, any channels of
half, float or uint. Not read: tiles, deep pixels, several parts, and the compressions PIZ, PXR24, B44, DWA.
Source: the OpenEXR file layout, https://openexr.com/en/latest/OpenEXRFileLayout.html.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retake.errors import MediaError
from retake.exchange.files import MAX_BYTES, check_size, damaged, read_bytes

_MAGIC, _VERSION = 20000630, 2
_TYPES = {0: np.dtype("<u4"), 1: np.dtype("<f2"), 2: np.dtype("<f4")}
_LINES = {0: 1, 1: 1, 2: 1, 3: 16}  # scan lines in a block, by compression: none, RLE, ZIPS, ZIP
_NAMES = ("none", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24", "B44", "B44A", "DWAA", "DWAB")
_ZIP = 3
_MAX_BLOCK = MAX_BYTES >> 3  # bytes of a block, which is unpacked in several copies


class _Header(NamedTuple):
    channels: list[tuple[str, np.dtype]]
    compression: int
    width: int
    height: int
    top: int
    end: int


def read(path: str | Path, choose: Callable[[list[str]], Collection[str]] = list) -> dict[str, np.ndarray]:
    """Channels by name, [H, W] each in the file's dtype. `choose` picks them from all names before any pixel is
    unpacked.

    Raises MediaError E400 (not there), E421 (too large), E432 (damaged or truncated), E434 (a kind of EXR that is not
    read here).
    """
    data = read_bytes(path)
    try:
        head = _header(data, path)
        return _pixels(data, head, choose([name for name, _ in head.channels]), path)
    except (struct.error, IndexError, KeyError, OverflowError, ValueError, zlib.error) as error:
        raise damaged(path, f"it is damaged or cut off ({error})") from error


def write(path: str | Path, values: np.ndarray, channel: str = "Y") -> None:
    """Write one channel [H, W]: float16 as half, everything else as float32. Equal arrays give equal bytes with one
    version of zlib. Raises ValueError for another shape."""
    Path(path).write_bytes(content({channel: values}))


def content(channels: Mapping[str, np.ndarray], chromaticities: Sequence[float] = ()) -> bytes:
    """The bytes of a file of some channels [H, W] of one size, as `write` writes them. `chromaticities`: x and y of
    red, green, blue and white, where the channels are colours. Raises ValueError for another shape."""
    shapes = {values.shape for values in channels.values()}
    shape = next(iter(shapes)) if len(shapes) == 1 else (0, 0)
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"channels are [H, W], all of one size, not {sorted(map(list, shapes))}")
    height, width = shape
    kinds = {name: 1 if channels[name].dtype == np.float16 else 2 for name in sorted(channels)}
    listed = b"".join(name.encode() + b"\0" + struct.pack("<iB3xii", kind, 1, 1, 1) for name, kind in kinds.items())
    rows = [np.ascontiguousarray(channels[name], _TYPES[kind]).view(np.uint8) for name, kind in kinds.items()]
    lines = np.concatenate(rows, axis=1)
    colours = [("chromaticities", "chromaticities", struct.pack("<8f", *chromaticities))] if chromaticities else []
    head = struct.pack("<II", _MAGIC, _VERSION) + b"".join(
        _attribute(name, of, content)
        for name, of, content in (
            ("channels", "chlist", listed + b"\0"),
            *colours,
            ("compression", "compression", bytes([_ZIP])),
            ("dataWindow", "box2i", struct.pack("<iiii", 0, 0, width - 1, height - 1)),
            ("displayWindow", "box2i", struct.pack("<iiii", 0, 0, width - 1, height - 1)),
            ("lineOrder", "lineOrder", b"\0"),
            ("pixelAspectRatio", "float", struct.pack("<f", 1.0)),
            ("screenWindowCenter", "v2f", struct.pack("<ff", 0.0, 0.0)),
            ("screenWindowWidth", "float", struct.pack("<f", 1.0)),
        )
    )
    head += b"\0"
    blocks = []
    for y in range(0, height, _LINES[_ZIP]):
        raw = lines[y : y + _LINES[_ZIP]].tobytes()
        packed = _zip(raw)
        body = packed if len(packed) < len(raw) else raw  # a block that does not shrink is stored as it is
        blocks.append(struct.pack("<ii", y, len(body)) + body)
    starts = np.cumsum([len(head) + 8 * len(blocks)] + [len(block) for block in blocks[:-1]])
    return head + starts.astype("<u8").tobytes() + b"".join(blocks)


def _attribute(name: str, of: str, content: bytes) -> bytes:
    return name.encode() + b"\0" + of.encode() + b"\0" + struct.pack("<i", len(content)) + content


def _header(data: bytes, path: str | Path) -> _Header:
    magic, version = struct.unpack_from("<II", data)
    if magic != _MAGIC:
        raise damaged(path, "it is not an EXR")
    if version & 0xFF != _VERSION or version & 0x1A00:  # tiles, deep pixels, several parts; long names are fine
        raise _unsupported(path, "tiles, deep pixels or several parts")
    found: dict[str, bytes] = {}
    at = 8
    while data[at] != 0:
        name, at = _read_string(data, at)
        _, at = _read_string(data, at)
        (size,) = struct.unpack_from("<i", data, at)
        if size < 0 or at + 4 + size > len(data):
            raise damaged(path, "its header is damaged")
        found[name], at = data[at + 4 : at + 4 + size], at + 4 + size
    x0, y0, x1, y1 = struct.unpack("<iiii", found["dataWindow"])
    check_size(path, x1 - x0 + 1, y1 - y0 + 1)
    compression = found["compression"][0]
    if compression not in _LINES:
        name = _NAMES[compression] if compression < len(_NAMES) else str(compression)
        raise _unsupported(path, f"{name} compression")
    return _Header(_channels(found["channels"], path), compression, x1 - x0 + 1, y1 - y0 + 1, y0, at + 1)


def _channels(listed: bytes, path: str | Path) -> list[tuple[str, np.dtype]]:
    channels, at = [], 0
    while listed[at] != 0:
        name, at = _read_string(listed, at)
        kind, _, across, down = struct.unpack_from("<iB3xii", listed, at)
        if (across, down) != (1, 1):
            raise _unsupported(path, f"channel {name} at a lower resolution")
        channels.append((name, _TYPES[kind]))
        at += 16
    if not 1 <= len(channels) <= 64:
        raise damaged(path, f"it has {len(channels)} channels")
    return channels


def _pixels(data: bytes, head: _Header, wanted: Collection[str], path: str | Path) -> dict[str, np.ndarray]:
    width, height, per_block = head.width, head.height, _LINES[head.compression]
    line = sum(of.itemsize for _, of in head.channels) * width
    blocks = -(-height // per_block)
    # zlib shrinks to a thousandth at best, RLE to a fiftieth: a header that claims more is not believed.
    if line * height > 1100 * len(data):
        raise damaged(path, f"{width}x{height} px do not fit into {len(data)} bytes")
    if line * height > MAX_BYTES or line * min(per_block, height) > _MAX_BLOCK:
        raise MediaError(
            "E421",
            f"{path} holds {line * height} bytes in {len(head.channels)} channels",
            f"Give at most {MAX_BYTES}: fewer channels, or a smaller picture.",
        )
    planes = {name: np.empty((height, width), of) for name, of in head.channels if name in wanted}
    seen = bytearray(blocks)
    for start in np.frombuffer(data, "<u8", blocks, head.end).tolist():
        y, size = struct.unpack_from("<ii", data, start)
        y -= head.top
        if not 0 <= y < height or y % per_block or size < 0 or start + 8 + size > len(data):
            raise damaged(path, "a block of lines lies outside the picture or the file")
        lines = min(per_block, height - y)
        raw = _decompressed(data[start + 8 : start + 8 + size], lines * line, head.compression)
        rows, at = np.frombuffer(raw, np.uint8).reshape(lines, line), 0
        for name, of in head.channels:
            if name in wanted:
                part = np.ascontiguousarray(rows[:, at : at + of.itemsize * width])
                planes[name][y : y + lines] = part.view(of)
            at += of.itemsize * width
        seen[y // per_block] = 1
    if not all(seen):
        raise damaged(path, "lines are missing")
    return planes


def _decompressed(body: bytes, size: int, compression: int) -> bytes:
    """The `size` decompressed bytes of a block. Raises ValueError for another length."""
    if len(body) == size or compression == 0:
        raw = body
    else:
        raw = _decode_rle(body, size) if compression == 1 else zlib.decompressobj().decompress(body, size)
        if len(raw) == size:
            raw = _undo_prediction(np.frombuffer(raw, np.uint8))
    if len(raw) != size:
        raise ValueError(f"a block holds {len(raw)} bytes instead of {size}")
    return raw


def _decode_rle(body: bytes, size: int) -> bytes:
    raw, at = bytearray(), 0
    while at < len(body) and len(raw) <= size:
        count = body[at] - 256 if body[at] > 127 else body[at]
        if count < 0:
            raw += body[at + 1 : at + 1 - count]
            at += 1 - count
        else:
            raw += body[at + 1 : at + 2] * (count + 1)
            at += 2
    return bytes(raw)


def _zip(raw: bytes) -> bytes:
    """EXR's ZIP: even bytes first, then odd ones; differences plus 128; then zlib."""
    values = np.frombuffer(raw, np.uint8)
    apart = np.concatenate([values[::2], values[1::2]])
    steps = apart.copy()
    steps[1:] = apart[1:] - apart[:-1] + np.uint8(128)  # uint8 wraps round, as the format wants it
    return zlib.compress(steps.tobytes(), 4)


def _undo_prediction(steps: np.ndarray) -> bytes:
    """The inverse of what `_zip` does before zlib."""
    moved = steps.copy()
    moved[1:] -= np.uint8(128)
    apart = np.cumsum(moved, dtype=np.uint8)
    values, half = np.empty_like(apart), (len(apart) + 1) // 2
    values[::2], values[1::2] = apart[:half], apart[half:]
    return values.tobytes()


def _read_string(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(b"\0", at, at + 256)
    return data[at:end].decode("utf-8"), end + 1


def _unsupported(path: str | Path, what: str) -> MediaError:
    return MediaError("E434", f"{path} is an EXR with {what}", "Write it as scan lines with ZIP compression.")
