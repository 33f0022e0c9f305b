"""Do the features of the shipped models hold motion? A nearest-clip probe at every site, beside random weights.

Clips of the sprite world, each direction as often, are noised to three times and read at every site of each network,
without a prompt. A clip's descriptor is the mean of the features over its object, frame by frame, with the mean over
the frames taken off (*removed*; *raw* keeps it). Its direction is guessed from the clip with the nearest descriptor
(cosine) among those of another hue and another shape: what an object looks like does not help. Chance is one in eight.
*Random* is the same network with the entries of every matrix in another order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks.embedded import MODELS, tensor
from retake.diffusion.model import Model

if TYPE_CHECKING:
    from torch import Tensor

    from retake.diffusion.backbone import Backbone
    from retake.synthetic.grammar import Subject

CLIPS = 192
TIMES = (300, 600, 850)
SEED = 9
SMOKE = {"clips": 8, "times": (600,)}


class Shown(NamedTuple):
    """Clips of a model's size: latents [N, f, C, h, w], coverage of the object [N, f, h, w], and what they show."""

    latents: Tensor
    coverage: Tensor
    subjects: Sequence[Subject]


def run(models: Mapping[str, Model] = MODELS, clips: int = CLIPS, times: Sequence[int] = TIMES) -> list[dict[str, Any]]:
    """two tables for each model, a row a site."""
    from retake.diffusion.loading.load import load

    rows: list[dict[str, Any]] = []
    for name, model in models.items():
        backbone = load(model)
        shown = drawn(backbone, clips)
        ours = probed(backbone, shown, times)
        with shuffled(backbone):
            random = probed(backbone, shown, times)
        for kind in ("removed", "raw"):
            for site in ours:
                row = {"table": f"{name}: direction of the nearest of {clips} clips, {kind}", "site": site}
                row |= {f"t {t}": ours[site][kind, t] for t in times}
                rows.append(row | {f"random, t {t}": random[site][kind, t] for t in times})
    return rows


def drawn(backbone: Backbone, count: int) -> Shown:
    """Clips of one sprite that goes where it is told, at a middle pace."""
    import torch

    from retake.synthetic import clips, grammar
    from retake.synthetic.world import World

    limits = clips.Limits(size=backbone.width, frames=backbone.frames)
    latents, coverage, subjects = [], [], []
    for n in range(count):
        rng = np.random.default_rng([SEED, n, 23])
        subject = clips.Subject(
            shape=str(rng.choice(grammar.SHAPES)),
            hue=str(rng.choice(list(grammar.HUES))),
            texture=str(rng.choice(grammar.TEXTURES)),
            direction=grammar.DIRECTIONS[n % len(grammar.DIRECTIONS)],
            ground=str(rng.choice(list(grammar.GROUNDS))),
        )
        world = World(clips.scene_of(subject, SEED + n, rng, limits))
        frames = np.stack([world.frame(t) for t in range(limits.frames)])
        masks = np.stack([world.mask(t, 0) for t in range(limits.frames)])
        with torch.inference_mode():
            latents.append(backbone.encode(tensor(frames[None], backbone.device))[0])
        coverage.append(backbone.to_grid(torch.from_numpy(masks), "masks"))
        subjects.append(subject)
    return Shown(torch.stack(latents), torch.stack(coverage), subjects)


def probed(backbone: Backbone, shown: Shown, times: Sequence[int]) -> dict[str, dict[tuple[str, int], float]]:
    """Share of clips whose nearest has their direction, by site, then by (kind, time)."""
    import torch

    from retake.diffusion.motion_feature import content_removed, pooled

    # A block gives what the last of its parts gives: it is named once.
    names = [site.name for site in backbone.sites() if "." in site.name.partition(".")[2] or "transformer" in site.name]
    said = backbone.condition(text=[""])
    noise = torch.randn(shown.latents.shape, generator=torch.Generator().manual_seed(SEED))
    found: dict[str, dict[tuple[str, int], float]] = {name: {} for name in names}
    for t in times:
        z = backbone.schedule.noised(shown.latents, noise, torch.tensor(float(t)))
        kept: dict[str, list[Tensor]] = {name: [] for name in names}
        for n in range(len(z)):
            with torch.inference_mode():
                features = backbone.features(z[n : n + 1], float(t), said, names)
            for name, feature in features.items():
                kept[name].append(pooled(feature.float(), shown.coverage[n : n + 1].to(feature.device)).cpu())
        for name, parts in kept.items():
            raw = torch.cat(parts)
            for kind, values in (("raw", raw), ("removed", content_removed(raw[..., None, None])[..., 0, 0])):
                found[name][kind, t] = nearest(values.flatten(1).numpy(), shown.subjects)
    return found


def nearest(descriptors: np.ndarray, subjects: Sequence[Subject]) -> float:
    """Share of N descriptors [N, D] whose nearest of another hue and shape has their direction."""
    unit = descriptors / np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), 1e-12)
    alike = unit @ unit.T
    other = np.array([[a.hue != b.hue and a.shape != b.shape for b in subjects] for a in subjects])
    closest = np.where(other, alike, -np.inf).argmax(1)
    return float(np.mean([a.direction == subjects[k].direction for a, k in zip(subjects, closest, strict=True)]))


@contextmanager
def shuffled(backbone: Any) -> Iterator[None]:
    """Within it, the entries of every matrix of the network stand in another order."""
    import torch

    random = torch.Generator().manual_seed(SEED)
    before = [
        (weight, weight.detach().clone()) for weight in backbone.parts.use("network").parameters() if weight.ndim > 1
    ]
    try:
        with torch.no_grad():
            for weight, kept in before:
                order = torch.randperm(weight.numel(), generator=random).to(weight.device)
                weight.copy_(kept.flatten()[order].view_as(weight))
        yield
    finally:
        with torch.no_grad():
            for weight, kept in before:
                weight.copy_(kept)
