"""What MOFT's channels say of motion in the shipped models: panning clips (retake/synthetic/panning.py) read at several
sites and levels of their inversion, beside the same network with the entries of every matrix in another order.

Four scenes pan four ways or rest. *Raw*, *removed*: share of cells of the first frames whose way is that of most of
their five nearest cells of other scenes (chance 0.2), with the content that frames share and without it (the paper's
figure 3 in a number). *Opposite*: channels are ranked on three scenes; share of the 4 % with the largest loadings that
change, from the first frame to the last, the other way round for opposite directions on the fourth (chance 0.5; the
paper shows one such channel). Each scene is held out once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.embedded import MODELS
from benchmarks.motion_probe import shuffled
from retake.diffusion.model import Model

if TYPE_CHECKING:
    from retake.diffusion.backbone import Backbone
    from retake.diffusion.motion_channels import Panned

SITES = {
    "embedded": ("up_blocks.0.resnets.1", "up_blocks.1"),
    "embedded_dit": ("transformer_blocks.2", "transformer_blocks.3", "transformer_blocks.4"),
}
LEVELS = (2, 5, 10, 15, 20, 23)  # of 25 steps up the inversion
SCENES, STEP, NEAREST, SHARE = 4, 0.025, 5, 0.04
SMOKE = {"models": {"embedded_dit": MODELS["embedded_dit"]}, "levels": (2,), "scenes": 2}

Found = dict[tuple[str, int], dict[tuple[str, int], "Panned"]]
"""By (site, level), then by (way, scene)."""


def run(
    models: Mapping[str, Model] = MODELS, levels: Sequence[int] = LEVELS, scenes: int = SCENES
) -> list[dict[str, Any]]:
    """A table for each model, a row a site and level."""
    from retake.diffusion.loading.load import load

    rows: list[dict[str, Any]] = []
    for name, model in models.items():
        backbone = load(model)
        ours = panned(backbone, SITES[name], levels, scenes)
        with shuffled(backbone):
            random = panned(backbone, SITES[name], levels, scenes)
        for site, level in ours:
            told = scores(ours[site, level], scenes)
            by_chance = {f"random, {kind}": value for kind, value in scores(random[site, level], scenes).items()}
            row = {"site": site, "level": level, **told, **by_chance}
            rows.append({"table": f"{name}: {5 * scenes} panning clips", **row})
    return rows


def panned(backbone: Backbone, sites: Sequence[str], levels: Sequence[int], scenes: int) -> Found:
    """What is kept of the clips' features."""
    import torch

    from retake.diffusion.motion_channels import reduced
    from retake.diffusion.sampling.ddim import timesteps
    from retake.diffusion.sampling.inversion import invert
    from retake.diffusion.sampling.motion_reading import STEPS
    from retake.imaging.signed import to_signed
    from retake.synthetic.panning import WAYS, panning

    found: Found = {(site, level): {} for site in sites for level in levels}
    silent, steps = backbone.condition(text=[""]), timesteps(backbone.schedule, STEPS)
    for scene in range(scenes):
        for way in WAYS:
            rgb = panning(way, scene, backbone.width, backbone.frames, STEP * backbone.width)
            pixels = to_signed(torch.from_numpy(np.ascontiguousarray(rgb.transpose(0, 3, 1, 2))))
            with torch.no_grad():
                z = backbone.encode(pixels[None].to(backbone.device))[0]
                for at in invert(backbone, z, silent, steps=STEPS, iterations=0, stored=torch.float32):
                    if at.number > max(levels):
                        break
                    if at.number in levels:
                        below, t = at.latents[: len(z)][None].to(backbone.device), steps[at.number]
                        for site, features in backbone.features(below, t, silent, sites).items():
                            found[site, at.number][way, scene] = reduced(features[0].float().cpu())
    return found


def scores(clips: Mapping[tuple[str, int], Panned], scenes: int) -> dict[str, float]:
    return {
        "raw": neighbours(clips, "raw"),
        "removed": neighbours(clips, "removed"),
        "opposite": float(np.mean([opposite(clips, scene) for scene in range(scenes)])),
    }


def neighbours(clips: Mapping[tuple[str, int], Panned], kind: str) -> float:
    """Share of cells whose nearest cells of other scenes go their way, most of them."""
    import torch

    ways = {way: n for n, way in enumerate(dict.fromkeys(way for way, _ in clips))}
    parts = [getattr(clip, kind) for clip in clips.values()]
    cells = torch.cat(parts).double()
    label = torch.cat([torch.full((len(part),), ways[way]) for (way, _), part in zip(clips, parts, strict=True)])
    scene = torch.cat([torch.full((len(part),), of) for (_, of), part in zip(clips, parts, strict=True)])
    apart = torch.cdist(cells, cells)
    apart[scene[:, None] == scene] = torch.inf
    nearest = label[apart.topk(NEAREST, largest=False).indices]
    return float((nearest.mode(1).values == label).double().mean())


def opposite(clips: Mapping[tuple[str, int], Panned], held_out: int) -> float:
    """Share of the channels, chosen on the other scenes, that change the other way round on this one."""
    import torch

    from retake.diffusion.motion_channels import AXES, find

    others = {key: clip for key, clip in clips.items() if key[1] != held_out}
    frames = next(iter(clips.values())).curve.shape[0]
    channels = find(others, torch.arange(frames).float())
    shares = []
    for axis, pair in AXES.items():
        chosen = channels.of([axis], SHARE)
        one, other = (clips[way, held_out].curve[[0, -1]][:, chosen].diff(dim=0)[0] for way in pair)
        shares.append(float((one * other < 0).double().mean()))
    return float(np.mean(shares))
