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
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from pydantic import BaseModel, Field

from retake.errors import ConfigError
from retake.flow import in_bounds, warp
from retake.priors.masks.colours import MIN_AREA, cut, learn, object_probability, pick
from retake.priors.masks.region import Region, around, radius_of, rim_labels, sized, span_of, tidy
from retake.priors.threads import single_threaded

VERSION = 1
NEEDS: tuple[str, ...] = ("optical_flow",)

Box = tuple[float, float, float, float]
Point = tuple[float, float, int]
State = dict[str, np.ndarray]

_MIN_SIDE = 4  # px, the smallest box side


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
        0.7,
        description="how much the mask's pixels must look like the object by colour, as a fraction of how "
        "much they do on the prompt frame; below it (below 0.7 of it where a re-fit confirms the mask) the "
        "object counts as gone, and its mask stays empty; lower it for strong changes of light, 0 to trust "
        "the flow alone",
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
    by colour, 0..1, that the mask's pixels are object; when it falls too low the mask is emptied.
    """

    mask: np.ndarray
    iou: float
    refitted: bool
    support: float


def check(params: Params, frames: Mapping[str, Any]) -> None:
    """Refuse a prompt that cannot work, before anything expensive runs.

    frames: meta of the frames artifact; box and points are in source pixels. Raises ConfigError E221, E222, and E231
    when the clip has no frame `params.frame`.
    """
    width, height = frames["source_width"], frames["source_height"]
    if params.frame >= frames["count"]:
        raise ConfigError(
            "E231", f"there is no frame {params.frame}", f"The clip has frames 0 to {frames['count'] - 1}."
        )
    _require_prompt(params.box, params.points)
    if params.box is not None:
        _check_box(params.box, width, height)
    _check_points(params.points, width, height)


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
    _require_prompt(box, points)
    with single_threaded():
        if corners is None:
            mask = _from_points(frame, points, params)
        else:
            mask = _from_box(frame, corners, points, params)
        if int(mask.sum()) < MIN_AREA:
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
    if area < MIN_AREA:
        return Step(np.zeros_like(warped), 0.0, False, 0.0)
    unknown = ~in_bounds(flow_to_previous)
    if occluded is not None:
        unknown |= occluded
    rim = max(2.0, params.band * math.sqrt(area))
    region = around(warped, params.enlarge, 2 * rim, params.fit_size)
    scale = region.size[0] / (region.x1 - region.x0)
    image, inner = region.take(frame), region.take(warped)
    labels = rim_labels(inner, region.take(unknown), max(1.5, rim * scale))
    ring = pick(image[labels == cv2.GC_BGD])
    likely = object_probability(image, state["inside"], np.concatenate([state["outside"], ring]))
    labels[(labels == cv2.GC_FGD) & (likely < 0.2)] = cv2.GC_PR_FGD
    labels[(labels == cv2.GC_PR_BGD) & (likely < 0.2)] = cv2.GC_BGD

    with single_threaded():
        outside = np.concatenate([state["outside"], ring])
        models = (state["inside_model"], state["outside_model"])
        models = (models[0].copy(), learn(state["inside"], outside, models, params.seed)[1])
        fit = cut(image, labels, models, 1, cv2.GC_EVAL_FREEZE_MODEL, params.seed)
    mask = region.paste(tidy(fit, 0.02), warped.shape)
    overlap = int((mask & warped).sum())
    iou = overlap / max(1, int((mask | warped).sum()))
    growth = int(mask.sum()) / area
    refitted = iou >= params.iou_gate and 1 / params.area_gate <= growth <= params.area_gate
    chosen = mask if refitted else warped
    seen = region.take(chosen)
    support = float(likely[seen].mean()) if seen.any() else 0.0
    enough = params.support * float(state["support"][0]) * (0.7 if refitted else 1.0)
    if support < enough or int(chosen.sum()) < MIN_AREA:
        return Step(np.zeros_like(warped), iou, refitted, support)
    return Step(chosen, iou, refitted, support)


# The prompt


def _require_prompt(box: Box | None, points: tuple[Point, ...]) -> None:
    if box is None and not any(label for _, _, label in points):
        raise ConfigError(
            "E222", "masks=grabcut needs to know what to follow", "Give --box x0,y0,x1,y1 or masks.points."
        )


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
    region = around(boxed, params.enlarge, 8, params.fit_size)
    image, inside = region.take(frame), region.take(boxed)
    radius = radius_of(inside)
    best, widest = np.zeros(shape, bool), 0.0
    for core, relax in ((0.0, 0), (0.7, 1), (0.3, 0)):  # share of the box's half axes that is held fixed
        labels = np.where(inside, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
        labels[inside & (radius > 1)] = cv2.GC_PR_BGD  # a box's corners are seldom the object
        labels[radius < core] = cv2.GC_FGD
        on, beside = _draw_points(labels, points, region)
        if inside.all():  # the box is the whole frame: its rim must serve as background
            labels[[0, -1]] = labels[:, [0, -1]] = cv2.GC_BGD
        fit = _fit_first(image, labels, params, relax if not points else 0)
        middle = radius < core
        if core and int((fit ^ middle).sum()) <= 0.1 * int(middle.sum()):
            continue  # nothing but what was held fixed
        mask = region.paste(tidy(fit, 0.05, on) & ~beside, shape)
        span = span_of(mask) / ((x1 - x0) * (y1 - y0))
        if span > 1.2 * widest:
            best, widest = mask, span
        if span >= 0.45:
            break
    return best


def _from_points(frame: np.ndarray, points: tuple[Point, ...], params: Params) -> np.ndarray:
    height, width = frame.shape[:2]
    reach = 0.35 * max(height, width)
    places = np.array([(x, y) for x, y, label in points if label], np.float64)
    x0, y0 = np.maximum(0, np.floor(places.min(0) - reach)).astype(int)
    x1, y1 = np.minimum((width, height), np.ceil(places.max(0) + reach)).astype(int)
    region = sized(int(x0), int(y0), int(x1), int(y1), params.fit_size)
    image = region.take(frame)
    labels = np.full(image.shape[:2], cv2.GC_PR_BGD, np.uint8)
    labels[[0, -1]] = labels[:, [0, -1]] = cv2.GC_BGD
    likely = np.zeros(labels.shape, np.uint8)
    for x, y in places:
        cv2.circle(likely, region.place(x, y), round(0.12 * max(region.size)), 1, -1)
    labels[(likely > 0) & (labels == cv2.GC_PR_BGD)] = cv2.GC_PR_FGD
    on, beside = _draw_points(labels, points, region)
    fit = _fit_first(image, labels, params, 0)
    return region.paste(tidy(fit, 1.1, on) & ~beside, (height, width))


def _fit_first(image: np.ndarray, labels: np.ndarray, params: Params, relax: int) -> np.ndarray:
    fixed = labels == cv2.GC_FGD
    models = (np.zeros((1, 65)), np.zeros((1, 65)))
    iterations = 2 if relax else params.iterations
    fit = cut(image, labels, models, iterations, cv2.GC_INIT_WITH_MASK, params.seed)
    if relax:  # the middle was a guess: let the learned colours judge it once
        labels[fixed] = cv2.GC_PR_FGD
        fit = cut(image, labels, models, relax, cv2.GC_EVAL, params.seed)
    return fit


def _draw_points(labels: np.ndarray, points: tuple[Point, ...], region: Region) -> tuple[np.ndarray, np.ndarray]:
    """Fixes a small disc around every point; returns the discs on the object and those beside it, bool."""
    radius = max(2, round(0.012 * max(region.size)))
    discs = np.zeros((2, *labels.shape), np.uint8)
    for x, y, label in points:
        cv2.circle(discs[label], region.place(x, y), radius, 1, -1)
    beside, on = discs > 0
    labels[on] = cv2.GC_FGD
    labels[beside] = cv2.GC_BGD
    return on, beside


def _learn_first(frame: np.ndarray, mask: np.ndarray, params: Params) -> State:
    region = around(mask, params.enlarge, 8, params.fit_size)
    image, inner = region.take(frame), region.take(mask)
    if inner.all():
        inner[[0, -1]] = inner[:, [0, -1]] = False
    inside, outside = pick(image[inner]), pick(image[~inner])
    blank = (np.zeros((1, 65)), np.zeros((1, 65)))
    models = learn(inside, outside, blank, params.seed, cv2.GC_INIT_WITH_MASK)
    support = object_probability(image, inside, outside)[inner].mean(keepdims=True)
    return {
        "inside": inside,
        "outside": outside,
        "inside_model": models[0],
        "outside_model": models[1],
        "support": support,
    }
