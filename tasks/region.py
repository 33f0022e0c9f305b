"""region: where the edit happens, made of the objects' masks. Cheap: other steps follow nothing anew."""

from __future__ import annotations

import numpy as np

from retake.artifact import Masks, Region
from retake.formats import MaskSeries, chunk_range, pack_bits
from retake.priors.region import Params, region
from retake.stage import Work, stage

__all__ = ["Params", "stage_region"]


@stage("region", version=1, makes="region", backends=("opencv-python-headless",))
def stage_region(work: Work, params: Params, masks: Masks) -> Region:
    """One mask a frame."""
    series: MaskSeries = work.open(masks)
    for index in range(series.chunks()):
        if index in work.done:
            continue
        span = chunk_range(index, len(series))
        found = [region({i: series.object(t, i) for i in series.ids}, params) for t in span]
        made = {"mask": pack_bits(np.stack(found))}
        soft = [opacity for t in span if (opacity := series.opacity(t)) is not None]
        if soft and not params.steps:  # steps redraw the edge
            made["opacity"] = np.stack(soft)
        work.commit(index, made)
        work.progress(span.stop, len(series))
    meta = masks.meta
    return work.finish(
        count=len(series), width=series.width, height=series.height, frame=meta["frame"], objects=list(series.ids)
    )  # type: ignore[return-value]
