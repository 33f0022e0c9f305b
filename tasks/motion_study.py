"""motion_study: what MoAlign learns from a clip: its latents, a video encoder's features, and how it moves.

The clip is cut into windows of the model's length, each of which shares its first frame with the end of the one before.
The first frame of a window is left out of features and flow: causal autoencoders code it alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, Field

from retake.artifact import Flow, Frames, MotionStudy
from retake.diffusion.model import Modelled
from retake.errors import MediaError
from retake.formats import FlowSeries, FrameSeries
from retake.imaging.signed import to_signed
from retake.stage import Work, stage
from retake.video import resize

if TYPE_CHECKING:
    pass

Span = tuple[slice, slice]
TOKEN = 2  # latent cells a side of a token, of CogVideoX


class Params(BaseModel, frozen=True, extra="forbid"):
    """Which encoder, and how much larger its tokens are than the model's."""

    encoder: str = Field(default="video_mae", description="weights of a VideoMAE", json_schema_extra={"weights": ""})
    stride: int = Field(
        default=1,
        ge=1,
        description="tokens of the model a side of one of the encoder's; of the published pair (CogVideoX, "
        "VideoMAE at 160 x 240) 3",
    )


@stage("motion_study", version=1, makes="motionstudy", backends=("opencv-python-headless",))
def stage_motion_study(work: Work, params: Modelled, frames: Frames, optical_flow: Flow) -> MotionStudy:
    """Chunk n is window n: latents float16 [1, f, C, h, w]; features float16 [1, T, h', w', D] of T tubes; flow float16
    [1, T - 1, 2, H, W] from the first frame of a tube to that of the next, in units of motion_clips.SCALE, on half of
    the pixels that the encoder reads; seen bool [1, T - 1, H, W]: what the next tube shows, too. The middle of the
    picture of the model's shape is read.

    Raises MediaError E439 for a clip shorter than a window.
    """
    import torch

    from retake.diffusion.loading.load import load_coder
    from retake.networks import video_mae
    from retake.training.motion_clips import FINER, SCALE, pooled

    settings = params.settings
    assert isinstance(settings, Params)
    series: FrameSeries = work.open(frames)
    motion: FlowSeries = work.open(optical_flow)
    backbone = load_coder(params.model)
    encoder = video_mae.load(settings.encoder, params.model.device)
    length = backbone.frames - (backbone.frames - 1) % (backbone.time * encoder.tube)
    if len(series) < length:
        raise MediaError(
            "E439",
            f"{len(series)} frames are no window of {length}",
            f"Take clips of {length} frames and more.",
        )
    part = middle((series.height, series.width), (backbone.height, backbone.width))
    grid = backbone.grid(length, backbone.height, backbone.width)
    rows, columns = (side // (TOKEN * settings.stride) for side in (grid.height, grid.width))
    shown = columns * encoder.patch, rows * encoder.patch  # (width, height) that the encoder reads
    count = 1 + (len(series) - length) // (length - 1)
    for n in range(len(work.done), count):
        first = n * (length - 1)
        rgb = [series[t][part] for t in range(first, first + length)]
        large = np.stack([resize(frame, (backbone.width, backbone.height)) for frame in rgb])
        pixels = to_signed(torch.from_numpy(np.ascontiguousarray(large.transpose(0, 3, 1, 2))))
        with torch.inference_mode():
            z = backbone.encode(pixels[None].to(backbone.device)).half().cpu()
        features = encoder.on_grid(np.stack(rgb[1:])[None], rows, columns).half().cpu()
        pairs = [
            carried(motion, t, encoder.tube, part, shown)
            for t in range(first + 1, first + length - encoder.tube, encoder.tube)
        ]
        flow, seen = (torch.from_numpy(np.stack(some)) for some in zip(*pairs, strict=True))
        mean, known = pooled(flow.movedim(-1, 1) * SCALE / shown[0], seen, FINER)
        found = {"latents": z, "features": features, "flow": mean.half()[None], "seen": known[None]}
        work.commit(n, {name: tensor.numpy() for name, tensor in found.items()})
        work.progress(n + 1, count)
    return work.finish(count=count, length=length, encoder=encoder.name, tube=encoder.tube, features=encoder.width)  # type: ignore[return-value]


def middle(size: tuple[int, int], shape: tuple[int, int]) -> Span:
    """The largest part in the middle of a picture of `size` that has the `shape`: rows and columns. Both (height,
    width)."""
    scale = min(size[0] / shape[0], size[1] / shape[1])
    height, width = (max(1, round(side * scale)) for side in shape)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return slice(top, top + height), slice(left, left + width)


def carried(motion: FlowSeries, t: int, steps: int, part: Span, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Where a part of frame t goes in so many frames: float32 [H, W, 2] in pixels of a picture of `size` (width,
    height), and what of it is seen on each of them, bool [H, W]."""
    import cv2

    from retake.imaging.flow import resize_flow, warp

    flow, seen = motion.forward(t), ~motion.occluded_forward(t)
    for later in range(t + 1, t + steps):
        seen &= warp((~motion.occluded_forward(later)), flow)
        flow = flow + warp(motion.forward(later), flow)
    inside = cv2.resize(np.ascontiguousarray(seen[part]).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return resize_flow(np.ascontiguousarray(flow[part]), size), inside.astype(bool)
