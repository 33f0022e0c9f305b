"""What MOFT's channels say of motion in the shipped models: clips of pictures that pan, as published, and of sprites
that pass (retake/synthetic/panning.py, passing.py) read at several sites and levels of their inversion, beside the same
network with the entries of every matrix in another order.

Four pictures pan four ways, eight sprites pass. *Raw*, *removed*: share of cells of the first frames whose way is the
commonest among their five nearest cells of other scenes (chance 0.25), with the content that frames share and without
it (the paper's figure 3 in a number). *Signs*: channels are ranked on all scenes but one; share of the 4 % with the
largest loadings that change, from the first frame to the last, the way round on that one that they do on the others,
all four ways taken together (chance 0.5; the paper shows one such channel). Each scene is held out once. That opposite
ways have opposite signs on one and the same scene says nothing: one pan is the other backwards.
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
SCENES = {"pans": 4, "sprites": 8}
STEP, NEAREST, SHARE = 0.025, 5, 0.04
SMOKE = {"models": {"embedded_dit": MODELS["embedded_dit"]}, "levels": (2,), "scenes": {"pans": 2, "sprites": 2}}

Found = dict[tuple[str, int], dict[tuple[str, int], "Panned"]]
"""By (site, level), then by (way, scene)."""


def run(
    models: Mapping[str, Model] = MODELS, levels: Sequence[int] = LEVELS, scenes: Mapping[str, int] = SCENES
) -> list[dict[str, Any]]:
    """A table for each model and kind of clips, a row a site and level."""
    from retake.diffusion.loading.load import load

    rows: list[dict[str, Any]] = []
    for name, model in models.items():
        backbone = load(model)
        for kind, count in scenes.items():
            ours = panned(backbone, SITES[name], levels, kind, count)
            with shuffled(backbone):
                random = panned(backbone, SITES[name], levels, kind, count)
            for site, level in ours:
                told = scores(ours[site, level], count)
                by_chance = {f"random, {of}": value for of, value in scores(random[site, level], count).items()}
                row = {"site": site, "level": level, **told, **by_chance}
                rows.append({"table": f"{name}: {4 * count} clips, {kind}", **row})
    return rows


def panned(backbone: Backbone, sites: Sequence[str], levels: Sequence[int], kind: str, scenes: int) -> Found:
    """What is kept of the clips' features."""
    import torch

    from retake.diffusion.motion_channels import WAYS, reduced
    from retake.diffusion.sampling.motion_reading import read_all
    from retake.imaging.signed import to_signed
    from retake.synthetic.panning import panning
    from retake.synthetic.passing import passing

    found: Found = {(site, level): {} for site in sites for level in levels}
    for scene in range(scenes):
        for way in WAYS:  # without those that rest: with what frames share taken off, nothing but zeros is left of them
            how = way, scene, backbone.width, backbone.frames, STEP * backbone.width
            rgb, passed = (panning(*how), None) if kind == "pans" else passing(*how)
            pixels = to_signed(torch.from_numpy(np.ascontiguousarray(rgb.transpose(0, 3, 1, 2))))
            with torch.no_grad():
                z = backbone.encode(pixels[None].to(backbone.device))[0]
            for at, features in read_all(backbone, z, sites, levels).items():
                found[at][way, scene] = reduced(features.cpu(), None if passed is None else torch.from_numpy(passed))
    return found


def scores(clips: Mapping[tuple[str, int], Panned], scenes: int) -> dict[str, float]:
    return {
        "raw": neighbours(clips, "raw"),
        "removed": neighbours(clips, "removed"),
        "signs": float(np.mean([signs(clips, scene) for scene in range(scenes)])),
    }


def neighbours(clips: Mapping[tuple[str, int], Panned], kind: str) -> float:
    """Share of cells whose way is the commonest among their nearest cells of other scenes."""
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


def signs(clips: Mapping[tuple[str, int], Panned], held_out: int) -> float:
    """Share of the channels, chosen on the other scenes, that change on this one as they do there."""
    import torch

    from retake.diffusion.motion_channels import AXES, find

    others = {key: clip for key, clip in clips.items() if key[1] != held_out}
    frames = next(iter(clips.values())).curve.shape[0]
    channels = find(others, torch.arange(frames).float())
    shares = []
    for axis, ways in AXES.items():
        chosen = channels.of([axis], SHARE)
        for way in ways:
            change = clips[way, held_out].curve[[0, -1]][:, chosen].diff(dim=0)[0]
            shares.append(float((change * channels.slope[way][chosen] > 0).double().mean()))
    return float(np.mean(shares))
