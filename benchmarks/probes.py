"""Linear probes: what can be told from features by a ridge regression, on data that it was not fitted to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

PENALTY = 1e-2  # of the weights, for features of unit variance


def told(features: Tensor, wanted: Tensor, others: Tensor, penalty: float = PENALTY) -> Tensor:
    """What a ridge regression from features [N, D] to wanted [N, K] tells of `others` [M, D]: float64 [M, K]."""
    mean, spread = features.double().mean(0), features.double().std(0).clamp(min=1e-6)
    known, asked = (torch.cat([(x.double() - mean) / spread, torch.ones(len(x), 1)], 1) for x in (features, others))
    weigh = penalty * len(known) * torch.eye(known.shape[1], dtype=torch.double)
    weigh[-1, -1] = 0.0  # the constant is free
    return asked @ torch.linalg.solve(known.T @ known + weigh, known.T @ wanted.double())


def guessed(features: Tensor, names: Sequence[str], others: Tensor, theirs: Sequence[str]) -> float:
    """Share of `others` whose name is told from their features, after `features` and their names."""
    kinds = sorted({*names, *theirs})
    wanted = torch.nn.functional.one_hot(torch.tensor([kinds.index(name) for name in names]), len(kinds))
    found = told(features, wanted, others).argmax(1)
    return float((found == torch.tensor([kinds.index(name) for name in theirs])).double().mean())
