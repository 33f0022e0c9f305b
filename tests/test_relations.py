"""The losses of alignment against plain loops, and what leaves them unmoved."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from retake.training import relations

DECAY = 3.0


def tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a: Tensor, b: Tensor) -> float:
    return float((a @ b) / (a.norm() * b.norm()))


def by_loops(student: Tensor, teacher: Tensor) -> dict[str, float]:
    """The losses of one clip, pair by pair."""
    frames, places = student.shape[1:3]
    within: list[float] = []
    between: list[float] = []
    beyond: list[float] = []
    for f in range(frames):
        for g in range(frames):
            for i in range(places):
                for j in range(places):
                    apart = abs(cosine(student[0, f, i], student[0, g, j]) - cosine(teacher[0, f, i], teacher[0, g, j]))
                    beyond.append(max(0.0, apart - 0.1))
                    if f == g:
                        within.append(apart)
                    else:
                        between.append(math.exp(-abs(f - g) / DECAY) * apart)
    return {
        "spatial": sum(within) / len(within),
        "temporal": sum(between) / len(between),
        "margin": sum(beyond) / len(beyond),
    }


def losses(student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
    return {
        "spatial": relations.spatial(student, teacher),
        "temporal": relations.temporal(student, teacher, DECAY),
        "margin": relations.margin(student, teacher),
    }


def test_losses_equal_plain_loops():
    student, teacher = tokens(1, 4, 5, 6), tokens(1, 4, 5, 3, seed=1)
    found, wanted = losses(student, teacher), by_loops(student, teacher)
    for name in wanted:
        assert float(found[name]) == pytest.approx(wanted[name], abs=1e-6), name


def test_features_that_are_turned_and_scaled_have_the_same_relations():
    student = tokens(2, 3, 4, 6)
    turned = student @ torch.linalg.qr(tokens(6, 6, seed=2)).Q * 7.5
    for name, loss in losses(student, turned).items():
        assert float(loss) < 1e-6, name
    assert float(relations.cosine(student, 3 * student)) == pytest.approx(-1)


def test_space_knows_no_order_of_frames_and_time_knows_no_single_frame():
    student, teacher = tokens(1, 5, 4, 6), tokens(1, 5, 4, 3, seed=1)
    order = torch.tensor([3, 0, 4, 1, 2])
    here, there = losses(student, teacher), losses(student[:, order], teacher[:, order])
    torch.testing.assert_close(here["spatial"], there["spatial"])
    torch.testing.assert_close(here["margin"], there["margin"])
    assert abs(float(here["temporal"] - there["temporal"])) > 1e-3
    assert float(relations.temporal(student[:, :1], teacher[:, :1], DECAY)) == 0


def test_frames_that_are_far_apart_weigh_less():
    """Only the relation of the first frame with one other is wrong: the nearer that is, the more it costs."""
    student = tokens(1, 1, 4, 6).expand(1, 6, 4, 6)
    costs = []
    for wrong in range(1, 6):
        teacher = student.clone()
        teacher[:, wrong] = tokens(4, 6, seed=9)
        alone = (
            torch.stack([student[0, 0], student[0, wrong]])[None],
            torch.stack([teacher[0, 0], teacher[0, wrong]])[None],
        )
        near = float(relations.temporal(*alone, DECAY))
        whole = relations.temporal(student, teacher, DECAY)
        weights = sum(math.exp(-abs(wrong - f) / DECAY) for f in range(6) if f != wrong)
        assert float(whole) == pytest.approx(near / math.exp(-1 / DECAY) * weights / 15, rel=1e-5)
        costs.append(float(whole))
    assert costs[2] > costs[0] > 0  # one in the middle is near to more frames than one at the end


def test_tokens_of_zeros_have_finite_gradients():
    student, teacher = torch.zeros(1, 3, 4, 6, requires_grad=True), tokens(1, 3, 4, 6).float()
    sum([*losses(student, teacher).values(), relations.cosine(student, teacher)]).backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_gradients_reach_the_student_alone_and_lower_the_loss():
    teacher = tokens(1, 4, 6, 3).float()
    student = tokens(1, 4, 6, 8, seed=4).float().requires_grad_(True)
    first = float(sum(losses(student.detach(), teacher).values()))
    optimiser = torch.optim.Adam([student], 0.05)
    for _ in range(60):
        optimiser.zero_grad()
        sum(losses(student, teacher).values()).backward()
        optimiser.step()
    assert float(sum(losses(student.detach(), teacher).values())) < 0.5 * first


def peak(frames: int) -> int:
    """Bytes that the largest tensor of a pass and its gradient takes, at the grid of CogVideoX-2B (MoAlign, A.4)."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        held = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            made = func(*args, **(kwargs or {}))
            for one in made if isinstance(made, tuple | list) else (made,):
                if isinstance(one, Tensor):
                    self.held = max(self.held, one.numel() * one.element_size())
            return made

    student = torch.zeros(1, frames, 150, 64, device="meta", requires_grad=True)
    with Largest() as seen:
        sum(losses(student, torch.zeros(1, frames, 150, 64, device="meta")).values()).backward()
    return seen.held


def test_no_more_than_a_frames_relations_are_held():
    assert peak(24) <= 24 * 150 * 150 * 4  # of all pairs 24 times as much
