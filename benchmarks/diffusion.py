"""Our sampling and inversion against diffusers' own loops: one network in memory, the same noise, text and timesteps.

Peers: the `__call__` of AnimateDiffPipeline and CogVideoXPipeline, from latents to latents, and for inversion the loop
that users of diffusers write: DDIMInverseScheduler around the pipeline's network. Who goes first alternates from round
to round; times are medians, ratios the medians of the rounds' own. *Evaluations* are calls of the network; a call with
guidance holds two clips. *Difference* is the largest between the two results, as a share of the largest value in
theirs. *Back* is what is lost when each denoises what it inverted (root mean square; latents have about unit variance).
*Of matmul* is the rate of floating-point operations as a share of what this machine reaches, in the same run and
precision, on one large matrix product.

For a network that predicts noise both take the same inverse step, and ours rounds every level to float16, as it is
stored. For one that predicts velocity ours solves for the level above, theirs extrapolates from the level below:
results differ, and *back* says which is nearer. Such a network is then also read as if it predicted noise.

The embedded models run wherever this runs. With a GPU, AnimateDiff on SD 1.5 (512x512, 16 frames) and CogVideoX-2B
(720x480, 49 frames) follow at their real configurations, with random weights, in bfloat16: what they cost does not
depend on what they know. The pipelines round latents to bfloat16 after every step, ours do not.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.cases import PUBLISHED, SEED, Case, randomised, reading_noise, shipped
from benchmarks.embedded import MODELS
from retake.diffusion.model import Model

if TYPE_CHECKING:
    import torch

STEPS, ROUNDS = 20, 5
REAL_STEPS, REAL_ROUNDS = 8, 3
GUIDANCE = 6.0


class Run(NamedTuple):
    """What a contender did: latents [F, C, h, w], calls of the network, peak memory on the GPU in bytes (else 0)."""

    latents: torch.Tensor
    evaluations: int
    memory: int


class Time(NamedTuple):
    """Seconds that passed, and seconds of the processor."""

    wall: float
    cpu: float


SMOKE = {"steps": 2, "rounds": 1}


def run(models: Mapping[str, Model] = MODELS, steps: int = STEPS, rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """Rows of a table for the embedded models, and with a GPU of one for real sizes."""
    import torch

    rows = [row for model in models.values() for row in compared(shipped(model), steps, rounds)]
    if torch.cuda.is_available():
        from retake.diffusion.cost.measure import PUBLISHED as ARCHITECTURES

        for name, schedule in PUBLISHED.items():
            architecture = dataclasses.replace(ARCHITECTURES[name], dtype="bfloat16")
            case = randomised(name, architecture, schedule, torch.device("cuda"))
            rows += compared(case, REAL_STEPS, REAL_ROUNDS)
            del case
            torch.cuda.empty_cache()
    return rows


# ---- contenders ----------------------------------------------------------------------------------------------------


class Retake:
    """Our loops on a case."""

    def __init__(self, case: Case) -> None:
        self.backbone, self.condition = case.backbone, case.condition

    def sample(self, z: torch.Tensor, steps: int, guidance: float) -> torch.Tensor:
        """From noise [F, C, h, w] to latents."""
        import torch

        from retake.diffusion.sampling.ddim import sample

        return torch.as_tensor(sample(self.backbone, z.clone(), self.condition, steps=steps, guidance=guidance))

    def invert(self, z: torch.Tensor, steps: int) -> torch.Tensor:
        """From latents [F, C, h, w] to noise, one evaluation a step."""
        import torch

        from retake.diffusion.sampling.inversion import invert

        def new(dtype: torch.dtype) -> torch.Tensor:
            return torch.empty_like(z, dtype=dtype)

        top = z
        for level in invert(self.backbone, z, self.condition, steps=steps, iterations=0, new=new):
            top = torch.as_tensor(level.latents)
        return top.float()


class Diffusers:
    """diffusers' pipeline around the very network of a backbone, and its inverse scheduler."""

    def __init__(self, case: Case) -> None:
        import diffusers
        from diffusers.pipelines.animatediff.pipeline_animatediff import AnimateDiffPipeline
        from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline
        from diffusers.schedulers.scheduling_ddim_inverse import DDIMInverseScheduler

        config = dict(case.schedule)
        self.network = case.backbone.parts.use("network")  # type: ignore[attr-defined]
        self.backbone, self.condition = case.backbone, case.condition
        self.unet = "unet" in type(self.network).__name__.lower()
        scheduler = getattr(diffusers, config["_class_name"]).from_config(config)
        nothing: Any = None  # parts that take no part between latents and latents
        if self.unet:
            self.pipeline: Any = AnimateDiffPipeline(nothing, nothing, nothing, self.network, nothing, scheduler)
        else:
            self.pipeline = CogVideoXPipeline(nothing, nothing, nothing, self.network, scheduler)
        self.pipeline.set_progress_bar_config(disable=True)
        self.inverse: Any = DDIMInverseScheduler.from_config(config)
        self.inverse.alphas_cumprod = scheduler.alphas_cumprod  # it does not know CogVideoX's shift of the SNR

    def sample(self, z: torch.Tensor, steps: int, guidance: float) -> torch.Tensor:
        """From noise [F, C, h, w] to latents, by the pipeline's own call."""
        b, z = self.backbone, z.to(self.network.dtype)[None]
        made = self.pipeline(
            prompt_embeds=self.condition.positive["states"],
            negative_prompt_embeds=self.condition.negative["states"],
            num_frames=b.frames,
            height=b.height,
            width=b.width,
            num_inference_steps=steps,
            guidance_scale=guidance,
            latents=z.transpose(1, 2) if self.unet else z,
            output_type="latent",
        ).frames
        return (made.transpose(1, 2) if self.unet else made)[0]

    def invert(self, z: torch.Tensor, steps: int) -> torch.Tensor:
        """From latents [F, C, h, w] to noise, as users of diffusers write it."""
        import torch

        states = self.condition.positive["states"]
        z = z.to(self.network.dtype)[None]
        if self.unet:
            z, states = z.transpose(1, 2), states.repeat_interleave(z.shape[1], 0)
        self.inverse.set_timesteps(steps, device=z.device)
        with torch.no_grad():
            for t in self.inverse.timesteps:
                output = self.network(z, encoder_hidden_states=states, timestep=t.expand(1), return_dict=False)[0]
                z = self.inverse.step(output, t, z).prev_sample
        return (z.transpose(1, 2) if self.unet else z)[0]


# ---- comparing -----------------------------------------------------------------------------------------------------


def compared(case: Case, steps: int, rounds: int) -> Iterator[dict[str, Any]]:
    """Two rows for each of: sampling with guidance, sampling without, inversion."""
    from retake.diffusion.sampling.ddim import noise

    b, ours, peer = case.backbone, Retake(case), Diffusers(case)
    grid = b.grid(b.frames, b.height, b.width)
    start = noise(SEED, range(grid.frames), grid[1:]).to(b.device, b.dtype).float()
    rate = matmul(b.device, b.dtype)
    for guidance in (GUIDANCE, 1.0):
        works = {
            "retake": lambda g=guidance: ours.sample(start, steps, g),
            "diffusers": lambda g=guidance: peer.sample(start, steps, g),
        }
        least = (1 if guidance == 1 else 2) * case.flops / rate
        yield from rows(case, f"sampling, guidance {guidance:g}", works, steps, rounds, least)

    clean, what = peer.sample(start, steps, 1.0).float(), "inversion, plain DDIM"
    yield from inverted(case, what, clean, steps, rounds, case.flops / rate)
    if b.schedule.prediction != "epsilon":
        yield from inverted(reading_noise(case), f"{what}, read as noise", clean, steps, rounds, case.flops / rate)


def inverted(
    case: Case, what: str, clean: torch.Tensor, steps: int, rounds: int, least: float
) -> Iterator[dict[str, Any]]:
    """Two rows on inversion, with what is lost on the way back."""
    ours, peer = Retake(case), Diffusers(case)
    works = {"retake": lambda: ours.invert(clean, steps), "diffusers": lambda: peer.invert(clean, steps)}
    back = {"retake": lambda z: ours.sample(z, steps, 1.0), "diffusers": lambda z: peer.sample(z, steps, 1.0)}
    for row, name in zip(rows(case, what, works, steps, rounds, least), works, strict=True):
        yield row | {"back": f"{rms(back[name](works[name]()).float() - clean):.1e}"}


def rows(
    case: Case,
    what: str,
    works: Mapping[str, Callable[[], torch.Tensor]],
    steps: int,
    rounds: int,
    least: float,
) -> Iterator[dict[str, Any]]:
    """A row for each contender. least: seconds that a step would take at the rate of a matrix product."""
    b = case.backbone
    module = b.parts.use("network").time_embedding  # type: ignore[attr-defined]  # both ask it once an evaluation
    found = {name: watched(work, module, b.device) for name, work in works.items()}
    taken: dict[str, list[Time]] = {name: [] for name in works}
    for n in range(rounds):
        for name in list(works)[:: 1 if n % 2 else -1]:
            taken[name].append(timed(works[name], b.device))
    theirs, on_cpu = found["diffusers"].latents.float(), b.device.type == "cpu"
    for name in works:
        wall = [one.wall / other.wall for one, other in zip(taken[name], taken["diffusers"], strict=True)]
        cpu = [one.cpu / other.cpu for one, other in zip(taken[name], taken["diffusers"], strict=True)]
        second = statistics.median(one.wall for one in taken[name]) / steps
        off = float((found[name].latents.float() - theirs).abs().max() / theirs.abs().max())
        yield {
            "table": f"Against diffusers' loops: {steps} steps, median of {rounds} rounds",
            "model": f"{case.name}, {b.width}x{b.height}x{b.frames}, {str(b.dtype).removeprefix('torch.')}",
            "what": what,
            "": name if name == "retake" else f"  {name}",
            "evaluations": found[name].evaluations,
            "ms a step": 1000 * second,
            "to diffusers": statistics.median(wall),
            "least to most": f"{min(wall):.2f} to {max(wall):.2f}",
            "CPU time, to diffusers": statistics.median(cpu) if on_cpu else None,
            "difference": f"{off:.1e}" if name == "retake" else None,
            "of matmul": least / second,
            "peak, GiB": None if on_cpu else found[name].memory / 2**30,
        }


def watched(work: Callable[[], torch.Tensor], module: Any, device: torch.device) -> Run:
    """Run once, counting; this is also the warming up."""
    import torch

    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    gpu = device.type == "cuda"
    if gpu:
        torch.cuda.reset_peak_memory_stats(device)
    handle = module.register_forward_hook(count)
    try:
        latents = work()
    finally:
        handle.remove()
    return Run(latents, calls, torch.cuda.max_memory_allocated(device) if gpu else 0)


def timed(work: Callable[[], object], device: torch.device) -> Time:
    """Seconds until the result is there."""
    import torch

    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    begun, cpu = time.perf_counter(), time.process_time()
    work()
    wait()
    return Time(time.perf_counter() - begun, time.process_time() - cpu)


def matmul(device: torch.device, dtype: torch.dtype, tries: int = 5) -> float:
    """Floating-point operations a second of a large square product: the best of several tries."""
    import torch

    side, repeats = (8192, 10) if device.type == "cuda" else (1024, 2)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))

    def work() -> None:
        for _ in range(repeats):
            torch.mm(a, b)

    work()
    return repeats * 2 * side**3 / min(timed(work, device).wall for _ in range(tries))


def rms(values: torch.Tensor) -> float:
    """Root mean square."""
    return float(values.float().square().mean().sqrt())
