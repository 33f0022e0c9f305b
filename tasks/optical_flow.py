"""optical_flow: dense motion between neighbouring frames, both ways, with occlusion."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np

from retake.artifact import Flow, Frames
from retake.formats import CHUNK, FrameSeries, Tensors, chunk_range, pack_bits
from retake.lookup import lookup
from retake.stage import Work, stage

HALF_MAX = float(np.finfo(np.float16).max)


@stage("optical_flow", version=1, makes="flow", backends=("opencv-python-headless",), group="priors.optical_flow")
def stage_optical_flow(work: Work, params: Any, frames: Frames) -> Flow:
    """Pair t is frames t and t+1; a clip of one frame has none."""
    series: FrameSeries = work.open(frames)
    count = max(0, len(series) - 1)
    start = len(work.done) * CHUNK
    rest = (series[t] for t in range(start, len(series)))
    module = lookup("priors.optical_flow", params.name)
    pairs = module.pairs(rest, params, start) if start < count else iter(())
    for index in range(start // CHUNK, -(-count // CHUNK)):
        span = chunk_range(index, count)
        work.commit(index, packed(islice(pairs, len(span)), (len(span), series.height, series.width)))
        work.progress(span.stop, count)
    return work.finish(
        count=count,
        width=series.width,
        height=series.height,
        name=params.name,
        convention="pixels at working size, x right, y down; forward[t]: t to t+1 on grid t; "
        "backward[t]: t+1 to t on grid t+1",
    )  # type: ignore[return-value]


def packed(pairs: Iterable[tuple[np.ndarray, np.ndarray]], shape: tuple[int, int, int]) -> Tensors:
    """Tensors of one chunk of `shape` (pairs, height, width), filled pair by pair: at 1080p a chunk in float32 is half
    a gigabyte. Hidden: forward and backward disagree, or the motion leaves the frame."""
    width = -(-shape[2] // 8)
    chunk: Tensors = {
        "forward": np.empty((*shape, 2), np.float16),
        "backward": np.empty((*shape, 2), np.float16),
        "occluded_forward": np.empty((*shape[:2], width), np.uint8),
        "occluded_backward": np.empty((*shape[:2], width), np.uint8),
    }
    for k, (forward, backward) in enumerate(pairs):
        chunk["forward"][k] = forward.clip(-HALF_MAX, HALF_MAX)
        chunk["backward"][k] = backward.clip(-HALF_MAX, HALF_MAX)
        chunk["occluded_forward"][k] = pack_bits(hidden(forward, backward))
        chunk["occluded_backward"][k] = pack_bits(hidden(backward, forward))
    return chunk


def hidden(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """bool [H,W] on the grid of `one`: not visible in the other frame."""
    from retake.imaging.flow import in_bounds, occlusion

    # Half a pixel of slack: else noise of 0.01 px marks the whole border of a still picture as leaving it.
    return occlusion(one, other, boundaries=False) | ~in_bounds(one, slack=0.5)
