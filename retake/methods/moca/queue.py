"""The queue at work: latents of the edited clip, denoised when they are asked for, kept for a run that is killed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass

import numpy as np
import torch
from torch import Tensor

from retake.diffusion.backbone import Backbone, Condition
from retake.diffusion.fifo import Diagonal, begin, emitted, together
from retake.diffusion.sampling import Source
from retake.diffusion.slots import Emitted, Queue, Step
from retake.diffusion.windows import Reel
from retake.methods import Inputs


@dataclass(eq=False)
class Stream:
    """Latents [F, C, h, w] of the edited clip, to be read from front to back: a slice runs the queue up to its end.

    Every `keep` frames the queue is kept, and with it the latents that the reader may ask for again. diagonally: False
    takes all frames down together; nothing is then kept on the way.
    """

    backbone: Backbone
    diagonal: Diagonal
    condition: Condition
    source: Source
    step: Step
    inputs: Inputs
    _: KW_ONLY
    shape: tuple[int, ...]
    guidance: float
    eta: float
    seed: int
    keep: int
    diagonally: bool

    def __post_init__(self) -> None:
        self._reel = Reel(self.inputs.scratch / "edited.latents", self.shape)
        self._queue = self._restored() or begin(self.diagonal, self.source)
        self._done = max(0, self._queue.head)
        self._running = self._run()

    def __getitem__(self, frames: slice) -> Tensor:
        first, last, _ = frames.indices(self.shape[0])
        while self._done < last:
            one = next(self._running)
            self._reel[one.frame : one.frame + 1] = one.z[None]
            self._done = one.frame + 1
            self.inputs.progress(self._done, self.shape[0])
            if self.diagonally and self._done % self.keep == 0:
                self.inputs.keep(self._parts(first))
        return self._reel[frames]

    def __setitem__(self, frames: slice, values: Tensor) -> None:
        self._reel[frames] = values

    def _run(self) -> Iterator[Emitted]:
        told = {
            "guidance": self.guidance,
            "batch": self.inputs.batch,
            "eta": self.eta,
            "seed": self.seed,
            "step": self.step,
        }
        count = self.shape[0]
        if not self.diagonally:
            return together(self.backbone, self.diagonal, self.condition, self.source, count, **told)
        return emitted(self.backbone, self._queue, self.diagonal, self.condition, self.source, count=count, **told)

    def _parts(self, first: int) -> Iterator[dict[str, np.ndarray]]:
        """What a killed run goes on from: the queue, and the latents from the reader's place on."""
        yield self._queue.snapshot()
        yield {"first": np.array(first), "z": self._reel[first : self._done].numpy()}

    def _restored(self) -> Queue | None:
        parts = list(self.inputs.kept())
        if not parts:
            return None
        queue, tail = parts
        first = int(tail["first"])
        self._reel[first : first + len(tail["z"])] = torch.from_numpy(tail["z"])
        return Queue.restore(queue)
