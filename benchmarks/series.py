"""Priors in memory, behind the readers' interface: made by a plain script, or read off a sprite world.

The stages read artifacts through the classes of retake/formats.py; these give the same answers without a store.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from retake.formats import CHUNK, FlowSeries, FrameSeries, RegionSeries, Tensors, TrackSeries, chunk_range
from retake.synthetic import World

Pair = tuple[np.ndarray, np.ndarray]


class KeptFrames(FrameSeries):
    """A list of uint8 RGB [H,W,3] with its times in seconds."""

    def __init__(self, rgb: list[np.ndarray], times: list[float], fps: float) -> None:
        self.rgb, self.times, self.count = rgb, times, len(rgb)
        self.height, self.width = rgb[0].shape[:2]
        size = {"width": self.width, "height": self.height}
        self.meta = {
            "source_width": self.width,
            "source_height": self.height,
            "count": self.count,
            "fps": fps,
        } | size

    def __getitem__(self, t: int) -> np.ndarray:
        return self.rgb[t]

    def seconds(self, t: int) -> float:
        return self.times[t]


class KeptFlow(FlowSeries):
    """Lists of (forward, backward), float32 [H,W,2], and of (forward, backward) occlusion, bool [H,W]."""

    def __init__(self, pairs: list[Pair], hidden: list[Pair]) -> None:
        self.pairs, self.hidden, self.count = pairs, hidden, len(pairs)
        self.height, self.width = pairs[0][0].shape[:2]

    def forward(self, t: int) -> np.ndarray:
        return self.pairs[t][0]

    def backward(self, t: int) -> np.ndarray:
        return self.pairs[t][1]

    def occluded_forward(self, t: int) -> np.ndarray:
        return self.hidden[t][0]

    def occluded_backward(self, t: int) -> np.ndarray:
        return self.hidden[t][1]


class KeptMasks(RegionSeries):
    """A list of bool [H,W] whose prompt stood on frame 0."""

    def __init__(self, masks: list[np.ndarray]) -> None:
        self.masks, self.count = masks, len(masks)
        self.height, self.width = masks[0].shape
        self.meta: Mapping[str, Any] = {"frame": 0}

    def __getitem__(self, t: int) -> np.ndarray:
        return self.masks[t]

    def opacity(self, t: int) -> np.ndarray | None:
        return None


class KeptTracks(TrackSeries):
    """Chunks as the tracks stage makes them, of a clip as large as `like`."""

    def __init__(self, chunks: list[Tensors], like: KeptFrames | World) -> None:
        self.kept, self.width, self.height = chunks, like.width, like.height
        self.count = like.frames if isinstance(like, World) else len(like)

    def chunk(self, index: int) -> Tensors:
        return self.kept[index]


def true_priors(world: World, sprite: int = 0, spacing: int = 8) -> dict[str, Any]:
    """What a sprite world itself says: flow with occlusion, masks of a sprite, and tracks of points on it.

    The points lie every `spacing` px on what is seen of the sprite on frame 0.
    """
    steps = range(world.frames - 1)
    pairs = [(world.flow(t, t + 1), world.flow(t + 1, t)) for t in steps]
    hidden = [(world.occlusion(t, t + 1), world.occlusion(t + 1, t)) for t in steps]
    masks = [world.mask(t, sprite) for t in range(world.frames)]
    rows, columns = np.nonzero(masks[0])
    chosen = (rows % spacing == 0) & (columns % spacing == 0)
    xy, visible = world.tracks(np.stack([columns[chosen], rows[chosen]], axis=1))
    ids = np.arange(xy.shape[1])
    spans = [chunk_range(index, world.frames) for index in range(-(-world.frames // CHUNK))]
    tracks = [{"ids": ids, "xy": xy[s.start : s.stop], "visible": visible[s.start : s.stop]} for s in spans]
    return {
        "optical_flow": KeptFlow(pairs, hidden),
        "region": KeptMasks(masks),
        "tracks": KeptTracks(tracks, world),
    }
