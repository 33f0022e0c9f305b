"""Reading untrusted arrays: sizes are checked before anything is decoded or allocated."""

from __future__ import annotations

import io
import math
import stat
import struct
import tokenize
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import IO

import cv2
import numpy as np

from retake.errors import MediaError
from retake.exchange.numbering import natural

MAX_PIXELS = 1 << 25
MAX_BYTES = MAX_PIXELS * 32
ASPECT = 0.02  # working sizes are rounded to whole pixels, or to a model's multiples

_PNG = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB = 0, 2
_MAX_HEADER = 10_000  # bytes of a .npy header, as np.load has it
_MAX_CHANNELS = 4  # values a pixel: a depth has one, a flow two, a picture three or four


def read_bytes(path: str | Path) -> bytes:
    """All bytes of a file. Raises MediaError E400 if it is missing, E421 for more than MAX_BYTES."""
    checked_size(path)
    return Path(path).read_bytes()


def checked_size(path: str | Path) -> int:
    """The size in bytes of a regular, readable file. Raises MediaError E400 for anything else (reading a pipe could
    block), E421 for more than MAX_BYTES."""
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            raise MediaError("E400", f"{path} is not a plain file", "Check the path.")
        with open(path, "rb"):
            pass
    except OSError as error:
        raise MediaError("E400", f"{path} cannot be opened: {error.strerror}", "Check the path.") from error
    if status.st_size > MAX_BYTES:
        raise MediaError("E421", f"{path} has {status.st_size} bytes", f"Give at most {MAX_PIXELS} px.")
    return status.st_size


def damaged(path: str | Path, why: str) -> MediaError:
    """MediaError E432 for a damaged file, or one that is not what its name says."""
    return MediaError("E432", f"{path} cannot be read: {why}", "Write it again, or copy it again.")


def check_size(path: str | Path, width: int, height: int) -> None:
    """Raises MediaError E432 for a picture without pixels, E421 for one of more than MAX_PIXELS."""
    if width < 1 or height < 1:
        raise damaged(path, f"it claims to have {width}x{height} px")
    if width * height > MAX_PIXELS:
        raise MediaError("E421", f"{path} has {width}x{height} px", f"Give at most {MAX_PIXELS} px.")


def read_png16(path: str | Path) -> np.ndarray:
    """uint16 [H, W] of a grey PNG of 16 bits, or [H, W, 3] (R, G, B) of a colour one.

    Raises MediaError E400, E421, or E432 for any other file.
    """
    data = read_bytes(path)
    if data[:8] != _PNG or data[12:16] != b"IHDR" or len(data) < 33:
        raise damaged(path, "it is not a PNG")
    width, height, bits, kind = struct.unpack(">IIBB", data[16:26])
    check_size(path, width, height)
    if bits != 16 or kind not in (_GREY, _RGB):
        raise damaged(path, f"it has {bits} bits a channel and colour type {kind}; 16 bits, grey or RGB, are needed")
    try:
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise damaged(path, "its pixels are damaged") from error
    if values is None or values.dtype != np.uint16:
        raise damaged(path, "its pixels are damaged or cut off")
    return values if values.ndim == 2 else np.ascontiguousarray(values[..., ::-1])


def write_png16(path: str | Path, values: np.ndarray) -> None:
    """uint16 [H, W] or [H, W, 3] (R, G, B) as a PNG; equal arrays give equal bytes on one version of OpenCV."""
    if values.dtype != np.uint16:
        raise ValueError(f"uint16 is needed, not {values.dtype}")
    done, data = cv2.imencode(".png", values if values.ndim == 2 else np.ascontiguousarray(values[..., ::-1]))
    if not done:
        raise ValueError(f"no PNG of shape {values.shape}")
    Path(path).write_bytes(data.tobytes())


def read_npy(path: str | Path) -> np.ndarray:
    """The array of a .npy file: numbers only, nothing unpickled. Raises MediaError E400, E421, E432."""
    size = checked_size(path)
    with open(path, "rb") as file:
        return _array(file, path, size)


def read_npz(path: str | Path, wanted: Collection[str]) -> dict[str, np.ndarray]:
    """The `wanted` arrays of a .npz file, by name, as far as it has them. Raises MediaError E400, E421, E432."""
    checked_size(path)
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                name = entry.filename.removesuffix(".npy")
                if name in wanted:
                    with archive.open(check_compression(entry)) as file:
                        found[name] = _array(file, path, entry.file_size)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, OSError, ValueError) as error:
        raise damaged(path, f"it is not an npz file: {error}") from error
    return found


def _array(file: IO[bytes], path: str | Path, size: int) -> np.ndarray:
    """One array in NumPy's format out of `size` bytes, header first, so that a wrong shape allocates nothing."""
    try:
        shape, fortran, dtype = npy_header(file)
        if dtype.kind not in "fiu" or not 2 <= len(shape) <= 3 or not all(1 <= k <= _MAX_CHANNELS for k in shape[2:]):
            raise damaged(path, f"it holds {dtype} {list(shape)}; numbers [H, W] or [H, W, 2] are needed")
        check_size(path, shape[1], shape[0])
        count = math.prod(shape)
        if count * dtype.itemsize > min(size, MAX_BYTES):
            raise damaged(path, "it ends before its last number")
        data = file.read(count * dtype.itemsize)
        values = np.frombuffer(data, dtype, count)
    except (ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise damaged(path, (str(error) or "it is damaged").splitlines()[0][:200]) from error
    return values.reshape(shape, order="F" if fortran else "C")


def check_compression(entry: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """The entry, if it is stored or deflated, as NumPy writes it. Raises BadZipFile otherwise (LZMA's dictionary alone
    may take gigabytes)."""
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise zipfile.BadZipFile(f"{entry.filename[:80]} is neither stored nor deflated")
    return entry


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, Fortran order, dtype) at the start of an array in NumPy's format; leaves `file` at the data.

    A dimension may be 0 or negative here. Raises ValueError for a header that is damaged, too long, or of an unknown
    version, and what reading `file` raises.
    """
    form = np.lib.format
    readers = {(1, 0): (2, form.read_array_header_1_0), (2, 0): (4, form.read_array_header_2_0)}
    version = form.read_magic(file)
    if version not in readers:
        raise ValueError(f"the .npy version {version} is unknown")
    width, reader = readers[version]
    length = file.read(width)
    if (size := int.from_bytes(length, "little")) > _MAX_HEADER:  # before it is read: it may be gigabytes of zeros
        raise ValueError(f"its header claims {size} bytes")
    try:
        return reader(io.BytesIO(length + file.read(size)))
    except (SyntaxError, TypeError, RecursionError, MemoryError, tokenize.TokenError) as error:
        raise ValueError("its header is damaged") from error


def sorted_files(folder: str | Path, suffixes: Collection[str]) -> list[Path]:
    """Files of a folder with one of these endings, in the order of the numbers in their names; hidden files
    are skipped, as they enter no key. Empty if there is no folder."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    found = (f for f in folder.iterdir() if f.suffix.lower() in suffixes and not f.name.startswith("."))
    return sorted(found, key=lambda f: (natural(f.name), f.name))  # 1.png and 01.png have an order too


def unread(folder: str | Path, suffixes: Collection[str]) -> str:
    """Words on the files of a folder that have none of these endings, so that what is not read does not look as if it
    were not there: " (24 .tga files there are not read)". Empty where there are none."""
    folder = Path(folder)
    files = [f for f in folder.iterdir() if f.is_file() and not f.name.startswith(".")] if folder.is_dir() else []
    kinds = Counter(f.suffix.lower() for f in files if f.suffix.lower() not in suffixes)
    named = ", ".join(f"{count} {kind or 'other'}" for kind, count in kinds.most_common(3))
    return f" ({named} files there are not read)" if named else ""


def check_shape(
    path: str | Path,
    shape: tuple[int, ...],
    size: tuple[int, int],
    code: str = "E433",
    hint: str = "Give maps made from this clip, uncropped.",
) -> None:
    """Raises MediaError `code` unless the `shape` (H, W, ...) has the aspect ratio of `size` = (width, height), to
    2 %."""
    height, width = shape[:2]
    if abs(width * size[1] - height * size[0]) > ASPECT * height * size[0]:
        raise MediaError(
            code,
            f"{path} has {width}x{height} px, the clip {size[0]}x{size[1]}: not the same shape",
            hint,
        )


def fill_unknown(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """`values` [H, W, ...] with every unknown pixel taking the value of the nearest known one (known bool [H, W], at
    least one True)."""
    if known.all():
        return values
    _, found = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    labels = found.astype(np.intp)
    of_label = np.zeros(int(labels.max()) + 1, np.intp)
    of_label[labels[known]] = np.flatnonzero(known)
    return values.reshape(-1, *values.shape[2:])[of_label[labels]]
