"""Diagonal denoising: what a frame costs, against the schedule that FIFO-Diffusion published.

*Frames asked* counts frames through the network for each frame that comes out, over a clip of 100; with guidance a
frame counts twice. Published: 64 levels, twice as many windows as four partitions have, every rank from pure noise on,
and slots before the first frame that are denoised and thrown away. `edit=moca` lets a source frame enter at the level
from which it is edited.

The peer of the clock is the published loop, written plainly: windows one after the other, from the noisy end to the
clean one, the network called once with the prompt and once without. Ours asks about all windows and both prompts in one
batch. Both generate the same clip on one network; *difference* is the largest between the two, as a share of the
largest value.

A long clip is edited by `edit=moca` in fresh processes, as in `stages`: peak memory, and time a frame. The edit of the
longer one is then killed by the system (SIGKILL) at frames drawn at random, and run again: *repeated* counts frames
that came out of the queue twice.

With a GPU: AnimateDiff on SD 1.5 at 512x320 (16 frames of 40x64 latents, 1.3 B parameters, random weights), the steps
that lead from the published loop to ours one by one.
"""

from __future__ import annotations

import dataclasses
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.cases import PUBLISHED, SEED, Case, randomised, shipped
from benchmarks.diffusion import GUIDANCE, matmul, timed
from benchmarks.embedded import MODELS
from benchmarks.stages import passed
from benchmarks.watched import watched
from retake.diffusion.model import Model

if TYPE_CHECKING:
    import torch

    from retake.diffusion.fifo import Diagonal

CLIP = 100
LOOKAHEADS = 8, 4, 0
LONG = 75, 300
EDIT = (
    "edit=moca",
    "model=embedded_dit",
    "edit.reference=params/dataset/ball.png",
    "edit.source_prompt=a red disc moves right",
    "masks.box=[20,21,74,76]",  # around the disc of sprites:drift at this size
)
KILLS = 3


def run(models: Mapping[str, Model] = MODELS, frames: int = CLIP, long: tuple[int, int] = LONG) -> list[dict[str, Any]]:
    """Rows of the tables, in the order above."""
    import torch

    cases = [shipped(model) for model in models.values()]
    rows = [row for case in cases for row in asked(case)]
    rows += [row for case in cases for row in generated(case, frames)]
    rows += edited(long)
    if torch.cuda.is_available():
        rows += on_a_gpu()
    return rows


# ---- frames asked --------------------------------------------------------------------------------------------------


def asked(case: Case) -> Iterator[dict[str, Any]]:
    """A row for the published schedule, and one for an edit with each lookahead."""
    from retake.diffusion.fifo import Diagonal
    from retake.methods.moca import STEPS, levels_below
    from retake.methods.moca.rule import RECOMMENDED

    b = case.backbone
    published = Diagonal.published(b)
    most = published.evaluations(CLIP, ready=b.length, repeat=True, guided=True)
    start = levels_below(b, STEPS, RECOMMENDED.enter)
    ways: dict[str, tuple[Diagonal, int]] = {"published": (published, most)}
    for ahead in LOOKAHEADS:
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
    from retake.diffusion.fifo import Diagonal
    from retake.diffusion.sampling import noise, sample

    b = case.backbone
    grid = b.grid(b.frames, b.height, b.width)
    base = noise(SEED, range(grid.frames), grid[1:]).to(b.device)
    base = sample(b, base, case.condition, steps=20, guidance=GUIDANCE)[0 : grid.frames]
    diagonal = Diagonal.published(b)
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

    from retake.diffusion.fifo import begin, emitted, generated

    source = generated(case.backbone.schedule, diagonal.pairs, base, SEED)
    queue = begin(diagonal, source, len(base), repeat=True)
    running = emitted(case.backbone, queue, diagonal, case.condition, source, guidance=GUIDANCE, eta=1.0, seed=SEED)
    return torch.stack([one.z for one in islice(running, frames)])


def published_loop(case: Case, diagonal: Diagonal, base: torch.Tensor, frames: int) -> torch.Tensor:
    """The same clip, as the published code goes about it. Two things are ours, so that results can be compared: the
    noise, drawn for each slot, and the lookahead slots' timestep."""
    import torch

    from retake.diffusion.fifo import begin, generated
    from retake.diffusion.slots import drawn

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
                    b.forward(z[None, reads], t[None, reads], told).float()
                    for told in (case.condition.wanted, case.condition.unwanted)
                )
            output = without + GUIDANCE * (with_ - without)
            x0, eps = b.schedule.split(output, z[None, reads], t[None, reads])
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


# ---- a long clip ---------------------------------------------------------------------------------------------------


def edited(frames: tuple[int, int]) -> Iterator[dict[str, Any]]:
    """Rows of two tables: memory and time of an edit, and what a kill costs."""
    with tempfile.TemporaryDirectory(prefix="retake-bench-") as folder:
        clip, found = Path(folder) / "clip.mp4", {}
        watched(__name__, ["write_clip", str(clip), str(frames[1])])
        for count in frames:
            order = prepared(Path(folder) / f"store-{count}", clip, count)
            found[count] = watched("benchmarks.stages", ["measure", *order])
        times = told(prepared(Path(folder) / "store-told", clip, frames[1]))
        rows = list(killed(prepared(Path(folder) / "store-killed", clip, frames[1]), frames[1]))
    short, long = (found[count] for count in frames)
    quarter = frames[1] // 4
    yield {
        "table": f"edit=moca on a clip of {frames[1]} frames, against {frames[0]}",
        "frames": frames[1],
        "ms a frame, second quarter": 1000 * (times[2 * quarter] - times[quarter]) / quarter,
        "last quarter": 1000 * (times[4 * quarter] - times[3 * quarter]) / quarter,
        "peak, MB": long["both"] / 1e6,
        f"peak on {frames[0]} frames, MB": short["both"] / 1e6,
        "ratio": long["both"] / short["both"],
    }
    yield from rows


def prepared(store: Path, clip: Path, count: int) -> list[str]:
    """Everything before the edit in a store of its own; what stages.py is told to run it."""
    order = ["edit", str(clip), str(store), str(count), *EDIT]
    watched("benchmarks.stages", ["prepare", *order])
    return order


def told(order: list[str]) -> dict[int, float]:
    """When each frame came out of the queue, in seconds."""
    process = subprocess.Popen([sys.executable, "-m", __name__, "tell", *order], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    times = {int(line): time.perf_counter() for line in process.stdout}
    process.wait()
    return times


def killed(order: list[str], count: int) -> Iterator[dict[str, Any]]:
    """Kill the edit at frames drawn at random, each time going on in a store of what the one before left behind."""
    chosen, keep = sorted(random.Random(SEED).sample(range(1, count), KILLS)), 16
    reached = None
    for at in [*chosen, 0]:  # the last only shows where it goes on
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, "tell", *order], stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(int(line))
            if seen[-1] >= at:
                process.send_signal(signal.SIGKILL)
                break
        seen += [int(line) for line in process.stdout]
        process.wait()
        if reached is not None:
            yield {
                "table": f"Killed while it edits {count} frames, a state every {keep}",
                "killed behind frame": reached,
                "went on behind frame": seen[0] - 1,
                "repeated": reached - (seen[0] - 1),
            }
        reached = seen[-1]


def tell(stage: str, *order: str) -> None:
    """Run a stage, and print every frame that comes out of the queue."""
    from retake.stage import Work

    plain = Work.progress

    def progress(self: Work, done: int, total: int) -> None:
        plain(self, done, total)
        print(done, flush=True)

    Work.progress = progress  # type: ignore[method-assign]
    passed(stage, False, *order)


def write_clip(path: str, frames: str) -> None:
    """So many frames of sprites:drift at the models' size."""
    from retake.synthetic import scenes
    from retake.synthetic.world import World
    from retake.video import encode

    world = World(scenes.scene("drift", width=128, height=128, frames=int(frames), fps=30))
    encode(path, (world.frame(t) for t in range(world.frames)), 30, preset="veryfast", crf=12)


# ---- on a GPU ------------------------------------------------------------------------------------------------------


def on_a_gpu(frames: int = 4) -> Iterator[dict[str, Any]]:
    """What each step from the published loop to ours brings at real size: seconds a frame, memory, share of matmul."""
    import torch

    from retake.diffusion.cost import PUBLISHED as ARCHITECTURES
    from retake.diffusion.fifo import Diagonal

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
        diagonal = Diagonal.published(b)
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


if __name__ == "__main__":
    {"write_clip": write_clip, "tell": tell}[sys.argv[1]](*sys.argv[2:])
