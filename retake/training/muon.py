"""Muon: momentum whose update of a matrix is made orthogonal (Jordan et al. 2024, "Muon: An optimizer for hidden
layers in neural networks").

torch.optim.Muon takes matrices alone and multiplies in bfloat16, which processors without matrix units do many times
slower than float32; kernels of convolutions are matrices [out, in * k * k], too. The Newton-Schulz iteration is run
on the small Gram matrix here: for a kernel 64 x 1728 that is a fiftieth of the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

QUINTIC = (3.4445, -4.7750, 2.0315)  # coefficients of the iteration, of the source
STEPS = 5
SMALLEST = 8  # rows or columns; below it a weight is no matrix worth turning


class Muon(torch.optim.Optimizer):
    """params: weights of at least two dimensions. lr: of an update whose singular values are about 1, scaled by
    sqrt(max(1, out / in)). Nesterov momentum, decoupled weight decay."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            alike: dict[tuple[int, int], list[tuple[nn.Parameter, Tensor]]] = {}
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state: dict[str, Any] = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
                ahead = weight.grad.lerp(state["momentum"], group["momentum"]).flatten(1)
                alike.setdefault((ahead.shape[0], ahead.shape[1]), []).append((weight, ahead))
            for (rows, columns), some in alike.items():
                updates = orthogonal(torch.stack([ahead for _, ahead in some]))
                scale = max(1.0, rows / columns) ** 0.5
                for (weight, _), update in zip(some, updates, strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(update.view_as(weight), alpha=-group["lr"] * scale)


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices [N, r, c] with their singular values brought near 1 (0.7 to 1.2), their singular vectors kept."""
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonal(matrices.mT).mT
    x = matrices / matrices.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None]
    gram = x @ x.mT
    eye = torch.eye(x.shape[1], device=x.device, dtype=x.dtype)
    whole = eye.expand_as(gram)
    a, b, c = QUINTIC
    for _ in range(STEPS):
        turn = a * eye + b * gram + c * gram @ gram
        whole = turn @ whole
        gram = turn @ gram @ turn
    return whole @ x


def is_matrix(name: str, weight: Tensor) -> bool:
    """Whether Muon is for this weight: hidden matrices and kernels. What reads pixels, tokens or the time, and what
    writes the output, learns better by Adam (same source)."""
    outer = ("conv_in", "conv_out", "embedding", "patch_embed", "proj_out.", "time_proj", "position", "shared")
    rows = weight.shape[0] if weight.ndim else 1
    wide = weight.ndim >= 2 and min(rows, weight.numel() // max(rows, 1)) >= SMALLEST
    return wide and not any(part in name for part in outer)
