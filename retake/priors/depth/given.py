"""Depth that somebody made already: PNG of 16 bits, EXR, npy or npz files, one a frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from pydantic import BaseModel, Field

from retake.errors import ConfigError, MediaError
from retake.exchange import depth as files
from retake.exchange.files import check_shape, sorted_files, unread

VERSION = 1
NEEDS: tuple[str, ...] = ()

LARGEST = 1000.0  # maps are kept as float16


class Params(BaseModel, frozen=True, extra="forbid"):
    """Which depth, and what its numbers mean."""

    name: Literal["given"] = "given"
    path: str | None = Field(
        None,
        description="folder of .png (16 bits), .exr, .npy or .npz files, one a frame in the order of their numbers",
        json_schema_extra={"file": ""},
    )
    own: bool = Field(
        False,
        description="the depth that the clip itself knows, in place of a path: of scenes of the sprite world",
        json_schema_extra={"inert": "the clip is an ingredient of such depth"},
    )
    meaning: Literal["inverse", "metric"] = Field(
        "inverse", description="inverse: larger is nearer, any unit; metric: distance, larger is farther"
    )
    unit: float | None = Field(
        None,
        description="what 1 in a file stands for, metres where metric; none takes 1, and for PNG 1/64 where inverse "
        "(as `retake export` writes) and 1/1000 where metric (millimetres)",
        gt=0,
        allow_inf_nan=False,
    )


def check_settings(params: Params) -> None:
    """Raises ConfigError E245 when no folder is given, or one beside the clip's own depth."""
    if not params.own:
        _path(params)
    elif params.path:
        raise ConfigError("E245", "depth.own=true has no use for depth.path", "Give one of them.")


def check(params: Params, frames: Mapping[str, Any]) -> None:
    """Before anything runs: raises ConfigError E245 when no folder is given, MediaError E400 and E433 when it is not
    there or does not hold one file a frame."""
    if params.own:
        return
    found = _files(params)
    if len(found) != frames["count"]:
        raise _count(params, len(found), frames["count"])


def maps(frames: Any, flow: Any, params: Params, first: int = 0) -> Iterator[np.ndarray]:
    """Relative inverse depth of frames first, first + 1, ...: float32 [H, W], 0 to 1000, larger is nearer.

    frames: a series, for its length and size. File k belongs to selected frame k. `metric` becomes 1 / distance.
    Unknown is 0, like infinitely far: not finite, negative, or a distance of 0. Maps of another size are resampled as
    inverse depth, over known pixels only.

    Raises ConfigError E245 (no folder), MediaError E400, E421, E432, E434 (a file that cannot be read), E433 (another
    number of files, or another shape than the frames).
    """
    found = _files(params)
    if len(found) != len(frames):
        raise _count(params, len(found), len(frames))
    size = frames[first].shape[1::-1] if first < len(frames) else (0, 0)
    for file in found[first:]:
        yield _fit(inverse(read(file, params), params.meaning), size, file)


def read(file: Path, params: Params) -> np.ndarray:
    """float32 [H, W] in the unit of the settings."""
    values = files.read(file, step=1.0)
    default = 1.0
    if file.suffix.lower() == ".png":
        default = files.STEP if params.meaning == "inverse" else 1e-3
    return values * np.float32(params.unit or default)


def inverse(values: np.ndarray, meaning: Literal["inverse", "metric"]) -> np.ndarray:
    """Inverse depth float32, 0 to 1000, 0 where unknown."""
    known = np.isfinite(values) & (values > 0)
    safe = np.where(known, values, np.float32(1))
    turned = np.float32(1) / np.maximum(safe, np.float32(1e-9)) if meaning == "metric" else safe
    return np.where(known, np.minimum(turned, LARGEST), 0).astype(np.float32)


def _fit(depth: np.ndarray, size: tuple[int, int], file: Path) -> np.ndarray:
    check_shape(file, depth.shape, size)
    height, width = depth.shape
    if (width, height) == size:
        return depth
    shrinks = width >= size[0] and height >= size[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    known = cv2.resize((depth > 0).astype(np.float32), size, interpolation=method)
    mean = cv2.resize(depth, size, interpolation=method) / np.maximum(known, 1e-6)
    return np.where(known > 0, np.clip(mean, 0, LARGEST), 0).astype(np.float32)


def _path(params: Params) -> str:
    if not params.path:
        raise ConfigError(
            "E245", "depth=given needs depth.path", "Give depth.path=FOLDER, of .png, .exr, .npy or .npz files."
        )
    return params.path


def _files(params: Params) -> list[Path]:
    folder = _path(params)
    if not Path(folder).is_dir():
        raise MediaError("E400", f"no folder at {folder}", "Check depth.path: a folder of depth files.")
    return sorted_files(folder, files.SUFFIXES)


def _count(params: Params, found: int, wanted: int) -> MediaError:
    return MediaError(
        "E433",
        f"{params.path} holds {found} depth files{unread(_path(params), files.SUFFIXES)}, the clip has {wanted} frames",
        "Give one file a frame of those that are selected.",
    )
