"""Whether the control branch of MotionV2V can give back what it is shown: a fresh one is trained on eight pairs alone,
and then makes their targets from noise, tracks and sources. PSNR of its samples to the targets, beside that of the
targets' own latents, decoded, which is where it should arrive, and of the sources.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.embedded import pixels
from flows.settings.compose import settings
from retake.metrics.region import psnr

MODEL = ("model=embedded_dit",)
SMOKE = {"steps": 1, "count": 1, "levels": 1}


def run(steps: int = 600, count: int = 8, levels: int = 50) -> list[dict[str, Any]]:
    """A row: PSNR of what a branch makes, in so many denoising steps, of pairs on which alone it was trained."""
    import torch

    from retake.diffusion.backbone import Condition
    from retake.diffusion.families.cogvideox.control import ControlBranch
    from retake.diffusion.loading.load import load
    from retake.diffusion.sampling.ddim import noise
    from retake.training import motionv2v, shipped, video_autoencoder
    from retake.training.loop import Plan, Slice, averaged, train

    backbone = load(settings(list(MODEL)).model)
    base, coder = shipped.load("transformer"), shipped.load("video_vae")
    branch = ControlBranch.of(base.transformer, motionv2v.VIDEOS).train()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cell = backbone.space
        pairs = [motionv2v.told(motionv2v.SEED + n, backbone.width, cell) for n in range(count)]
        motionv2v.write(motionv2v.shards(folder, count)[0], pairs, video_autoencoder.clip_by_clip(coder))
        data = motionv2v.read(folder, count)
        loss = motionv2v.loss(branch, base, data, count, 0.5, 0, "cpu")
        plan = Plan(steps, 1e-3, muon=0.01, warmup=50, cooldown=0.5, average=0.99)
        train(folder / "state", branch, loss, plan, Slice(), lambda line: None)
        taught: Any = averaged(folder / "state", branch)
        taught.eval().save_pretrained(folder / "branch")
        control = motionv2v.control_of(data, range(count))
        said = backbone.condition([""] * count)
        both = Condition(*({**side, "control": control} for side in (said.positive, said.negative or {})))
        z = noise(0, range(count * data["target"].shape[1]), data["target"].shape[2:]).unflatten(0, (count, -1))
        with backbone.controlled(folder / "branch"), torch.inference_mode():
            for t, to in backbone.schedule.step_pairs(levels):
                z = backbone.schedule.step(*backbone.predict(z, t, both, 1.0), t, to)
        truth = np.stack([pair.target for pair in pairs])
        shown = {
            "sampled": pixels(backbone.decode(z)),
            "coded": pixels(backbone.decode(data["target"].float())),
            "source": np.stack([pair.source for pair in pairs]),
        }
    to_target = {
        name: psnr(float(np.square((one.astype(np.float64) - truth) / 255).mean())) for name, one in shown.items()
    }
    row = {
        "samples": to_target["sampled"],
        "the targets, coded": to_target["coded"],
        "the sources": to_target["source"],
    }
    return [{"table": f"{count} pairs, {steps} steps: PSNR to the targets, dB", **row}]
