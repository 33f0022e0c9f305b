"""Sampling over windows: whole clips, seams, noise that no batch changes, and the source put back outside a mask."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from helpers import small_diffusion as small

from retake.diffusion.backbone import Condition
from retake.diffusion.families.unet_motion.adapter import UNetMotion
from retake.diffusion.loading.offload import Parts
from retake.diffusion.sampling.ddim import forward, noise, sample, timesteps
from retake.diffusion.sampling.windows import Reel, Windows, swept
from retake.diffusion.schedule import END, Schedule
from retake.errors import ConfigError

FRAMES, GRID = 8, (4, 8, 8)


@pytest.fixture(scope="module")
def backbone() -> UNetMotion:
    schedule = Schedule.from_config(small.SCHEDULE | {"prediction_type": "v_prediction"})
    return UNetMotion(Parts({"network": small.unet_motion()}), schedule, FRAMES, small.SIZE, small.SIZE)


@pytest.fixture(scope="module")
def condition() -> Condition:
    drawn = torch.Generator().manual_seed(7)
    wanted, unwanted = (torch.randn(1, small.LENGTH, small.WIDTH, generator=drawn) for _ in range(2))
    return Condition({"states": wanted}, {"states": unwanted})


# ---- windows -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 7, 8, 9, 12, 13, 40, 41])
@pytest.mark.parametrize("overlap", [0, 1, 3, 5, 7])
def test_windows_cover_the_clip_and_share_what_was_asked(count, overlap):
    windows = Windows(count, 8, overlap)
    spans = windows.spans
    assert spans[0].start == 0
    assert spans[-1].stop == count
    assert {len(s) for s in spans} == {min(8, count)}
    shared = [a.stop - b.start for a, b in pairwise(spans)]
    assert all(s >= overlap for s in shared)
    assert not shared or max(shared) - min(shared) <= 1
    total = np.zeros(count)
    for span, shares in zip(spans, windows.weights, strict=True):
        assert (shares > 0).all()
        total[span.start : span.stop] += shares.numpy()
    assert total == pytest.approx(np.ones(count), abs=1e-6)


def test_weights_fall_smoothly_towards_the_edge_of_a_window():
    first, second = Windows(12, 8, 4).weights
    assert torch.equal(first[:4], torch.ones(4))
    assert (first[4:].diff() < 0).all()
    assert torch.allclose(first[4:], second[:4].flip(0))
    assert first[4:].diff().abs().max() < 0.4


def test_an_overlap_that_fills_the_window_is_e290():
    with pytest.raises(ConfigError, match="E290"):
        Windows(20, 8, 8)
    assert Windows(8, 8, 20).spans == (range(8),)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_what_windows_agree_on_is_kept_and_comes_out_once_from_left_to_right(batch):
    z = torch.randn(29, *GRID)
    seen: list[int] = []
    for frames, made in swept(
        Windows(29, 8, 3), batch, lambda spans: torch.stack([z[s.start : s.stop] for s in spans])
    ):
        seen += frames
        assert torch.allclose(made, z[frames.start : frames.stop], atol=1e-6)
    assert seen == list(range(29))


def test_a_reel_is_a_tensor_in_a_file(tmp_path):
    for dtype in (torch.float32, torch.float16, torch.uint8):
        reel, tensor = Reel(tmp_path / "z", (10, 2, 3), dtype), torch.zeros(10, 2, 3, dtype=dtype)
        values = torch.arange(24).reshape(4, 2, 3).to(dtype)
        reel[3:7] = values
        tensor[3:7] = values
        assert torch.equal(reel[0:10], tensor)
        assert torch.equal(reel[5:20], tensor[5:20])
        assert reel[2:2].shape == (0, 2, 3)
    reel.remove()
    assert not list(tmp_path.iterdir())


# ---- noise ---------------------------------------------------------------------------------------------------------


def test_a_frames_noise_depends_on_the_seed_and_its_number_alone():
    whole = noise(3, range(40), GRID)
    assert torch.equal(whole[17:23], noise(3, range(17, 23), GRID))
    assert torch.equal(whole[[5, 31]], noise(3, [5, 31], GRID))
    assert not torch.equal(whole, noise(4, range(40), GRID))
    assert not torch.equal(whole, noise(3, range(40), GRID, stream=1))
    correlation = np.corrcoef(whole.flatten(1).numpy()) - np.eye(40)
    assert abs(correlation).max() < 0.3
    assert whole.mean().item() == pytest.approx(0, abs=0.03)
    assert whole.std().item() == pytest.approx(1, abs=0.03)


def test_forward_noise_is_the_schedules_at_every_level(backbone):
    z = torch.randn(5, *GRID)
    source = forward(backbone.schedule, lambda frames: z[frames.start : frames.stop], 10, seed=1)
    times = timesteps(backbone.schedule, 10)
    assert times[0] == END
    assert times[1:] == sorted(times[1:])
    assert torch.equal(source(0, range(1, 4)), z[1:4])
    theirs = DDIMScheduler(**small.SCHEDULE)
    for level in (1, 5, 10):
        wanted = theirs.add_noise(z[1:4], noise(1, range(1, 4), GRID), torch.tensor([int(times[level])] * 3))
        assert torch.allclose(source(level, range(1, 4)), wanted, atol=1e-6)


# ---- sampling ------------------------------------------------------------------------------------------------------


def denoised(backbone, condition, count=FRAMES, **more):
    z = noise(0, range(count), GRID)
    return sample(backbone, z, condition, **{"steps": 5, "guidance": 2.0} | more)


def test_one_window_is_diffusers_own_ddim(backbone, condition):
    theirs = DDIMScheduler(**small.SCHEDULE, prediction_type="v_prediction")
    theirs.set_timesteps(5)
    z = noise(0, range(FRAMES), GRID)[None]
    for t in theirs.timesteps:
        with torch.no_grad():
            both = [
                backbone.forward(z, t.expand(1, FRAMES), inputs) for inputs in (condition.negative, condition.positive)
            ]
        z = theirs.step(both[0] + 2.0 * (both[1] - both[0]), int(t), z).prev_sample
    assert torch.allclose(denoised(backbone, condition), z[0], atol=1e-4)


def test_one_window_suffices_for_a_short_clip_whatever_the_overlap(backbone, condition):
    plain = denoised(backbone, condition)
    assert torch.equal(denoised(backbone, condition, windows=Windows(FRAMES, FRAMES, 4), batch=3), plain)
    assert torch.equal(denoised(backbone, condition, windows=Windows(FRAMES, 16, 4)), plain)


def test_windows_through_the_network_at_once_change_nothing(backbone, condition, tmp_path):
    windows = Windows(21, FRAMES, 3)
    plain = denoised(backbone, condition, 21, windows=windows, eta=0.5)
    assert torch.allclose(denoised(backbone, condition, 21, windows=windows, eta=0.5, batch=4), plain, atol=1e-4)
    reel = Reel(tmp_path / "z", (21, *GRID))
    reel[0:21] = noise(0, range(21), GRID)
    sample(backbone, reel, condition, steps=5, guidance=2.0, windows=windows, eta=0.5)
    assert torch.equal(reel[0:21], plain)
    assert not torch.allclose(denoised(backbone, condition, 21, windows=windows, eta=0.5, seed=1), plain, atol=1e-2)


def test_a_seam_is_no_larger_than_what_is_between_any_two_frames(backbone, condition):
    """One noise in all frames: whatever differs between neighbours comes of their places in the windows. Windows that
    only meet leave a cut; blended ones leave nothing that is more than the change from frame to frame within one."""

    def between(overlap: int) -> torch.Tensor:
        z = noise(0, [0], GRID).repeat(32, 1, 1, 1)
        sample(backbone, z, condition, steps=6, guidance=6.0, windows=Windows(32, FRAMES, overlap), batch=8)
        return z.diff(dim=0).square().mean((1, 2, 3)).sqrt()

    cut = between(0)
    seams = cut[FRAMES - 1 :: FRAMES]
    within = cut[: FRAMES - 1].max()
    assert seams.min() > 1.2 * within
    assert between(4).max() < 1.05 * within


def test_outside_the_mask_the_source_stays_at_every_level(backbone, condition):
    clean = noise(5, range(12), GRID)
    windows = Windows(12, FRAMES, 2)
    mask = torch.zeros(12, 1, 8, 8)
    mask[:, :, 2:5, 3:7] = 1
    source = forward(backbone.schedule, lambda frames: clean[frames.start : frames.stop], 5, seed=2)
    reported: list[tuple[int, int]] = []
    z = sample(
        backbone,
        source(3, range(12)).clone(),
        condition,
        steps=5,
        start=3,
        windows=windows,
        source=source,
        mask=lambda frames: mask[frames.start : frames.stop],
        progress=lambda done, total: reported.append((done, total)),
    )
    outside = mask.expand_as(z) == 0
    assert torch.equal(z[outside], clean[outside])
    assert (z - clean)[~outside].abs().mean() > 0.1
    assert reported == [(1, 3), (2, 3), (3, 3)]


def test_steps_that_a_schedule_does_not_have_are_e275(backbone, condition):
    with pytest.raises(ConfigError, match="E275"):
        denoised(backbone, condition, steps=1001)


def test_a_time_between_two_training_steps_gives_what_lies_between(backbone, condition):
    model, z = backbone, noise(5, range(FRAMES), GRID)[None]
    with torch.no_grad():
        below, between, above = (model.predict(z, t, condition) for t in (500, 500.5, 501))
        per_frame = model.predict(z, torch.tensor([[500.0, 500.5] * (FRAMES // 2)]), condition)
        whole = model.predict(z, torch.full((1, FRAMES), 500), condition)
    assert torch.equal(whole.x0, model.predict(z, torch.full((1, FRAMES), 500.0), condition).x0)
    for low, here, high in zip(below, between, above, strict=True):
        apart = (high - low).abs().max()
        assert 0 < (here - low).abs().max() < apart
        assert (here - (low + high) / 2).abs().max() < 0.25 * apart
    assert not torch.equal(per_frame.x0, whole.x0)
