"""Denoising steered towards a motion: a few steps of gradient descent on the noisy latents, early on.

Source: MOFT (Xiao et al., NeurIPS 2024, sec. 4.2, eq. 3 and 8); defaults of its published pipeline
(animatediff/pipelines/pipeline.py at f57184b) where the paper is silent. Unlike it, only the conditioned row goes
through the network, and no further than the site; blocks of large networks are run again for their gradients; masks
are averaged on the features' own grid; the clip that is not steered is sampled over the steered steps alone.

The published distance is squared: where targets are smaller than what a noisy clip shows, it takes all motion away in
place of turning it. So here a target is a course and a pace: the course shall have the size that the feature has
already, times pace and amplitude. Updates have a set length, and no weight depends on how large a network's features
are. A port to CogVideoX (DiTFlow, Pondaven et al. 2024, code at 4db379b) maximises the cosine, which knows no pace.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from retake.diffusion.backbone import Backbone, Condition
from retake.diffusion.motion_feature import content_removed
from retake.diffusion.sampling.ddim import Source
from retake.diffusion.sampling.windows import Latents, Windows, swept
from retake.diffusion.shared_attention import SharedAttention
from retake.errors import ConfigError
from retake.formats import CHUNK


@dataclass(frozen=True)
class Target:
    """What an object's motion feature shall be. mask: float32 [F, h, w], 0..1, the object's cells of the latent grid;
    channels: int64 [K]; curve: float32 [F, K]; pace: how fast it goes, against the clips in which the channels were
    found. places: float32 [F, 2], (x, y) as shares of the picture, where a point of the object shall be; None where
    none is dragged."""

    mask: Tensor
    channels: Tensor
    curve: Tensor
    places: Tensor | None = None
    pace: float = 1.0


@dataclass(frozen=True)
class Guide:
    """How motion is steered. site: a name of `Backbone.sites`. first, last: steps that are guided, as shares of all.
    updates: of the latents in each. distance: "relative", or "squared" as published. amplitude: of targets' courses,
    for a pace of 1, against the feature's own size. rate: how far an update moves the latents that are free to change,
    root mean square, in standard deviations of the noise in them, for a weight of 1; of squared distance: of gradient
    descent. weight: of motion. drag: weight of the loss by which points are dragged; dragged: first and last step of
    that, as shares. clip: latent frames of the clip, from the first on, whose gradient is zero outside the masks;
    None: all. shared: pattern of the self-attention layers that take keys and values from an unguided clip, or None.
    remove_content: what frames share is taken off features (false: the paper's ablation)."""

    site: str
    first: float = 0.12
    last: float = 0.48
    updates: int = 2
    distance: str = "relative"
    amplitude: float = 3.0
    rate: float = 0.05
    weight: float = 1.0
    drag: float = 0.0
    dragged: tuple[float, float] = (0.24, 0.8)
    clip: int | None = None
    shared: str | None = None
    remove_content: bool = True

    def steers(self, step: int, steps: int) -> bool:
        return self.weight > 0 and round(self.first * steps) <= step < round(self.last * steps)

    def drags(self, step: int, steps: int) -> bool:
        return self.drag > 0 and round(self.dragged[0] * steps) <= step < round(self.dragged[1] * steps)


def averaging(mask: Tensor, height: int, width: int) -> Tensor:
    """Weights [F, height, width] whose sum over a map of that grid is the mean of the map, enlarged bilinearly to the
    mask's grid, over the mask [F, H, W]: the mean without the enlarged map. Frames without a mask weigh nothing."""
    with torch.enable_grad():
        small = torch.zeros(len(mask), 1, height, width, dtype=mask.dtype, device=mask.device, requires_grad=True)
        large = F.interpolate(small, mask.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        mean = (large * mask).sum((-2, -1)) / mask.sum((-2, -1)).clamp(min=1e-6)
        (weights,) = torch.autograd.grad(mean.sum(), small)
    return weights[:, 0]


def motion(features: Tensor, mask: Tensor, removed: bool = True) -> Tensor:
    """The motion feature float32 [F, C] of an object: features [1, F, C, h, w], their content taken off unless not
    `removed`, over a mask [F, H, W]."""
    weights = averaging(mask, features.shape[-2], features.shape[-1]).to(features.device)
    features = content_removed(features.float()) if removed else features.float()
    return (features[0] * weights[:, None]).sum((-2, -1))


def free_cells(targets: Sequence[Target]) -> Tensor:
    """Cells bool [F, h, w] that change: those that the masks cover by more than half; of masks that cover no cell so
    far, by more than half of what they do at most."""
    masks = torch.stack([target.mask for target in targets]).amax(0)
    return masks > min(0.5, float(masks.max()) / 2)


def squared(features: Tensor, targets: Sequence[Target], removed: bool = True) -> Tensor:
    """Distance of features [1, F, C, h, w] from each target's curve as published: mean of squares over frames and
    channels, summed over the targets."""
    return sum(
        (F.mse_loss(*pair) for pair in shown_and_wanted(features, targets, removed)), features.new_zeros(()).float()
    )


def relative(features: Tensor, targets: Sequence[Target], removed: bool = True, amplitude: float = 1.0) -> Tensor:
    """Distance of features [1, F, C, h, w] from each target's course, summed over the targets: the sum over frames and
    channels of (feature / its size - course) squared, the course being of the size of pace times amplitude."""
    total = features.new_zeros(()).float()
    for target, (found, wanted) in zip(targets, shown_and_wanted(features, targets, removed), strict=True):
        course = wanted / wanted.norm().clamp(min=1e-12)
        own = found / found.detach().norm().clamp(min=1e-12)
        total = total + (own - amplitude * target.pace * course).square().sum()
    return total


def shown_and_wanted(features: Tensor, targets: Sequence[Target], removed: bool) -> list[tuple[Tensor, Tensor]]:
    """What each target's object shows and what it shall, float32 [F, K] each."""
    found = (motion(features, target.mask, removed)[:, target.channels.to(features.device)] for target in targets)
    return [(own, target.curve.to(own)) for own, target in zip(found, targets, strict=True)]


def drag_loss(features: Tensor, targets: Sequence[Target]) -> Tensor:
    """How far features [1, F, C, h, w] at the places of dragged points are from those at their first places: one minus
    the cosine, mean over frames and over a disc about each place, summed over the targets (the paper's eq. 4)."""
    total = features.new_zeros((), dtype=torch.float32)
    for target in targets:
        if target.places is None or len(target.places) < 2:
            continue
        at = target.places[:, None] + disc()  # [F, K, 2]
        found = F.grid_sample(features[0].float(), 2 * at[:, :, None].to(features.device) - 1, align_corners=False)
        first = found[:1].detach().expand_as(found[1:])
        total = total + (1 - F.cosine_similarity(found[1:], first, dim=1)).mean()
    return total


def disc() -> Tensor:
    """Offsets float32 [K, 2] about a dragged point, in shares of the picture: two cells of 64 (DIFT's grid)."""
    return torch.tensor([[x, y] for x in range(-2, 3) for y in range(-2, 3) if x * x + y * y <= 4]) / 64


def steered(
    backbone: Backbone,
    z: Tensor,
    t: float,
    condition: Condition,
    targets: Sequence[Target],
    guide: Guide,
    shared: Any,
    weights: tuple[float, float] | None = None,
    clip: int | None = None,
) -> tuple[Tensor, float]:
    """Latents [1, F, C, h, w] after the guide's updates at timestep t, and the loss before the last of them. weights:
    of the losses of motion and of dragged points, by default the guide's. clip: frames, from the first on, whose
    gradient is zero outside the masks; None: all. Raises ConfigError E257 for a network through
    which no gradient goes, E274 for a site that it has not."""
    of_motion, of_drag = weights or (guide.weight, guide.drag)
    free = free_cells(targets).to(z)[None, :, None]  # [1, F, 1, h, w]
    if clip is not None:
        free[:, clip:] = 1
    value, noise = 0.0, float(backbone.schedule.sigma(t))
    for _ in range(guide.updates):
        z = z.detach().requires_grad_(True)
        used = shared.used() if shared is not None else nullcontext()
        with torch.enable_grad(), used, backbone.checkpointed():
            features = backbone.features(z, t, condition, [guide.site])[guide.site]
            if not features.requires_grad:
                raise ConfigError(
                    "E257",
                    f"no gradient reaches the latents from {guide.site}: this network cannot be steered",
                    "Try model.offload=none, weights that are not quantised, or another model.",
                )
            terms: list[tuple[float, Tensor]] = []
            if of_motion and guide.distance == "relative":
                terms.append((of_motion, relative(features, targets, guide.remove_content, guide.amplitude)))
            elif of_motion:
                terms.append((of_motion, squared(features, targets, guide.remove_content)))
            if of_drag and (drags := drag_loss(features, targets)).requires_grad:
                terms.append((of_drag, drags))
            if not terms:  # a drag of one frame goes nowhere
                return z.detach(), value
            # Within the block: what is run again for a gradient must attend as it did.
            down = torch.zeros_like(z)
            for n, (weight, term) in enumerate(terms, 1):
                (gradient,) = torch.autograd.grad(term, z, retain_graph=n < len(terms))
                gradient = gradient * free
                down += weight * (gradient if guide.distance == "squared" else noise * unit(gradient, free))
        z, value = (z - guide.rate * down).detach(), sum(weight * float(term.detach()) for weight, term in terms)
    return z, value


def unit(gradient: Tensor, free: Tensor) -> Tensor:
    """A gradient [1, F, C, h, w] whose root mean square over the free cells [1, F, 1, h, w] is 1, or that is zero."""
    count = free.sum() * gradient.shape[2]
    return gradient * (count.sqrt() / gradient.norm().clamp(min=1e-12))


class Steering:
    """Steers a clip of any length, window by window: `before` of ddim.sample.

    targets: of a window's frames. plain: the clip that is not steered, whose keys and values are shared; asked for
    guided steps alone. told: (level, loss of all windows) after each guided step.
    """

    def __init__(
        self,
        backbone: Backbone,
        z: Latents,
        condition: Condition,
        targets: Callable[[range], Sequence[Target]],
        guide: Guide,
        *,
        steps: int,
        windows: Windows,
        plain: Source | Unsteered | None = None,
        told: Callable[[int, float], None] = lambda level, loss: None,
    ) -> None:
        self.backbone, self.z, self.condition, self.guide = backbone, z, condition, guide
        self.steps, self.windows, self.plain, self.told = steps, windows, plain, told
        self.targets = {span: targets(span) for span in windows.spans}

    def __call__(self, level: int, t: float) -> None:
        step, guide = self.steps - level, self.guide
        weights = (
            guide.weight if guide.steers(step, self.steps) else 0.0,
            guide.drag if guide.drags(step, self.steps) else 0.0,
        )
        if not any(weights):
            return
        if isinstance(self.plain, Unsteered):
            self.plain.begin(self.z, level)
        total = 0.0

        def steer(spans: Sequence[range]) -> Tensor:
            nonlocal total
            part, value = self.steered(spans[0], level, t, weights)
            total += value
            return part

        for frames, made in swept(self.windows, 1, steer):
            self.z[frames.start : frames.stop] = made
        self.told(level, total)

    def steered(self, span: range, level: int, t: float, weights: tuple[float, float]) -> tuple[Tensor, float]:
        """Latents [1, n, C, h, w] of a window after the guide's updates, and the loss."""
        part = self.z[span.start : span.stop].to(self.backbone.device, torch.float32)[None]
        targets, guide = self.targets[span], self.guide
        if not targets or not (weights[0] or any(target.places is not None for target in targets)):
            return part, 0.0
        clip = None if guide.clip is None else max(0, guide.clip - span.start)
        shared = self.shared(level, t, span)
        return steered(self.backbone, part, t, self.condition, targets, guide, shared, weights, clip)

    def shared(self, level: int, t: float, span: range) -> SharedAttention | None:
        """What the layers read of the clip that is not steered."""
        if self.guide.shared is None or self.plain is None:
            return None
        shared = SharedAttention(self.backbone, self.guide.shared)
        if isinstance(self.plain, Unsteered):
            if len(self.windows.spans) == 1:  # its next step goes through the very same layers
                self.plain.remembered(level, shared)
                return shared
            plain = self.plain.at(level, span)
        else:
            plain = self.plain(level, span)
        with torch.no_grad(), shared.remembered():
            self.backbone.features(plain.to(self.backbone.device)[None].float(), t, self.condition, [self.guide.site])
        return shared


class Unsteered:
    """The clip as it is sampled without steering, from the first step on that is steered: until then both are one.

    z: latents to hold it, changed in place. step: (z, level) makes the step down from a level; halves: it is asked
    with guidance, its conditioned rows behind the others. level: that of z, where a run that was killed had begun it.
    """

    def __init__(
        self, z: Latents, step: Callable[[Latents, int], object], halves: bool, level: int | None = None
    ) -> None:
        self.z, self.level, self.halves, self._step = z, level, halves, step

    def begin(self, z: Latents, level: int) -> None:
        """Begin as z at a level, unless it has begun."""
        if self.level is None:
            for first in range(0, z.shape[0], CHUNK):
                self.z[first : first + CHUNK] = z[first : first + CHUNK]
            self.level = level

    def at(self, level: int, frames: range) -> Tensor:
        """Its latents [n, C, h, w] at a level, no higher than the last that was asked for."""
        assert self.level is not None, "it begins with the clip that is steered"
        while self.level > level:
            self._step(self.z, self.level)
            self.level -= 1
        return self.z[frames.start : frames.stop]

    def remembered(self, level: int, shared: SharedAttention) -> None:
        """Make the step down from a level, in which layers remember what they read."""
        self.at(level, range(0))
        with shared.remembered(self.halves):
            self.at(level - 1, range(0))
