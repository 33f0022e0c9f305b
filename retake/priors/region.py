"""Where the edit happens: the objects' masks, put together by steps.

    union       all objects become one
    largest     of every object (of the whole, after union) its largest connected part
    rectangle   the bounding box of every object (of the whole, after union), as IVEDiff uses for object modification

What is left at the end is united. Without steps the region is the union of the objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import cv2
import numpy as np
from pydantic import BaseModel, Field

from retake.errors import ConfigError
from retake.imaging.soft_mask import filled_box

Step = Literal["union", "largest", "rectangle"]


class Params(BaseModel, frozen=True, extra="forbid"):
    """Which objects, and what is done with their masks."""

    objects: tuple[int, ...] = Field((), description="ids of the objects to edit; none: all of them")
    steps: tuple[Step, ...] = Field((), description="union, largest, rectangle, in this order of doing")


def require_objects(params: Params, ids: Sequence[int]) -> None:
    """Raises ConfigError E228 when region.objects names an object that there is none of."""
    if strange := sorted(set(params.objects) - set(ids)):
        raise ConfigError(
            "E228",
            f"region.objects names object {strange[0]}, but the masks hold {', '.join(map(str, ids))}",
            "Take one of those, or follow it: masks.objects={1: ..., 2: ...}",
        )


def region(objects: Mapping[int, np.ndarray], params: Params) -> np.ndarray:
    """One frame: bool [H,W] of the objects' masks, bool [H,W] by id. Raises ConfigError E228."""
    require_objects(params, list(objects))
    parts = [mask for i, mask in objects.items() if not params.objects or i in params.objects]
    for step in params.steps:
        match step:
            case "union":
                parts = [np.logical_or.reduce(parts)]
            case "largest":
                parts = [largest(mask) for mask in parts]
            case "rectangle":
                parts = [filled_box(mask) for mask in parts]
    return np.logical_or.reduce(parts)


def largest(mask: np.ndarray) -> np.ndarray:
    """The largest 8-connected part; of equals the one that begins first, row by row."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count <= 2:
        return mask
    return labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
