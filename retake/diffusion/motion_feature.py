"""Motion in a video network's features: what is left of them when the content that all frames share is taken off.

Source: "Video Diffusion Models are Training-free Motion Interpreter and Controller" (Xiao et al., NeurIPS 2024, sec. 3,
eq. 1). Taking content off, choosing channels and averaging over cells are all linear, and come in any order.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def content_removed(features: Tensor) -> Tensor:
    """Features [B, F, C, h, w] without their mean over the frames: a clip that rests gives zeros."""
    return features - features.mean(1, keepdim=True)


def pooled(features: Tensor, coverage: Tensor) -> Tensor:
    """Means [B, F, C] of features [B, F, C, h, w] over the cells that a mask covers; coverage 0..1 [B, F, H, W] of any
    grid. Frames that the mask does not cover give zeros."""
    weight = F.adaptive_avg_pool2d(coverage.to(features.dtype), (features.shape[-2], features.shape[-1]))[:, :, None]
    total = weight.sum((-2, -1)).clamp(min=1e-6)
    return (features * weight).sum((-2, -1)) / total


def similarity(features: Tensor, at: tuple[int, int], together: bool, frame: int = 0) -> Tensor:
    """Cosine similarity over channels of features [F, C, h, w] with those of the cell `at` (row, column): of its
    features on a frame with each frame, float32 [F, h, w]; or `together`, of its course over all frames with that of
    every cell, [h, w]. Where either has no length it is 0."""
    if together:
        features, frame = features.flatten(0, 1)[None], 0
    wanted = features[frame, :, at[0], at[1]][None, :, None, None]
    found = F.cosine_similarity(features.float(), wanted.float(), dim=1)
    return found[0] if together else found
