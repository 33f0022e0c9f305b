"""report: the layers video and the contact sheet that the report page shows, and what the masks look like (health).

The page itself is written when a result is handed out (flows/editing/result_folder.py), because it tells what ran and
what did not.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from pydantic import BaseModel, Field

from retake.artifact import Artifact, Frames, Report, Result
from retake.formats import (
    DepthSeries,
    EditedTrackSeries,
    FlowSeries,
    FrameSeries,
    MaskSeries,
    RegionSeries,
    TrackSeries,
)
from retake.health.watch import Watch
from retake.imaging.flow import resize_flow
from retake.report import contact_sheet, layers
from retake.stage import Work, stage
from retake.video import encode

Layer = Callable[[int, np.ndarray], np.ndarray | None]  # (frame number, source tile) -> tile
TRAIL = 8  # frames of a track's drawn tail
JUDGED = 400  # px, longest side at which masks are judged: what tells is not finer


class Params(BaseModel, frozen=True, extra="forbid"):
    """How large and how fine the layers video is."""

    tile: int = Field(640, ge=64, le=1920, description="longest side of a layer, pixels")
    crf: int = Field(23, ge=0, le=51, description="quality of the layers video, x264's constant rate factor")
    columns: int = Field(6, ge=2, le=24, description="frames on the contact sheet")


@stage("report", version=4, makes="report", backends=("av", "opencv-python-headless"))
def stage_report(
    work: Work,
    params: Params,
    frames: Frames,
    result: Result | None = None,
    optical_flow: Artifact | None = None,
    depth: Artifact | None = None,
    masks: Artifact | None = None,
    region: Artifact | None = None,
    tracks: Artifact | None = None,
    edited_tracks: Artifact | None = None,
) -> Report:
    """One video of tiled layers, so that what the page compares is always the same frame."""
    source: FrameSeries = work.open(frames)
    size = layers.tile_size(source.width, source.height, params.tile)
    # Everything is drawn at the tile's size: colouring pixels that are then shrunk away costs most of the time.
    small = (layers.resize_to(rgb, size) for rgb in source)
    names, draw = ["source"], [lambda t, tile: tile]
    peak = nearest = None
    if result:
        shown = iter(work.open(result))
        names, draw = [*names, "result"], [*draw, lambda t, tile: layers.resize_to(next(shown), size)]
    objects: MaskSeries | None = work.open(masks) if masks else None
    watch, judged = Watch(), layers.tile_size(source.width, source.height, JUDGED)
    if objects:
        names, draw = [*names, "mask"], [*draw, mask_layer(objects, size)]
    if region and differs(area := work.open(region), objects):
        names, draw = [*names, "region"], [*draw, region_layer(area, size)]
    flow: FlowSeries | None = work.open(optical_flow) if optical_flow else None
    if flow:
        peak = max((layers.flow_peak(flow.forward(t)) for t in range(len(flow))), default=0.0)
        names, draw = [*names, "flow"], [*draw, flow_layer(flow, peak, size)]
    if depth:
        near: DepthSeries = work.open(depth)
        nearest = depth_scale(near)
        names, draw = [*names, "depth"], [*draw, depth_layer(near, nearest, size)]
    if tracks:
        names, draw = [*names, "tracks"], [*draw, track_layer(work.open(tracks), size)]
    if edited_tracks:
        names, draw = [*names, "edited tracks"], [*draw, edited_track_layer(work.open(edited_tracks), size)]
    columns = layers.columns_for(len(names))
    collected = contact_sheet.Sheet(names, len(source), params.columns)
    blank = np.full((size[1], size[0], 3), layers.BACKDROP, np.uint8)

    def mosaics() -> Iterator[np.ndarray]:
        for t, tile in enumerate(small):
            if objects:
                followed = {i: fitted(objects.object(t, i), judged) for i in objects.ids}
                backward = resize_flow(flow.backward(t - 1), judged) if flow and t else None
                watch.add(layers.resize_to(tile, judged), followed, backward)
            tiles = [layer(t, tile) for layer in draw]
            collected.add(t, [blank if drawn is None else drawn for drawn in tiles], source.seconds(t))
            if t % 8 == 7 or t + 1 == len(source):
                work.progress(t + 1, len(source))
            yield layers.mosaic(tiles, size, columns)

    proxy = work.scratch / "layers.mp4"
    encode(proxy, mosaics(), source.meta["fps"], crf=params.crf, keyint=8, preset="veryfast")
    work.add("layers.mp4", Path(proxy))
    work.add("contact_sheet.png", contact_sheet.png(collected.image()))
    if optical_flow:
        work.add("wheel.png", contact_sheet.png(layers.flow_wheel(64)))
    if depth:
        work.add("depth.png", contact_sheet.png(layers.depth_bar()))
    if objects:
        work.add("health.json", (json.dumps(watch.as_json()) + "\n").encode())
    return work.finish(
        health={str(i): found.as_json() for i, found in watch.verdicts().items()},
        layers=names,
        tile_size=list(size),
        columns=columns,
        count=len(source),
        flow_max_px=peak,
    )  # type: ignore[return-value]


def depth_scale(depth: DepthSeries) -> float:
    """The value with the brightest colour, over the clip: the largest, and at least twice the mean, so that a map on
    which nothing could be told from anything is neither near nor far."""
    peak, total = 0.0, 0.0
    for t in range(len(depth)):
        here = depth[t]
        peak, total = max(peak, layers.depth_peak(here)), total + float(here.mean())
    return max(peak, 2 * total / len(depth))


def mask_layer(masks: MaskSeries, size: tuple[int, int]) -> Layer:
    """Every object in its own colour, where there are several."""
    return lambda t, tile: layers.overlay_objects(tile, {i: fitted(masks.object(t, i), size) for i in masks.ids})


def region_layer(region: RegionSeries, size: tuple[int, int]) -> Layer:
    return lambda t, tile: layers.overlay_mask(tile, fitted(region[t], size), layers.REGION_COLOUR)


def fitted(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask at the tile's size, bool."""
    return layers.resize_to(mask.astype(np.float32), size) >= 0.5


def differs(region: RegionSeries, masks: MaskSeries | None) -> bool:
    """Whether the region is more to see than the objects' masks together."""
    return masks is None or any(not np.array_equal(region[t], masks[t]) for t in range(len(region)))


def depth_layer(depth: DepthSeries, nearest: float, size: tuple[int, int]) -> Layer:
    return lambda t, tile: layers.depth_image(layers.resize_to(depth[t], size), nearest)


def flow_layer(flow: FlowSeries, peak: float, size: tuple[int, int]) -> Layer:
    """Forward flow, in working pixels a frame; the last frame has none. Coloured at half the tile's size: flow is
    smooth, and colouring it is a dear step of the page."""
    half = size[0] // 2, size[1] // 2

    def draw(t: int, tile: np.ndarray) -> np.ndarray | None:
        if t >= len(flow):
            return None
        return layers.resize_to(layers.flow_image(layers.resize_to(flow.forward(t), half), peak), size)

    return draw


def track_layer(tracks: TrackSeries, size: tuple[int, int]) -> Layer:
    """Points with the path of their last frames. To be called frame after frame."""
    trail: deque[tuple[np.ndarray, np.ndarray, np.ndarray]] = deque(maxlen=TRAIL)
    scale = size[0] / tracks.width, size[1] / tracks.height

    def draw(t: int, tile: np.ndarray) -> np.ndarray:
        trail.append(tracks[t])
        ids = trail[-1][0]
        xy = np.full((len(trail), len(ids), 2), np.nan, np.float32)
        seen = np.zeros(xy.shape[:2], bool)
        for k, (old_ids, old_xy, old_seen) in enumerate(trail):
            _, now, then = np.intersect1d(ids, old_ids, assume_unique=True, return_indices=True)
            xy[k, now], seen[k, now] = layers.scale_points(old_xy[then], scale), old_seen[then]
        alive = seen[-1]
        return layers.draw_tracks(tile, xy[:, alive], seen[:, alive], ids[alive])

    return draw


def edited_track_layer(tracks: EditedTrackSeries, size: tuple[int, int]) -> Layer:
    """Points that the edit moves: a line from where each is to where it shall be."""
    scale = size[0] / tracks.width, size[1] / tracks.height

    def draw(t: int, tile: np.ndarray) -> np.ndarray:
        now = tracks[t]
        seen = now["visible"] | now["hidden"]
        source, edited = (layers.scale_points(now[name][seen], scale) for name in ("source", "xy"))
        return layers.draw_moved(tile, source, edited, now["ids"][seen], now["hidden"][seen])

    return draw
