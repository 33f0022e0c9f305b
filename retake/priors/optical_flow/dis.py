"""Dense inverse search: optical flow of real video without weights, on one CPU core.

Kroeger, Timofte, Dai, Van Gool, "Fast optical flow using dense inverse search", ECCV 2016
(https://arxiv.org/abs/1603.03590), in OpenCV's implementation with its variational refinement.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal

import cv2
import numpy as np
from pydantic import BaseModel, Field

from retake.imaging.flow import resize_flow
from retake.machine.threads import single_threaded

VERSION = 1
NEEDS: tuple[str, ...] = ()

Pair = tuple[np.ndarray, np.ndarray]

_PRESETS = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}
_SHORTEST = 32  # px; below 16 OpenCV 5.0 crashes the process, below 32 the pyramid has a single level


class Params(BaseModel, frozen=True, extra="forbid"):
    """How carefully the flow is searched."""

    name: Literal["dis"] = "dis"
    preset: Literal["ultrafast", "fast", "medium"] = Field(
        "medium",
        description="OpenCV preset: finest pyramid level 1/4, 1/4 or 1/2, no refinement in ultrafast; "
        "about 7, 7 and 28 ms a direction at 854x480",
    )


def estimate(first: np.ndarray, second: np.ndarray, params: Params) -> Pair:
    """The motion between two frames, both ways.

    first, second: uint8 RGB [H, W, 3] of one size, any size (short sides under 32 px are enlarged for the
    search). Motions up to about a quarter of the short side are found.

    Returns (forward, backward), float32 [H, W, 2] in pixels, (x, y) = (right, down): `forward` on the grid
    of `first` with first(p) ~ second(p + forward(p)), `backward` on the grid of `second` pointing into
    `first`. The values do not depend on the number of threads. Raises ValueError for two sizes.
    """
    return _both(_gray(first), _gray(second), params)


def pairs(frames: Iterable[np.ndarray], params: Params, first: int = 0, workers: int = 2) -> Iterator[Pair]:
    """`estimate` of each frame and its successor, in order: N frames give N - 1 pairs. `first`, the number of the
    first frame, matters only to implementations that read files.

    Pairs are computed side by side on `workers` threads, at most workers + 1 of them ahead of the reader,
    so memory does not grow with the clip. The values do not depend on `workers`.
    """
    before: np.ndarray | None = None
    pending: deque[Future[Pair]] = deque()
    pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="dis")
    try:
        for frame in frames:
            gray = _gray(frame)
            if before is not None:
                pending.append(pool.submit(_both, before, gray, params))
            before = gray
            if len(pending) > workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _both(first: np.ndarray, second: np.ndarray, params: Params) -> Pair:
    if first.shape != second.shape:
        sizes = f"{first.shape[::-1]} and {second.shape[::-1]}"
        raise ValueError(f"two frames of one size are needed, not {sizes}")
    height, width = first.shape
    factor = -(-_SHORTEST // min(height, width))
    if factor > 1:
        enlarged = (width * factor, height * factor)
        first = cv2.resize(first, enlarged, interpolation=cv2.INTER_CUBIC)
        second = cv2.resize(second, enlarged, interpolation=cv2.INTER_CUBIC)
    with single_threaded():
        search = cv2.DISOpticalFlow.create(_PRESETS[params.preset])  # own buffers: calls may run side by side
        forward = search.calc(first, second, None)  # type: ignore[call-overload]  # None: no first guess
        backward = search.calc(second, first, None)  # type: ignore[call-overload]
    return resize_flow(forward, (width, height)), resize_flow(backward, (width, height))


def _gray(rgb: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY)
