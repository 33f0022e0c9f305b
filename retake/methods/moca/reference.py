"""The reference as latents of the clip: a picture laid over every source frame, or over the whole canvas, encoded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from retake.formats import CHUNK, FrameSeries, LatentSeries, RegionSeries
from retake.imaging.rgba import premultiplied_resize, with_alpha
from retake.imaging.signed import to_signed
from retake.imaging.soft_mask import bounding_box
from retake.methods.canvas import BEHIND
from retake.video import resize

if TYPE_CHECKING:
    from retake.diffusion.backbone import Backbone
    from retake.methods.moca.steps import Reference


def over_frame(backbone: Backbone, latents: LatentSeries, image: np.ndarray) -> Reference:
    """The picture in the middle of the canvas, which it fills, on grey; what reaches over is cut. The same in every
    frame."""
    height, width = latents.meta["pixels"]
    grey = np.full((height, width, 3), BEHIND, np.uint8)
    z = encoded(backbone, laid(grey, (0, 0, width, height), image)[None])
    return lambda frames: z.expand(len(frames), -1, -1, -1)


def over_object(
    backbone: Backbone,
    latents: LatentSeries,
    frames: FrameSeries,
    region: RegionSeries,
    image: np.ndarray,
    scratch: Path,
) -> Reference:
    """The picture over the object's box in every frame, and the frame around it, so that nothing outside the object is
    foreign to it. A latent frame of several frames has the last of them. In a scratch file."""
    from retake.diffusion.sampling.windows import Reel

    meta = latents.meta
    height, width = meta["pixels"]
    reel = Reel(scratch / "reference.latents", (len(latents), meta["channels"], meta["height"], meta["width"]))
    for first in range(0, len(latents), CHUNK):
        numbers = range(first, min(first + CHUNK, len(latents)))
        shown = [min(k * meta["time"], len(frames) - 1) for k in numbers]
        canvas, boxes = (width, height), [scaled_box(region[t], (width, height)) for t in shown]
        pictures = [laid(resize(frames[t], canvas), box, image) for t, box in zip(shown, boxes, strict=True)]
        reel[numbers.start : numbers.stop] = encoded(backbone, np.stack(pictures))
    return lambda frames: reel[frames.start : frames.stop]


def encoded(backbone: Backbone, rgb: np.ndarray) -> Tensor:
    """Latents float32 [n, C, h, w] on the CPU of pictures uint8 [n, H, W, 3], each a clip of one frame."""
    pixels = to_signed(torch.from_numpy(np.ascontiguousarray(rgb.transpose(0, 3, 1, 2))))
    return torch.cat([backbone.encode(one[None, None].to(backbone.device))[0].float().cpu() for one in pixels])


def laid(frame: np.ndarray, box: tuple[int, int, int, int] | None, image: np.ndarray) -> np.ndarray:
    """A frame uint8 [H, W, 3] with the picture over a box; through its alpha the frame is seen."""
    if box is None:
        return frame
    x0, y0, x1, y1 = box
    part = filled(with_alpha(image), (x1 - x0, y1 - y0))
    out, alpha = frame.copy(), part[..., 3:]
    out[y0:y1, x0:x1] = np.rint(part[..., :3] * alpha + frame[y0:y1, x0:x1] * (1 - alpha)).clip(0, 255)
    return out


def filled(rgba: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture float32 [H, W, 4] scaled so that it just fills (width, height), cut evenly on both sides."""
    width, height = size
    scale = max(width / rgba.shape[1], height / rgba.shape[0])
    wide, high = max(width, round(rgba.shape[1] * scale)), max(height, round(rgba.shape[0] * scale))
    large = premultiplied_resize(rgba, (wide, high))
    left, top = (wide - width) // 2, (high - height) // 2
    return large[top : top + height, left : left + width]


def scaled_box(mask: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Bounding box of a mask bool [H, W] on a grid of (width, height) pixels, rounded outwards."""
    if (box := bounding_box(mask, 0)) is None:
        return None
    (x0, y0, x1, y1), (width, height), (rows, columns) = box, size, mask.shape
    return x0 * width // columns, y0 * height // rows, -(-x1 * width // columns), -(-y1 * height // rows)
