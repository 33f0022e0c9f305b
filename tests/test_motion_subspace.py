"""What MoAlign learns motion from: clips with features and flow, and the subspace from which flow is told."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from retake.networks.video_mae import Grid, VideoMAE
from retake.synthetic import clips
from retake.synthetic.world import World
from retake.training import motion_clips, motion_subspace, video_mae

PLACES = 8


def encode(frames: np.ndarray) -> Tensor:
    """A latent frame for the first, and one for every four."""
    return torch.zeros(len(frames), 5, 2, 4, 4)


def features(frames: np.ndarray) -> Tensor:
    """Mean colours of each place in each tube's first frame."""
    pixels = torch.from_numpy(frames[:, :: motion_clips.TUBE]).float() / 255
    size = pixels.shape[2] // PLACES
    means = pixels.unflatten(3, (PLACES, size)).unflatten(2, (PLACES, size)).mean((3, 5))
    return means


@pytest.fixture(scope="module")
def studied(tmp_path_factory) -> motion_clips.Clips:
    folder = tmp_path_factory.mktemp("studied")
    assert motion_clips.render(folder, 24, encode, features)
    return motion_clips.read(motion_clips.shards(folder, 24))


@pytest.fixture(scope="module")
def encoder() -> VideoMAE:
    torch.manual_seed(0)
    return VideoMAE(video_mae.network().videomae, "fresh", torch.device("cpu"))


def test_flow_is_the_worlds_own_from_tube_to_tube(studied):
    world = World(clips.draw(motion_clips.SEED + 3, motion_clips.LIMITS).scene)
    flow, shown = (part[0].float() for part in studied.take([3])[2:])
    shown = shown.bool()
    assert flow.shape == (7, 2, 32, 32)
    for n, t in enumerate(range(1, 15, 2)):
        true = world.flow(t, t + 2) * motion_clips.SCALE / world.width
        inner = ~world.occlusion(t, t + 2).reshape(32, 2, 32, 2).any((1, 3)) & shown[n].numpy()
        wanted = true.reshape(32, 2, 32, 2, 2).mean((1, 3))
        assert inner.mean() > 0.5
        np.testing.assert_allclose(flow[n].permute(1, 2, 0).numpy()[inner], wanted[inner], atol=2e-3)


def test_what_is_hidden_in_the_next_tube_is_left_out():
    flow = torch.zeros(1, 2, 2, 4)
    flow[..., :2] = 3.0
    seen = torch.ones(1, 2, 4, dtype=torch.bool)
    seen[0, 0, 2:] = False  # half of the right cell
    seen[0, :, 0] = False  # half of the left one
    flow[0, :, :, 0] = 99.0
    mean, shown = motion_clips.pooled(flow, seen, 2)
    torch.testing.assert_close(mean, torch.tensor([[[[3.0, 0.0]], [[3.0, 0.0]]]]))
    assert shown.tolist() == [[[False, False]]]  # no more than half


def test_what_is_there_is_not_made_again(tmp_path):
    made: list[int] = []

    def counted(frames: np.ndarray) -> Tensor:
        made.append(1)
        return features(frames)

    assert motion_clips.render(tmp_path, 3, encode, counted)
    assert not motion_clips.render(tmp_path / "late", 3, encode, counted, until=0)
    assert motion_clips.render(tmp_path, 3, encode, counted)
    assert len(made) == 3


def test_clips_are_read_from_their_files_as_they_are_asked_for(studied):
    some = studied.take([5, 0, 5])
    assert torch.equal(some.features[0], some.features[2])
    assert not torch.equal(some.features[0], some.features[1])
    assert torch.equal(some.flow[1], studied.take([0]).flow[0])
    assert studied.captions[5] == motion_clips.drawn(motion_clips.SEED + 5).caption
    assert studied.width == 3


def test_the_encoder_is_transformers_own_and_reads_other_sizes(encoder):
    frames = np.random.default_rng(0).integers(0, 255, (1, 16, 64, 64, 3), np.uint8)
    found = encoder.clips(frames)
    pixels = torch.from_numpy(frames).float() / 255
    pixels = ((pixels - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])).movedim(-1, 2)
    with torch.inference_mode():
        own = encoder.model(pixel_values=pixels).last_hidden_state
    torch.testing.assert_close(found.flatten(1, 3), own)
    assert encoder.clips(np.zeros((2, 8, 32, 48, 3), np.uint8)).shape == (2, 4, 4, 6, 128)
    # Halving a grid leaves the table's slow waves where they were.
    table, half = encoder.positions(encoder.grid()), encoder.positions(Grid(4, 8, 8))
    assert half.shape == (1, 256, 128)
    slow = slice(100, 128)
    wanted = table.unflatten(1, (4, 2, 64)).mean(2).flatten(1, 2)
    torch.testing.assert_close(half[..., slow], wanted[..., slow], atol=1e-4, rtol=0)


def test_masks_hide_the_same_places_in_all_tubes():
    hidden = video_mae.masked(np.random.default_rng(0), 3, 64, 8).unflatten(1, (8, 64))
    assert hidden.sum(2).unique().tolist() == [round(video_mae.MASKED * 64)]
    assert (hidden == hidden[:, :1]).all()
    assert not torch.equal(hidden[0], hidden[1])


def test_flow_is_learnt_where_features_tell_it(studied, tmp_path):
    """Features that hold the flow of each place among channels of noise."""
    torch.manual_seed(0)
    own = studied.take(range(len(studied)))
    noise = torch.randn(len(studied), 8, 8, 8, 6, generator=torch.Generator().manual_seed(1))
    noise[:, :7, ..., :2] = 4 * F.avg_pool2d(own.flow.float().flatten(0, 1), 4).unflatten(0, (-1, 7)).movedim(2, -1)
    path = tmp_path / "told.safetensors"
    clips = [motion_clips.Study(*some) for some in zip(*own._replace(features=noise.half()), strict=True)]
    motion_clips.write(path, clips, studied.captions)
    told = motion_clips.read([path])
    model = motion_subspace.network(6)
    assert model.motion(told.take([0, 1]).features.float()).shape == (2, 8, 8, 8, motion_subspace.WIDTH)
    loss = motion_subspace.loss(model, told, 12, 0, "cpu")
    optimiser = torch.optim.AdamW(model.parameters(), 5e-3)
    for step in range(80):
        value, figures = loss(step)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    assert figures["epe"] < 0.6 * figures["still"]


def test_what_is_not_seen_does_not_count():
    flow, seen = torch.randn(1, 2, 2, 4, 4), torch.zeros(1, 2, 4, 4, dtype=torch.bool)
    seen[0, 0] = True
    made = flow.clone()
    made[0, 1] += 100
    assert float(motion_subspace.distance(made, flow, seen)) == 0
    made[0, 0, 0] += 1
    assert float(motion_subspace.distance(made, flow, seen)) == pytest.approx(0.5)
