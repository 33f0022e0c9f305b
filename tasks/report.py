"""report: the layers video and the contact sheet that the report page shows.

The page itself is written when a result is handed out (flows/handout.py), because it tells what ran and what did not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydantic import BaseModel, Field

from retake.artifact import Artifact, Frames, Report, Result
from retake.formats import FlowSeries, FrameSeries, MaskSeries, TrackSeries
from retake.report import layers, sheet
from retake.stage import Work, stage
from retake.video import encode

TRAIL = 8  # frames of a track's drawn tail


class Params(BaseModel, frozen=True, extra="forbid"):
    """How large and how fine the layers video is."""

    tile: int = Field(640, ge=64, le=1920, description="longest side of a layer, pixels")
    crf: int = Field(23, ge=0, le=51, description="quality of the layers video, x264's constant rate factor")
    columns: int = Field(6, ge=2, le=24, description="frames on the contact sheet")


@stage("report", version=1, makes="report", backends=("av", "opencv-python-headless", "torchvision"))
def stage_report(
    work: Work,
    params: Params,
    frames: Frames,
    result: Result | None = None,
    optical_flow: Artifact | None = None,
    masks: Artifact | None = None,
    tracks: Artifact | None = None,
) -> Report:
    """One video of tiled layers, so that what the page compares is always the same frame."""
    source: FrameSeries = work.open(frames)
    views: dict[str, Iterator[np.ndarray | None]] = {"source": iter(source)}
    peak = 0.0
    if result:
        views["result"] = iter(work.open(result))
    if masks:
        views["mask"] = mask_layer(source, work.open(masks))
    if optical_flow:
        series: FlowSeries = work.open(optical_flow)
        peak = max((layers.flow_peak(series.forward(t)) for t in range(len(series))), default=0.0)
        views["flow"] = flow_layer(series, peak, len(source))
    if tracks:
        views["tracks"] = track_layer(source, work.open(tracks))

    size = layers.tile_size(source.width, source.height, params.tile)
    columns = layers.columns_for(len(views))
    collected = sheet.Sheet(list(views), len(source), params.columns)

    def mosaics() -> Iterator[np.ndarray]:
        for t in range(len(source)):
            tiles = [next(view) for view in views.values()]
            blank = np.full((source.height, source.width, 3), layers.BACKDROP, np.uint8)
            collected.add(t, [blank if tile is None else tile for tile in tiles], source.seconds(t))
            if t % 8 == 7:
                work.progress(t + 1, len(source))
            yield layers.mosaic(tiles, size, columns)

    proxy = work.scratch / "layers.mp4"
    encode(proxy, mosaics(), source.meta["fps"], crf=params.crf, keyint=8)
    work.add("layers.mp4", Path(proxy))
    work.add("contact_sheet.png", sheet.png(collected.image()))
    if optical_flow:
        work.add("wheel.png", sheet.png(layers.flow_wheel(64)))
    return work.finish(
        layers=list(views),
        tile_size=list(size),
        columns=columns,
        count=len(source),
        flow_max_px=peak if optical_flow else None,
    )  # type: ignore[return-value]


def mask_layer(source: FrameSeries, masks: MaskSeries) -> Iterator[np.ndarray]:
    return (layers.overlay_mask(source[t], masks[t]) for t in range(len(source)))


def flow_layer(flow: FlowSeries, peak: float, count: int) -> Iterator[np.ndarray | None]:
    """Forward flow; the last frame has none."""
    return (layers.flow_image(flow.forward(t), peak) if t < len(flow) else None for t in range(count))


def track_layer(source: FrameSeries, tracks: TrackSeries) -> Iterator[np.ndarray]:
    """Points with the path of their last frames."""
    trail: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for t in range(len(source)):
        trail = [*trail[-(TRAIL - 1) :], tracks[t]]
        ids = trail[-1][0]
        xy = np.full((len(trail), len(ids), 2), np.nan, np.float32)
        seen = np.zeros(xy.shape[:2], bool)
        for k, (old_ids, old_xy, old_seen) in enumerate(trail):
            _, now, then = np.intersect1d(ids, old_ids, assume_unique=True, return_indices=True)
            xy[k, now], seen[k, now] = old_xy[then], old_seen[then]
        alive = seen[-1]
        yield layers.draw_tracks(source[t], xy[:, alive], seen[:, alive], ids[alive])
