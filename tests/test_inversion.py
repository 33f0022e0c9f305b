"""Inversion against ground truth: it comes back, levels are those of denoising, and float16 does not spoil it."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMInverseScheduler
from helpers import small_diffusion as small

from retake.diffusion.backbone import Condition
from retake.diffusion.families.unet_motion.adapter import UNetMotion
from retake.diffusion.loading.offload import Parts
from retake.diffusion.sampling.ddim import noise, sample
from retake.diffusion.sampling.inversion import invert
from retake.diffusion.sampling.windows import Reel, Windows
from retake.diffusion.schedule import Schedule

FRAMES, GRID = 8, (4, 8, 8)
KINDS = {
    "epsilon": {},
    "velocity": {"prediction_type": "v_prediction"},
    "zero terminal": {
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
    },
}


def backbone(kind: str) -> UNetMotion:
    schedule = Schedule.from_config(small.SCHEDULE | KINDS[kind])
    return UNetMotion(Parts({"network": small.unet_motion()}), schedule, FRAMES, small.SIZE, small.SIZE)


@pytest.fixture(scope="module")
def condition() -> Condition:
    return Condition({"states": torch.randn(1, small.LENGTH, small.WIDTH, generator=torch.Generator().manual_seed(7))})


@pytest.fixture(scope="module")
def clip() -> torch.Tensor:
    return noise(11, range(FRAMES), GRID)


def rms(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).square().mean().sqrt())


@pytest.mark.parametrize("kind", KINDS)
def test_denoising_comes_back_and_every_refinement_brings_it_nearer(kind, condition, clip):
    model, steps = backbone(kind), 16 if kind == "epsilon" else 8
    errors = []
    for iterations in (0, 1, 3):
        levels = list(invert(model, clip, condition, steps=steps, iterations=iterations, tolerance=0))
        assert [level.number for level in levels] == list(range(1, steps + 1))
        assert [level.evaluations for level in levels] == [1 + iterations] * steps
        assert all(level.latents.dtype == torch.float16 for level in levels)
        z = torch.as_tensor(levels[-1].latents).float()
        errors.append(rms(sample(model, z, condition, steps=steps), clip))
    assert errors[0] > 2 * errors[1] > 2 * errors[2]
    assert errors[2] < 0.02


@pytest.mark.parametrize("kind", ["epsilon", "zero terminal"])
def test_stored_levels_are_those_that_denoising_passes_through(kind, condition, clip):
    """From every stored level, one step leads to the stored one below: also from where nothing of the clip is left."""
    model, steps = backbone(kind), 10
    levels = [clip, *(torch.as_tensor(level.latents) for level in invert(model, clip, condition, steps=steps))]
    for number in (1, 2, 5, 9, 10):
        t, to = model.schedule.step_pairs(steps)[steps - number]
        with torch.no_grad():
            x0, eps = model.predict(levels[number].float()[None], t, condition)
        below = model.schedule.step(x0, eps, t, to)[0]
        assert rms(below, levels[number - 1].float()) < 5e-3, number
    if kind == "zero terminal":
        assert model.schedule.alpha(model.schedule.step_pairs(steps)[0][0]) == 0
        assert rms(sample(model, levels[steps].float(), condition, steps=steps), clip) < 0.02


def test_without_refinement_it_is_diffusers_own_inversion(condition, clip):
    model, steps = backbone("epsilon"), 10
    theirs = DDIMInverseScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False
    )
    theirs.set_timesteps(steps)
    model.schedule = Schedule.from_config(small.SCHEDULE | {"steps_offset": 0})
    z = clip[None].clone()
    for level, t in zip(invert(model, clip, condition, steps=steps, iterations=0), theirs.timesteps, strict=True):
        with torch.no_grad():
            z = theirs.step(model.forward(z, t.expand(1, FRAMES), condition.positive), int(t), z).prev_sample
        assert rms(torch.as_tensor(level.latents).float(), z[0]) < 2e-2, level.number


def test_a_tolerance_saves_evaluations(condition, clip):
    model = backbone("velocity")
    exact = list(invert(model, clip, condition, steps=6, iterations=6, tolerance=0))
    enough = list(invert(model, clip, condition, steps=6, iterations=6, tolerance=1e-3))
    assert sum(level.evaluations for level in enough) < 0.7 * sum(level.evaluations for level in exact)
    assert all(level.residual is not None and level.residual <= 1e-3 for level in enough)
    z = torch.as_tensor(enough[-1].latents).float()
    assert rms(sample(model, z, condition, steps=6), clip) < 0.01


def test_a_long_clip_comes_back_through_the_same_windows(condition, tmp_path):
    model, count = backbone("velocity"), 19
    clip, windows = noise(3, range(count), GRID), Windows(count, FRAMES, 3)
    names = iter(range(100))

    def new(dtype: torch.dtype) -> Reel:
        return Reel(tmp_path / str(next(names)), (count, *GRID), dtype)

    in_memory = list(invert(model, clip, condition, steps=5, windows=windows, batch=4))
    in_files = list(invert(model, clip, condition, steps=5, windows=windows, batch=4, new=new))
    for a, b in zip(in_memory, in_files, strict=True):
        assert torch.equal(a.latents[0:count], b.latents[0:count])
    z = torch.as_tensor(in_memory[-1].latents).float()
    others = Windows(count, FRAMES, 5)
    missed = rms(sample(model, z.clone(), condition, steps=5, windows=others, batch=4), clip)
    assert rms(sample(model, z, condition, steps=5, windows=windows, batch=4), clip) < 0.01 < missed


def test_it_goes_on_from_a_stored_level_to_the_last_bit(condition, clip):
    model = backbone("epsilon")
    whole = list(invert(model, clip, condition, steps=10))
    rest = list(invert(model, whole[5].latents, condition, steps=10, first=6))
    assert [level.number for level in rest] == [7, 8, 9, 10]
    for a, b in zip(whole[6:], rest, strict=True):
        assert torch.equal(a.latents[0:FRAMES], b.latents[0:FRAMES])
