"""Masks, depth, flow and tracks of pixels on the latent grid, against what can be worked out by hand."""

from __future__ import annotations

import pytest
import torch

from retake.diffusion.grid import cells, latent_frames, to_grid
from retake.errors import ConfigError


def test_masks_become_coverage() -> None:
    masks = torch.zeros(2, 8, 12, dtype=torch.bool)
    masks[0, :4, :6] = True
    found = to_grid(masks, "masks", 4, 1)
    assert torch.equal(found, torch.tensor([[[1, 0.5, 0], [0, 0, 0]], [[0.0] * 3] * 2]))


def test_a_latent_frame_stands_for_the_four_frames_up_to_its_own() -> None:
    masks = torch.zeros(9, 4, 4)
    masks[0] = masks[4] = masks[5] = 1
    assert to_grid(masks, "masks", 4, 4)[:, 0, 0].tolist() == [1, 0.25, 0.25]
    depth = torch.arange(9.0)[:, None, None].expand(9, 4, 4)
    assert to_grid(depth, "depth", 4, 4)[:, 0, 0].tolist() == [0, 2.5, 6.5]
    assert to_grid(depth[:1], "depth", 2, 4).shape == (1, 2, 2)


def test_flow_is_in_cells() -> None:
    flow = torch.tensor([8.0, -4.0]).expand(3, 16, 24, 2)
    found = to_grid(flow, "flow", 8, 1)
    assert found.shape == (3, 2, 3, 2)
    assert torch.equal(found, torch.tensor([1.0, -0.5]).expand(3, 2, 3, 2))


def test_flow_is_followed_over_the_time_stride() -> None:
    constant = torch.tensor([1.0, 2.0]).expand(8, 16, 16, 2)
    assert (to_grid(constant, "flow", 4, 4) - torch.tensor([1.0, 2.0])).abs().max() < 1e-6
    # A field that grows along x: every step is read where the ones before it lead, x -> 1.1 x + 0.1.
    x = torch.arange(16.0)[None, None, :].expand(4, 4, 16)
    flow = torch.stack([0.1 * x + 0.1, torch.zeros_like(x)], -1)
    moved = x[0, 0]
    for _ in range(4):
        moved = 1.1 * moved + 0.1
    found = to_grid(flow, "flow", 1, 4)[0, 0, :8, 0]
    assert (found - (moved - x[0, 0])[:8]).abs().max() < 1e-4


def test_tracks_keep_the_centres_of_cells() -> None:
    """A point in the middle of cell i stands at i; one in the middle of the first pixel half a cell before, less that
    pixel's half."""
    tracks = torch.tensor([[[3.5, 11.5], [0.0, 0.0], [7.5, -0.5]]]).expand(5, 3, 2)
    assert torch.equal(to_grid(tracks, "tracks", 8, 1)[0], torch.tensor([[0, 1], [-0.4375, -0.4375], [0.5, -0.5]]))
    moving = torch.arange(5.0)[:, None, None].expand(5, 1, 2)
    assert to_grid(moving, "tracks", 1, 4)[:, 0, 0].tolist() == [0, 4]
    seen = torch.tensor([[True], [False], [True], [True], [False]])
    assert to_grid(seen, "visible", 8, 4)[:, 0].tolist() == [True, False]


def test_tracks_and_masks_agree() -> None:
    masks = torch.zeros(1, 32, 32)
    masks[0, 8:16, 24:32] = 1
    y, x = (axis.float().mean() for axis in masks[0].nonzero(as_tuple=True))
    y_cell, x_cell = (axis.float().mean() for axis in to_grid(masks, "masks", 4, 1)[0].nonzero(as_tuple=True))
    assert torch.equal(to_grid(torch.stack([x, y])[None, None], "tracks", 4, 1)[0, 0], torch.stack([x_cell, y_cell]))


@pytest.mark.parametrize(
    "ask",
    [
        lambda: to_grid(torch.zeros(2, 9, 8), "masks", 4, 1),
        lambda: to_grid(torch.zeros(2, 8, 9), "masks", 4, 1),
        lambda: to_grid(torch.zeros(8, 8, 8), "masks", 4, 4),
        lambda: to_grid(torch.zeros(7, 8, 8, 2), "flow", 4, 4),
        lambda: to_grid(torch.zeros(8, 3, 2), "tracks", 4, 4),
        lambda: to_grid(torch.zeros(8, 3, 2), "normals", 4, 1),
        lambda: latent_frames(0, 1),
        lambda: latent_frames(16, 4),
        lambda: cells(100, 8, "pixels of width"),
    ],
)
def test_what_does_not_fit_is_refused(ask) -> None:
    with pytest.raises(ConfigError) as refusal:
        ask()
    assert refusal.value.code == "E272"
