"""A video transformer aligned with what a frozen video encoder knows of motion (MoAlign's second stage).

While it learns to denoise as before, what leaves one of its blocks is projected to the encoder's grid, and the
relations between its tokens are drawn towards those between the encoder's. The projection is thrown away afterwards:
the aligned transformer costs nothing more.

Sources: MoAlign (Bhowmik et al., ICLR 2026, sec. 3.2, eq. 5 to 9, appendix A.4: block 18 of 30, lambda 0.5, tau 10 at
24 tubes); the baselines are those of its table 3: VideoREPA's margin loss and REPA's cosine. Temporal relations are
averaged over pairs of different frames; the paper does not say over which.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retake.diffusion.families.cogvideox.transformer import evaluate, evaluate_and_read
from retake.diffusion.schedule import Schedule
from retake.training import relations, transformer
from retake.training.lessons import SCHEDULE
from retake.training.motion_clips import Clips

WEIGHT = 0.5  # of the alignment (lambda)
DECAY = 10 / 24  # of temporal relations (tau), in clips
TOKENS = 8  # of the embedded transformer a side, and so of the encoder
LORA = 16  # rank, of the embedded model (VideoREPA's, of CogVideoX-5B: 128)
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")  # layers that a LoRA stands beside
BLOCK = 0.6  # of the blocks: behind which tokens are read


@dataclass(frozen=True)
class How:
    """Which loss: MoAlign's ("soft"), VideoREPA's ("margin"), REPA's ("cosine") or "none". features: of the encoder:
    its motion subspace, "raw", or a "random" projection of as many channels. of: the clip's "own", "another" clip's
    (the next of the batch) or its own with tubes in another order ("shuffled"), two controls. weight: of the
    alignment."""

    loss: Literal["soft", "margin", "cosine", "none"] = "soft"
    features: Literal["motion", "raw", "random"] = "motion"
    of: Literal["own", "another", "shuffled"] = "own"
    weight: float = WEIGHT


class Projection(nn.Module):
    """From a transformer's tokens [B, f, h, w, width] to the encoder's grid [B, T, h / stride, w / stride, out]: the
    first latent frame, which is a single frame's, is left out, and each other one becomes two tubes."""

    def __init__(self, width: int, out: int, hidden: int = 256, stride: int = 1) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.time = nn.Conv3d(width, hidden, (3, 1, 1), padding=(1, 0, 0))
        self.narrow = nn.Conv3d(hidden, out, 1)
        self.space = nn.Conv3d(out, out, (1, stride, stride), (1, stride, stride)) if stride > 1 else nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        found = self.narrow(F.silu(self.time(self.norm(tokens).movedim(-1, 1))))[:, :, 1:]
        found = F.interpolate(found, scale_factor=(2, 1, 1), mode="trilinear", align_corners=False)
        return self.space(found).movedim(1, -1)


class Aligned(nn.Module):
    """A transformer that learns, the projection that learns with it, and its text tower, which does not.

    hidden, stride: of the projection; the paper's are 256 and 3 (CogVideoX-2B's tokens against VideoMAE's at 160 x
    240). lora: rank of what learns in place of the transformer's own weights, beside its attention; None: these do."""

    def __init__(
        self, student: transformer.Student, out: int, hidden: int = 128, stride: int = 1, lora: int | None = None
    ) -> None:
        super().__init__()
        self.student = student
        student.text.requires_grad_(False)
        if lora is not None:
            from peft import LoraConfig

            student.transformer.requires_grad_(False)
            student.transformer.add_adapter(LoraConfig(r=lora, lora_alpha=lora, target_modules=list(ATTENTION)))
        config = student.transformer.config
        self.block = max(0, round(BLOCK * config.num_layers) - 1)
        self.projection = Projection(config.num_attention_heads * config.attention_head_dim, out, hidden, stride)

    def denoised(self, z: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        """v [B, f, C, h, w] of noisy latents at times t [B], and nothing else."""
        states = self.student.text(tokens).last_hidden_state
        return evaluate(self.student.transformer, z, t[:, None].expand(z.shape[:2]), states)

    def forward(self, z: Tensor, t: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """v, and the projected tokens [B, T, h', w', out]."""
        states = self.student.text(tokens).last_hidden_state
        times = t[:, None].expand(z.shape[:2])
        made, read = evaluate_and_read(self.student.transformer, z, times, states, self.block)
        return made, self.projection(read)


def apart(loss: str, student: Tensor, teacher: Tensor) -> Tensor:
    """How far projected tokens [B, T, h, w, D] are from the encoder's [B, T, h, w, E] by one of the losses of `How`."""
    one, other = student.flatten(2, 3), teacher.flatten(2, 3)
    if loss == "soft":
        return relations.spatial(one, other) + relations.temporal(one, other, DECAY * one.shape[1])
    return relations.margin(one, other) if loss == "margin" else relations.cosine(one, other)


def wanted(features: Tensor, how: How, subspace: Any, random: torch.Generator) -> Tensor:
    """What the student is aligned with, [B, T, h, w, E], of the encoder's features [B, T, h, w, D] of its clips."""
    features = features.float()
    if how.of == "another":
        features = features.roll(1, 0)
    if how.of == "shuffled":
        features = torch.stack([one[torch.randperm(len(one), generator=random)] for one in features])
    if how.features == "motion":
        with torch.no_grad():
            return subspace.motion(features.to(subspace.device))
    if how.features == "random":
        width = int(subspace.config.width)
        mix = torch.randn(features.shape[-1], width, generator=torch.Generator().manual_seed(0))
        return features @ mix
    return features


def width_of(how: How, data: Clips, subspace: Any) -> int:
    """Channels that a projection gives: the encoder's own for a loss that compares token by token."""
    return data.width if how.loss == "cosine" and how.features == "raw" else int(subspace.config.width)


def loss(
    model: Aligned, data: Clips, subspace: Any, how: How, batch: int, power: float, seed: int, device: str
) -> Callable[[int], tuple[Tensor, dict[str, float]]]:
    """(step) -> squared error of v for a batch of clips, and their alignment, weighed; both for the curve. A tenth of
    the clips is shown without its caption. The data of a step are the same for every `how`."""
    schedule = Schedule.from_config(SCHEDULE)
    said, silent = transformer.tokenised(data.captions), transformer.tokenised([""])

    def of(step: int) -> tuple[Tensor, dict[str, float]]:
        random = torch.Generator().manual_seed(seed * 1_000_003 + step)
        picked = torch.randint(len(data), (batch,), generator=random)
        some = data.take(picked.tolist())
        x0 = some.latents.float()
        noise = torch.randn(x0.shape, generator=random)
        u = (torch.arange(batch) + torch.rand(batch, generator=random)) / batch
        t = (u**power * schedule.length).long().clamp(max=schedule.length - 1)
        tokens = torch.where(torch.rand(batch, 1, generator=random) < transformer.TOLD[0], silent, said[picked])
        given = schedule.noised(x0, noise, t).to(device), t.to(device), tokens.to(device)
        v = schedule.target(x0, noise, t).to(device)
        if how.loss == "none":
            square = (model.denoised(*given).float() - v).square().mean()
            return square, {"denoising": float(square.detach())}
        made, read = model(*given)
        square = (made.float() - v).square().mean()
        far = apart(how.loss, read, wanted(some.features, how, subspace, random).to(device))
        return square + how.weight * far, {"denoising": float(square.detach()), "alignment": float(far.detach())}

    return of


class Needed(NamedTuple):
    """Bytes that a step takes: all weights; what AdamW keeps of those that learn, in float32; and what lives at the
    peak of a forward and a backward pass, gradients among it."""

    weights: int
    moments: int
    passes: int


def needed(model: Aligned, z: Tensor, tokens: Tensor, teacher: Tensor) -> Needed:
    """Of a model and one batch on the meta device, by MoAlign's loss; blocks are run again in the backward pass where
    the transformer is set to. z, tokens: as `Aligned` takes them; teacher: the encoder's features [B, T, h, w, E]."""
    from retake.diffusion.cost.meta_counter import tally

    def step() -> None:
        made, read = model(z, torch.zeros(len(z), device=z.device), tokens)
        (made.float().square().mean() + WEIGHT * apart("soft", read, teacher)).backward()

    weights, learning = list(model.parameters()), [p for p in model.parameters() if p.requires_grad]
    peak = tally(step, [*weights, z, teacher]).peak
    return Needed(sum(p.numel() * p.element_size() for p in weights), sum(2 * 4 * p.numel() for p in learning), peak)
