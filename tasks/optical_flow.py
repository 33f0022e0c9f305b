"""optical_flow: dense motion between neighbouring frames, both ways, with occlusion."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np

from retake.artifact import Flow, Frames
from retake.formats import CHUNK, FrameSeries, Tensors, pack_bits
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
    pairs = iter(lookup("priors.optical_flow", params.name).pairs(rest, params)) if start < count else iter(())
    for index in range(start // CHUNK, -(-count // CHUNK)):
        work.commit(index, packed(list(islice(pairs, CHUNK))))
        work.progress(min((index + 1) * CHUNK, count), count)
    return work.finish(
        count=count,
        width=series.width,
        height=series.height,
        name=params.name,
        convention="pixels at working size, x right, y down; forward[t]: t to t+1 on grid t; "
        "backward[t]: t+1 to t on grid t+1",
    )  # type: ignore[return-value]


def packed(pairs: list[tuple[np.ndarray, np.ndarray]]) -> Tensors:
    """Tensors of one chunk. Occlusion: forward and backward disagree, or the motion leaves the frame."""
    from retake.flow import in_bounds, occlusion

    def hidden(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return occlusion(one, other, boundaries=False) | ~in_bounds(one)

    return {
        "forward": np.stack([f.clip(-HALF_MAX, HALF_MAX).astype(np.float16) for f, _ in pairs]),
        "backward": np.stack([b.clip(-HALF_MAX, HALF_MAX).astype(np.float16) for _, b in pairs]),
        "occluded_forward": pack_bits(np.stack([hidden(f, b) for f, b in pairs])),
        "occluded_backward": pack_bits(np.stack([hidden(b, f) for f, b in pairs])),
    }
