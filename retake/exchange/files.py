"""Reading files of numbers without trusting them: sizes are checked before anything is decoded or allocated."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import IO

import cv2
import numpy as np

from retake.errors import MediaError

MAX_PIXELS = 1 << 25
MAX_BYTES = MAX_PIXELS * 32
ASPECT = 0.02  # working sizes are rounded to whole pixels, or to a model's multiples

_PNG = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB = 0, 2


def content(path: str | Path) -> bytes:
    """All bytes of a file. Raises MediaError E400 where there is none, E421 where it is larger than any map can be."""
    _weigh(path)
    return Path(path).read_bytes()


def _weigh(path: str | Path) -> int:
    """Bytes of a file that can be opened and is small enough."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
    except OSError as error:
        raise MediaError("E400", f"{path} cannot be opened: {error.strerror}", "Check the path.") from error
    if size > MAX_BYTES:
        raise MediaError("E421", f"{path} has {size} bytes", f"Give at most {MAX_PIXELS} px.")
    return size


def damaged(path: str | Path, why: str) -> MediaError:
    """E432, to be raised: the file is not what its name says."""
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
    data = content(path)
    if data[:8] != _PNG or data[12:16] != b"IHDR" or len(data) < 33:
        raise damaged(path, "it is no PNG")
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
    size = _weigh(path)
    with open(path, "rb") as file:
        return _array(file, path, size)


def read_npz(path: str | Path, wanted: Collection[str]) -> dict[str, np.ndarray]:
    """Those arrays of a .npz file whose names are wanted and there. Raises MediaError E400, E421, E432."""
    _weigh(path)
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                name = entry.filename.removesuffix(".npy")
                if name in wanted:
                    with archive.open(entry) as file:
                        found[name] = _array(file, path, entry.file_size)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise damaged(path, f"it is no npz file: {error}") from error
    return found


def _array(file: IO[bytes], path: str | Path, size: int) -> np.ndarray:
    """One array in NumPy's format out of `size` bytes, header first: a lie about the shape allocates nothing."""
    form = np.lib.format
    try:
        version = form.read_magic(file)
        header = form.read_array_header_1_0 if version == (1, 0) else form.read_array_header_2_0
        shape, fortran, dtype = header(file)
        if dtype.kind not in "fiu" or dtype.hasobject or not 2 <= len(shape) <= 3:
            raise damaged(path, f"it holds {dtype} {list(shape)}; numbers [H, W] or [H, W, 2] are needed")
        check_size(path, shape[1], shape[0])
        count = shape[0] * shape[1] * (shape[2] if len(shape) == 3 else 1)
        if count * dtype.itemsize > min(size, MAX_BYTES):
            raise damaged(path, "it ends before its last number")
        data = file.read(count * dtype.itemsize)
        values = np.frombuffer(data, dtype, count)
    except (ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise damaged(path, str(error).splitlines()[0][:200]) from error
    return values.reshape(shape, order="F" if fortran else "C")


def numbered(folder: str | Path, suffixes: Collection[str]) -> list[Path]:
    """Files of a folder with one of these endings, in the order of the numbers in their names. Empty without folder."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    found = (f for f in folder.iterdir() if f.suffix.lower() in suffixes and not f.name.startswith("."))
    return sorted(found, key=lambda f: _natural(f.name))


def check_shape(path: str | Path, shape: tuple[int, ...], size: tuple[int, int]) -> None:
    """Raises MediaError E433 where a map of `shape` (H, W, ...) has not the proportions of `size` (width, height)."""
    height, width = shape[:2]
    if abs(width * size[1] - height * size[0]) > ASPECT * height * size[0]:
        raise MediaError(
            "E433",
            f"{path} has {width}x{height} px, the clip {size[0]}x{size[1]}: not the same shape",
            "Give maps made from this clip, uncropped.",
        )


def nearest_known(values: np.ndarray, known: np.ndarray) -> np.ndarray:
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


def _natural(name: str) -> list[tuple[int, int | str]]:
    parts = re.split(r"(\d+)", name)
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts if part]
