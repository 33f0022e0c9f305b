"""Frames in flight, each at a noise level of its own, and one denoising step of them.

Frames stand in a queue in the order of their numbers. A slot is one frame's place in it: its latents, its level, and
whatever a method keeps about it, which travels with the frame until that leaves. Levels count denoising steps to the
clean clip, as in ddim.py; the frame of level L takes the step `pairs[L - 1]`.

A step reads the queue as it was before and writes afterwards, so that its windows may go through the network in any
number at once. Every draw of noise depends on the seed, the frame's number and its level alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from retake.diffusion.backbone import Backbone, Condition
from retake.diffusion.sampling.ddim import Mask, Source, noise
from retake.diffusion.sampling.windows import repeated
from retake.diffusion.schedule import Schedule, StepPair

Pairs = Sequence[StepPair]
"""(t, t of the next step) of level 1, 2, ...: `Schedule.step_pairs` from its clean end."""
STREAMS = 1 << 16  # more than a schedule has levels: from here on, noise for methods


class Span(NamedTuple):
    """A window: the frames that the network reads, and those of them whose result is kept."""

    reads: range
    writes: range


class FinishedFrame(NamedTuple):
    """A frame that is done: its number, latents float32 [C, h, w], and what methods kept about it, by name."""

    frame: int
    z: Tensor
    state: dict[str, Tensor]


def cut(live: range, window: int, lookahead: int, first: int, last: int) -> list[Span]:
    """Windows that write the `live` frames, from left to right; there are frames `first` to last - 1.

    A window ends with what it writes, and its first `lookahead` frames are only looked at. Where so many do not stand
    before, it takes in frames behind instead: all windows are equally long, and shorter only where there are fewer
    frames than `window`.
    """
    found: list[Span] = []
    for at in range(live.start, live.stop, window - lookahead):
        writes = range(at, min(at + window - lookahead, live.stop))
        stop = min(max(writes.stop, first + window), last)
        reads = range(max(first, stop - window), stop)
        if found and found[-1].reads == reads:  # the network sees the same twice: it is asked once
            writes = range(found.pop().writes.start, writes.stop)
        found.append(Span(reads, writes))
    return found


def part_of(whole: range, frames: range) -> slice:
    """Where in a row of frames some of them stand."""
    return slice(frames.start - whole.start, frames.stop - whole.start)


@dataclass(eq=False)
class Queue:
    """Frames `first`, `first + 1`, ... in flight.

    z: float32 [S, C, h, w]. levels: of every slot; 0 is done. head: the frame that comes out next (fifo.py); negative
    while the queue warms up. state: what methods keep, float32 [S, ...] by name. evaluations: frames that went through
    the network so far; guided ones count twice.
    """

    first: int
    z: Tensor
    levels: list[int]
    head: int = 0
    state: dict[str, Tensor] = field(default_factory=dict)
    evaluations: int = 0

    @property
    def frames(self) -> range:
        """The numbers of the frames."""
        return range(self.first, self.first + len(self.levels))

    def part(self, frames: range) -> slice:
        """The slots of some frames."""
        return part_of(self.frames, frames)

    def enter(self, z: Tensor, level: int) -> None:
        """The next frames, z [n, C, h, w], take their places behind the others; nothing is kept about them yet."""
        self.z = torch.cat([self.z, z.to(self.z)])
        self.levels = self.levels + [level] * len(z)
        for name, rows in self.state.items():
            self.state[name] = torch.cat([rows, rows.new_zeros(len(z), *rows.shape[1:])])

    def out(self, number: int) -> FinishedFrame:
        """A frame with what is kept about it; it stays where it is."""
        at = number - self.first
        return FinishedFrame(number, self.z[at].clone(), {name: rows[at].clone() for name, rows in self.state.items()})

    def leave(self, before: int) -> None:
        """Frames with numbers below `before` are forgotten."""
        gone = max(0, before - self.first)
        if gone:  # copies: a view would keep the whole
            self.first, self.z, self.levels = self.first + gone, self.z[gone:].clone(), self.levels[gone:]
            self.state = {name: rows[gone:].clone() for name, rows in self.state.items()}

    def snapshot(self) -> dict[str, np.ndarray]:
        """All that is needed to go on from here, as arrays of its own; its size does not depend on the clip's length.
        With the same settings and batching what follows is then bit-equal."""
        found = {"z": self.z} | {f"state.{name}": rows for name, rows in self.state.items()}
        arrays = {name: np.array(tensor.cpu().numpy()) for name, tensor in found.items()}
        at = np.array([self.first, self.head, self.evaluations], np.int64)
        return arrays | {"levels": np.array(self.levels, np.int64), "at": at}

    @staticmethod
    def restore(arrays: Mapping[str, np.ndarray]) -> Queue:
        """The queue that `snapshot` saw, on the CPU."""
        first, head, evaluations = (int(value) for value in arrays["at"])
        kept = [name for name in arrays if name.startswith("state.")]
        state = {name.removeprefix("state."): torch.tensor(arrays[name]) for name in kept}
        levels = [int(level) for level in arrays["levels"]]
        return Queue(first, torch.tensor(arrays["z"]), levels, head, state, evaluations)

    def to(self, device: torch.device) -> None:
        """Everything moves to a device."""
        self.z = self.z.to(device)
        self.state = {name: rows.to(device) for name, rows in self.state.items()}


@dataclass(frozen=True, eq=False)
class Slots:
    """The slots that take a step, as a method sees them: n frames in the order of their numbers. spans: the windows in
    which they went through the network."""

    queue: Queue
    frames: range
    spans: Sequence[Span]
    pairs: Pairs
    schedule: Schedule
    eta: float
    seed: int

    @property
    def levels(self) -> list[int]:
        """Level of every slot before the step, 1 or more."""
        return self.queue.levels[self.queue.part(self.frames)]

    @property
    def z(self) -> Tensor:
        """Latents before the step, float32 [n, C, h, w]."""
        return self.queue.z[self.queue.part(self.frames)]

    @property
    def t(self) -> Tensor:
        """Training timesteps before the step, float32 [n]."""
        return torch.tensor([self.pairs[level - 1][0] for level in self.levels], device=self.queue.z.device)

    @property
    def to(self) -> Tensor:
        """Training timesteps after the step, float32 [n]; `schedule.END` is clean."""
        return torch.tensor([self.pairs[level - 1][1] for level in self.levels], device=self.queue.z.device)

    def rows(self, name: str, *shape: int) -> Tensor:
        """What is kept about every slot under a name, float32 [n, *shape], to be changed in place. Zeros about a frame
        that has just entered the queue; afterwards it travels with the frame, and comes out with it."""
        state, z = self.queue.state, self.queue.z
        if name not in state:
            state[name] = z.new_zeros(len(z), *shape)
        return state[name][self.queue.part(self.frames)]

    def noise(self, which: int = 1) -> Tensor:
        """Noise for a method's own use, float32 [n, C, h, w]: independent of the step's and of that of any other
        `which`; 0 is the step's."""
        return self._drawn(which * STREAMS)

    def step(self, x0: Tensor, eps: Tensor) -> Tensor:
        """The DDIM step of every slot from its level to the next (eq. 12), float32 [n, C, h, w]."""
        return self.schedule.step(x0, eps, self.t, self.to, self.eta, self._drawn(0) if self.eta else None)

    def _drawn(self, stream: int) -> Tensor:
        shape = self.queue.z.shape[1:]
        numbers = zip(self.frames, self.levels, strict=True)
        return torch.cat([drawn(self.seed, [n], shape, stream + level) for n, level in numbers]).to(self.queue.z.device)


Step = Callable[[Tensor, Tensor, Slots], Tensor]
"""(x0, eps, slots) -> latents one level further down, [n, C, h, w] each: where a method works. It may change what the
network predicted before `slots.step`, and what comes out of it; `slots.rows` is its memory."""


def ddim_step(x0: Tensor, eps: Tensor, slots: Slots) -> Tensor:
    """The step without an edit."""
    return slots.step(x0, eps)


def keep_outside(mask: Mask, source: Source, step: Step = ddim_step) -> Step:
    """A step after which what the mask leaves out is the source's at that level (RePaint, Lugmayr et al. 2022, eq. 8;
    ddim.sample does the same)."""

    def held(x0: Tensor, eps: Tensor, slots: Slots) -> Tensor:
        z = step(x0, eps, slots)
        places = [(range(n, n + 1), level - 1) for n, level in zip(slots.frames, slots.levels, strict=True)]
        free = torch.cat([mask(frame) for frame, _ in places]).to(z)
        kept = torch.cat([source(level, frame) for frame, level in places]).to(z)
        return free * z + (1 - free) * kept

    return held


@dataclass(frozen=True, eq=False)
class Denoiser:
    """How every frame of a queue is denoised.

    condition: of one clip (B = 1). batch: windows through the network at once, all by default. eta: of the DDIM step; 0
    is deterministic, 1 is DDPM's variance. seed: of its noise. step: a method's edit.
    """

    backbone: Backbone
    condition: Condition
    guidance: float = 1.0
    batch: int | None = None
    eta: float = 0.0
    seed: int = 0
    step: Step = ddim_step


@torch.no_grad()
def advance(
    denoiser: Denoiser, queue: Queue, spans: Sequence[Span], pairs: Pairs, shares: Sequence[Tensor] | None = None
) -> None:
    """Every frame that a window writes goes one level down, whatever its level; in place.

    queue: on the network's device. spans: windows of one length, which write neighbouring frames one after the other
    (`cut`). shares: of what each window predicts of the frames it reads, in what is predicted of them in all
    (`Windows.weights`, float32 [length]); by default a frame's prediction is that of the window that writes it. Frames
    that are done are shown to the network at the cleanest timestep. Raises what `predict` raises.
    """
    backbone, condition, batch = denoiser.backbone, denoiser.condition, denoiser.batch or len(spans)
    done = max(pairs[0][1], 0.0)
    t = torch.tensor([pairs[level - 1][0] if level else done for level in queue.levels], device=queue.z.device)
    written = range(spans[0].writes.start, spans[-1].writes.stop)
    x0, eps = (torch.zeros_like(queue.z[queue.part(written)]) for _ in range(2))
    for at in range(0, len(spans), batch):
        some = spans[at : at + batch]
        z, seen = (torch.stack([rows[queue.part(span.reads)] for span in some]) for rows in (queue.z, t))
        found = backbone.predict(z, seen, repeated(condition, len(some)), denoiser.guidance)
        queue.evaluations += seen.numel() * (1 if denoiser.guidance == 1.0 else 2)
        for k, (span, *predicted) in enumerate(zip(some, *found, strict=True), at):
            kept = span.writes if shares is None else span.reads
            rows, of = part_of(written, kept), part_of(span.reads, kept)
            weight = 1.0 if shares is None else shares[k].to(x0)[:, None, None, None]
            for whole, own in zip((x0, eps), predicted, strict=True):
                whole[rows] += weight * own[of]
    slots = Slots(queue, written, spans, pairs, backbone.schedule, denoiser.eta, denoiser.seed)
    made, part = denoiser.step(x0, eps, slots), queue.part(slots.frames)
    queue.z[part] = made
    queue.levels[part] = [level - 1 for level in queue.levels[part]]


def drawn(seed: int, frames: Sequence[int], shape: Sequence[int], stream: int = 0) -> Tensor:
    """`ddim.noise`, also for the negative numbers of frames that only warm the queue up."""
    return noise(seed, [number % (1 << 32) for number in frames], shape, stream)
