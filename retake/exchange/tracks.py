"""Point tracks in simple files, npz and JSON.

    xy        [T, P, 2]  position of point p on frame t, (x, y) in pixels, (0, 0) the centre of the first pixel;
                         NaN (JSON: null in place of the pair) where it is not known
    visible   [T, P]     bool, or 0 and 1
    ids       [P]        optional whole numbers from 0, all different; without them 0, 1, 2, ...
    size      [2]        optional (width, height) of the pixel grid; without it the source's own pixels are meant

An npz holds these as plain arrays in C order and is read and written a few frames at a time; nothing is unpickled.
JSON is one object of the same names, and is read whole.
"""

from __future__ import annotations

import contextlib
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from retake.errors import MediaError
from retake.exchange.files import check_compression, npy_header
from retake.formats import CHUNK, EditedTrackSeries, TrackSeries
from retake.machine.disk import explain_write_errors

MAX_POINTS = 1 << 18
MAX_JSON = 1 << 28  # bytes
MAX_XY = 1e6  # px: no picture is that large
HINT = "See docs/formats.md: xy [T,P,2], visible [T,P], optional ids [P] and size [2]."
Block = tuple[np.ndarray, np.ndarray]
"""n consecutive frames: xy float32 [n, P, 2] in px, NaN where unknown, and visible bool [n, P]."""


@dataclass(frozen=True)
class PointTracks:
    """Tracks read lazily: `blocks()` starts from the first frame, 16 frames at a time."""

    ids: np.ndarray
    """int64 [P]"""
    count: int
    """Frames."""
    size: tuple[int, int] | None
    """(width, height) of the pixel grid; None: pixels of the source."""
    blocks: Callable[[], Iterator[Block]]


def from_series(series: TrackSeries | EditedTrackSeries) -> PointTracks:
    """All points of an artifact; a point is unknown in chunks that do not list it."""
    chunks = range(series.chunks())
    known = [series.chunk(index)["ids"] for index in chunks]
    ids = np.unique(np.concatenate(known)) if known else np.zeros(0, np.int64)

    def blocks() -> Iterator[Block]:
        for index in chunks:
            chunk = series.chunk(index)
            columns = np.searchsorted(ids, chunk["ids"])
            xy = np.full((len(chunk["xy"]), len(ids), 2), np.nan, np.float32)
            visible = np.zeros(xy.shape[:2], bool)
            xy[:, columns], visible[:, columns] = chunk["xy"], chunk["visible"]
            yield xy, visible

    return PointTracks(ids, len(series), (series.width, series.height), blocks)


def open_tracks(path: Path | str) -> PointTracks:
    """The tracks of a file, .npz or .json. Positions are checked as they are read.

    Raises MediaError E400 (no such file) and E436 (not tracks: another ending, a missing or misshapen field, ids
    that repeat, a visible point without a position, a damaged file), here or from `blocks()`.
    """
    path = Path(path)
    if not path.is_file():
        raise MediaError("E400", f"there is no file {path}", "Give an .npz or .json file of tracks.")
    reader = {".npz": _open_npz, ".json": _open_json}.get(path.suffix.lower())
    if reader is None:
        raise _refused(path, f"{path.suffix or 'a name without an ending'} is not a format of tracks (.npz, .json)")
    return reader(path)


def write_npz(path: Path, tracks: PointTracks) -> None:
    """Write tracks as an npz, uncompressed. Equal tracks give equal bytes. Raises MachineError E502, E503."""
    points = len(tracks.ids)
    with explain_write_errors(path), zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        _write_array(archive, "ids", np.int64, (points,), iter([tracks.ids]))
        if tracks.size is not None:
            _write_array(archive, "size", np.int64, (2,), iter([np.array(tracks.size)]))
        _write_array(archive, "visible", np.bool_, (tracks.count, points), (seen for _, seen in tracks.blocks()))
        _write_array(archive, "xy", np.float32, (tracks.count, points, 2), (xy for xy, _ in tracks.blocks()))


def write_json(path: Path, tracks: PointTracks) -> None:
    """Write tracks as JSON, one frame a line; positions with as many digits as a float32 needs to come back the same.
    Equal tracks give equal bytes. Raises MachineError E502, E503."""
    with explain_write_errors(path), path.open("w", encoding="utf-8", newline="\n") as file:
        file.write('{"ids": ' + json.dumps(tracks.ids.tolist()))
        if tracks.size is not None:
            file.write(f',\n"size": {json.dumps(list(tracks.size))}')
        for name, part, line in (("visible", 1, _json_flags), ("xy", 0, _json_positions)):
            file.write(f',\n"{name}": [')
            rows = (row for block in tracks.blocks() for row in block[part])
            for t, row in enumerate(rows):
                file.write((",\n" if t else "\n") + line(row))
            file.write("]")
        file.write("}\n")


def _json_flags(seen: np.ndarray) -> str:
    return "[" + ",".join("1" if one else "0" for one in seen) + "]"


def _json_positions(xy: np.ndarray) -> str:
    return "[" + ",".join("null" if np.isnan(p).any() else f"[{_short(p[0])},{_short(p[1])}]" for p in xy) + "]"


def _short(value: np.float32) -> str:
    return np.format_float_positional(value, unique=True, trim="-")


def _write_array(archive: zipfile.ZipFile, name: str, dtype: Any, shape: tuple[int, ...], parts: Iterator[Any]) -> None:
    """One .npy member, part by part, with a date that does not change."""
    member = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    with archive.open(member, "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(np.ascontiguousarray(part, dtype).tobytes())


# ---- reading -----------------------------------------------------------------------------------------------------


def _open_npz(path: Path) -> PointTracks:
    with _member(path, "xy") as xy, _member(path, "visible") as visible:
        names = _names(path)
        _require_shapes(path, xy.shape, visible.shape)
        _require_kinds(path, xy.dtype, visible.dtype)
        count, points = xy.shape[:2]
    extra = {}
    for name, length in (("ids", points), ("size", 2)):
        if name in names:
            with _member(path, name) as member:
                _require_list(path, name, member.shape, member.dtype, length)
                extra[name] = member.rows(length)

    def blocks() -> Iterator[Block]:
        with _member(path, "xy") as xy, _member(path, "visible") as visible:
            for start in range(0, count, CHUNK):
                n = min(CHUNK, count - start)
                yield _checked(path, xy.rows(n), visible.rows(n), start)

    return _point_tracks(path, extra.get("ids"), extra.get("size"), (count, points), blocks)


def _open_json(path: Path) -> PointTracks:
    if path.stat().st_size > MAX_JSON:
        raise _refused(path, f"it has more than {MAX_JSON >> 20} MiB; an .npz has no such limit")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or not {"xy", "visible"} <= data.keys():
            raise ValueError("it is not an object with xy and visible")
        visible = np.array(data["visible"])
        rows = [[[np.nan, np.nan] if place is None else place for place in row] for row in data["xy"]]
        xy = np.array(rows, np.float64).reshape(*visible.shape, 2) if visible.size == 0 else np.array(rows, np.float64)
        extra = {name: np.array(data[name]) for name in ("ids", "size") if data.get(name) is not None}
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise _refused(path, str(error)) from error
    if visible.size == 0:
        visible = visible.astype(bool)
    _require_shapes(path, xy.shape, visible.shape)
    _require_kinds(path, xy.dtype, visible.dtype)
    for name, length in (("ids", xy.shape[1]), ("size", 2)):
        if name in extra:
            extra[name] = extra[name].astype(np.int64) if extra[name].size == 0 else extra[name]
            _require_list(path, name, extra[name].shape, extra[name].dtype, length)

    def blocks() -> Iterator[Block]:
        for start in range(0, len(xy), CHUNK):
            yield _checked(path, xy[start : start + CHUNK], visible[start : start + CHUNK], start)

    return _point_tracks(path, extra.get("ids"), extra.get("size"), (xy.shape[0], xy.shape[1]), blocks)


@dataclass(frozen=True)
class _Member:
    """One .npy of an npz, read sequentially."""

    path: Path
    name: str
    file: IO[bytes]
    shape: tuple[int, ...]
    dtype: np.dtype

    def rows(self, n: int) -> np.ndarray:
        """The next `n` entries along the first axis."""
        shape = (n, *self.shape[1:])
        wanted = int(np.prod(shape)) * self.dtype.itemsize
        try:
            data = self.file.read(wanted)
        except _UNREADABLE as error:
            raise _refused(self.path, _error_text(error)) from error
        if len(data) != wanted:
            raise _refused(self.path, f"{self.name} ends early")
        return np.frombuffer(data, self.dtype).reshape(shape)


@contextlib.contextmanager
def _member(path: Path, name: str) -> Iterator[_Member]:
    """Raises MediaError E436 for anything but a plain array in C order."""
    with contextlib.ExitStack() as opened:
        try:
            archive = opened.enter_context(zipfile.ZipFile(path))
            file = opened.enter_context(archive.open(check_compression(archive.getinfo(f"{name}.npy"))))
            shape, fortran, dtype = npy_header(file)
        except _UNREADABLE as error:
            raise _refused(path, _error_text(error)) from error
        if fortran and len(shape) > 1:
            raise _refused(path, f"{name} is in Fortran order; save np.ascontiguousarray({name})")
        if dtype.kind not in "biuf":
            raise _refused(path, f"{name} holds {dtype}, not numbers")
        yield _Member(path, name, file, shape, dtype)


_UNREADABLE = (zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError, RuntimeError, SyntaxError, OSError)


def _error_text(error: Exception) -> str:
    return str(error.args[0]) if error.args else type(error).__name__


def _names(path: Path) -> set[str]:
    with zipfile.ZipFile(path) as archive:
        return {name.removesuffix(".npy") for name in archive.namelist()}


def _require_shapes(path: Path, xy: tuple[int, ...], visible: tuple[int, ...]) -> None:
    if len(xy) != 3 or xy[2:] != (2,) or visible != xy[:2]:
        raise _refused(path, f"xy is {list(xy)} and visible {list(visible)}, not [T,P,2] and [T,P]")
    if min(xy) < 0:  # a reader that multiplies them would read without end
        raise _refused(path, f"xy is {list(xy)}: no size is negative")
    if xy[1] > MAX_POINTS:
        raise _refused(path, f"it has {xy[1]} points, more than {MAX_POINTS}")


def _require_kinds(path: Path, xy: np.dtype, visible: np.dtype) -> None:
    if xy.kind not in "iuf" or visible.kind not in "biu":
        raise _refused(path, f"xy holds {xy} and visible {visible}, not numbers and true or false")


def _require_list(path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype, length: int) -> None:
    if shape != (length,) or dtype.kind not in "iu":
        raise _refused(path, f"{name} is {dtype} {list(shape)}, not {length} whole numbers")


def _point_tracks(
    path: Path,
    ids: np.ndarray | None,
    size: np.ndarray | None,
    shape: tuple[int, int],
    blocks: Callable[[], Iterator[Block]],
) -> PointTracks:
    ids = np.arange(shape[1]) if ids is None else ids
    if (len(ids) and (int(ids.min()) < 0 or int(ids.max()) >= 1 << 62)) or len(np.unique(ids)) != len(ids):
        raise _refused(path, "ids repeat, or are not whole numbers from 0")
    if size is not None and not ((size >= 1) & (size <= MAX_XY)).all():
        raise _refused(path, f"size is {size.tolist()}, not (width, height)")
    grid = None if size is None else (int(size[0]), int(size[1]))
    return PointTracks(ids.astype(np.int64), shape[0], grid, blocks)


def _checked(path: Path, xy: np.ndarray, visible: np.ndarray, start: int) -> Block:
    """A validated block; a position with one NaN is unknown. Raises MediaError E436."""
    seen = visible.astype(bool)
    with np.errstate(over="ignore"):
        xy = xy.astype(np.float32)
    known = np.logical_and.reduce(np.isfinite(xy), axis=-1)
    if not np.isin(visible, (0, 1)).all():
        raise _refused(path, f"visible holds other numbers than 0 and 1 from frame {start} on")
    far = (np.abs(xy) > MAX_XY).any(axis=2)
    far_away = f"lies over {MAX_XY:g} px away"
    for wrong, what in ((seen & ~known, "is visible but has no position"), (known & far, far_away)):
        if wrong.any():
            t, point = np.argwhere(wrong)[0]
            raise _refused(path, f"point {point} of frame {start + t} {what}")
    return np.where(known[..., None], xy, np.float32(np.nan)), seen


def _refused(path: Path, why: str) -> MediaError:
    return MediaError("E436", f"{path} holds no tracks: {why}", HINT)
