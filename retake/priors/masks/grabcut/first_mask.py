"""The first cut: the object on the frame on which it was pointed at, and the same put right by a correction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from retake.errors import ConfigError
from retake.machine.threads import single_threaded
from retake.priors.masks.grabcut.colours import MIN_AREA, cut, learn, object_probability, pick
from retake.priors.masks.grabcut.crop import Crop, around, radius_of, rim_labels, sized, span_of, tidy
from retake.priors.masks.prompt import Point, Prompt, check_prompt, require_prompt, whole_box

if TYPE_CHECKING:
    from retake.priors.masks.grabcut.params import Params

State = dict[str, np.ndarray]


def first_mask(frame: np.ndarray, prompt: Prompt, params: Params) -> np.ndarray:
    """Cuts the object out of the prompt frame: bool [H, W].

    frame: uint8 RGB [H, W, 3]. prompt: in pixels of `frame` (not of the source, where they differ); a box alone,
    points alone, or a box corrected by points. A box may reach over the frame's edge.

    A colour model can collapse onto a detail of the object. As a box is drawn close around its object
    (Lempitsky et al., "Image segmentation with a bounding box prior", ICCV 2009), a fit that does not span
    the box is tried again with the box's middle held fixed, and the widest fit is taken.

    Raises ConfigError E220 (nothing separates from its surroundings), E221 (box or point outside the frame,
    or a box of less than 4 px), E222 (neither box nor a point on the object).
    """
    height, width = frame.shape[:2]
    check_prompt(prompt, width, height)
    require_prompt(prompt, "grabcut")
    with single_threaded():
        if prompt.box is None:
            mask = _from_points(frame, prompt.points, params)
        else:
            mask = _from_box(frame, whole_box(prompt.box, width, height), prompt.points, params)
    if int(mask.sum()) < MIN_AREA:
        what = "the box holds" if prompt.box is not None else "the points mark"
        raise ConfigError(
            "E220",
            f"{what} no object that GrabCut can separate from its surroundings",
            "Try another box or frame (`retake frame CLIP N` draws a grid), or add masks.points.",
        )
    return mask


def corrected_mask(frame: np.ndarray, mask: np.ndarray, prompt: Prompt, params: Params) -> np.ndarray:
    """The mask put right, bool [H, W]: by a box cut anew; by points alone cut again around the old mask, whose rim is
    open twice as far, with the points held fixed. Points on the object alone take nothing away, points beside it alone
    add nothing. Nothing to start from (an empty mask): the points alone.

    Raises ConfigError E220, E221, and E222 where an empty mask is corrected by points beside the object alone.
    """
    check_prompt(prompt, frame.shape[1], frame.shape[0])
    labels_given = {label for _, _, label in prompt.points}
    if prompt.box is not None or int(mask.sum()) < MIN_AREA:
        if prompt.box is None and 1 not in labels_given:
            raise ConfigError(
                "E222",
                "a correction says only what is not the object, on a frame where its mask is empty",
                "Add a point on the object, [x, y, 1], or a box.",
            )
        return first_mask(frame, prompt, params)
    reached = mask.copy()
    for x, y, label in prompt.points:
        if label:
            reached[round(y), round(x)] = True
    area = around(reached, params.enlarge, 8, params.fit_size)
    image, inner = area.take(frame), area.take(mask)
    labels = rim_labels(inner, np.zeros_like(inner), max(2.0, 2 * params.band * float(np.sqrt(inner.sum()))))
    # A point says of its surroundings, as far as the old mask is wrong there, that they are open.
    nearby = np.zeros(labels.shape, np.uint8)
    for x, y, _ in prompt.points:
        cv2.circle(nearby, area.place(x, y), round(0.15 * max(area.size)), 1, -1)
    labels[(nearby > 0) & (labels == cv2.GC_FGD)] = cv2.GC_PR_FGD
    labels[(nearby > 0) & (labels == cv2.GC_BGD)] = cv2.GC_PR_BGD
    with single_threaded():
        on, beside = _draw_points(labels, prompt.points, area)
        fit = _fit_first(image, labels, params, 0)
    found = area.paste(tidy(fit, 0.05, on) & ~beside, (frame.shape[0], frame.shape[1]))
    if labels_given == {1}:  # "this too": nothing is taken away
        found = found | mask
    elif labels_given == {0}:  # "not this": nothing is added
        found = found & mask
    return found if int(found.sum()) >= MIN_AREA else mask


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


def _draw_points(labels: np.ndarray, points: tuple[Point, ...], region: Crop) -> tuple[np.ndarray, np.ndarray]:
    """Fixes a small disc around every point; returns the discs on the object and those beside it, bool."""
    radius = max(2, round(0.012 * max(region.size)))
    discs = np.zeros((2, *labels.shape), np.uint8)
    for x, y, label in points:
        cv2.circle(discs[label], region.place(x, y), radius, 1, -1)
    beside, on = discs > 0
    labels[on] = cv2.GC_FGD
    labels[beside] = cv2.GC_BGD
    return on, beside


def learned(frame: np.ndarray, mask: np.ndarray, params: Params) -> State:
    """The colours of an object and of what is around it, as plain arrays: what every step compares with."""
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
