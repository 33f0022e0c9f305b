"""Diagonal denoising: what a frame costs, against the schedule that FIFO-Diffusion published.

*Frames asked* counts frames through the network for each frame that comes out, over a clip of 100; with guidance a
frame counts twice. Published: 64 levels, twice as many windows as four partitions have, every rank from pure noise on,
and slots before the first frame that are denoised and thrown away. `edit=moca` lets a source frame enter at the level
from which it is edited.

The peer of the clock is the published loop, written plainly: windows one after the other, from the noisy end to the
clean one, the network called once with the prompt and once without. Ours asks about all windows and both prompts in one
batch. Both generate the same clip on one network; *difference* is the largest between the two, as a share of the
largest value.

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
LOOKAHEADS = 8, 4, 0
SMOKE = {"frames": 1, "lookaheads": (2,)}


def run(
    models: Mapping[str, Model] = MODELS, frames: int = CLIP, lookaheads: Sequence[int] = LOOKAHEADS
) -> list[dict[str, Any]]:
    """Rows of the tables, in the order above."""
    import torch

    cases = [shipped(model) for model in models.values()]
    rows = [row for case in cases for row in asked(case, lookaheads)]
    rows += [row for case in cases for row in generated(case, frames)]
    if torch.cuda.is_available():
        rows += on_a_gpu()
    return rows


# ---- frames asked --------------------------------------------------------------------------------------------------


def asked(case: Case, lookaheads: Sequence[int]) -> Iterator[dict[str, Any]]:
    """A row for the published schedule, and one for an edit with each lookahead."""
    from benchmarks.published_fifo import published
    from retake.diffusion.sampling.fifo import Diagonal
    from retake.methods.moca import STEPS, levels_below
    from retake.methods.moca.presets import RECOMMENDED

    b = case.backbone
    whole = published(b)
    most = whole.evaluations(CLIP, ready=b.length, repeat=True, guided=True)
    start = levels_below(b, STEPS, RECOMMENDED.enter)
    ways: dict[str, tuple[Diagonal, int]] = {"published": (whole, most)}
    for ahead in lookaheads:
        diagonal = Diagonal.of(b, STEPS, start, ahead)
        ways[f"edit=moca, edit.lookahead={ahead}"] = diagonal, diagonal.evaluations(CLIP, guided=True)
    for way, (diagonal, count) in ways.items():
        yield {
            "table": f"Frames asked for each of {CLIP} that come out",
            "model": case.name,
            "": way,
            "levels": diagonal.levels,
            "frames asked": count / CLIP,
            "published to this": most / count,
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
            "table": f"Generation of {frames} frames, guidance {GUIDANCE:g}, {diagonal.levels} levels",
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
