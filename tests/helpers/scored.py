"""Small frames, and a metric run over a clip of them."""

from __future__ import annotations

import cv2
import numpy as np

from retake.metrics.common.sample import Sample

H, W = 40, 56


def pictures(count: int = 3, height: int = H, width: int = W, seed: int = 0) -> np.ndarray:
    """Smooth random uint8 [count, height, width, 3]."""
    noise = np.random.default_rng(seed).random((count, height, width, 3), dtype=np.float32)
    return np.stack([np.rint(255 * cv2.GaussianBlur(one, (0, 0), 1.5)).astype(np.uint8) for one in noise])


def box(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((H, W), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def run(metric, results, sources=None, inside=None, flow=None, fps=8.0):
    """The metric's result over a clip; the source is the result unless given."""
    for t, frame in enumerate(results):
        source = frame if sources is None else sources[t]
        metric.update(Sample(t, source, frame, inside, flow if t else None, fps))
    return metric.result()


class Known:
    """A network that knows a vector for each grey level."""

    name = "known vectors"

    def __init__(self, vectors: dict[int, tuple[float, ...]]) -> None:
        self.vectors = vectors

    def images(self, frames):
        return np.array([self.vectors[int(frame[0, 0, 0])] for frame in frames], np.float32)


def grey(level: int) -> np.ndarray:
    return np.full((H, W, 3), level, np.uint8)
