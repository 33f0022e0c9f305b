"""The queue at work: latents of the edited clip, denoised when they are asked for, kept for a run that is killed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass

import numpy as np
import torch
from torch import Tensor

from retake.diffusion.sampling.ddim import Source
from retake.diffusion.sampling.fifo import Diagonal, begin, run_queue, run_windows, together
from retake.diffusion.sampling.fifo_queue import Denoiser, FinishedFrame, Queue
from retake.diffusion.sampling.windows import Reel
from retake.methods import Inputs


@dataclass(eq=False)
class Stream:
    """Latents [F, C, h, w] of the edited clip, to be read from front to back: a slice runs the queue up to its end.

    Every `keep` frames' worth of iterations, and when the last frame is done, the queue is kept, and with it the
    latents that the reader may ask for again. diagonally: False takes all frames down together, in windows.
    """

    denoiser: Denoiser
    diagonal: Diagonal
    source: Source
    inputs: Inputs
    _: KW_ONLY
    shape: tuple[int, ...]
    keep: int
    diagonally: bool

    def __post_init__(self) -> None:
        self._reel = Reel(self.inputs.scratch / "edited.latents", self.shape)
        self._first, self._done, self._iterations = 0, 0, 0
        self._queue = self._restored()
        self._running = self._run()

    def __getitem__(self, frames: slice) -> Tensor:
        self._first, last, _ = frames.indices(self.shape[0])
        while self._done < last:
            one = next(self._running)
            self._reel[one.frame : one.frame + 1] = one.z[None]
            self._done = one.frame + 1
            if self.diagonally:
                shown = len(self.inputs.frames)
                self.inputs.progress(min(1 + (self._done - 1) * self.denoiser.backbone.time, shown), shown)
            if self._done == self.shape[0]:
                self.inputs.keep(self._parts())
        return self._reel[frames]

    def __setitem__(self, frames: slice, values: Tensor) -> None:
        self._reel[frames] = values

    def _run(self) -> Iterator[FinishedFrame]:
        if not self.diagonally:
            self._queue = self._queue or together(self.diagonal, self.source, self.shape[0])
            return run_windows(self.denoiser, self._queue, self.diagonal, self._level_done)
        self._queue = self._queue or begin(self.diagonal, self.source)
        return run_queue(self.denoiser, self._queue, self.diagonal, self.source, self.shape[0], self._between)

    def _between(self, every: int = 0) -> None:
        self._iterations += 1
        if self._iterations % (every or self.keep) == 0:
            self.inputs.keep(self._parts())

    def _level_done(self) -> None:
        """A level of all frames is worth as many frames' iterations as the clip has frames for each level."""
        levels, shown = self.diagonal.levels, len(self.inputs.frames)
        assert self._queue is not None
        self.inputs.progress(shown * (levels - self._queue.levels[0]) // levels, shown)
        self._between(max(1, self.keep * levels // self.shape[0]))

    def _parts(self) -> Iterator[dict[str, np.ndarray]]:
        """What a killed run goes on from: the latents from the reader's place on, and the queue."""
        yield {"first": np.array(self._first), "z": self._reel[self._first : self._done].numpy()}
        if self._queue is not None:
            yield self._queue.snapshot()

    def _restored(self) -> Queue | None:
        queue = None
        for part in self.inputs.kept():
            if "first" in part:
                first, z = int(part["first"]), torch.from_numpy(part["z"])
                self._done = first + len(z)
                self._reel[first : self._done] = z
            else:
                queue = Queue.restore(part)
        return queue
