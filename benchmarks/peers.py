"""Two ways to put a picture into an object without following its surface, as a person might do by hand.

Both see the picture through the same masks, with the same soft edge and the same blending as `propagate`; only the
motion differs.
"""

from __future__ import annotations

import cv2
import numpy as np

from retake.formats import RegionSeries
from retake.imaging.soft_mask import Box, bounding_box, soft_mask
from retake.methods import Patch
from retake.methods.patches import assembled
from retake.methods.propagate import Params, edge_reach


def static_paste(masks: RegionSeries, picture: np.ndarray) -> Patch:
    """The picture stays where it was placed on frame 0; the masks show parts of it. picture: uint8 [h,w,3]."""
    home = bounding_box(masks[0], 0)
    return pasted(masks, picture, [home] * len(masks))


def box_paste(masks: RegionSeries, picture: np.ndarray) -> Patch:
    """The picture is stretched over the bounding box of every frame's mask: shift and scale, no turn, no shear."""
    return pasted(masks, picture, [bounding_box(masks[t], 0) for t in range(len(masks))])


def pasted(masks: RegionSeries, picture: np.ndarray, places: list[Box | None]) -> Patch:
    """The picture over one box a frame, seen through the masks; continued by its border where the edge reaches out."""
    params = Params.model_validate({})
    rendered = []
    for t, place in enumerate(places):
        mask = masks[t]
        box = bounding_box(mask, edge_reach(params))
        if place is None or box is None:
            rendered.append(None)
            continue
        left, top = box[0] - place[0], box[1] - place[1]
        size = place[2] - place[0], place[3] - place[1]
        how = cv2.INTER_AREA if picture.shape[1] > size[0] or picture.shape[0] > size[1] else cv2.INTER_LINEAR
        fitted = cv2.resize(picture, size, interpolation=how)
        x = (np.arange(box[2] - box[0]) + left).clip(0, size[0] - 1)
        y = (np.arange(box[3] - box[1]) + top).clip(0, size[1] - 1)
        beyond = outside(np.arange(box[2] - box[0]) + left, size[0], edge_reach(params))
        above = outside(np.arange(box[3] - box[1]) + top, size[1], edge_reach(params))
        soft = soft_mask(mask, params.feather, params.grow)[box[1] : box[3], box[0] : box[2]]
        alpha = np.where(beyond[None] | above[:, None], 0, soft)
        rendered.append((box, fitted[y[:, None], x[None]], np.rint(255 * alpha).astype(np.uint8)))
    return assembled(rendered)


def outside(places: np.ndarray, length: int, reach: int) -> np.ndarray:
    """bool: farther than `reach` from 0..length-1; there the picture has nothing to say."""
    return (places < -reach) | (places > length - 1 + reach)
