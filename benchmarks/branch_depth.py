"""How many blocks the control branch of MotionV2V should have: a fresh branch of each depth is trained on the same
sprite pairs in the same order for the same steps, a small share of what the shipped one had, and judged on pairs that
none has seen. Loss: squared error of v at four times of the schedule, under the same noise for all. PSNR: of samples to
the exact targets, whole and where target and source differ; beside it the source itself and the targets coded. Seconds
of a training step say what a depth costs.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.embedded import pixels
from benchmarks.overfit import MODEL, coded, mean_square, sampled, taught, told
from flows.settings.compose import settings
from retake.diffusion.families.cogvideox.control import ControlBranch
from retake.diffusion.loading.load import load
from retake.metrics.region import psnr
from retake.training import motionv2v, shipped

HELD_OUT = motionv2v.SEED + 10_000_000  # seed of the first pair that no branch has seen
TIMES = (200, 400, 600, 800)
DIFFERENT = 0.05  # of the range of values
SMOKE = {"depths": (1,), "steps": 1, "pairs": 1, "held_out": 1, "levels": 1}


def run(
    depths: Sequence[int] = (1, 3, 6), steps: int = 600, pairs: int = 400, held_out: int = 16, levels: int = 25
) -> list[dict[str, Any]]:
    """A row for each depth, and one each for the source and the coded target."""
    backbone = load(settings(list(MODEL)).model)
    base = shipped.load("transformer")
    table = f"depth of the branch: {steps} steps on {pairs} pairs, judged on {held_out} others"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = coded(folder / "pairs", told(backbone, motionv2v.SEED, pairs))
        others = told(backbone, HELD_OUT, held_out)
        unseen = coded(folder / "others", others)
        truth, source = (np.stack([getattr(pair, name) for pair in others]) for name in ("target", "source"))
        differ = np.abs(truth.astype(np.int16) - source).max(-1) > 255 * DIFFERENT
        rows = []
        for depth in depths:
            branch = ControlBranch.of(base.transformer, motionv2v.VIDEOS, depth)
            begun = time.perf_counter()
            loss = motionv2v.loss(branch, base, data, min(8, pairs), 0.5, 0, "cpu")
            taught(folder / f"state-{depth}", branch, loss, steps)
            took = (time.perf_counter() - begun) / steps
            branch.save_pretrained(folder / f"branch-{depth}")
            made = sampled(backbone, folder / f"branch-{depth}", unseen, levels)
            errors = {f"loss at t = {t}": error for t, error in zip(TIMES, losses(branch, base, unseen), strict=True)}
            rows.append({"blocks": depth, **errors, **scores(made, truth, differ), "s a step": took})
            print(rows[-1], file=sys.stderr, flush=True)  # the run takes long
    peers = {"the source": source, "the target, coded": pixels(backbone.decode(unseen["target"].float()))}
    rows += [{"blocks": name, **scores(shown, truth, differ)} for name, shown in peers.items()]
    return [{"table": table, **row} for row in rows]


def scores(shown: Any, truth: Any, differ: Any) -> dict[str, float]:
    """PSNR to the targets, dB: whole, and where they differ from their sources."""
    return {
        "PSNR, dB": psnr(mean_square(shown, truth)),
        "where they differ, dB": psnr(mean_square(shown, truth, differ)),
    }


def losses(branch: ControlBranch | None, base: Any, data: Mapping[str, Tensor]) -> list[float]:
    """Squared error of v for all pairs at each of `TIMES`, under noise of one seed. branch None: the base alone. data:
    as `motionv2v.read`."""
    x0, control = data["target"].float(), motionv2v.control_of(data, range(len(data["target"])))
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    errors = motionv2v.squared(branch, base, "cpu")
    with torch.inference_mode():
        return [float(errors(x0, noise, torch.full((len(x0),), t), control).mean()) for t in TIMES]
