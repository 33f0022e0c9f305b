"""The motion feature against what is known of it."""

from __future__ import annotations

import torch

from retake.diffusion.motion_feature import content_removed, pooled, similarity


def features(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_a_motion_feature_has_no_mean_over_time_and_a_resting_clip_none_at_all():
    x = features(2, 6, 5, 4, 3)
    assert content_removed(x).mean(1).abs().max() < 1e-12
    assert content_removed(x[:, :1].expand(2, 6, 5, 4, 3)).abs().max() < 1e-12
    assert torch.allclose(content_removed(x + features(2, 1, 5, 4, 3)), content_removed(x))


def test_taking_content_off_channels_and_means_over_cells_commute():
    x, inside = features(1, 6, 5, 8, 8), (features(1, 1, 16, 16) > 0).double().expand(1, 6, 16, 16)
    some = torch.tensor([0, 3])
    first = pooled(content_removed(x)[:, :, some], inside)
    last = content_removed(pooled(x, inside)[..., None, None])[..., 0, 0][..., some]
    assert torch.allclose(first, last)


def test_pooling_is_the_mean_over_the_mask():
    x = features(1, 2, 3, 4, 4)
    inside = torch.zeros(1, 2, 8, 8)
    inside[:, 0, 2:4, 2:6] = 1  # two whole cells of the features' grid
    found = pooled(x, inside)
    assert torch.allclose(found[0, 0], x[0, 0, :, 1, 1:3].mean(-1))
    assert found[0, 1].abs().max() == 0  # a frame that the mask does not cover


def test_what_moves_alike_is_alike():
    ramp = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    x = torch.zeros(5, 2, 3, 4, dtype=torch.float64)
    x[:, 0, :, 0], x[:, 0, :, 1], x[:, 1, :, 2] = ramp, -ramp, ramp  # alike, opposite, another channel; none
    together = similarity(x, (1, 0), together=True)
    assert torch.allclose(together, torch.tensor([1.0, -1.0, 0.0, 0.0]).expand(3, 4), atol=1e-6)
    each = similarity(x, (1, 0), together=False)
    assert each.shape == (5, 3, 4)
    assert torch.allclose(each[0], together, atol=1e-6)
    assert torch.allclose(each[4, :, 0], torch.tensor(-1.0))  # at the end it is where the point never was at first
