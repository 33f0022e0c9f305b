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
from typing import Any, NamedTuple

import cv2
import numpy as np

from retake.imaging.flow import in_bounds, warp
from retake.machine.threads import single_threaded
from retake.priors.masks.grabcut.colours import MIN_AREA, cut, learn, object_probability, pick
from retake.priors.masks.grabcut.crop import around, rim_labels, tidy
from retake.priors.masks.grabcut.first_mask import State, corrected_mask, first_mask, learned
from retake.priors.masks.grabcut.params import Params as Params
from retake.priors.masks.prompt import Followed, Moment, Prompt, check_places, check_prompts

VERSION = 1
NEEDS: tuple[str, ...] = ("optical_flow",)

Tensors = dict[str, np.ndarray]


class Step(NamedTuple):
    """One frame's mask, bool [H, W], with the figures that explain it.

    iou: of the re-fit with the warped mask, 0..1. refitted: the re-fit was taken. support: mean probability
    by colour, 0..1, that the mask's pixels are object; when it falls too low the mask is emptied.
    """

    mask: np.ndarray
    iou: float
    refitted: bool
    support: float


def check_settings(params: Params) -> None:
    """Refuse prompts that cannot work: see `check_prompts`."""
    check_prompts(params, "grabcut")


def check(params: Params, frames: Mapping[str, Any]) -> None:
    """Refuse prompts that the clip has no place for: see `check_places`."""
    check_places(params, frames)


def tracker(params: Params, size: tuple[int, int], state: Tensors | None, reverse: bool) -> Tracker:
    """Follows objects; in which direction shows in the flow alone (see prompt.py)."""
    return Tracker(params, size[0], state or {})


class Tracker:
    """Carries the masks of several objects along, each for itself."""

    def __init__(self, params: Params, width: int, state: Tensors) -> None:
        self.params = params
        self.masks: dict[int, np.ndarray] = {}
        self.colours: dict[int, State] = {}
        for name, array in state.items():
            i, _, what = name.partition(".")
            if what == "mask":
                self.masks[int(i)] = np.unpackbits(array, axis=-1, count=width).astype(bool)
            else:
                self.colours.setdefault(int(i), {})[what] = array

    def begin(self, moment: Moment, prompts: Mapping[int, Prompt]) -> dict[int, Followed]:
        """Masks of the prompt frame, whose colours are learned. Raises what `first_mask` raises."""
        for i, prompt in prompts.items():
            self.masks[i] = first_mask(moment.rgb, prompt, self.params)
            self.colours[i] = learned(moment.rgb, self.masks[i], self.params)
        return {i: Followed(mask) for i, mask in self.masks.items()}

    def step(self, moment: Moment) -> dict[int, Followed]:
        """Masks of the next frame, by `step`."""
        assert moment.flow is not None, "grabcut NEEDS optical_flow"
        found = {}
        for i, before in self.masks.items():
            taken = step(moment.rgb, before, moment.flow, self.colours[i], self.params, moment.hidden)
            self.masks[i] = taken.mask
            found[i] = Followed(taken.mask, taken.iou)
        return found

    def correct(self, moment: Moment, object: int, prompt: Prompt) -> Followed:
        """The object's mask put right; its colours are learned anew from it."""
        self.masks[object] = corrected_mask(moment.rgb, self.masks[object], prompt, self.params)
        self.colours[object] = learned(moment.rgb, self.masks[object], self.params)
        return Followed(self.masks[object])

    def state(self) -> Tensors:
        """The masks and what was learned, by object."""
        arrays = {f"{i}.mask": np.packbits(mask, axis=-1) for i, mask in self.masks.items()}
        return arrays | {f"{i}.{name}": a for i, state in self.colours.items() for name, a in state.items()}


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
