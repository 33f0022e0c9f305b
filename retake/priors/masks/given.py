"""Masks that somebody made already: DAVIS annotations, a folder of PNG images, or a mask video.

Palette and grey images are index images, as in DAVIS: every value but 0 is an object, and its id. A folder whose grey
images are only black and white, an image with colours or alpha, and a video hold one object, with the id 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from pydantic import BaseModel, Field

from retake.errors import ConfigError, MediaError
from retake.exchange.files import MAX_PIXELS, check_shape, checked_size, sorted_files

VERSION = 2
NEEDS: tuple[str, ...] = ()

MAX_OBJECTS = 64  # values of index images; more are a matte with soft edges, or a picture
_PNG = (".png",)
_WHITE = ({255}, {65535})
_HINT = "Give masks made from this clip, uncropped."


class Params(BaseModel, frozen=True, extra="forbid"):
    """Which masks, and which object in them."""

    name: Literal["given"] = "given"
    path: str | None = Field(
        None,
        description="folder of PNG images, one a frame in the order of their names, or a mask video",
        json_schema_extra={"file": ""},
    )
    object: int | None = Field(
        None, description="value of the only object to take from index images; none takes all", ge=1, le=255
    )


def check_settings(params: Params) -> None:
    """Raises ConfigError E223 when no path is given."""
    _path(params.path)


def check(params: Params, frames: Mapping[str, Any]) -> None:
    """Before anything runs: raises ConfigError E223 when no path is given, MediaError E400 when nothing is there, E430
    when a folder does not hold one mask a frame."""
    path = _require(params.path)
    if path.is_dir():
        _check_count(path, len(sorted_files(path, _PNG)), frames["count"])


def ids(path: str | Path | None, params: Params) -> tuple[int, ...]:
    """Ids of the objects, ascending: the values that stand in any index image of the folder, `params.object` alone
    where it is set, else 1. Reads every image of a folder, one at a time.

    Raises ConfigError E223 (no path), MediaError E400 (nothing at `path`, or an image that is not a file), E420 and
    E421 (an image that is unreadable or too large), E438 (a value above 255, or more than 64 different ones).
    """
    path = _require(path)
    return tuple(_values(path, params)) if path.is_dir() else (1,)


def masks(
    path: str | Path | None, params: Params, count: int, size: tuple[int, int]
) -> Iterator[dict[int, np.ndarray]]:
    """The masks of a clip of `count` frames, frame by frame: {id: bool [H, W]} at `size` = (width, height). Every
    frame names the same `ids`; an object that is not there has an empty mask.

    Folder: palette and grey PNG images are index images, as in DAVIS (`Annotations/480p/NAME/%05d.png`). Images with
    alpha: alpha above 127. Other colour images: any channel not 0. Names are ordered by the numbers in them; hidden
    files are left out. Video: luma (BT.601 weights) above 127. Masks of another size are resampled; a pixel belongs to
    an object where half of it does.

    Raises what `ids` raises, ConfigError E223 for `object` and masks that hold no index, MediaError E430 when the
    number of masks or their shape does not match the clip, and what `retake.video.decode` raises for a video.
    """
    path = _require(path)
    return _from_folder(path, params, count, size) if path.is_dir() else _from_video(path, params, count, size)


def _require(path: str | Path | None) -> Path:
    path = _path(path)
    if not path.exists():
        raise MediaError("E400", f"no masks at {path}", "Check masks.path: a folder of PNG images or a video.")
    return path


def _path(path: str | Path | None) -> Path:
    if not path:
        raise ConfigError(
            "E223", "masks=given needs masks.path", "Give masks.path=PATH: a folder of PNG images or a mask video."
        )
    return Path(path)


def _from_folder(path: Path, params: Params, count: int, size: tuple[int, int]) -> Iterator[dict[int, np.ndarray]]:
    files = sorted_files(path, _PNG)
    _check_count(path, len(files), count)
    wanted = _values(path, params)
    for file in files:
        index, drawn = _read_png(file, params.object)
        if index is not None:
            found = {i: index > 0 if value is None else index == value for i, value in wanted.items()}
        else:
            found = {i: drawn & (i == 1) for i in wanted}
        yield {i: _fit(mask, size, file) for i, mask in found.items()}


def _from_video(path: Path, params: Params, count: int, size: tuple[int, int]) -> Iterator[dict[int, np.ndarray]]:
    from retake import video

    if params.object is not None:
        raise ConfigError(
            "E223",
            f"masks.object={params.object}, but {path.name} is a video",
            "Drop masks.object: a video is black and white.",
        )
    _check_count(path, video.probe(path).frames, count)
    number = 0
    for _, rgb in video.decode(path):
        number += 1
        yield {1: _fit(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) > 127, size, path)}
    _check_count(path, number, count)


def _values(path: Path, params: Params) -> dict[int, int | None]:
    """Id to the value that stands for it in index images; None: any value but 0."""
    if params.object is not None:
        return {params.object: params.object}
    values: set[int] = set()
    white, drawn = True, False
    for file in sorted_files(path, _PNG):
        index, _ = _read_png(file, None)
        if index is None:
            drawn = True
            continue
        here = set(np.flatnonzero(np.bincount(index.ravel())).tolist()) - {0}
        values |= here
        white &= not here or here in _WHITE
        if len(values) > MAX_OBJECTS or (max(values, default=0) > 255 and not white):
            raise MediaError(
                "E438",
                f"{file} holds no object ids: {len(values)} values up to {max(values)} were met",
                f"Ids are 1 to 255, at most {MAX_OBJECTS} of them. Make a matte black and white, or set masks.object.",
            )
    if not values or white:
        return {1: None}
    return {value: value for value in sorted(values | ({1} if drawn else set()))}


def _read_png(file: Path, wanted: int | None) -> tuple[np.ndarray | None, np.ndarray]:
    """(index values [h, w] or None, mask bool [h, w]). Pillow, because OpenCV makes colours of a palette's indices."""
    from PIL import Image

    checked_size(file)
    try:
        with Image.open(file, formats=["PNG"]) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise MediaError("E421", f"{file} has {width}x{height} px", f"Give at most {MAX_PIXELS} px.")
            mode, values = image.mode, np.asarray(image)
    except Image.DecompressionBombError as error:
        raise MediaError("E421", f"{file} is too large: {error}", f"Give at most {MAX_PIXELS} px.") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise MediaError("E420", f"{file} is not a readable PNG: {error}", "Write it again as PNG.") from error
    if values.ndim == 2:  # palette, grey of 8 or 16 bits, or one bit
        return values, values > 0
    if wanted is not None:
        raise ConfigError(
            "E223",
            f"masks.object={wanted}, but {file} is a colour image ({mode}) and holds no index",
            "Drop masks.object, or give palette images as DAVIS does.",
        )
    return None, (values[..., -1] > 127) if mode in ("LA", "RGBA") else (values.max(axis=2) > 0)


def _fit(mask: np.ndarray, size: tuple[int, int], source: Path) -> np.ndarray:
    check_shape(source, mask.shape, size, "E430", _HINT)
    height, width = mask.shape
    if (width, height) == size:
        return mask
    shrinks = width >= size[0] and height >= size[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(mask.astype(np.float32), size, interpolation=method) >= 0.5


def _check_count(path: Path, found: int, wanted: int) -> None:
    if found != wanted:
        raise MediaError(
            "E430",
            f"{path} holds {found} masks, the clip has {wanted} frames",
            "Give one mask a frame of those that are selected, in the order of their names.",
        )
