"""Clips that are longer than a network works at: overlapping windows, blended in every step.

Each step of a long clip is predicted window by window; where windows overlap, their results are averaged with weights
that fall smoothly towards a window's edge (MultiDiffusion, Bar-Tal et al. 2023, eq. 5, over time instead of space).
Neighbours therefore agree before they are denoised further, and no cut is left to be hidden afterwards. A step is
linear in what the network predicts, so that blending results and blending predictions is the same.

Only the windows of one batch are in the network and in memory at a time. The clip itself is whatever can be sliced by
frames: a tensor, or a `Reel`, a plain file, with which memory does not grow with the clip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from retake.diffusion.backbone import Backbone, Condition
from retake.errors import ConfigError


class Latents(Protocol):
    """Latents [F, C, h, w] of a clip, sliced by frames. torch.Tensor is one, `Reel` another."""

    @property
    def shape(self) -> Any: ...
    def __getitem__(self, frames: slice, /) -> Tensor: ...
    def __setitem__(self, frames: slice, values: Tensor, /) -> None: ...


class Reel:
    """Latents of a clip in one plain file: slices are read and written, nothing else is held."""

    def __init__(self, path: Path, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> None:
        self.path, self.shape, self.dtype = path, torch.Size(shape), dtype
        self._kind = torch.zeros((), dtype=dtype).numpy().dtype
        self._frame = int(np.prod(self.shape[1:])) * self._kind.itemsize
        with open(path, "wb") as file:
            file.truncate(self.shape[0] * self._frame)

    def __getitem__(self, frames: slice) -> Tensor:
        first, last, _ = frames.indices(self.shape[0])
        count = max(0, last - first) * self._frame // self._kind.itemsize
        values = np.fromfile(self.path, self._kind, count, offset=first * self._frame)
        return torch.from_numpy(values.reshape(-1, *self.shape[1:]))

    def __setitem__(self, frames: slice, values: Tensor) -> None:
        first, last, _ = frames.indices(self.shape[0])
        values = values.detach().to("cpu", self.dtype).expand(last - first, *self.shape[1:])
        with open(self.path, "r+b") as file:
            file.seek(first * self._frame)
            file.write(values.contiguous().numpy().tobytes())

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Windows:
    """How a clip of `count` latent frames is cut: windows of `length`, neighbours share at least `overlap` frames.

    All are equally long and as evenly spread as whole frames allow, so that the last overlap is no wider than the
    others. A clip of at most `length` frames is one window of its own length. Raises ConfigError E290 unless
    0 <= overlap < length.

    >>> Windows(count=40, length=16, overlap=4).spans
    (range(0, 16), range(12, 28), range(24, 40))
    """

    count: int
    length: int
    overlap: int = 0

    def __post_init__(self) -> None:
        if self.count > self.length and not 0 <= self.overlap < self.length:
            raise ConfigError(
                "E290",
                f"windows of {self.length} latent frames cannot overlap by {self.overlap}",
                f"Give an overlap of 0 to {self.length - 1}.",
            )

    @staticmethod
    def of(backbone: Backbone, count: int, overlap: int) -> Windows:
        """Windows of the length that a model works at."""
        return Windows(count, backbone.length, overlap)

    @cached_property
    def spans(self) -> tuple[range, ...]:
        """The windows, in the order of their frames."""
        length = min(self.count, self.length)
        room = self.count - length
        steps = -(-room // (self.length - self.overlap)) if room else 0
        return tuple(range(at := round(k * room / max(steps, 1)), at + length) for k in range(steps + 1))

    @cached_property
    def weights(self) -> tuple[Tensor, ...]:
        """Of every window, the share of each of its frames in the result: float32 [length]; shares sum to 1."""
        ramps = [self._ramp(k) for k in range(len(self.spans))]
        total = np.zeros(self.count)
        for span, ramp in zip(self.spans, ramps, strict=True):
            total[span.start : span.stop] += ramp
        pairs = zip(self.spans, ramps, strict=True)
        return tuple(torch.from_numpy((r / total[s.start : s.stop]).astype(np.float32)) for s, r in pairs)

    def _ramp(self, k: int) -> np.ndarray:
        """float64 [length]: 1 where the window is alone, falling as a raised cosine over its overlaps."""
        span, shares = self.spans[k], np.ones(len(self.spans[k]))
        at = np.arange(len(span)) + 1.0
        if k > 0:
            shares *= _cosine(at / (self.spans[k - 1].stop - span.start + 1))
        if k + 1 < len(self.spans):
            shares *= _cosine(at[::-1] / (span.stop - self.spans[k + 1].start + 1))
        return shares


def _cosine(s: np.ndarray) -> np.ndarray:
    return 0.5 - 0.5 * np.cos(np.pi * s.clip(0, 1))


def swept(windows: Windows, batch: int, compute: Callable[[Sequence[range]], Tensor]) -> Iterator[tuple[range, Tensor]]:
    """Go over the windows from left to right, at most `batch` at once, and blend what `compute` makes of them.

    compute: float32 [W, length, C, h, w] of W windows. Yields (frames, their result [n, C, h, w]) as soon as no later
    window touches those frames: they may be written where the windows are read from.
    """
    if len(windows.spans) == 1:  # nothing to blend
        yield windows.spans[0], compute(windows.spans)[0]
        return
    first, waiting = 0, None
    for at in range(0, len(windows.spans), batch):
        some = range(at, min(at + batch, len(windows.spans)))
        for k, result in zip(some, compute([windows.spans[k] for k in some]), strict=True):
            span, shares = windows.spans[k], windows.weights[k].to(result.device)
            if waiting is None:
                waiting = result.new_zeros((0, *result.shape[1:]))
            missing = span.stop - first - len(waiting)
            waiting = torch.cat([waiting, result.new_zeros((max(0, missing), *result.shape[1:]))])
            waiting[span.start - first : span.stop - first] += shares[:, None, None, None] * result
        ahead = windows.spans[some[-1] + 1].start if some[-1] + 1 < len(windows.spans) else windows.count
        assert waiting is not None
        yield range(first, ahead), waiting[: ahead - first]
        first, waiting = ahead, waiting[ahead - first :].clone()


def gathered(z: Latents, spans: Sequence[range], device: torch.device) -> Tensor:
    """The frames of several windows: float32 [W, length, C, h, w]."""
    return torch.stack([z[s.start : s.stop].to(device, torch.float32) for s in spans])


Conditions = Condition | Callable[[Sequence[range]], Condition]
"""Of one clip (B = 1) for all its windows, or of so many windows, which then are its batch."""


def conditions_of(condition: Conditions, spans: Sequence[range]) -> Condition:
    """What several windows are conditioned on."""
    return repeated(condition, len(spans)) if isinstance(condition, Condition) else condition(spans)


def repeated(condition: Condition, times: int) -> Condition:
    """The condition of one clip (B = 1) for so many windows of it, without a copy."""

    def each(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.expand(times, *value.shape[1:]) for name, value in inputs.items()}

    return Condition(each(condition.positive), each(condition.negative))
