"""Masks that somebody made already: DAVIS annotations, a folder of PNG images, or a mask video."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from pydantic import BaseModel, Field

from retake.errors import ConfigError, MediaError

VERSION = 1
NEEDS: tuple[str, ...] = ()

_MAX_PIXELS = 1 << 25
_ASPECT = 0.02  # working sizes are rounded to whole pixels, or to a model's multiples


class Params(BaseModel, frozen=True, extra="forbid"):
    """Which masks, and which object in them."""

    name: Literal["given"] = "given"
    path: str | None = Field(
        None,
        description="folder of PNG images, one a frame in the order of their names, or a mask video",
        json_schema_extra={"file": ""},
    )
    object: int | None = Field(
        None, description="value of the object in index images (DAVIS palette); none takes any", ge=1, le=255
    )


def check(params: Params, frames: Mapping[str, Any]) -> None:
    """Before anything runs: raises ConfigError E223 when no path is given, MediaError E430
    when a folder does not hold one mask a frame."""
    _require(params.path)
    path = Path(params.path or "")
    if path.is_dir():
        _check_count(path, len(_png_files(path)), frames["count"])


def _require(path: str | Path | None) -> None:
    if not path:
        raise ConfigError("E223", "masks=given needs masks.path", "Give a folder of PNG images or a mask video.")


def masks(path: str | Path | None, params: Params, count: int, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """The masks of a clip of `count` frames, one by one, bool [H, W] at `size` = (width, height).

    Folder: palette and grey PNG images are index images, as in DAVIS (`Annotations/480p/NAME/%05d.png`): the
    object is `params.object`, or every value but 0. Images with alpha: alpha above 127. Other colour images:
    any channel not 0. Names are ordered by the numbers in them. Video: luma (BT.601 weights) above 127.
    Masks of another size are resampled; a pixel belongs to the object where half of it does.

    Raises ConfigError E223 (no path, or `object` for masks that hold no index), MediaError E400 (nothing at
    `path`), E420 and E421 (an image that is unreadable or too large), E430 (the number of masks or their shape
    does not match the clip), and what `retake.video.decode` raises for a video.
    """
    _require(path)
    path = Path(path or "")
    if not path.exists():
        raise MediaError("E400", f"no masks at {path}", "Check masks.path: a folder of PNG images or a video.")
    return _from_folder(path, params, count, size) if path.is_dir() else _from_video(path, params, count, size)


def _from_folder(path: Path, params: Params, count: int, size: tuple[int, int]) -> Iterator[np.ndarray]:
    files = _png_files(path)
    _check_count(path, len(files), count)
    for file in files:
        yield _fit(_read_png(file, params.object), size, file)


def _from_video(path: Path, params: Params, count: int, size: tuple[int, int]) -> Iterator[np.ndarray]:
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
        yield _fit(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) > 127, size, path)
    _check_count(path, number, count)


def _read_png(file: Path, wanted: int | None) -> np.ndarray:
    """bool [h, w]. Pillow, because OpenCV turns a palette's indices into colours."""
    from PIL import Image

    try:
        with Image.open(file, formats=["PNG"]) as image:
            width, height = image.size
            if width * height > _MAX_PIXELS:
                raise MediaError("E421", f"{file} has {width}x{height} px", f"Give at most {_MAX_PIXELS} px.")
            mode, values = image.mode, np.asarray(image)
    except Image.DecompressionBombError as error:
        raise MediaError("E421", f"{file} is too large: {error}", f"Give at most {_MAX_PIXELS} px.") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise MediaError("E420", f"{file} is no readable PNG: {error}", "Write it again as PNG.") from error
    if values.ndim == 2:  # palette, grey of 8 or 16 bits, or one bit
        return values.astype(bool) if wanted is None else np.isin(values, [wanted])
    if wanted is not None:
        raise ConfigError(
            "E223",
            f"masks.object={wanted}, but {file} is a colour image ({mode}) and holds no index",
            "Drop masks.object, or give palette images as DAVIS does.",
        )
    return (values[..., -1] > 127) if mode in ("LA", "RGBA") else (values.max(axis=2) > 0)


def _fit(mask: np.ndarray, size: tuple[int, int], source: Path) -> np.ndarray:
    height, width = mask.shape
    if abs(width * size[1] - height * size[0]) > _ASPECT * height * size[0]:
        raise MediaError(
            "E430",
            f"mask {source} has {width}x{height} px, the clip {size[0]}x{size[1]}: not the same shape",
            "Give masks made from this clip, uncropped.",
        )
    if (width, height) == size:
        return mask
    shrinks = width >= size[0] and height >= size[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(mask.astype(np.float32), size, interpolation=method) >= 0.5


def _png_files(path: Path) -> list[Path]:
    return sorted((f for f in path.iterdir() if f.suffix.lower() == ".png"), key=lambda f: _natural(f.name))


def _check_count(path: Path, found: int, wanted: int) -> None:
    if found != wanted:
        raise MediaError(
            "E430",
            f"{path} holds {found} masks, the clip has {wanted} frames",
            "Give one mask a frame of those that are selected, in the order of their names.",
        )


def _natural(name: str) -> list[tuple[int, int | str]]:
    parts = re.split(r"(\d+)", name)
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts if part]
