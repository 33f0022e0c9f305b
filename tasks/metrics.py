"""metrics: score the result against its source. metrics.json (flat) and metrics.tsv (a row a frame)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from retake.artifact import Artifact, Frames, Metrics, Result
from retake.formats import FlowSeries, FrameSeries, MaskSeries, TrackSeries, chunk_range
from retake.lookup import lookup
from retake.metrics import flicker, motion_fidelity, region, warp_error
from retake.metrics.flicker import Params as FlickerParams
from retake.metrics.motion_fidelity import Params as MotionParams
from retake.metrics.region import Params as RegionParams
from retake.metrics.summary import frame_rows, summarise, write_tsv
from retake.metrics.warp_error import Params as WarpErrorParams
from retake.stage import Work, stage
from retake.video import resize

Name = Literal["warp_error", "region", "flicker", "motion_fidelity"]


class Params(BaseModel, frozen=True, extra="forbid"):
    """Which metrics, and the settings of each."""

    names: tuple[Name, ...] = Field(
        ("warp_error", "region", "flicker", "motion_fidelity"),
        description="metrics to compute, files of retake/metrics/",
    )
    warp_error: WarpErrorParams = Field(WarpErrorParams(), description="see retake/metrics/warp_error.py")
    region: RegionParams = Field(RegionParams(), description="see retake/metrics/region.py")
    flicker: FlickerParams = Field(FlickerParams(), description="see retake/metrics/flicker.py")
    motion_fidelity: MotionParams = Field(MotionParams(), description="see retake/metrics/motion_fidelity.py")


def needs(params: Params) -> tuple[str, ...]:
    """Priors that the chosen metrics read, in a fixed order."""
    wanted = {prior for name in params.names for prior in lookup("metrics", name).NEEDS}
    return tuple(sorted(wanted))


@stage("metrics", version=1, makes="metrics", backends=("opencv-python-headless", "numpy"))
def stage_metrics(
    work: Work,
    params: Params,
    frames: Frames,
    result: Result,
    optical_flow: Artifact | None = None,
    masks: Artifact | None = None,
    tracks: Artifact | None = None,
) -> Metrics:
    """Everything is measured at working size: a larger result is shrunk by the same filter as the source was."""
    source: FrameSeries = work.open(frames)
    flow: FlowSeries | None = work.open(optical_flow) if optical_flow else None
    mask: MaskSeries | None = work.open(masks) if masks else None
    scores: dict[str, Any] = {
        "warp_error": warp_error.WarpError(params.warp_error),
        "region": region.Region(params.region),
        "flicker": flicker.Flicker(params.flicker),
        "motion_fidelity": motion_fidelity.MotionFidelity(params.motion_fidelity),
    }
    wanted = {name: scores[name] for name in params.names}
    before: tuple[np.ndarray, np.ndarray, np.ndarray | None] | None = None
    for t, edited in enumerate(shrunk(work.open(result), (source.width, source.height))):
        here, edit = source[t], mask[t] if mask is not None else None
        if "region" in wanted and edit is not None:
            wanted["region"].update(here, edited, ~edit)
        if before is not None:
            old, old_edited, old_edit = before
            if "warp_error" in wanted and flow is not None:
                pair = flow.forward(t - 1), flow.backward(t - 1)
                wanted["warp_error"].update(old, here, old_edited, edited, *pair, old_edit)
            if "flicker" in wanted:
                wanted["flicker"].update(old, here, old_edited, edited, old_edit, edit)
        before = here, edited, edit
        if t % 8 == 7:
            work.progress(t + 1, len(source))
    if "motion_fidelity" in wanted and tracks is not None:
        for window in track_windows(work.open(tracks), work.open(result), (source.width, source.height)):
            wanted["motion_fidelity"].update(window)

    results = [score.result() for score in wanted.values()]
    table = work.scratch / "metrics.tsv"
    write_tsv(table, frame_rows(results, len(source)))
    summary = json.dumps(summarise(results), indent=1, sort_keys=True, allow_nan=False)
    work.add("metrics.json", (summary + "\n").encode())
    work.add("metrics.tsv", table)
    return work.finish(names=list(params.names), count=len(source))  # type: ignore[return-value]


def shrunk(result: FrameSeries, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Result frames, uint8 [H,W,3], at working size."""
    for frame in result:
        yield frame if (result.width, result.height) == size else resize(frame, size)


def track_windows(tracks: TrackSeries, result: FrameSeries, size: tuple[int, int]) -> Iterator[motion_fidelity.Window]:
    """One window a chunk: the source's tracks, and tracks followed in the result from the same first positions."""
    follower = lookup("priors.tracks", "lucas_kanade")
    params = follower.Params()
    frames = enumerate(shrunk(result, size))
    for index in range(tracks.chunks()):
        chunk, span = tracks.chunk(index), chunk_range(index, len(tracks))
        start = chunk["visible"][0]
        points = chunk["xy"][0][start]
        xy, visible = [points], [np.ones(len(points), bool)]
        previous = follower.gray(next(frames)[1])
        for _ in span[1:]:
            following = follower.gray(next(frames)[1])
            points, ok = follower.step(previous, following, points, params)
            xy.append(points)
            visible.append(visible[-1] & ok)
            previous = following
        yield motion_fidelity.Window(
            span.start, chunk["xy"][:, start], chunk["visible"][:, start], np.stack(xy), np.stack(visible)
        )
