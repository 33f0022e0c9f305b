"""Diagonal denoising: clips of any length through a queue whose frames stand at rising levels of noise.

FIFO-Diffusion (Kim et al. 2024, https://arxiv.org/abs/2405.11473): one iteration takes every frame in the queue one
level down; the cleanest comes out, all others move up, and a new one enters at the noisy end. Memory depends on the
queue alone. The queue is longer than what the network sees at once, so it is cut into windows (latent partitioning);
with lookahead a window's cleaner part is only looked at, so that every frame is denoised beside frames that are cleaner
than itself.

Frames that enter are noise (generation, begun with a clip made otherwise) or a source clip's own frames at some level
(editing: output k is made of source k, and levels above the one it enters at are never run).

    diagonal = Diagonal.of(backbone, steps=64, start=19)
    queue = begin(diagonal, source)                              # or Queue.restore(snapshot)
    for frame, z, state in run_queue(Denoiser(backbone, condition), queue, diagonal, source, len(clip)):
        ...                                                      # queue.snapshot() goes on behind this frame

The paper counts ranks from 0; a frame of rank r is here at level r + 1, before its step to level r.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from retake.diffusion.backbone import Backbone
from retake.diffusion.sampling.ddim import Source
from retake.diffusion.sampling.fifo_queue import Denoiser, FinishedFrame, Queue, Span, advance, cut
from retake.diffusion.sampling.windows import Windows
from retake.diffusion.schedule import StepPair
from retake.errors import ConfigError


@dataclass(frozen=True)
class Diagonal:
    """A queue's shape. pairs: the steps of its levels, cleanest first; one slot a level. window: frames that the
    network sees at once. lookahead: how many of them, at the clean end, are only looked at: half of the window as
    published, 0 for latent partitioning alone.

    Raises ConfigError E290 unless 0 <= lookahead < window.
    """

    pairs: tuple[StepPair, ...]
    window: int
    lookahead: int

    def __post_init__(self) -> None:
        if not 0 <= self.lookahead < self.window:
            raise ConfigError(
                "E290",
                f"windows of {self.window} latent frames cannot overlap by {self.lookahead}",
                f"Give a lookahead of 0 to {self.window - 1}.",
            )

    @staticmethod
    def of(backbone: Backbone, steps: int, start: int | None = None, lookahead: int | None = None) -> Diagonal:
        """The levels that `sample` with `steps` goes through from level `start`, so that inversions and `forward` serve
        both; in windows of the length that the model works at. Raises ConfigError E275 for levels that the schedule
        does not have."""
        pairs, start = tuple(reversed(backbone.schedule.step_pairs(steps))), steps if start is None else start
        if not 1 <= start <= steps:
            raise ConfigError("E275", f"a queue of {start} levels, of {steps} steps", f"Give 1 to {steps}.")
        window = backbone.length
        return Diagonal(pairs[:start], window, window // 2 if lookahead is None else lookahead)

    @property
    def levels(self) -> int:
        """How many slots are denoised at once: the level at which frames enter."""
        return len(self.pairs)

    def spans(self, head: int, first: int, count: int | None = None) -> list[Span]:
        """The windows of the iteration from which frame `head` comes out, cleanest first.

        first: the lowest frame there is. count: of the clip, or endless. At the start of a clip, where nothing cleaner
        is left to look at, windows take in frames that wait to enter.
        """
        last = sys.maxsize if count is None else count
        live = range(max(head, first), min(head + self.levels, last))
        return cut(live, self.window, self.lookahead, first, last)

    def evaluations(self, count: int, ready: int = 1, repeat: bool = False, guided: bool = False) -> int:
        """Frames that the network must be asked about for a clip of `count` frames (see `begin`), from the first
        iteration to the last; guided ones count twice."""
        head = ready - self.levels
        first = head - self.lookahead if repeat else 0
        reads = sum(len(span.reads) for at in range(head, count) for span in self.spans(at, first, count))
        return reads * (2 if guided else 1)


def begin(diagonal: Diagonal, source: Source, ready: int = 1, repeat: bool = False) -> Queue:
    """A queue before its first iteration: frames 0 to ready - 1 of the source at the noisiest levels, rising.

    ready: 1 for editing, where every frame enters at the noisiest level; the length of the base clip for generation.
    repeat: as published, all cleaner slots are filled too, with frames before the first (`generated` gives the base
    clip's first at rising levels), and work through the queue to be thrown away; otherwise these slots are never run.

    Raises ConfigError E293 where the queue has fewer levels than frames are ready.
    """
    if not 1 <= ready <= diagonal.levels:
        raise ConfigError(
            "E293",
            f"a base clip of {ready} latent frames for a queue of {diagonal.levels} levels",
            f"Give a base clip of 1 to {diagonal.levels} latent frames, or more levels.",
        )
    head = ready - diagonal.levels
    first = head - diagonal.lookahead if repeat else 0
    levels = [max(0, number - head + 1) for number in range(first, ready)]
    z = [source(level, range(number, number + 1)) for number, level in enumerate(levels, first)]
    return Queue(first, torch.cat(z).float(), levels, head)


@torch.no_grad()
def run_queue(
    denoiser: Denoiser,
    queue: Queue,
    diagonal: Diagonal,
    source: Source,
    count: int | None = None,
    between: Callable[[], None] = lambda: None,
) -> Iterator[FinishedFrame]:
    """Frames as they are done, in order, each after one iteration of the queue, which is changed in place.

    denoiser: eta=1 as published. source: what enters, asked for its noisiest level alone. count: of the clip; nothing
    enters behind its last frame, and the queue runs empty. Endless by default (what enters behind the last frame that
    is wanted is then work for nothing, as published). between: called between iterations, also while the queue warms up
    and nothing comes out of it.

    Between two iterations `queue.snapshot()` holds all that is needed to go on. Memory: the queue's slots and up to a
    window of frames on either side, and the network's for `batch` windows; results for different batches agree to
    rounding. Raises what Backbone.predict raises.
    """
    queue.to(denoiser.backbone.device)
    while count is None or queue.head < count:
        number = queue.head
        spans = diagonal.spans(number, queue.first, count)
        entering = range(queue.frames.stop, spans[-1].reads.stop)
        if entering:
            queue.enter(source(diagonal.levels, entering), diagonal.levels)
        advance(denoiser, queue, spans, diagonal.pairs)
        queue.head += 1
        done = queue.out(number) if number >= 0 else None
        queue.leave(queue.head - diagonal.window + 1)  # the last window of a clip looks back so far
        if done is not None:
            yield done
        between()


def together(diagonal: Diagonal, source: Source, count: int) -> Queue:
    """All `count` frames of a clip at the noisiest level, for `run_windows`."""
    return Queue(0, source(diagonal.levels, range(count)).float(), [diagonal.levels] * count)


@torch.no_grad()
def run_windows(
    denoiser: Denoiser, queue: Queue, diagonal: Diagonal, between: Callable[[], None] = lambda: None
) -> Iterator[FinishedFrame]:
    """What `run_queue` does with a clip, as ordinary sampling does it: all frames stand at one level, and come out
    together after the last.

    queue: from `together`, or restored. Windows share `diagonal.lookahead` frames, over which what the network predicts
    is blended (windows.py). With the same methods, and fewer evaluations: a frame is seen by window / (window - shared)
    windows a level, whatever the number of levels. between: called between levels, when `queue.snapshot()` holds all
    that is needed to go on. Memory: several times the clip's latents, and the network's for `batch` windows.
    """
    queue.to(denoiser.backbone.device)
    windows = Windows(len(queue.levels), diagonal.window, diagonal.lookahead)
    ends = [*(span.start for span in windows.spans[1:]), windows.count]
    starts = [0, *ends[:-1]]
    spans = [Span(reads, range(*part)) for reads, *part in zip(windows.spans, starts, ends, strict=True)]
    while queue.levels[0]:
        advance(denoiser, queue, spans, diagonal.pairs, windows.weights)
        between()
    yield from (queue.out(number) for number in queue.frames)
