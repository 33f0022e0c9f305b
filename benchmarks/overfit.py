"""Whether the control branch of MotionV2V can give back what it is shown: a fresh one is trained on eight pairs alone,
and then makes their targets from noise, tracks and sources. PSNR of its samples to the targets, beside that of the
targets' own latents, decoded, which is where it should arrive, and of the sources.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.embedded import pixels
from flows.settings.compose import settings
from retake.diffusion.backbone import Condition
from retake.diffusion.families.cogvideox.control import ControlBranch
from retake.diffusion.loading.load import load
from retake.diffusion.sampling.ddim import noise
from retake.metrics.region import psnr
from retake.training import motionv2v, shipped, video_autoencoder
from retake.training.loop import Plan, Slice, averaged, train

MODEL = ("model=embedded_dit",)
SMOKE = {"steps": 1, "count": 1, "levels": 1}


def run(steps: int = 1200, count: int = 8, levels: int = 50) -> list[dict[str, Any]]:
    """A row: PSNR of what a branch makes, in so many denoising steps, of pairs on which alone it was trained."""
    backbone = load(settings(list(MODEL)).model)
    base = shipped.load("transformer")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pairs = told(backbone, motionv2v.SEED, count)
        data = coded(folder / "pairs", pairs)
        branch = ControlBranch.of(base.transformer, motionv2v.VIDEOS)
        taught(folder / "state", branch, motionv2v.loss(branch, base, data, count, 0.5, 0, "cpu"), steps)
        branch.save_pretrained(folder / "branch")
        made = sampled(backbone, folder / "branch", data, levels)
    shown = {
        "samples": made,
        "the targets, coded": pixels(backbone.decode(data["target"].float())),
        "the sources": np.stack([pair.source for pair in pairs]),
    }
    truth = np.stack([pair.target for pair in pairs])
    row = {name: psnr(mean_square(one, truth)) for name, one in shown.items()}
    return [{"table": f"{count} pairs, {steps} steps: PSNR to the targets, dB", **row}]


def told(backbone: Any, seed: int, count: int) -> list[motionv2v.Told]:
    """The sprite pairs of so many seeds from one on, as the branch of a model is told of them."""
    return [motionv2v.told(seed + n, backbone.width, backbone.space) for n in range(count)]


def coded(folder: Path, pairs: list[motionv2v.Told]) -> dict[str, Tensor]:
    """Latents of pairs, as `motionv2v.read`. The folder holds them and nothing else."""
    coder = shipped.load("video_vae")
    folder.mkdir(parents=True, exist_ok=True)
    (shard,) = motionv2v.shards(folder, 1)
    motionv2v.write(shard, pairs, video_autoencoder.clip_by_clip(coder))
    return motionv2v.read(folder, 1)


def taught(folder: Path, branch: ControlBranch, loss: Any, steps: int) -> None:
    """Train a branch, and give it the average of its weights."""
    plan = Plan(steps, 1e-3, muon=0.01, warmup=50, cooldown=0.5, average=0.99)
    train(folder, branch.train(), loss, plan, Slice(), lambda line: None)
    averaged(folder, branch).eval()


def sampled(backbone: Any, folder: Path, data: Mapping[str, Tensor], levels: int) -> NDArray[np.uint8]:
    """What the branch in a folder makes of pairs from noise, their tracks and sources: uint8 [N, F, H, W, 3]."""
    count = len(data["target"])
    control = motionv2v.control_of(data, range(count))
    said = backbone.condition([""] * count)
    both = Condition(*({**side, "control": control} for side in (said.positive, said.negative or {})))
    z = noise(0, range(count * data["target"].shape[1]), data["target"].shape[2:]).unflatten(0, (count, -1))
    with backbone.controlled(folder), torch.inference_mode():
        for t, to in backbone.schedule.step_pairs(levels):
            z = backbone.schedule.step(*backbone.predict(z, t, both, 1.0), t, to)
    return pixels(backbone.decode(z))


def mean_square(one: NDArray[np.uint8], other: NDArray[np.uint8], where: NDArray[np.bool_] | None = None) -> float:
    """Of the difference of clips [N, F, H, W, 3] with values 0 to 1, in all or where a mask [N, F, H, W] is true."""
    square = np.square((one.astype(np.float64) - other) / 255)
    return float((square if where is None else square[where]).mean())
