"""Schedules are diffusers' own: tables, timesteps, noising, steps, in both directions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, DDIMInverseScheduler, DDIMScheduler

from retake.diffusion.schedule import END, Schedule, zero_terminal
from retake.errors import ConfigError

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
THEIRS = {
    "linear": (DDIMScheduler, {"clip_sample": False}),
    "sd": (DDIMScheduler, SD | {"steps_offset": 1, "set_alpha_to_one": False}),
    "cosine": (DDIMScheduler, {"beta_schedule": "squaredcos_cap_v2", "clip_sample": False}),
    "trained": (DDIMScheduler, {"trained_betas": np.geomspace(1e-4, 0.3, 40).tolist(), "num_train_timesteps": 40}),
    "v": (DDIMScheduler, SD | {"prediction_type": "v_prediction"}),
    "sample": (DDIMScheduler, SD | {"prediction_type": "sample"}),
    "zero snr": (
        DDIMScheduler,
        SD | {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
    ),
    "cog 2b": (
        CogVideoXDDIMScheduler,
        {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
    ),
    "cog 5b": (
        CogVideoXDDIMScheduler,
        {
            "rescale_betas_zero_snr": True,
            "prediction_type": "v_prediction",
            "timestep_spacing": "trailing",
            "snr_shift_scale": 1.0,
        },
    ),
    "cog without": (CogVideoXDDIMScheduler, {"set_alpha_to_one": False}),
}


def both(name: str):
    kind, config = THEIRS[name]
    theirs = kind(**{"clip_sample": False} | config)
    return theirs, Schedule.from_config(dict(theirs.config))


def noise(seed: int) -> torch.Tensor:
    return torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", THEIRS)
def test_table_is_diffusers(name: str) -> None:
    theirs, ours = both(name)
    assert ours.length == theirs.config["num_train_timesteps"]
    assert (ours.alphas_cumprod - theirs.alphas_cumprod.double()).abs().max() < 1e-6
    assert ours.final == pytest.approx(float(theirs.final_alpha_cumprod), abs=1e-6)


@pytest.mark.parametrize("kind", [DDIMScheduler, CogVideoXDDIMScheduler])
def test_silent_configuration_has_the_class_defaults(kind: type) -> None:
    ours = Schedule.from_config({"_class_name": kind.__name__})
    assert (ours.alphas_cumprod - kind().alphas_cumprod.double()).abs().max() < 1e-6


@pytest.mark.parametrize("kind", [DDIMScheduler, CogVideoXDDIMScheduler])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("offset", [0, 1])
def test_timesteps_are_diffusers(kind: type, spacing: str, offset: int) -> None:
    theirs = kind(timestep_spacing=spacing, steps_offset=offset)
    ours = Schedule.from_config(dict(theirs.config))
    for steps in [*range(1, 130), 200, 250, 333, 499, 500, 501, 750, 999, 1000]:
        theirs.set_timesteps(steps)
        ladder = ours.step_pairs(steps)
        # With an offset and every timestep taken, diffusers names T itself, which is none; and where its arithmetic
        # rounds up, a trailing list of theirs has one timestep too many, -1.
        assert [t for t, _ in ladder] == theirs.timesteps.clamp(max=999).tolist()[:steps]
        assert [to for _, to in ladder] == [max(t - 1000 // steps, END) for t, _ in ladder]


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_ladder_refuses(steps: int) -> None:
    with pytest.raises(ConfigError) as refusal:
        both("sd")[1].step_pairs(steps)
    assert refusal.value.code == "E275"


@pytest.mark.parametrize("name", THEIRS)
def test_noising_is_diffusers(name: str) -> None:
    theirs, ours = both(name)
    x0, eps = noise(0), noise(1)
    for t in (0, ours.length // 2, ours.length - 1):
        expected = theirs.add_noise(x0, eps, torch.tensor([t, t]))
        assert (ours.noised(x0, eps, t) - expected).abs().max() < 1e-5
        assert (ours.noised(x0, eps, torch.tensor([[t] * 3] * 2)) - expected).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("name", "eta"),
    # CogVideoXDDIMScheduler ignores eta.
    [(name, 0.0) for name in THEIRS] + [(name, 1.0) for name in THEIRS if not name.startswith("cog")],
)
@pytest.mark.parametrize("steps", [4, 10])
def test_steps_are_diffusers(name: str, eta: float, steps: int) -> None:
    theirs, ours = both(name)
    theirs.set_timesteps(steps)
    z, output, fresh = noise(0), noise(1), noise(2)
    for t, to in ours.step_pairs(steps):
        more = {"eta": eta, "variance_noise": fresh} if eta else {}
        expected = theirs.step(output, int(t), z, **more)
        x0, eps = ours.to_x0_eps(output, z, t)
        assert (x0 - expected.pred_original_sample).abs().max() < 2e-5 * max(1.0, float(x0.abs().max()))
        wanted = expected.prev_sample
        if eta and ours.alpha(t) == 0:
            # From pure noise all of the rest is fresh noise; theirs takes the root of a float32 difference that should
            # be 0, and on some machines lies below it.
            wanted = ours.alpha(to) * x0 + ours.sigma(to) * fresh
        assert (ours.step(x0, eps, t, to, eta, fresh) - wanted).abs().max() < 2e-5


def test_inverse_step_is_diffusers() -> None:
    theirs = DDIMInverseScheduler(**SD, steps_offset=0, set_alpha_to_one=False)
    theirs.set_timesteps(20)
    ours = Schedule.from_config(dict(DDIMScheduler(**SD, set_alpha_to_one=False).config))
    z, output = noise(0), noise(1)
    # diffusers names the step by the timestep that it goes to; ours by the one that it comes from.
    for to in theirs.timesteps.tolist()[1:]:
        expected = theirs.step(output, to, z).prev_sample
        assert (ours.step(*ours.to_x0_eps(output, z, to - 50), to - 50, to) - expected).abs().max() < 2e-5


@pytest.mark.parametrize("name", ["sd", "v", "sample", "zero snr", "cog 2b", "cog 5b"])
def test_a_step_up_undoes_a_step_down(name: str) -> None:
    _, ours = both(name)
    x0, eps = noise(0), noise(1)
    for t, to in ours.step_pairs(10):
        z = ours.noised(x0, eps, t)
        down = ours.step(x0, eps, t, to)
        assert (down - ours.noised(x0, eps, to)).abs().max() < 1e-5
        assert (ours.step(x0, eps, to, t) - z).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["sd", "v", "sample", "zero snr", "cog 2b"])
def test_split_undoes_target(name: str) -> None:
    _, ours = both(name)
    x0, eps = noise(0), noise(1)
    t = torch.tensor([[0, 400, 998], [30, 700, 900]])
    found = ours.to_x0_eps(ours.target(x0, eps, t), ours.noised(x0, eps, t), t)
    assert (found[0] - x0).abs().max() < 1e-3  # near T little of x0 is left in float32
    assert (found[1] - eps).abs().max() < 1e-3


def test_every_frame_has_its_own_timestep() -> None:
    _, ours = both("sd")
    x0, eps, t, to = noise(0), noise(1), torch.tensor([[0, 400, 999], [30, 700, 900]]), torch.tensor([[-1, 0, 5]] * 2)
    whole = ours.step(x0, eps, t, to, 1.0, noise(2))
    for b in range(2):
        for f in range(3):
            one = (slice(b, b + 1), slice(f, f + 1))
            alone = ours.step(x0[one], eps[one], int(t[b, f]), int(to[b, f]), 1.0, noise(2)[one])
            assert torch.equal(whole[one], alone)


def test_terminal_noise_is_finite_in_v_and_refused_in_epsilon() -> None:
    config = SD | {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    ours = Schedule.from_config(config | {"prediction_type": "v_prediction"})
    z = noise(0)
    assert float(ours.alpha(999)) == 0.0
    x0, eps = ours.to_x0_eps(noise(1), z, 999)
    assert torch.equal(eps, z)
    assert torch.equal(x0, -noise(1))
    assert torch.isfinite(ours.step(x0, eps, 999, 899)).all()
    assert torch.isfinite(ours.step(x0, eps, 899, 999)).all()

    blind = Schedule.from_config(config)
    for ask in (lambda: blind.step_pairs(10), lambda: blind.to_x0_eps(noise(1), z, torch.tensor([[3, 999, 4]]))):
        with pytest.raises(ConfigError) as refusal:
            ask()
        assert refusal.value.code == "E277"
    assert torch.isfinite(blind.to_x0_eps(noise(1), z, 998)[0]).all()
    assert Schedule.from_config(config | {"timestep_spacing": "leading"}).step_pairs(10)[0] == (900, 800)


def test_zero_terminal_keeps_the_first_and_empties_the_last() -> None:
    bars = torch.linspace(0.999, 0.1, 50, dtype=torch.float64)
    stretched = zero_terminal(bars)
    assert stretched[0] == pytest.approx(0.999)
    assert stretched[-1] == 0
    assert (stretched.diff() < 0).all()


@pytest.mark.parametrize(
    "config",
    [
        {"beta_schedule": "sigmoid"},
        {"prediction_type": "flow"},
        {"timestep_spacing": "log"},
        {"_class_name": "FlowMatchEulerDiscreteScheduler"},
    ],
)
def test_unknown_schedules_are_refused(config: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as refusal:
        Schedule.from_config(config)
    assert refusal.value.code == "E276"


@pytest.mark.parametrize("name", THEIRS)
def test_times_are_real_numbers(name: str) -> None:
    """At whole numbers the table's own values, bit for bit; between them the values run on without a step."""
    _, ours = both(name)
    whole = torch.arange(-1, ours.length)
    bars = torch.cat([torch.tensor([ours.final], dtype=torch.float64), ours.alphas_cumprod])
    for times in (whole, whole.float(), whole.double()):
        assert torch.equal(ours.alpha(times), bars.sqrt().float())
        assert torch.equal(ours.sigma(times), (1 - bars).sqrt().float())
    fine = torch.arange(-4, 4 * (ours.length - 1) + 1) / 4
    alpha, sigma = ours.alpha(fine), ours.sigma(fine)
    assert (alpha.diff() <= 0).all()
    assert (sigma.diff() >= 0).all()
    assert (alpha[4:].diff() < 0).all()  # from timestep 0 on no two are alike
    assert (alpha.double() ** 2 + sigma.double() ** 2 - 1).abs().max() < 1e-6
    assert ours.alpha(-0.5) == ours.alpha(torch.tensor([-0.5]))[0]
