"""Pyramidal Lucas-Kanade point tracks with a forward-backward check.

Lucas, Kanade, IJCAI 1981, in Bouguet's pyramidal form (OpenCV); the check is Kalal, Mikolajczyk, Matas,
"Forward-backward error", ICPR 2010. Queries are laid on a grid inside the region to edit or over the whole frame,
each moved to the best corner of its cell (Shi, Tomasi, "Good features to track", CVPR 1994), or are picked by hand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import cv2
import numpy as np
from pydantic import BaseModel, Field

from retake.errors import ConfigError
from retake.imaging.distance import distance
from retake.machine.threads import single_threaded

VERSION = 1
NEEDS: tuple[str, ...] = ("region",)


class Params(BaseModel, frozen=True, extra="forbid"):
    """Where points are laid, and when one counts as lost. Lengths in px of the working size."""

    name: Literal["lucas_kanade"] = "lucas_kanade"
    queries: Literal["mask", "grid", "points"] = Field(
        "mask", description="what is followed: points inside the region, a grid over the whole frame, or `points`"
    )
    points: tuple[tuple[float, float], ...] = Field(
        (), description="queries=points: (x, y) in px of the source frame; each keeps its place in the list as its id"
    )
    frame: int | None = Field(
        None, description="working frame that queries start from, both ways; null: the region's, else 0", ge=0
    )
    spacing: float = Field(8.0, description="distance of neighbouring queries, px", ge=2, le=256)
    window: int = Field(11, description="side of the patch that is compared, px, odd", ge=5, le=61)
    levels: int = Field(4, description="pyramid levels above the full size", ge=0, le=8)
    fb_threshold: float = Field(
        1.0, description="largest distance between a point and its way forth and back, px", gt=0, le=16
    )
    residual: float = Field(
        20.0,
        description="largest mean difference between the two patches, grey levels of 0..255",
        gt=0,
        le=255,
    )
    reseed: int = Field(
        16, description="frames after which mask or grid is filled up with new queries; 0 for never", ge=0
    )
    max_points: int = Field(1024, description="most points laid at one frame; a grid grows coarser to keep to it", ge=1)
    margin: int = Field(
        -4,
        description="px that the mask is grown by before points are laid; negative shrinks it, so that patches "
        "hold little of what lies behind the object",
        ge=-64,
        le=64,
    )


def needs(params: Params) -> tuple[str, ...]:
    """Only queries inside the region need one."""
    return NEEDS if params.queries == "mask" else ()


def check_settings(params: Params) -> None:
    """Raises ConfigError E252: queries=points without points, or points with other queries."""
    if (params.queries == "points") != bool(params.points):
        lacks = "has no tracks.points" if params.queries == "points" else "does not read tracks.points"
        raise ConfigError(
            "E252",
            f"tracks.queries={params.queries} {lacks}",
            "Give both: tracks.queries=points 'tracks.points=[[x,y], ...]', in pixels of the source's frame.",
        )


def check(params: Params, frames: Mapping[str, Any]) -> None:
    """Refuse queries that the clip has no place for, before anything expensive runs.

    frames: meta of the frames artifact. Raises ConfigError E221 (a point outside the frame), E231 (no such frame).
    """
    if params.frame is not None and params.frame >= frames["count"]:
        raise ConfigError(
            "E231", f"there is no frame {params.frame}", f"The clip has frames 0 to {frames['count'] - 1}."
        )
    width, height = frames["source_width"], frames["source_height"]
    for x, y in params.points:
        if not (0 <= x < width and 0 <= y < height):
            raise ConfigError(
                "E221",
                f"point ({x:g}, {y:g}) of tracks.points does not fit: the frame has {width}x{height} px",
                "A point is x,y in pixels; `retake frame CLIP N` draws a grid to read them from.",
            )


def lay(
    frame: np.ndarray, region: np.ndarray | None, params: Params, existing_points: np.ndarray, meta: Mapping[str, Any]
) -> np.ndarray:
    """Queries of one frame, float32 [P, 2] in working pixels, beside the points that live on it.

    frame: uint8 RGB [H, W, 3]. region: bool [H, W] for queries=mask, else None. meta: of the frames artifact. A grid
    over the frame is as wide as `max_points` asks for, where `spacing` alone would give more, so that it covers all
    of it. Points picked in the outermost half pixel move to the outermost pixel's centre.
    """
    if params.queries == "points":
        scale = np.array([meta["width"] / meta["source_width"], meta["height"] / meta["source_height"]])
        places = (np.array(params.points, np.float64).reshape(-1, 2) + 0.5) * scale - 0.5
        return places.clip(0, (meta["width"] - 1, meta["height"] - 1)).astype(np.float32)
    if params.queries == "grid":
        region = np.ones(frame.shape[:2], bool)
        params = params.model_copy(update={"spacing": _grid_spacing(frame.shape[1], frame.shape[0], params)})
    assert region is not None, "queries=mask needs a region"
    return seed(region, frame, params, existing_points)


def _grid_spacing(width: int, height: int, params: Params) -> float:
    """The least spacing, from `params.spacing` up by quarters of a px, that cuts a frame into `max_points` cells."""
    spacing = params.spacing
    while math.ceil(width / spacing) * math.ceil(height / spacing) > params.max_points:
        spacing += 0.25
    return spacing


def seed(mask: np.ndarray, frame: np.ndarray, params: Params, existing_points: np.ndarray) -> np.ndarray:
    """New query points inside a mask, none closer than spacing / 2 to a living one.

    mask: bool [H, W]. frame: uint8 RGB [H, W, 3]. existing_points: float32 [Q, 2], (x, y) in pixels, the
    points alive on this frame. One point per cell of a square grid, on the pixel of the cell (inside the
    mask) whose 3x3 structure tensor has the largest smaller eigenvalue; flat cells keep their middle. The
    strongest corners are kept when there are more than `max_points`. A negative `margin` is halved until it
    leaves a quarter of the mask, so thin objects get points, too.

    Returns float32 [P, 2], whole-pixel coordinates, ordered by row, then column, of the grid; [0, 2] for an
    empty mask.
    """
    grown = _grow(mask, params.margin)
    ys, xs = np.nonzero(grown)
    if len(xs) == 0:
        return np.zeros((0, 2), np.float32)
    corner = cv2.cornerMinEigenVal(_smooth(gray(frame)), 3)
    column, row = (xs // params.spacing).astype(np.intp), (ys // params.spacing).astype(np.intp)
    cell = row * (int(mask.shape[1] // params.spacing) + 1) + column
    off = np.hypot(xs - (column + 0.5) * params.spacing, ys - (row + 0.5) * params.spacing)
    order = np.lexsort((off, -corner[ys, xs], cell))  # by cell, corner strength, nearness to its middle
    first = order[np.unique(cell[order], return_index=True)[1]]
    free = _far_from(np.stack([xs[first], ys[first]], 1), existing_points, params.spacing / 2, mask.shape)
    first = first[free]
    if len(first) > params.max_points:
        strongest = np.argsort(-corner[ys[first], xs[first]], kind="stable")[: params.max_points]
        first = first[np.sort(strongest)]
    return np.stack([xs[first], ys[first]], axis=1).astype(np.float32)


def step(
    previous_gray: np.ndarray,
    next_gray: np.ndarray,
    points: np.ndarray,
    params: Params,
    next_mask: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Follows points from one frame to the next; with the frames swapped, back in time.

    previous_gray, next_gray: uint8 [H, W] (see `gray`). points: float32 [P, 2], (x, y) in pixels of the
    previous frame. Returns (points float32 [P, 2], ok bool [P]). Not ok: the tracker failed, the point came
    back more than `fb_threshold` px from where it began, its patch changed by more than `residual`, or it left
    the frame or, where given, the mask of the next frame, bool [H, W]. Such a point keeps the coordinates that
    were found, or its old ones where they make no sense; the caller follows it no further (a lost point stays
    lost). Points do not influence one another.
    """
    points = np.asarray(points, np.float32).reshape(-1, 2)
    if len(points) == 0:
        return points, np.zeros(0, bool)
    height, width = next_gray.shape
    side = min(params.window | 1, max(3, (min(height, width) // 2) | 1))
    options = {
        "winSize": (side, side),
        "maxLevel": params.levels,
        "criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 0.01),
    }
    start = points[:, None]
    with single_threaded():
        there, found, residual = cv2.calcOpticalFlowPyrLK(previous_gray, next_gray, start, None, **options)  # type: ignore[call-overload]
        back, returned, _ = cv2.calcOpticalFlowPyrLK(next_gray, previous_gray, there, None, **options)  # type: ignore[call-overload]
    moved = there[:, 0]
    sane = np.isfinite(moved).all(1) & (np.abs(moved) < 4 * max(height, width)).all(1)
    apart = np.hypot(*(back[:, 0] - points).T)
    inside = (moved >= 0).all(1) & (moved[:, 0] <= width - 1) & (moved[:, 1] <= height - 1)
    ok = (found[:, 0] == 1) & (returned[:, 0] == 1) & sane & inside
    ok &= (apart <= params.fb_threshold) & (residual[:, 0] <= params.residual)
    if next_mask is not None:
        x, y = np.rint(np.where(ok[:, None], moved, 0)).astype(np.intp).T
        ok &= next_mask[y, x]
    return np.where(sane[:, None], moved, points).astype(np.float32), ok


def gray(frame: np.ndarray) -> np.ndarray:
    """uint8 [H, W] of uint8 RGB [H, W, 3]: the luma that `step` compares."""
    return cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)


def _smooth(image: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), 1.0)


def _grow(mask: np.ndarray, margin: int) -> np.ndarray:
    if margin == 0:
        return mask
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(margin) + 1,) * 2)
    if margin > 0:
        return cv2.dilate(mask.astype(np.uint8), kernel) > 0
    shrunk = cv2.erode(mask.astype(np.uint8), kernel) > 0
    return shrunk if 4 * int(shrunk.sum()) >= int(mask.sum()) else _grow(mask, -(-margin // 2))


def _far_from(candidates: np.ndarray, living: np.ndarray, least: float, shape: tuple[int, ...]) -> np.ndarray:
    """bool [P]: no living point nearer than `least` px to a candidate (whole pixels)."""
    height, width = shape[:2]
    nearest = np.rint(np.asarray(living).reshape(-1, 2)).astype(np.intp)
    inside = (nearest >= 0).all(1) & (nearest[:, 0] < width) & (nearest[:, 1] < height)
    empty = np.ones((height, width), bool)
    empty[nearest[inside, 1], nearest[inside, 0]] = False
    if empty.all():
        return np.ones(len(candidates), bool)
    return distance(empty)[candidates[:, 1], candidates[:, 0]] >= least
