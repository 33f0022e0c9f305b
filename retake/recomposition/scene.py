"""A clip as layers: objects cut out by their masks and laid where their edited tracks are (layer.py), before the scene
behind them, put together from the frames that show it (background.py).

An object's picture on a frame is its own of the source frame that the edit shows there, so it goes on moving as it
does. Shadows and reflections are no part of a mask and stay where they are. Where the background's own tracks are
edited, the whole picture is laid anew.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import cv2
import numpy as np

from retake.errors import ConfigError
from retake.formats import EditedTrackSeries, FrameSeries, MaskSeries, Tensors
from retake.imaging.soft_mask import Box, around, bounding_box, seam, soft_mask
from retake.recomposition.background import Background
from retake.recomposition.layer import Placement, placement
from retake.recomposition.plate import sampled

WHOLE = 0  # the id of the background


class Layering(Protocol):
    """Settings of how objects sit on the picture; lengths in working pixels."""

    @property
    def order(self) -> tuple[int, ...]: ...
    @property
    def feather(self) -> float: ...
    @property
    def grow(self) -> float: ...
    @property
    def margin(self) -> float: ...


class Rendered(NamedTuple):
    """A frame of the edit in the box where it differs from the source: rgb uint8 [h, w, 3], alpha uint8 [h, w], and
    laid uint8 [h, w], the part of alpha that objects have at their new places."""

    box: Box
    rgb: np.ndarray
    alpha: np.ndarray
    laid: np.ndarray


class Scene:
    """A clip as layers: its objects, and what is behind them.

    Raises ConfigError E238 where `order` names an object that the masks do not hold.
    """

    def __init__(self, frames: FrameSeries, masks: MaskSeries, edited: EditedTrackSeries, params: Layering) -> None:
        if strange := [i for i in params.order if i not in masks.ids]:
            known = f"The masks hold {list(masks.ids)}."
            raise ConfigError("E238", f"edit.order: there is no object {strange[0]}", known)
        self.frames, self.masks, self.edited, self.params = frames, masks, edited, params
        self.size = frames.width, frames.height
        named = [i for i in params.order if i in masks.ids]
        self.order = [*(i for i in masks.ids if i not in named), *named]
        self.outside = dict.fromkeys(masks.ids, 0)  # frames on which nothing of an object is left in the picture

    def state(self) -> Tensors:
        """What a later chunk goes on from."""
        return {"outside": np.array([self.outside[i] for i in self.masks.ids], np.int64)}

    def hole(self, t: int) -> np.ndarray:
        """Where frame t does not show the background: bool [H, W]."""
        hole = soft_mask(self.masks[t], self.params.feather, self.params.margin) > 0
        opacity = self.masks.opacity(t)
        return hole if opacity is None else hole | (opacity > 0)

    def render(self, t: int, behind: Background) -> Rendered | None:
        """Frame t; None where it is the source's."""
        now = self.edited[t]
        ground = placement(now, WHOLE, t)
        whole = (0, 0, *self.size)
        if not ground.rests(t, whole):
            full = np.full(self.size[::-1], 255, np.uint8)
            return Rendered(whole, self.anew(t, now, ground, behind), full, full)
        places = {i: placement(now, i, t) for i in self.masks.ids}
        boxes = {i: bounding_box(self.masks.object(t, i), 0) for i in self.masks.ids}
        moved = [i for i in self.order if not places[i].rests(t, boxes[i] or whole)]
        layers = {i: laid for i in moved if (laid := self.laid(i, places[i])) is not None}
        hidden = np.zeros(self.size[::-1], bool)
        for i in moved:
            hidden |= self.masks.object(t, i)
        gone = soft_mask(hidden, self.params.feather, self.params.margin)
        if moved and (opacity := self.opacity(moved[0], t)) is not None:
            gone = np.maximum(gone, (opacity > 0).astype(np.float32))
        for i in self.masks.ids:
            if i not in moved:
                gone[self.masks.object(t, i)] = 0
        box = around([bounding_box(gone > 0, 0), *(laid[0] for laid in layers.values())])
        if box is None:
            return None
        x0, y0, x1, y1 = box
        rgb, alpha = self.frames[t][y0:y1, x0:x1].astype(np.float32), gone[y0:y1, x0:x1].copy()
        rows, columns = np.nonzero(alpha)
        rgb[rows, columns] = behind.colours(t, np.stack([columns + x0, rows + y0], 1).astype(np.float64))
        laid = np.zeros_like(alpha)
        for i in self.order:
            if i in layers:
                over(rgb, alpha, box, layers[i])
                covered(laid, box, layers[i])
            elif i in self.params.order and i not in moved:  # an object in front that stays where it is
                inside = self.masks.object(t, i)[y0:y1, x0:x1]
                rgb[inside], alpha[inside] = self.frames[t][y0:y1, x0:x1][inside], 0
                laid[inside] = 0
        alphas = (np.rint(255 * one).astype(np.uint8) for one in (alpha, laid))
        return Rendered(box, np.rint(rgb).clip(0, 255).astype(np.uint8), *alphas)

    def anew(self, t: int, now: Tensors, ground: Placement, behind: Background) -> np.ndarray:
        """The whole of frame t, uint8 [H, W, 3], where the background itself is moved."""
        whole = (0, 0, *self.size)
        where = ground.source_map(whole)
        source, hole = self.frames[ground.frame], self.hole(ground.frame)
        rgb = sampled(source, where.reshape(-1, 2)).reshape(*where.shape[:2], 3)
        x, y = np.rint(where).astype(int).transpose(2, 0, 1)
        outside = (x < 0) | (y < 0) | (x >= self.size[0]) | (y >= self.size[1])
        lacks = outside | hole[y.clip(0, self.size[1] - 1), x.clip(0, self.size[0] - 1)]
        if lacks.any():
            rgb[lacks] = behind.colours(ground.frame, where[lacks].astype(np.float64))
        alpha = np.ones(rgb.shape[:2], np.float32)
        for i in self.order:
            if (laid := self.laid(i, placement(now, i, t))) is not None:
                over(rgb, alpha, whole, laid)
        return np.rint(rgb).clip(0, 255).astype(np.uint8)

    def laid(self, identity: int, place: Placement) -> tuple[Box, np.ndarray, np.ndarray] | None:
        """An object where it goes: box, colours float32 [h,w,3], opacity float32 [h,w]; None where it is not seen."""
        if place.hidden:
            return None
        mask = self.masks.object(place.frame, identity)
        soft = seam(mask, self.opacity(identity, place.frame), self.params.feather, self.params.grow)
        inside = bounding_box(soft > 0, 2)
        if inside is None:
            return None
        box = place.reach(inside, self.size)
        if box is None:
            self.outside[identity] += 1
            return None
        x0, y0, x1, y1 = inside
        colours = own_colours(self.frames[place.frame][y0:y1, x0:x1], mask[y0:y1, x0:x1])
        where = place.source_map(box) - np.array([x0, y0], np.float32)
        smaller = np.sqrt(abs(np.linalg.det(place.matrix[:2, :2])))
        soft = soft[y0:y1, x0:x1]
        if smaller < 0.75:  # sampling alone would skip pixels
            colours, soft = (cv2.GaussianBlur(a, (0, 0), 0.45 / smaller) for a in (colours, soft))
        x, y = np.ascontiguousarray(where[..., 0]), np.ascontiguousarray(where[..., 1])
        rgb = cv2.remap(colours, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        alpha = cv2.remap(soft, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        return box, rgb.clip(0, 255), alpha

    def opacity(self, identity: int, t: int) -> np.ndarray | None:
        """A soft matte, where there is one and it is this object's alone."""
        return self.masks.opacity(t) if self.masks.ids == (identity,) else None


def own_colours(rgb: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """float32 [h, w, 3] of uint8: beyond the object, and in the pixel at its edge that holds some of what lies behind
    it, the colours of the nearest pixels inside."""
    core = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    core = core if core.any() else mask
    own = rgb.astype(np.float32)
    share = cv2.GaussianBlur(core.astype(np.float32), (0, 0), 2.0)
    near = cv2.GaussianBlur(own * core[..., None], (0, 0), 2.0) / np.maximum(share, 1e-4)[..., None]
    use = ~core & (share > 1e-3)
    own[use] = near[use]
    return own


def over(rgb: np.ndarray, alpha: np.ndarray, box: Box, laid: tuple[Box, np.ndarray, np.ndarray]) -> None:
    """Lay a layer over a picture that covers `box`, in place: colours float32 [h, w, 3], opacity float32 [h, w]."""
    (x0, y0, x1, y1), colours, opacity = laid
    part = np.s_[y0 - box[1] : y1 - box[1], x0 - box[0] : x1 - box[0]]
    both = opacity + alpha[part] * (1 - opacity)
    share = opacity / np.maximum(both, 1e-6)
    rgb[part] += share[..., None] * (colours - rgb[part])
    alpha[part] = both


def covered(laid: np.ndarray, box: Box, layer: tuple[Box, np.ndarray, np.ndarray]) -> None:
    """Add a layer's opacity to that of the layers below it, in place: float32 [h, w] over `box`."""
    (x0, y0, x1, y1), _, opacity = layer
    part = np.s_[y0 - box[1] : y1 - box[1], x0 - box[0] : x1 - box[0]]
    laid[part] = opacity + laid[part] * (1 - opacity)
