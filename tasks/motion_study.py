"""motion_study: what MoAlign learns from a clip: its latents, a video encoder's features, and how it moves.

The clip is cut into windows of the model's length, each of which shares its first frame with the end of the one before.
The first frame of a window is left out of features and flow: causal autoencoders code it alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from retake.artifact import Flow, Frames, MotionStudy
from retake.diffusion.model import Model, Modelled
from retake.errors import MediaError
from retake.formats import FlowSeries, FrameSeries
from retake.imaging.signed import to_signed
from retake.stage import Work, stage
from retake.video import resize

Span = tuple[slice, slice]
TOKEN = 2  # latent cells a side of a token, of CogVideoX
CELLS = 4  # of the flow that is learnt, a side of a token


class Params(BaseModel, frozen=True, extra="forbid"):
    """Which encoder."""

    encoder: str = Field(default="video_mae", description="weights of a VideoMAE", json_schema_extra={"weights": ""})


def check(model: Model, frames: Mapping[str, Any]) -> None:
    """Raises MediaError E439 for a clip shorter than a window. frames: meta of the frames artifact."""
    if frames["count"] < model.frames:
        raise MediaError(
            "E439",
            f"{frames['count']} frames are no window of {model.frames}",
            f"Take clips of {model.frames} frames and more.",
        )


@stage("motion_study", version=1, makes="motionstudy", backends=("opencv-python-headless",))
def stage_motion_study(work: Work, params: Modelled, frames: Frames, optical_flow: Flow) -> MotionStudy:
    """Chunk n is window n: latents float16 [1, f, C, h, w]; features float16 [1, T, h', w', D] of T tubes, on the grid
    of the model's tokens; flow float16 [1, T - 1, 2, H, W] from the first frame of a tube to that of the next, in units
    of motion_clips.SCALE, the mean of what is seen in each cell; seen bool [1, T - 1, H, W]: cells of which the next
    tube shows more than half. The middle of the picture of the model's shape is read.

    Raises what `check` raises.
    """
    import torch

    from retake.diffusion.loading.load import load_coder
    from retake.networks import video_mae
    from retake.training.motion_clips import SCALE

    settings = params.settings
    assert isinstance(settings, Params)
    check(params.model, frames.meta)
    series: FrameSeries = work.open(frames)
    motion: FlowSeries = work.open(optical_flow)
    backbone = load_coder(params.model)
    encoder = video_mae.load(settings.encoder, params.model.device)
    length = backbone.frames - (backbone.frames - 1) % (backbone.time * encoder.tube)
    part = middle((series.height, series.width), (backbone.height, backbone.width))
    grid = backbone.grid(length, backbone.height, backbone.width)
    rows, columns = grid.height // TOKEN, grid.width // TOKEN
    count = 1 + (len(series) - length) // (length - 1)
    for n in range(len(work.done), count):
        first = n * (length - 1)
        rgb = [series[t][part] for t in range(first, first + length)]
        large = np.stack([resize(frame, (backbone.width, backbone.height)) for frame in rgb])
        pixels = to_signed(torch.from_numpy(np.ascontiguousarray(large.transpose(0, 3, 1, 2))))
        with torch.inference_mode():
            z = backbone.encode(pixels[None].to(backbone.device)).half().cpu()
        features = encoder.on_grid(np.stack(rgb[1:])[None], rows, columns).half().cpu()
        size = CELLS * columns, CELLS * rows
        tubes = range(first + 1, first + length - encoder.tube, encoder.tube)
        flow, seen = zip(*(carried(motion, t, encoder.tube, part, size) for t in tubes), strict=True)
        work.commit(
            n,
            {
                "latents": z.numpy(),
                "features": features.numpy(),
                "flow": (np.stack(flow).transpose(0, 3, 1, 2)[None] * SCALE).astype(np.float16),
                "seen": np.stack(seen)[None],
            },
        )
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
    """Where a part of frame t goes in so many frames: the mean of what is seen in each of `size` (width, height) cells,
    float32 [H, W, 2] in widths of the part; and the cells of which more than half is seen until then within the part,
    bool [H, W]."""
    import cv2

    from retake.imaging.flow import in_bounds, warp

    flow, seen = motion.forward(t), ~motion.occluded_forward(t)
    for later in range(t + 1, t + steps):
        seen &= warp(~motion.occluded_forward(later), flow)
        flow = flow + warp(motion.forward(later), flow)
    flow, inside = np.ascontiguousarray(flow[part]), np.ascontiguousarray(seen[part])
    inside &= in_bounds(flow, slack=0.5)
    share = cv2.resize(inside.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    mean = cv2.resize(flow * inside[..., None], size, interpolation=cv2.INTER_AREA) / np.maximum(share, 1e-6)[..., None]
    return mean / flow.shape[1], share > 0.5
