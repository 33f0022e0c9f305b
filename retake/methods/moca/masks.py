"""Where the object is, slot by slot: masks that come anew in every step, and those that are kept.

A slot keeps the mask that it has unless the new one overlaps with it enough (the paper's IoU rule, sec. 3.1), and the
mask travels with the frame. Revision 8761732 of the published code compares neighbouring frames
instead of neighbouring levels; so does `neighbour`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from retake.diffusion.sampling.fifo_queue import Slots
from retake.errors import ConfigError

if TYPE_CHECKING:
    from retake.diffusion.attention_maps import Concepts
    from retake.diffusion.backbone import Backbone
    from retake.diffusion.sampling.ddim import Mask

Compare = Literal["itself", "neighbour"]
Candidate = Callable[[Tensor, Slots, list[int]], Iterable[Tensor]]
"""(x0 of all slots, slots, rows of those mixed) -> their new masks, 0..1 [1, h, w] each; asked in every step."""

LARGEST = 0.8  # of the frame: a mask that covers more found no object
BINARY = 0.4  # of an attention map's range: the default of presets.CODE_OF (0.3 in revision 2e95ff9)


def gated(candidate: Candidate, iou: float, compare: Compare, below: Tensor, x0: Tensor, slots: Slots) -> Tensor:
    """The masks of all slots [n, 1, h, w], 0 where a slot is not mixed yet. below: bool [n], which are.

    Kept in the slots as "mask" and "masked" (1 once there is one). The first mask of a slot is taken as it is.
    """
    kept, known = slots.rows("mask", 1, *x0.shape[-2:]), slots.rows("masked")
    rows = below.nonzero().flatten().tolist()
    for row, new in zip(rows, candidate(x0, slots, rows), strict=True):
        new = new.to(kept)
        if not new.any():
            continue
        beside = row - 1 if compare == "neighbour" and row > 0 and known[row - 1] else row
        if not known[beside] or overlap(new, kept[beside]) > iou or iou == 0:
            kept[row] = new
        elif beside != row:
            kept[row] = kept[beside]
        known[row] = 1
    return kept * below.to(kept)[:, None, None, None]


def overlap(a: Tensor, b: Tensor) -> float:
    """Intersection over union of two masks 0..1, of which cells may be part; 0 where both are empty."""
    return float(torch.minimum(a, b).sum() / torch.maximum(a, b).sum().clamp(min=1e-6))


def believed(mask: Tensor) -> Tensor:
    """The mask; nothing where it covers so much that no object was found."""
    return mask if float((mask > 0.5).float().mean()) <= LARGEST else torch.zeros_like(mask)


# ---- new masks -------------------------------------------------------------------------------------------------------


def from_region(region: Mask) -> Candidate:
    """The masks prior's region: the same at every level, so that only `neighbour` ever refuses it."""
    return lambda x0, slots, rows: (region(frame_of(slots, row))[0] for row in rows)


def from_estimate(backbone: Backbone, region: Mask) -> Candidate:
    """What GrabCut cuts out of the decoded estimate, from the box of the region in that frame; where it finds nothing
    the mask is empty, and the one that is kept stays."""

    def cut(x0: Tensor, slots: Slots, rows: list[int]) -> Iterator[Tensor]:
        from retake.diffusion.grid import to_grid
        from retake.methods.canvas import as_rgb

        for row in rows:
            seen = region(frame_of(slots, row))[0, 0]
            picture = as_rgb(backbone.decode(x0[row][None, None].to(backbone.device))[0].float().cpu())[0]
            mask = segmented(picture, seen.numpy() > 0, backbone.space)
            yield believed(to_grid(torch.from_numpy(mask)[None], "masks", backbone.space, 1))

    return cut


def segmented(picture: np.ndarray, cells: np.ndarray, space: int) -> np.ndarray:
    """GrabCut's object in the box of some cells: bool [H, W] of a picture uint8 [H, W, 3]."""
    from retake.priors.masks import grabcut
    from retake.priors.masks.grabcut.first_mask import first_mask
    from retake.priors.masks.prompt import Prompt

    nothing = np.zeros(picture.shape[:2], bool)
    rows, columns = np.flatnonzero(cells.any(1)), np.flatnonzero(cells.any(0))
    if len(rows) == 0:
        return nothing
    box = tuple(float(space * edge) for edge in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    try:
        return first_mask(picture, Prompt(box=box), grabcut.Params())  # type: ignore[arg-type]
    except ConfigError as error:
        if error.code not in ("E220", "E221"):  # nothing separates from its surroundings; a box of few pixels
            raise
        return nothing


def from_attention(concepts: Concepts) -> Candidate:
    """Where the network looked for the object's words while it predicted this step."""

    def looked(x0: Tensor, slots: Slots, rows: list[int]) -> Iterator[Tensor]:
        return map(believed, (concepts.masks(slots.spans)[rows] > BINARY).float())

    return looked


def frame_of(slots: Slots, row: int) -> range:
    return slots.frames[row : row + 1]
