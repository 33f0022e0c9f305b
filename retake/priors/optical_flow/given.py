"""Optical flow that somebody made already: .flo, KITTI PNG or npz files, one a pair of frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from pydantic import BaseModel, Field

from retake.errors import ConfigError, MediaError
from retake.exchange import flow as files
from retake.exchange.files import check_shape, fill_unknown, sorted_files, unread
from retake.imaging.flow import resize_flow, warp

VERSION = 1
NEEDS: tuple[str, ...] = ()

Pair = tuple[np.ndarray, np.ndarray]


class Params(BaseModel, frozen=True, extra="forbid"):
    """Which flow."""

    name: Literal["given"] = "given"
    forward: str | None = Field(
        None,
        description="folder of .flo, KITTI .png or .npz files, one a pair of frames in the order of their numbers: "
        "the motion from each selected frame into the next",
        json_schema_extra={"file": ""},
    )
    backward: str | None = Field(
        None,
        description="folder of the motion from each frame back into the one before; none: what the npz files hold "
        "as `backward`, else the forward flow turned round",
        json_schema_extra={"file": ""},
    )


def check_settings(params: Params) -> None:
    """Raises ConfigError E245 when no folder is given."""
    _folders(params)


def check(params: Params, frames: Mapping[str, Any]) -> None:
    """Before anything runs: raises ConfigError E245 when no folder is given, MediaError E400 and E433 when a folder
    is not there or does not hold one file a pair."""
    for setting, path in _folders(params):
        _files(path, setting, frames["count"] - 1)


def pairs(frames: Iterable[np.ndarray], params: Params, first: int = 0) -> Iterator[Pair]:
    """(forward, backward) of each frame and its successor, float32 [H, W, 2] in pixels of the frames.

    frames: uint8 RGB [H, W, 3], beginning with frame `first` of the selected frames; file k is the pair of selected
    frames k and k + 1. Flow of another size is resampled and its values rescaled. A pixel that the file calls unknown
    takes the motion of the nearest known one: a sparse file stands for a dense motion, and whether such a pixel is
    hidden is told by the agreement of both directions, as everywhere. For `backward` out of `forward`, see `inverted`.

    Raises ConfigError E245 (no folder), MediaError E400, E421, E432 (a file that cannot be read), E433 (fewer files
    than pairs, or another shape than the frames).
    """
    lists = {setting: _files(path, setting) for setting, path in _folders(params)}
    before: np.ndarray | None = None
    for index, frame in enumerate(frames, first):
        if before is not None:
            size = (frame.shape[1], frame.shape[0])
            file = _nth(lists["forward"], index - 1, "forward")
            found = files.read(file)
            forward = _fit(found.forward, found.valid, size, file)
            if "backward" in lists:
                file = _nth(lists["backward"], index - 1, "backward")
                other = files.read(file)
                backward = _fit(other.forward, other.valid, size, file)
            elif found.backward is not None and found.backward_valid is not None:
                backward = _fit(found.backward, found.backward_valid, size, file)
            else:
                backward = inverted(forward, before, frame)
            yield forward, backward
        before = frame


def inverted(forward: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The motion from `second` back into `first`, out of the forward flow.

    forward: float32 [H, W, 2]; first, second: uint8 RGB [H, W, 3]. Every pixel is put down where its motion takes it.
    Where several arrive, the one whose surroundings look most like the place wins: that is the surface in front.
    Gaps of one pixel, which growth leaves, and holes, which are uncovered ground, take the motion of the nearest
    pixel that was reached. A hole then disagrees with the forward flow, so that the occlusion check marks it: had a
    pixel that agrees existed, it would have landed there. Returns float32 [H, W, 2] on the grid of `second`.
    """
    height, width = forward.shape[:2]
    unlike = np.abs(warp(second, forward) - first.astype(np.float32)).sum(axis=2)
    unlike = cv2.boxFilter(unlike, -1, (5, 5), borderType=cv2.BORDER_REPLICATE)
    y, x = np.mgrid[:height, :width]
    to_x, to_y = np.rint(forward[..., 0] + x), np.rint(forward[..., 1] + y)
    inside = (to_x >= 0) & (to_x < width) & (to_y >= 0) & (to_y < height)
    places = (to_y[inside] * width + to_x[inside]).astype(np.intp)
    worst_first = np.argsort(-unlike[inside], kind="stable")
    backward = np.zeros((height * width, 2), np.float32)
    reached = np.zeros(height * width, bool)
    backward[places[worst_first]] = -forward[inside][worst_first]  # of equal places the last, the best, stays
    reached[places] = True
    if not reached.any():
        return np.zeros_like(forward)
    return fill_unknown(backward.reshape(height, width, 2), reached.reshape(height, width))


def _folders(params: Params) -> list[tuple[str, str]]:
    if not params.forward:
        raise ConfigError(
            "E245",
            "optical_flow=given needs optical_flow.forward",
            "Give optical_flow.forward=FOLDER, of .flo, KITTI .png or .npz files.",
        )
    return [("forward", params.forward)] + ([("backward", params.backward)] if params.backward else [])


def _files(path: str, setting: str, pairs: int | None = None) -> list[Path]:
    if not Path(path).is_dir():
        raise MediaError("E400", f"no folder at {path}", f"Check optical_flow.{setting}: a folder of flow files.")
    found = sorted_files(path, files.SUFFIXES)
    if pairs is not None and len(found) != pairs:
        raise _count(path, f"{len(found)} flow files{unread(path, files.SUFFIXES)}", pairs)
    return found


def _nth(found: list[Path], index: int, setting: str) -> Path:
    if index < len(found):
        return found[index]
    raise _count(f"optical_flow.{setting}", f"{len(found)} flow files", index + 1)


def _count(where: str, found: str, pairs: int) -> MediaError:
    return MediaError(
        "E433",
        f"{where} holds {found}, the clip has {pairs} pairs of frames",
        "Give one file a pair of the selected frames: one fewer than frames.",
    )


def _fit(flow: np.ndarray, valid: np.ndarray, size: tuple[int, int], file: Path) -> np.ndarray:
    check_shape(file, flow.shape, size)
    if not valid.any():
        raise MediaError("E432", f"{file} cannot be read: not one of its pixels is known", "Write it again.")
    return resize_flow(fill_unknown(flow, valid), size)
