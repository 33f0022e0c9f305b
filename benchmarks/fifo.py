"""Diagonal denoising: what a frame costs, against FIFO-Diffusion as published and against plain windows.

A frame is a slot of the queue: a latent frame, which of `embedded_dit` stands for four of the clip. *Frames asked*
counts those through the network for each that comes out, from the first iteration to the last; with guidance a frame
counts twice. The published loop generates: 64 levels, twice as many windows as four partitions have, every rank from
pure noise on, slots before the first frame that are denoised and thrown away, and behind the last frame a tail of
frames that are denoised and never shown. An edit makes output k of source frame k: nothing enters behind the last
frame, and source frames may enter at the level from which they are edited. Windows are ordinary sampling: all frames at
one level, in windows that overlap and are blended (`edit.diagonal=false`).

The published loop of the clock is written plainly: windows one after the other, from the noisy end to the clean one,
the network called once with the prompt and once without. Ours asks about all windows and both prompts in one batch.
Both generate the same clip on one network, tail included; *difference* is the largest between the two, as a share of
the largest value. Queue and windows are timed on one edit: the same clip, noise, prompt, levels and batch of windows.

With a GPU: AnimateDiff on SD 1.5 at 512x320 (16 frames of 40x64 latents, 1.3 B parameters, random weights), the steps
that lead from the published loop to ours one by one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from benchmarks.cases import PUBLISHED, SEED, Case, randomised, shipped
from benchmarks.diffusion import GUIDANCE, matmul, timed
from benchmarks.embedded import MODELS
from retake.diffusion.model import Model

if TYPE_CHECKING:
    import torch

    from retake.diffusion.sampling.fifo import Diagonal

CLIP = 100
LENGTHS = 16, 46, CLIP
LOOKAHEADS = 8, 4, 0
OVERLAP, BATCH = 4, 2  # of windows: shared frames; how many at once where queue and windows are timed
SMOKE = {"frames": 1, "lookaheads": (1,), "overlap": 1}


def run(
    models: Mapping[str, Model] = MODELS,
    frames: int = CLIP,
    lookaheads: Sequence[int] = LOOKAHEADS,
    overlap: int = OVERLAP,
) -> list[dict[str, Any]]:
    """Rows of the tables, in the order above."""
    import torch

    cases = [shipped(model) for model in models.values()]
    alike = {case.backbone.length: case for case in cases}  # counts depend on the length of a window alone
    rows = [row for case in alike.values() for row in asked(case, lookaheads, overlap)]
    rows += [row for case in cases for row in edited(case, frames, overlap)]
    rows += [row for case in cases for row in generated(case, frames)]
    if torch.cuda.is_available():
        rows += on_a_gpu()
    return rows


# ---- frames asked --------------------------------------------------------------------------------------------------


def asked(case: Case, lookaheads: Sequence[int], overlap: int) -> Iterator[dict[str, Any]]:
    """A row for the published loop with its tail and without, and over all levels and over an edit's one for the queue
    with each lookahead and one for windows."""
    from benchmarks.published_fifo import loop_evaluations, published
    from retake.diffusion.sampling.fifo import Diagonal
    from retake.diffusion.sampling.windows import Windows
    from retake.methods.moca import STEPS, levels_below
    from retake.methods.moca.presets import RECOMMENDED

    b = case.backbone
    whole = published(b)
    counts: list[tuple[str, int, int, Callable[[int], int]]] = [
        ("generation, the published loop", whole.levels, whole.lookahead, lambda n: loop_evaluations(whole, n)),
        (
            "generation, our queue, nothing entering behind the last frame",
            whole.levels,
            whole.lookahead,
            lambda n: whole.evaluations(n, ready=b.length, repeat=True, guided=True),
        ),
    ]
    for levels in (STEPS, levels_below(b, STEPS, RECOMMENDED.enter)):
        for ahead in (one for one in lookaheads if one < b.length):
            diagonal = Diagonal.of(b, STEPS, levels, ahead)
            counts.append(("edit, queue", levels, ahead, lambda n, d=diagonal: d.evaluations(n, guided=True)))
        counts.append(
            (
                "edit, windows",
                levels,
                overlap,
                lambda n, levels=levels: 2 * levels * sum(map(len, Windows.of(b, n, overlap).spans)),
            )
        )
    for way, levels, beside, count in counts:
        yield {
            "table": f"Frames asked for each frame of a clip, with guidance; windows of {b.length}",
            "": way,
            "levels": levels,
            "frames looked at beside, or shared": beside,
            **{f"clip of {length}": count(length) / length for length in LENGTHS},
        }


# ---- an edit by the queue and by windows ---------------------------------------------------------------------------


def edited(case: Case, frames: int, overlap: int) -> Iterator[dict[str, Any]]:
    """Two rows: a clip of so many frames through an edit's levels by the queue and by windows, nothing mixed in."""
    from retake.diffusion.sampling.ddim import forward, noise
    from retake.diffusion.sampling.fifo import Diagonal, begin, run_queue, run_windows, together
    from retake.diffusion.sampling.fifo_queue import Denoiser
    from retake.methods.moca import STEPS, levels_below
    from retake.methods.moca.presets import RECOMMENDED

    b = case.backbone
    base = noise(SEED, range(frames), b.grid(b.frames, b.height, b.width)[1:]).to(b.device)
    source = forward(b.schedule, lambda span: base[span.start : span.stop], STEPS, SEED)
    diagonal = Diagonal.of(b, STEPS, levels_below(b, STEPS, RECOMMENDED.enter), overlap)
    denoiser = Denoiser(b, case.condition, GUIDANCE, batch=BATCH, eta=1.0, seed=SEED)
    asked: dict[str, int] = {}

    def by_queue() -> None:
        queue = begin(diagonal, source)
        assert sum(1 for _ in run_queue(denoiser, queue, diagonal, source, frames)) == frames
        asked["queue"] = queue.evaluations

    def by_windows() -> None:
        queue = together(diagonal, source, frames)
        assert sum(1 for _ in run_windows(denoiser, queue, diagonal)) == frames
        asked["windows"] = queue.evaluations

    taken = {"queue": timed(by_queue, b.device), "windows": timed(by_windows, b.device)}
    for name, time in taken.items():
        yield {
            "table": f"Edit of {frames} frames, guidance {GUIDANCE:g}, {diagonal.levels} levels",
            "model": f"{case.name}, {b.width}x{b.height}, {str(b.dtype).removeprefix('torch.')}",
            "": f"{name}, {'lookahead' if name == 'queue' else 'overlap'} {overlap}",
            "frames asked": asked[name] / frames,
            "seconds": time.wall,
            "to the queue": time.wall / taken["queue"].wall,
            "CPU time, to it": time.cpu / taken["queue"].cpu,
        }


# ---- generation against the published loop -------------------------------------------------------------------------


def generated(case: Case, frames: int) -> Iterator[dict[str, Any]]:
    """Two rows: a clip of so many frames by ours and by the published loop."""
    from benchmarks.published_fifo import published
    from retake.diffusion.sampling.ddim import noise, sample

    b = case.backbone
    grid = b.grid(b.frames, b.height, b.width)
    base = noise(SEED, range(grid.frames), grid[1:]).to(b.device)
    base = sample(b, base, case.condition, steps=20, guidance=GUIDANCE)[0 : grid.frames]
    diagonal = published(b)
    made: dict[str, Any] = {}
    ways: dict[str, Callable[..., Any]] = {"retake": ours, "  published loop": published_loop}
    taken = {}
    for name, way in ways.items():

        def work(name: str = name, way: Callable[..., Any] = way) -> None:
            made[name] = way(case, diagonal, base, frames)

        taken[name] = timed(work, b.device)
    theirs = made["  published loop"]
    off = float((made["retake"] - theirs).abs().max() / theirs.abs().max())
    for name in ways:
        yield {
            "table": f"Generation of {frames} frames and a tail, guidance {GUIDANCE:g}, {diagonal.levels} levels",
            "model": f"{case.name}, {b.width}x{b.height}, {str(b.dtype).removeprefix('torch.')}",
            "": name,
            "seconds": taken[name].wall,
            "seconds a frame": taken[name].wall / frames,
            "to the published loop": taken[name].wall / taken["  published loop"].wall,
            "CPU time, to it": taken[name].cpu / taken["  published loop"].cpu,
            "difference": f"{off:.1e}" if name == "retake" else None,
        }


def ours(case: Case, diagonal: Diagonal, base: torch.Tensor, frames: int) -> torch.Tensor:
    """Latents [n, C, h, w] of a generated clip."""
    import torch

    from benchmarks.published_fifo import generated
    from retake.diffusion.sampling.fifo import begin, run_queue
    from retake.diffusion.sampling.fifo_queue import Denoiser

    source = generated(case.backbone.schedule, diagonal.pairs, base, SEED)
    queue = begin(diagonal, source, len(base), repeat=True)
    denoiser = Denoiser(case.backbone, case.condition, GUIDANCE, eta=1.0, seed=SEED)
    running = run_queue(denoiser, queue, diagonal, source)
    return torch.stack([one.z for one in islice(running, frames)])


def published_loop(case: Case, diagonal: Diagonal, base: torch.Tensor, frames: int) -> torch.Tensor:
    """The same clip, as the published code goes about it. Two things are ours, so that results can be compared: the
    noise, drawn for each slot, and the lookahead slots' timestep."""
    import torch

    from benchmarks.published_fifo import generated
    from retake.diffusion.sampling.fifo import begin
    from retake.diffusion.sampling.fifo_queue import drawn

    b, half, window = case.backbone, diagonal.lookahead, diagonal.window
    source = generated(b.schedule, diagonal.pairs, base, SEED)
    queue = begin(diagonal, source, len(base), repeat=True)
    z = queue.z.to(b.device)
    times = [diagonal.pairs[0][0]] * half + [t for t, _ in diagonal.pairs]
    below = [diagonal.pairs[0][1]] * half + [to for _, to in diagonal.pairs]
    t, to = (torch.tensor(values, device=b.device) for values in (times, below))
    out = []
    for head in range(queue.head, frames):
        for at in reversed(range(0, len(z) - half, window - half)):
            reads, kept = slice(at, at + window), slice(at + half, at + window)
            with torch.no_grad():
                with_, without = (
                    b.forward(z[None, reads], t[None, reads], inputs).float()
                    for inputs in (case.condition.positive, case.condition.negative)
                )
            output = without + GUIDANCE * (with_ - without)
            x0, eps = b.schedule.to_x0_eps(output, z[None, reads], t[None, reads])
            slots = range(*kept.indices(len(z)))
            fresh = [drawn(SEED, [head + slot - half], base.shape[1:], slot - half + 1) for slot in slots]
            z[kept] = b.schedule.step(
                x0[0, half:], eps[0, half:], t[kept], to[kept], 1.0, torch.cat(fresh).to(b.device)
            )
        if head >= 0:
            out.append(z[half].clone())
        new = source(diagonal.levels, range(head + diagonal.levels, head + diagonal.levels + 1)).to(z)
        z = torch.cat([z[1:], new])
    return torch.stack(out)


# ---- on a GPU ------------------------------------------------------------------------------------------------------


def on_a_gpu(frames: int = 4) -> Iterator[dict[str, Any]]:
    """What each step from the published loop to ours brings at real size: seconds a frame, memory, share of matmul."""
    import torch

    from benchmarks.published_fifo import published
    from retake.diffusion.cost.measure import PUBLISHED as ARCHITECTURES

    device = torch.device("cuda")
    steps: list[tuple[str, str, Callable[..., Any], bool]] = [
        ("published loop, float32", "float32", published_loop, False),
        ("published loop, bfloat16", "bfloat16", published_loop, False),
        ("all windows in one batch", "bfloat16", ours, False),
        ("compiled", "bfloat16", ours, True),
    ]
    for name, dtype, way, compiled in steps:
        size = dataclasses.replace(ARCHITECTURES["animatediff"], dtype=dtype, height=320, width=512)
        case = randomised("animatediff", size, PUBLISHED["animatediff"], device)
        b = case.backbone
        if compiled:
            b.parts.use("network").compile(dynamic=False)  # type: ignore[attr-defined]
        diagonal = published(b)
        base = torch.randn(b.grid(b.frames, b.height, b.width)).to(device)
        queue_warm = diagonal.levels - b.length  # iterations before the first frame
        way(case, diagonal, base, 1)
        torch.cuda.reset_peak_memory_stats(device)
        taken = timed(lambda w=way, c=case, d=diagonal, z=base: w(c, d, z, frames), device).wall / (frames + queue_warm)
        asked = diagonal.evaluations(1, ready=b.length, repeat=True, guided=True) / (1 + queue_warm) / b.length
        yield {
            "table": "AnimateDiff, 512x320, 16 frames, random weights: one frame of a generated clip",
            "": name,
            "seconds a frame": taken,
            "of matmul": asked * case.flops / matmul(device, b.dtype) / taken,
            "peak, GiB": torch.cuda.max_memory_allocated(device) / 2**30,
        }
        del case, b
        torch.cuda.empty_cache()
