"""inversion: the clip's latents at every level of noise, such that sampling comes back to the clip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, Field

from retake.artifact import Inversion, Latents
from retake.diffusion.model import Modelled
from retake.formats import GROUP, LatentSeries, chunk_range
from retake.stage import Work, stage
from tasks.pool import backbone_of

if TYPE_CHECKING:
    from retake.diffusion.sampling.windows import Reel


class Params(BaseModel, frozen=True, extra="forbid"):
    """How finely, and how exactly."""

    steps: int = Field(50, ge=1, le=1000, description="levels of noise; an edit makes as many denoising steps")
    iterations: int = Field(10, ge=0, le=50, description="refinements of a level at most; 0: plain DDIM inversion")
    tolerance: float = Field(
        1e-3, ge=0, le=1, description="a level is good once a refinement moves it by less, in units of the latents"
    )
    precision: Literal["float16", "float32"] = Field(
        "float16", description="what levels are kept in; float32: no rounding for denoising to enlarge, twice the disk"
    )
    prompt: str = Field("", description="text that describes the clip; empty: none")
    overlap: int = Field(4, ge=0, le=512, description="latent frames that neighbouring windows of a long clip share")


@stage("inversion", version=1, makes="inversion")
def stage_inversion(work: Work, params: Modelled, latents: Latents) -> Inversion:
    """Level by level over the whole clip, because the windows of a long clip are blended at every level. Eight levels
    are committed at a time, and a killed run goes on from the last of them; meanwhile they wait in scratch files, so
    that memory does not grow with the clip."""
    import torch

    from retake.diffusion.sampling.inversion import invert
    from retake.diffusion.sampling.windows import Windows

    settings = params.settings
    assert isinstance(settings, Params)
    series: LatentSeries = work.open(latents)
    chunks, steps = series.chunks(), settings.steps
    first = groups_done(work, chunks) * GROUP
    state = work.state() or {"evaluations": np.zeros(steps, np.int32), "moved": np.zeros(steps, np.float32)}
    evaluations, moved = state["evaluations"].copy(), state["moved"].copy()
    if first < steps:
        backbone = backbone_of(params.model)
        reels = Reels(work, tuple(latents.meta[name] for name in ("count", "channels", "height", "width")))
        below = reels.begin(series, first)
        waiting: list[Reel] = []
        for level in invert(
            backbone,
            below,
            backbone.condition(text=[settings.prompt]),
            steps=steps,
            first=first,
            iterations=settings.iterations,
            tolerance=settings.tolerance,
            stored=getattr(torch, settings.precision),
            windows=Windows.of(backbone, series.count, settings.overlap),
            batch=params.model.batch,
            new=reels.new,
        ):
            waiting.append(level.latents)  # type: ignore[arg-type]
            evaluations[level.number - 1], moved[level.number - 1] = level.evaluations, level.residual or 0
            if level.number % GROUP == 0 or level.number == steps:
                commit(work, series, (level.number - 1) // GROUP, waiting, {"evaluations": evaluations, "moved": moved})
                for reel in [below, *waiting[:-1]]:
                    reel.remove()
                below = waiting[-1]  # the next group goes on from it
                waiting.clear()
            work.progress(level.number, steps)
    loose = int((moved > settings.tolerance).sum())
    return work.finish(
        **{name: latents.meta[name] for name in ("count", "frames", "channels", "height", "width", "time")},
        steps=steps,
        overlap=settings.overlap,
        evaluations=int(evaluations.sum()),
        notes=[f"inversion: {loose} of {steps} levels still moved by more than {settings.tolerance:g}"]
        if loose
        else [],
    )  # type: ignore[return-value]


def groups_done(work: Work, chunks: int) -> int:
    """How many groups of levels are committed with all their chunks."""
    groups = 0
    while all(groups * chunks + chunk in work.done for chunk in range(chunks)):
        groups += 1
    return groups


def commit(work: Work, series: LatentSeries, group: int, levels: list[Reel], state: dict[str, np.ndarray]) -> None:
    """A group of levels, chunk by chunk of latent frames."""
    for chunk in range(series.chunks()):
        if (index := group * series.chunks() + chunk) not in work.done:
            span = chunk_range(chunk, len(series))
            work.commit(index, {"z": np.stack([z[span.start : span.stop].numpy() for z in levels])}, state)


class Reels:
    """Latents of the whole clip in scratch files."""

    def __init__(self, work: Work, shape: tuple[int, ...]) -> None:
        self.work, self.shape, self.made = work, shape, 0

    def new(self, dtype: object) -> Reel:
        from retake.diffusion.sampling.windows import Reel

        self.made += 1
        return Reel(self.work.scratch / f"{self.made}.latents", self.shape, dtype)  # type: ignore[arg-type]

    def begin(self, series: LatentSeries, first: int) -> Reel:
        """The level to go on from: the latents, or the last level that was committed."""
        import torch

        reel = self.new(torch.float32)
        for chunk in range(series.chunks()):
            span = chunk_range(chunk, len(series))
            if first:
                z = self.work.read((first // GROUP - 1) * series.chunks() + chunk)["z"][-1]
            else:
                z = series.span(span)
            reel[span.start : span.stop] = torch.from_numpy(z)
        return reel
