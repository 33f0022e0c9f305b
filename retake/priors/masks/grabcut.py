"""GrabCut masks from one box or a few points, carried through the clip by optical flow.

Rother, Kolmogorov, Blake, "GrabCut: interactive foreground extraction using iterated graph cuts", SIGGRAPH
2004, in OpenCV's implementation. On the prompt frame the colours of object and surroundings are learned. On
every other frame the neighbour's mask is warped along the flow, a graph cut fits its rim again, and the fit
counts only if it agrees with the warped mask (IoU, area); otherwise the warped mask stays. The object's
colours are the prompt frame's throughout, those around it are learned from the prompt frame and the current
ring together: so a fit that leaks does not teach the next one, and only the mask goes from frame to frame.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import cv2
import numpy as np
from pydantic import BaseModel, Field

from retake.errors import ConfigError
from retake.flow import in_bounds, warp
from retake.priors.threads import single_threaded

VERSION = 1
NEEDS: tuple[str, ...] = ("optical_flow",)

Box = tuple[float, float, float, float]
Point = tuple[float, float, int]
State = dict[str, np.ndarray]

_MIN_SIDE = 4  # px, the smallest box side
_MIN_AREA = 16  # px, below which there is nothing to learn colours from or to follow
_SAMPLES = 2048  # colours kept of the prompt frame, inside and outside each
_BINS = 16  # levels per channel of the colour histograms


class Params(BaseModel, frozen=True, extra="forbid"):
    """What is to be followed, and how far a re-fit may go."""

    name: Literal["grabcut"] = "grabcut"
    box: Box | None = Field(
        None, description="x0, y0, x1, y1 around the object, px of the source frame, x1 and y1 exclusive"
    )
    points: tuple[Point, ...] = Field(
        (), description="(x, y, label), px of the source frame; label 1 lies on the object, 0 beside it"
    )
    frame: int = Field(0, description="frame number that box and points are given on", ge=0)
    enlarge: float = Field(
        1.5, description="sides of the region that is fitted, as a multiple of the object's box", ge=1.1, le=4
    )
    iterations: int = Field(6, description="GrabCut iterations on the prompt frame", ge=1, le=20)
    band: float = Field(
        0.05, description="rim that a re-fit may change, each way, as a fraction of sqrt(area)", gt=0, le=0.5
    )
    iou_gate: float = Field(
        0.75,
        description="least IoU of a re-fit with the warped mask; below it the warped mask stays",
        ge=0,
        le=1,
    )
    area_gate: float = Field(
        1.25, description="largest factor by which a re-fit may change the warped mask's area", ge=1, le=4
    )
    support: float = Field(
        0.3,
        description="least mean probability, by colour, that the mask's pixels are object; below it the "
        "object counts as gone, and its mask is empty from there on",
        ge=0,
        le=1,
    )
    fit_size: int = Field(
        400,
        description="longest side in px of the region that GrabCut runs on; larger ones are shrunk",
        ge=32,
    )
    seed: int = Field(0, description="seed of the colour clustering", ge=0)


class Start(NamedTuple):
    """The prompt frame's mask, bool [H, W], and what every step needs to know: plain arrays, never changed."""

    mask: np.ndarray
    state: State


class Step(NamedTuple):
    """One frame's mask, bool [H, W], with the figures that explain it.

    iou: of the re-fit with the warped mask, 0..1. refitted: the re-fit was taken. support: mean probability
    by colour, 0..1, that the mask's pixels are object; below `Params.support` the mask is emptied.
    """

    mask: np.ndarray
    iou: float
    refitted: bool
    support: float


class _Region(NamedTuple):
    """A part of the frame (x0, y0, x1, y1, exclusive) and the size (w, h) that it is fitted at."""

    x0: int
    y0: int
    x1: int
    y1: int
    size: tuple[int, int]

    def cut(self, image: np.ndarray) -> np.ndarray:
        part = np.ascontiguousarray(image[self.y0 : self.y1, self.x0 : self.x1])
        if part.dtype == bool:
            return cv2.resize(part.astype(np.float32), self.size, interpolation=cv2.INTER_AREA) >= 0.5
        return cv2.resize(part, self.size, interpolation=cv2.INTER_AREA)

    def paste(self, mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        whole = np.zeros(shape, bool)
        size = (self.x1 - self.x0, self.y1 - self.y0)
        part = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
        whole[self.y0 : self.y1, self.x0 : self.x1] = part >= 0.5
        return whole


def start(frame: np.ndarray, box: Box | None, points: tuple[Point, ...], params: Params) -> Start:
    """Cuts the object out of the prompt frame.

    frame: uint8 RGB [H, W, 3]. box and points: in pixels of `frame` (not of the source, where they differ);
    a box alone, points alone, or a box corrected by points. A box may reach over the frame's edge.

    A colour model can collapse onto a detail of the object. As a box is drawn close around its object
    (Lempitsky et al., "Image segmentation with a bounding box prior", ICCV 2009), a fit that does not span
    the box is tried again with the box's middle held fixed, and the widest fit is taken.

    Raises ConfigError E220 (nothing separates from its surroundings), E221 (box or point outside the frame,
    or a box of less than 4 px), E222 (neither box nor a point on the object).
    """
    height, width = frame.shape[:2]
    corners = _check_box(box, width, height) if box is not None else None
    _check_points(points, width, height)
    if corners is None and not any(label for _, _, label in points):
        raise ConfigError(
            "E222", "masks=grabcut needs to know what to follow", "Give --box x0,y0,x1,y1 or masks.points."
        )
    with single_threaded():
        if corners is None:
            mask = _from_points(frame, points, params)
        else:
            mask = _from_box(frame, corners, points, params)
        if int(mask.sum()) < _MIN_AREA:
            what = "the box holds" if box is not None else "the points mark"
            raise ConfigError(
                "E220",
                f"{what} no object that GrabCut can separate from its surroundings",
                "Try another box or frame (`retake frame CLIP N` draws a grid), or add masks.points.",
            )
        return Start(mask, _learn_first(frame, mask, params))


def step(
    frame: np.ndarray,
    previous_mask: np.ndarray,
    flow_to_previous: np.ndarray,
    state: State,
    params: Params,
    occluded: np.ndarray | None = None,
) -> Step:
    """Carries the mask to the next frame, or, with the frames taken in reverse, to the one before.

    frame: uint8 RGB [H, W, 3]. previous_mask: bool [H, W], the neighbour's. flow_to_previous: float32
    [H, W, 2] on the grid of `frame`, pointing into the neighbour (`backward` when going forward in time).
    occluded: bool [H, W] on the grid of `frame`, pixels that the neighbour does not show; there the flow
    means nothing and the fit decides. state: from `start`, unchanged.

    An object that leaves the frame or is hidden gets an empty mask, and an empty mask stays empty.
    """
    warped = warp(previous_mask, flow_to_previous)
    area = int(warped.sum())
    if area < _MIN_AREA:
        return Step(np.zeros_like(warped), 0.0, False, 0.0)
    unknown = ~in_bounds(flow_to_previous)
    if occluded is not None:
        unknown |= occluded
    rim = max(2.0, params.band * math.sqrt(area))
    region = _around(warped, params, pad=2 * rim)
    scale = region.size[0] / (region.x1 - region.x0)
    image, inner = region.cut(frame), region.cut(warped)
    labels = _rim_labels(inner, region.cut(unknown), max(1.5, rim * scale))
    ring = _pick(image[labels == cv2.GC_BGD])
    likely = _object_probability(image, state["inside"], np.concatenate([state["outside"], ring]))
    labels[(labels == cv2.GC_FGD) & (likely < 0.2)] = cv2.GC_PR_FGD
    labels[(labels == cv2.GC_PR_BGD) & (likely < 0.2)] = cv2.GC_BGD

    with single_threaded():
        outside = np.concatenate([state["outside"], ring])
        models = (state["inside_model"], state["outside_model"])
        models = (models[0].copy(), _learn(state["inside"], outside, models, params.seed)[1])
        fit = _cut(image, labels, models, 1, cv2.GC_EVAL_FREEZE_MODEL, params.seed)
    mask = region.paste(_tidy(fit, 0.02), warped.shape)
    overlap = int((mask & warped).sum())
    iou = overlap / max(1, int((mask | warped).sum()))
    growth = int(mask.sum()) / area
    refitted = iou >= params.iou_gate and 1 / params.area_gate <= growth <= params.area_gate
    chosen = mask if refitted else warped
    seen = region.cut(chosen)
    support = float(likely[seen].mean()) if seen.any() else 0.0
    if support < params.support or int(chosen.sum()) < _MIN_AREA:
        return Step(np.zeros_like(warped), iou, refitted, support)
    return Step(chosen, iou, refitted, support)


# The prompt


def _check_box(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    shown = ", ".join(f"{value:g}" for value in box)
    hint = "A box is x0,y0,x1,y1 in pixels; `retake frame CLIP N` draws a grid to read them from."
    if not all(math.isfinite(value) for value in box) or box[0] >= box[2] or box[1] >= box[3]:
        raise ConfigError("E221", f"box ({shown}) is empty; the frame has {width}x{height} px", hint)
    x0, y0 = max(0, math.floor(box[0])), max(0, math.floor(box[1]))
    x1, y1 = min(width, math.ceil(box[2])), min(height, math.ceil(box[3]))
    if x1 - x0 < _MIN_SIDE or y1 - y0 < _MIN_SIDE:
        inside = f"holds less than {_MIN_SIDE}x{_MIN_SIDE} px of the frame, which has {width}x{height} px"
        raise ConfigError("E221", f"box ({shown}) {inside}", hint)
    return x0, y0, x1, y1


def _check_points(points: tuple[Point, ...], width: int, height: int) -> None:
    for x, y, label in points:
        if not (0 <= x < width and 0 <= y < height) or label not in (0, 1):
            raise ConfigError(
                "E221",
                f"point ({x:g}, {y:g}, {label}) does not fit: the frame has {width}x{height} px, labels are 0 and 1",
                "A point is x,y,label: label 1 on the object, 0 beside it.",
            )


def _from_box(
    frame: np.ndarray, corners: tuple[int, int, int, int], points: tuple[Point, ...], params: Params
) -> np.ndarray:
    shape = (frame.shape[0], frame.shape[1])
    x0, y0, x1, y1 = corners
    boxed = np.zeros(shape, bool)
    boxed[y0:y1, x0:x1] = True
    region = _around(boxed, params, pad=8)
    image, inside = region.cut(frame), region.cut(boxed)
    radius = _radius(inside)
    best, widest = np.zeros(shape, bool), 0.0
    for core, relax in ((0.0, 0), (0.7, 1), (0.3, 0)):  # share of the box's half axes that is held fixed
        labels = np.where(inside, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
        labels[inside & (radius > 1)] = cv2.GC_PR_BGD  # a box's corners are seldom the object
        labels[radius < core] = cv2.GC_FGD
        seeds = _draw_points(labels, points, region)
        if inside.all():  # the box is the whole frame: its rim must serve as background
            labels[[0, -1]] = labels[:, [0, -1]] = cv2.GC_BGD
        fit = _fit_first(image, labels, params, relax if not points else 0)
        if core and int(fit.sum()) <= 1.1 * int((radius < core).sum()):
            continue  # nothing but what was held fixed
        mask = region.paste(_tidy(fit, 0.05, seeds), shape)
        span = _span(mask) / ((x1 - x0) * (y1 - y0))
        if span > 1.2 * widest:
            best, widest = mask, span
        if span >= 0.45:
            break
    return best


def _from_points(frame: np.ndarray, points: tuple[Point, ...], params: Params) -> np.ndarray:
    height, width = frame.shape[:2]
    reach = 0.35 * max(height, width)
    on = np.array([(x, y) for x, y, label in points if label], np.float64)
    x0, y0 = np.maximum(0, np.floor(on.min(0) - reach)).astype(int)
    x1, y1 = np.minimum((width, height), np.ceil(on.max(0) + reach)).astype(int)
    region = _sized(int(x0), int(y0), int(x1), int(y1), params)
    image = region.cut(frame)
    labels = np.full(image.shape[:2], cv2.GC_PR_BGD, np.uint8)
    labels[[0, -1]] = labels[:, [0, -1]] = cv2.GC_BGD
    likely = np.zeros(labels.shape, np.uint8)
    for x, y in on:
        cv2.circle(likely, _to_region(x, y, region), round(0.12 * max(region.size)), 1, -1)
    labels[(likely > 0) & (labels == cv2.GC_PR_BGD)] = cv2.GC_PR_FGD
    seeds = _draw_points(labels, points, region)
    fit = _fit_first(image, labels, params, 0)
    return region.paste(_tidy(fit, 1.1, seeds), (height, width))


def _draw_points(labels: np.ndarray, points: tuple[Point, ...], region: _Region) -> np.ndarray:
    """Fixes a small disc around every point; returns the discs of the object, bool."""
    radius = max(2, round(0.012 * max(region.size)))
    seeds = np.zeros(labels.shape, np.uint8)
    for x, y, label in points:
        centre = _to_region(x, y, region)
        cv2.circle(labels, centre, radius, cv2.GC_FGD if label else cv2.GC_BGD, -1)
        if label:
            cv2.circle(seeds, centre, radius, 1, -1)
    return seeds > 0


def _to_region(x: float, y: float, region: _Region) -> tuple[int, int]:
    width, height = region.size
    u = (x + 0.5 - region.x0) * width / (region.x1 - region.x0) - 0.5
    v = (y + 0.5 - region.y0) * height / (region.y1 - region.y0) - 0.5
    return round(u), round(v)


def _fit_first(image: np.ndarray, labels: np.ndarray, params: Params, relax: int) -> np.ndarray:
    fixed = labels == cv2.GC_FGD
    models = (np.zeros((1, 65)), np.zeros((1, 65)))
    iterations = 2 if relax else params.iterations
    fit = _cut(image, labels, models, iterations, cv2.GC_INIT_WITH_MASK, params.seed)
    if relax:  # the middle was a guess: let the learned colours judge it once
        labels[fixed] = cv2.GC_PR_FGD
        fit = _cut(image, labels, models, relax, cv2.GC_EVAL, params.seed)
    return fit


def _radius(inside: np.ndarray) -> np.ndarray:
    """Distance from the box's middle in units of its half axes; infinite outside the box."""
    ys, xs = np.nonzero(inside.any(1))[0], np.nonzero(inside.any(0))[0]
    x = (np.arange(inside.shape[1]) - (xs[0] + xs[-1]) / 2) / (len(xs) / 2)
    y = (np.arange(inside.shape[0]) - (ys[0] + ys[-1]) / 2) / (len(ys) / 2)
    return np.where(inside, np.hypot(x[None], y[:, None]), np.inf)


def _span(mask: np.ndarray) -> float:
    return float(mask.any(0).sum()) * float(mask.any(1).sum())


# Regions and labels


def _around(mask: np.ndarray, params: Params, pad: float) -> _Region:
    height, width = mask.shape
    ys, xs = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    dx = max(pad, len(xs) * (params.enlarge - 1) / 2)
    dy = max(pad, len(ys) * (params.enlarge - 1) / 2)
    x0, y0 = max(0, math.floor(xs[0] - dx)), max(0, math.floor(ys[0] - dy))
    x1, y1 = min(width, math.ceil(xs[-1] + 1 + dx)), min(height, math.ceil(ys[-1] + 1 + dy))
    return _sized(x0, y0, x1, y1, params)


def _sized(x0: int, y0: int, x1: int, y1: int, params: Params) -> _Region:
    scale = min(1.0, params.fit_size / max(x1 - x0, y1 - y0))
    return _Region(x0, y0, x1, y1, (max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))))


def _rim_labels(inner: np.ndarray, unknown: np.ndarray, rim: float) -> np.ndarray:
    """Fixed inside and outside, open within `rim` px of the outline and, where unknown, within 3 times that."""
    inside = cv2.distanceTransform(inner.astype(np.uint8), cv2.DIST_L2, 5)
    outside = cv2.distanceTransform((~inner).astype(np.uint8), cv2.DIST_L2, 5)
    reach = np.where(unknown, 3 * rim, rim)
    labels = np.where(inside > reach, cv2.GC_FGD, cv2.GC_PR_FGD)
    return np.where(inner, labels, np.where(outside > reach, cv2.GC_BGD, cv2.GC_PR_BGD)).astype(np.uint8)


def _tidy(fit: np.ndarray, share: float, seeds: np.ndarray | None = None) -> np.ndarray:
    """Drops parts below `share` of the largest (parts on seeds stay) and fills holes below 0.5 % of it."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(fit.astype(np.uint8), connectivity=8)
    if count <= 1:
        return fit
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    keep = areas >= share * areas.max()
    if seeds is not None:
        keep[np.unique(parts[seeds])] = True
    keep[0] = False
    fit = keep[parts]
    _, holes, stats, _ = cv2.connectedComponentsWithStats((~fit).astype(np.uint8), connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] < 0.005 * areas.max()
    small[0] = False
    touching = np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]])
    small[np.unique(touching)] = False
    return fit | small[holes]


# Colours


def _cut(
    image: np.ndarray,
    labels: np.ndarray,
    models: tuple[np.ndarray, np.ndarray],
    iterations: int,
    mode: int,
    seed: int,
) -> np.ndarray:
    """One call of GrabCut; `models` = (inside, outside) are overwritten. Returns the object, bool."""
    out = labels.copy()
    open_object = (out == cv2.GC_FGD) | (out == cv2.GC_PR_FGD)
    if mode == cv2.GC_INIT_WITH_MASK and (open_object.sum() < _MIN_AREA or (~open_object).sum() < _MIN_AREA):
        return np.zeros(labels.shape, bool)
    cv2.setRNGSeed(seed)  # the clustering's first centres; per thread in OpenCV
    cv2.grabCut(image, out, None, models[1], models[0], iterations, mode)  # type: ignore[call-overload]
    return (out == cv2.GC_FGD) | (out == cv2.GC_PR_FGD)


def _learn_first(frame: np.ndarray, mask: np.ndarray, params: Params) -> State:
    region = _around(mask, params, pad=8)
    image, inner = region.cut(frame), region.cut(mask)
    if inner.all():
        inner[[0, -1]] = inner[:, [0, -1]] = False
    inside, outside = _pick(image[inner]), _pick(image[~inner])
    blank = (np.zeros((1, 65)), np.zeros((1, 65)))
    models = _learn(inside, outside, blank, params.seed, cv2.GC_INIT_WITH_MASK)
    return {"inside": inside, "outside": outside, "inside_model": models[0], "outside_model": models[1]}


def _learn(
    inside: np.ndarray,
    outside: np.ndarray,
    models: tuple[np.ndarray, np.ndarray],
    seed: int,
    mode: int = cv2.GC_EVAL,
) -> tuple[np.ndarray, np.ndarray]:
    """Colour mixtures of two lists of colours, uint8 [N, 3], starting from `models`, which stay as they are.

    GrabCut learns from an image and its labels; a strip one pixel high with every label fixed leaves its cut
    nothing to decide.
    """
    strip = np.concatenate([inside, outside])[None]
    labels = np.repeat(np.array([cv2.GC_FGD, cv2.GC_BGD], np.uint8), [len(inside), len(outside)])[None]
    learned = (models[0].copy(), models[1].copy())
    _cut(strip, labels, learned, 1 if mode == cv2.GC_EVAL else 3, mode, seed)
    return learned


def _pick(colours: np.ndarray) -> np.ndarray:
    """At most `_SAMPLES` of a list of colours, evenly spread over it."""
    if len(colours) <= _SAMPLES:
        return colours
    return colours[np.linspace(0, len(colours) - 1, _SAMPLES).astype(int)]


def _object_probability(image: np.ndarray, inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """float32 [H, W], 0..1: by smoothed colour histograms of both lists, averaged over 5x5 px."""
    table_in, table_out = _histogram(inside), _histogram(outside)
    table = (table_in + 1e-5) / (table_in + table_out + 2e-5)
    return cv2.blur(table[_bin(image)].astype(np.float32), (5, 5))


def _bin(colours: np.ndarray) -> np.ndarray:
    levels = (colours // (256 // _BINS)).astype(np.intp)
    return (levels[..., 0] * _BINS + levels[..., 1]) * _BINS + levels[..., 2]


def _histogram(colours: np.ndarray) -> np.ndarray:
    counts = np.bincount(_bin(colours), minlength=_BINS**3).astype(np.float64).reshape(_BINS, _BINS, _BINS)
    for axis in range(3):
        padded = np.pad(counts, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        low, mid, high = (np.take(padded, range(i, i + _BINS), axis) for i in range(3))
        counts = 0.25 * low + 0.5 * mid + 0.25 * high
    return counts.ravel() / max(1, len(colours))
