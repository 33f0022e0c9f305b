"""Losses that align one network's tokens with another's: by the relations between them, or token by token.

Tokens are float [B, F, N, D]: F frames of N places; the two networks' D may differ but for `cosine`. Relations are the
cosines of pairs of tokens. Nothing of the size of all pairs is kept: relations are made frame by frame, and once more
for gradients. Computed in float32.

Sources: MoAlign (Bhowmik et al., ICLR 2026, eq. 5 to 9): `spatial`, `temporal`; VideoREPA (Zhang et al. 2025, its loss
of token relations): `margin`; REPA (Yu et al. 2024): `cosine`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

SLACK = 0.1  # of VideoREPA: a difference between two cosines that costs nothing


def spatial(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean difference between relations of two places on one frame."""
    total = student.new_zeros((), dtype=torch.float32)
    for f in range(student.shape[1]):
        total = total + again(_differences, student[:, f : f + 1], teacher[:, f : f + 1]).mean()
    return total / student.shape[1]


def temporal(student: Tensor, teacher: Tensor, decay: float) -> Tensor:
    """Mean difference between relations of two places on two different frames, each weighed by exp(-d / decay) for
    frames that are d apart. One frame has none: zero."""
    frames, places = student.shape[1:3]
    total = student.new_zeros((), dtype=torch.float32)
    for f in range(frames - 1):
        pairs = (student[:, f : f + 1], teacher[:, f : f + 1], student[:, f + 1 :], teacher[:, f + 1 :])
        weights = torch.exp(-torch.arange(1, frames - f, device=student.device) / decay)
        total = total + again(_weighed, *pairs, weights)
    return total / max(1, frames * (frames - 1) // 2 * places**2)


def margin(student: Tensor, teacher: Tensor, slack: float = SLACK) -> Tensor:
    """Mean over all pairs of tokens of how far their relations differ beyond the slack."""
    frames = student.shape[1]
    total = student.new_zeros((), dtype=torch.float32)
    for f in range(frames):
        pairs = (student[:, f : f + 1], teacher[:, f : f + 1], student, teacher)
        total = total + again(_beyond, *pairs, slack)
    return total / frames


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """Minus the mean cosine of each token with the other network's own, both [B, F, N, D]."""
    return -(units(student) * units(teacher)).sum(-1).mean()


def units(tokens: Tensor) -> Tensor:
    """Tokens of length one; a token of zeros stays, with a finite gradient."""
    return F.normalize(tokens.float(), dim=-1, eps=1e-6)


def again(function: Callable[..., Tensor], *given: Tensor | float) -> Tensor:
    """What a function gives, which runs once more for its gradient in place of keeping what it has made."""
    return cast(Tensor, checkpoint(function, *given, use_reentrant=False))


def _differences(
    student: Tensor, teacher: Tensor, others: Tensor | None = None, theirs: Tensor | None = None
) -> Tensor:
    """|cosine - cosine| of the places of one frame [B, 1, N, D] with those of others [B, K, N, D]: [B, K, N, N]."""
    z, m = units(student), units(teacher)
    a, b = (z, m) if others is None or theirs is None else (units(others), units(theirs))
    return (z @ a.mT - m @ b.mT).abs()


def _weighed(student: Tensor, teacher: Tensor, others: Tensor, theirs: Tensor, weights: Tensor) -> Tensor:
    apart = _differences(student, teacher, others, theirs)
    return (apart.sum((-2, -1)) * weights).sum(1).mean()


def _beyond(student: Tensor, teacher: Tensor, others: Tensor, theirs: Tensor, slack: float) -> Tensor:
    return (_differences(student, teacher, others, theirs) - slack).clamp(min=0).mean()
