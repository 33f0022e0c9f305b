"""The motion subspace of MoAlign: a few channels of a frozen video encoder's features from which flow can be told.

A head narrows the features, a decoder tells flow from what is left; what flow does not need has no place in it.

Source: MoAlign (Bhowmik et al., ICLR 2026, sec. 3.1 and appendix A.3). Widths within the decoder are not published:
each of its two enlargements halves them here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

from retake.training.motion_clips import Clips

WIDTH = 16  # of the embedded subspace, of 128 (published: 64 of 768)


class MotionSubspace(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Head and decoder for features of `features` channels. width: of the subspace. Saved and read as any model of
    diffusers."""

    @register_to_config
    def __init__(self, features: int, width: int = 64, hidden: int = 256) -> None:
        super().__init__()
        self.head = nn.Sequential(
            nn.Conv3d(features, hidden, (3, 1, 1), padding=(1, 0, 0)), nn.SiLU(), nn.Conv3d(hidden, width, 1), nn.SiLU()
        )
        self.between = nn.Conv3d(width, width, (2, 1, 1))
        self.enlarge = nn.Sequential(
            nn.SiLU(),
            nn.ConvTranspose2d(width, width // 2, 4, 2, 1),
            nn.SiLU(),
            nn.ConvTranspose2d(width // 2, width // 4, 4, 2, 1),
            nn.SiLU(),
            nn.Conv2d(width // 4, 2, 3, padding=1),
        )

    def motion(self, features: Tensor) -> Tensor:
        """The subspace [B, T, h, w, M] of features [B, T, h, w, D]."""
        return self.head(features.movedim(-1, 1)).movedim(1, -1)

    def forward(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        """Flow [B, T - 1, 2, *size], from each tube to the next, in units of motion_clips.SCALE."""
        between = self.between(self.motion(features).movedim(-1, 1)).transpose(1, 2)  # [B, T - 1, M, h, w]
        made = self.enlarge(between.flatten(0, 1))
        made = F.interpolate(made, size, mode="bilinear", align_corners=False)
        return made.unflatten(0, between.shape[:2])


def network(features: int, width: int = WIDTH) -> MotionSubspace:
    return MotionSubspace(features, width, hidden=64)


def distance(made: Tensor, flow: Tensor, seen: Tensor) -> Tensor:
    """Mean absolute difference of two flows [B, T, 2, H, W] where it is seen [B, T, H, W] in the next tube, too."""
    apart = (made.float() - flow.float()).abs().sum(2)
    return (apart * seen).sum() / seen.sum().clamp(min=1) / 2


def loss(
    model: Any, data: Clips, batch: int, seed: int, device: str
) -> Callable[[int], tuple[Tensor, dict[str, float]]]:
    """(step) -> distance of the told flow from the true one, for a batch of clips; for the curve its end-point error in
    units of motion_clips.SCALE, and that of no flow at all."""

    def of(step: int) -> tuple[Tensor, dict[str, float]]:
        random = torch.Generator().manual_seed(seed * 1_000_003 + step)
        some = data.take(torch.randint(len(data), (batch,), generator=random).tolist())
        flow, seen = some.flow.to(device).float(), some.seen.to(device)
        made = model(some.features.to(device).float(), flow.shape[-2:])
        told = {"epe": endpoint(made.detach(), flow, seen), "still": endpoint(torch.zeros_like(flow), flow, seen)}
        return distance(made, flow, seen), told

    return of


def endpoint(made: Tensor, flow: Tensor, seen: Tensor) -> float:
    """Mean length of the difference of two flows [B, T, 2, H, W] where it is seen [B, T, H, W]."""
    return float((made - flow).norm(dim=2)[seen].mean())
