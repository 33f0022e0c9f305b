"""depth: relative inverse depth, one map a frame."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np

from retake.artifact import Artifact, Depth, Frames
from retake.clip import Clip
from retake.formats import CHUNK, FlowSeries, FrameSeries, chunk_range
from retake.lookup import lookup
from retake.stage import Work, stage
from retake.video import Selection

HALF_MAX = float(np.finfo(np.float16).max)


@stage("depth", version=1, makes="depth", backends=("opencv-python-headless",), group="priors.depth")
def stage_depth(
    work: Work, params: Any, frames: Frames, optical_flow: Artifact | None = None, clip: Clip | None = None
) -> Depth:
    """Chunk by chunk; the map of a frame does not depend on where a killed run goes on. clip: one whose own depth is
    taken."""
    series: FrameSeries = work.open(frames)
    flow: FlowSeries | None = work.open(optical_flow) if optical_flow else None
    module = lookup("priors.depth", params.name)
    start = len(work.done)
    if clip is not None:
        own = clip.depth(Selection(**series.meta["selection"]), (series.width, series.height))
        maps = islice(own, start * CHUNK, None)
    else:
        maps = module.maps(series, flow, params, first=start * CHUNK) if start < series.chunks() else iter(())
    for index in range(start, series.chunks()):
        span = chunk_range(index, len(series))
        chunk = np.empty((len(span), series.height, series.width), np.float16)
        for k, depth in enumerate(islice(maps, len(span))):
            chunk[k] = np.clip(depth, 0, HALF_MAX)
        work.commit(index, {"depth": chunk})
        work.progress(span.stop, len(series))
    return work.finish(
        count=len(series),
        width=series.width,
        height=series.height,
        name=params.name,
        convention="relative inverse depth: 0 is far, larger is nearer; no unit, no scale between clips",
        notes=[*(module.notes(params) if hasattr(module, "notes") else []), *notes_on(work, len(series))],
    )  # type: ignore[return-value]


def notes_on(work: Work, count: int) -> list[str]:
    """On how many frames nothing could be told: their map is one constant."""
    flat = sum(int(np.ptp(depth) == 0) for index in sorted(work.done) for depth in work.read(index)["depth"])
    where = "every frame" if flat == count else f"{flat} of {count} frames"
    return [f"depth is one constant on {where}: nothing near could be told from anything far"] if flat else []
