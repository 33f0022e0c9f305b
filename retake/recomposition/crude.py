"""A clip moved along its edited tracks as edit=move does it, at the size of a diffusion model, in scratch files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.lib.format import open_memmap

from retake.formats import FrameSeries
from retake.imaging.composite import pasted
from retake.imaging.signed import to_signed
from retake.machine.threads import single_threaded
from retake.recomposition.background import Background
from retake.recomposition.scene import Layering, Scene
from retake.video import resize

if TYPE_CHECKING:
    from torch import Tensor


class Crude(NamedTuple):
    """The crude move, in scratch files: rgb uint8 [F, h, w, 3] at the model's size; where it differs from the source,
    and where objects lie at their new places, uint8 [F, H, W] at the working size."""

    rgb: np.ndarray
    edited: np.ndarray
    laid: np.ndarray

    def pixels(self, span: range) -> Tensor:
        """Frames of a range, float32 [n, 3, h, w] in -1..1."""
        import torch

        return to_signed(torch.from_numpy(self.rgb[span.start : span.stop].transpose(0, 3, 1, 2).copy()))


def moved(
    frames: FrameSeries, priors: Mapping[str, Any], params: Layering, size: tuple[int, int], folder: Path
) -> Crude:
    """The clip moved by its priors, masks and edited tracks. size: of the model's pictures, (width, height); folder:
    for the files. Raises ConfigError E238 for an object in `order` that is none."""
    masks = priors["masks"]
    width, height = size

    def scratch(name: str, *shape: int) -> np.ndarray:
        return open_memmap(folder / name, "w+", np.uint8, (len(frames), *shape))

    working = frames.height, frames.width
    made = Crude(scratch("crude.npy", height, width, 3), scratch("edited.npy", *working), scratch("laid.npy", *working))
    with single_threaded():
        scene = Scene(frames, masks, priors["edited_tracks"], params)
        behind = Background(frames, (scene.hole(t) for t in range(len(masks))), folder)
        for t in range(len(frames)):
            picture = frames[t].copy()
            if (one := scene.render(t, behind)) is not None:
                x0, y0, x1, y1 = one.box
                pasted(picture, one.box, one.rgb, one.alpha)
                made.edited[t, y0:y1, x0:x1], made.laid[t, y0:y1, x0:x1] = one.alpha, one.laid
            made.rgb[t] = resize(picture, (width, height))
    return made
