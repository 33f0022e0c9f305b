"""Noise schedules: how much of a clip and how much noise stands in z_t = alpha(t) x0 + sigma(t) eps.

A schedule is read from the scheduler_config.json that stands beside a model's weights, so it is the one that the
network was trained on. Timesteps are real numbers, from 0 (the least noise in training) to T-1; -1 stands for the end
of sampling, whose alpha is 1 or that of timestep 0 as the configuration says (`set_alpha_to_one`). At whole numbers the
training's own table is read; between them ᾱ is linear, which also holds where ᾱ ends at 0 and its logarithm would not.
Every function takes timesteps of any shape: one for a clip, one for each frame, one for each queue slot.

`clip_sample` and `thresholding` of a configuration are for pixels and are not applied to latents. Tables are float64;
diffusers computes most of its own in float32, and the two agree to 1e-6.

Sources: DDPM (Ho et al. 2020, eq. 4), DDIM (Song et al. 2021, eq. 12, 16), v-prediction (Salimans & Ho 2022, app. D),
cosine (Nichol & Dhariwal 2021, eq. 17), zero-terminal SNR and trailing spacing (Lin et al. 2024, alg. 1, table 2),
SNR shift (CogVideoX, sec. 2.4).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from retake.errors import ConfigError, did_you_mean

Prediction = Literal["epsilon", "v_prediction", "sample"]
StepPair = tuple[float, float]
"""(t, t of the next step) of one denoising step."""
Spacing = Literal["leading", "trailing", "linspace"]
END = -1.0  # the timestep after the last: clean

# What diffusers' classes take where a configuration is silent.
DEFAULTS: dict[str, dict[str, Any]] = {
    "": {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear", "snr_shift_scale": 1.0},
    "CogVideoX": {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "snr_shift_scale": 3.0},
}


@dataclass(frozen=True, eq=False)
class Schedule:
    """alphas_cumprod: float64 [T], the share of the clip's variance at each timestep (ᾱ). prediction: what the network
    predicts. final: ᾱ at `END`. spacing, offset: how `step_pairs` picks timesteps.

    >>> schedule = Schedule.from_config({"_class_name": "DDIMScheduler", "num_train_timesteps": 1000})
    >>> schedule.step_pairs(4)
    [(750.0, 500.0), (500.0, 250.0), (250.0, 0.0), (0.0, -1.0)]
    >>> z = schedule.noised(x0, eps, 500)  # x0 and eps: latents and noise of one shape
    """

    alphas_cumprod: Tensor
    prediction: Prediction = "epsilon"
    spacing: Spacing = "leading"
    offset: int = 0
    final: float = 1.0
    _tables: dict[torch.device, Tensor] = field(default_factory=dict, init=False, repr=False)

    @property
    def length(self) -> int:
        """T, the number of training timesteps."""
        return len(self.alphas_cumprod)

    @property
    def undefined_at_terminal(self) -> bool:
        """Whether noise is predicted at timesteps that hold nothing else: there x0 cannot be found."""
        return self.prediction == "epsilon" and float(self.alphas_cumprod[-1]) == 0.0

    def step_pairs(self, steps: int) -> list[StepPair]:
        """(t, t of the next step) for each of `steps` denoising steps, noisiest first.

        As in diffusers, a step goes to t - T // steps, or to `END` below 0. That need not be the next step's own t, and
        where `steps` does not divide T the last may end at timestep 0 instead (trailing: 7 of 1000). Inversion climbs
        the same pairs from the other side. Raises ConfigError E275 unless 1 <= steps <= T, E277 where the first step
        would divide by zero (`undefined_at_terminal`).
        """
        if not 1 <= steps <= self.length:
            raise ConfigError("E275", f"{steps} denoising steps", f"This schedule takes 1 to {self.length}.")
        if self.spacing == "trailing":
            # numpy's own steps decide which way a half is rounded; its rounding may append a timestep too many.
            times = (np.arange(self.length, 0, -self.length / steps)[:steps].round() - 1).astype(int).tolist()
        elif self.spacing == "leading":
            times = [k * (self.length // steps) + self.offset for k in reversed(range(steps))]
        else:
            times = np.linspace(0, self.length - 1, steps).round()[::-1].astype(int).tolist()
        times = [float(min(t, self.length - 1)) for t in times]
        if self.undefined_at_terminal and times[0] == self.length - 1:
            raise undefined_x0(times[0])
        return [(t, max(t - self.length // steps, END)) for t in times]

    def alpha(self, t: Tensor | float) -> Tensor:
        """sqrt(ᾱ), float32, in the shape of `t`."""
        return self._bar(t).sqrt().float()

    def sigma(self, t: Tensor | float) -> Tensor:
        """sqrt(1 - ᾱ), float32, in the shape of `t`."""
        return (1 - self._bar(t)).sqrt().float()

    def noised(self, x0: Tensor, eps: Tensor, t: Tensor | float) -> Tensor:
        """z_t of latents x0 [B, F, ...] and noise, t of [B, F], [B] or one number."""
        return expand_to(self.alpha(t), x0) * x0 + expand_to(self.sigma(t), x0) * eps

    def to_x0_eps(self, output: Tensor, z: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """(x0, eps) of what the network predicted for z at t; float32, in the shape of z.

        t is 0 or more. Raises ConfigError E277 where the network predicts noise and z is nothing else.
        """
        output, z = output.float(), z.float()
        if self.undefined_at_terminal and bool((torch.as_tensor(t) == self.length - 1).any()):
            raise undefined_x0(self.length - 1)
        alpha, sigma = expand_to(self.alpha(t), z), expand_to(self.sigma(t), z)
        if self.prediction == "epsilon":
            return (z - sigma * output) / alpha, output
        if self.prediction == "v_prediction":
            return alpha * z - sigma * output, alpha * output + sigma * z
        return output, (z - alpha * output) / sigma

    def target(self, x0: Tensor, eps: Tensor, t: Tensor | float) -> Tensor:
        """What the network should predict for `noised(x0, eps, t)`: the regression target of training."""
        if self.prediction == "epsilon":
            return eps
        if self.prediction == "v_prediction":
            return expand_to(self.alpha(t), x0) * eps - expand_to(self.sigma(t), x0) * x0
        return x0

    def step(
        self,
        x0: Tensor,
        eps: Tensor,
        t: Tensor | float,
        to: Tensor | float,
        eta: float = 0.0,
        noise: Tensor | None = None,
    ) -> Tensor:
        """z at the timestep `to`, from (x0, eps) at `t` (DDIM eq. 12). Works in both directions: `to` > `t` inverts.

        eta: 0 is deterministic, 1 is DDPM's variance; then `noise` [B, F, ...] is read.
        """
        then = self._bar(to)
        rest = 1 - then
        if eta:
            spread = eta * self._spread(t, to)
            rest = rest - spread**2
        z = expand_to(then.sqrt().float(), x0) * x0 + expand_to(rest.clamp(min=0).sqrt().float(), x0) * eps
        if eta and noise is not None:
            z = z + expand_to(spread.float(), x0) * noise
        return z

    def spread(self, t: Tensor | float, to: Tensor | float) -> Tensor:
        """Standard deviation of the noise that a step from `t` to `to` adds with eta=1 (DDIM eq. 16), float32; 0 for a
        step that stays where it is."""
        return self._spread(t, to).float()

    def _spread(self, t: Tensor | float, to: Tensor | float) -> Tensor:
        now, then = self._bar(t), self._bar(to)
        return ((1 - then) / (1 - now) * (1 - now / then)).clamp(min=0).sqrt()

    def _bar(self, t: Tensor | float) -> Tensor:
        t = torch.as_tensor(t, dtype=torch.float64)
        if t.device not in self._tables:  # once a device: copying at every step would wait for the GPU
            bars = torch.cat([torch.tensor([self.final], dtype=torch.float64), self.alphas_cumprod])
            self._tables[t.device] = bars.to(t.device)
        bars, below = self._tables[t.device], t.floor()
        at = below.long() + 1  # END = -1 reads the first, which is `final`
        return bars[at].lerp(bars[(at + 1).clamp(max=self.length)], t - below)

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> Schedule:
        """The schedule of a diffusers scheduler_config.json. Raises ConfigError E276 for one that is not known here."""
        owner = str(config.get("_class_name", ""))
        if owner.startswith("FlowMatch"):
            raise unknown("the flow-matching schedule", owner, ["DDIMScheduler", "CogVideoXDDIMScheduler"])
        known = DEFAULTS["CogVideoX" if owner.startswith("CogVideoX") else ""]
        config = known | {name: value for name, value in config.items() if value is not None}
        check_numbers(config)
        bars = torch.cumprod(1 - betas(config), 0)
        shift = float(config["snr_shift_scale"])
        bars = bars / (shift + (1 - shift) * bars)
        if config.get("rescale_betas_zero_snr"):
            bars = zero_terminal(bars)
        prediction = config.get("prediction_type", "epsilon")
        if prediction not in ("epsilon", "v_prediction", "sample"):
            raise unknown("the prediction", prediction, ["epsilon", "v_prediction", "sample"])
        spacing = config.get("timestep_spacing", "leading")
        if spacing not in ("leading", "trailing", "linspace"):
            raise unknown("the spacing of timesteps", spacing, ["leading", "trailing", "linspace"])
        final = 1.0 if config.get("set_alpha_to_one", True) else float(bars[0])
        return Schedule(bars, prediction, spacing, int(config.get("steps_offset", 0)), final)


def check_numbers(config: Mapping[str, Any]) -> None:
    """Raises ConfigError E276 for a number of a configuration that is none, or beyond what any schedule has."""
    limits = {"num_train_timesteps": (1, 100_000), "steps_offset": (0, 100_000), "snr_shift_scale": (1e-6, 1e6)}
    for name, (least, most) in (limits | dict.fromkeys(("beta_start", "beta_end"), (0, 1))).items():
        value = config.get(name, least)
        if not isinstance(value, int | float) or not least <= value <= most:
            where = f"{name} is {str(value)[:40]!r} in a scheduler_config.json"
            raise ConfigError("E276", where, f"It is a number from {least} to {most}.")
    given = config.get("trained_betas")
    if given is not None and not (isinstance(given, list) and given and all(isinstance(b, float) for b in given)):
        raise ConfigError("E276", "trained_betas of scheduler_config.json is not a list of fractions", "Leave it out.")


def betas(config: Mapping[str, Any]) -> Tensor:
    """The noise added at each timestep, float64 [T]. Raises ConfigError E276 for a `beta_schedule` not known here."""
    if (given := config.get("trained_betas")) is not None:
        return torch.tensor(list(given), dtype=torch.float64)
    count = int(config.get("num_train_timesteps", 1000))
    start, end, kind = float(config["beta_start"]), float(config["beta_end"]), config["beta_schedule"]
    if kind == "linear":
        return torch.linspace(start, end, count, dtype=torch.float64)
    if kind == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, count, dtype=torch.float64) ** 2
    if kind == "squaredcos_cap_v2":
        kept = [math.cos((k / count + 0.008) / 1.008 * math.pi / 2) ** 2 for k in range(count + 1)]
        return torch.tensor([min(1 - kept[k + 1] / kept[k], 0.999) for k in range(count)], dtype=torch.float64)
    raise unknown("the noise schedule", kind, ["linear", "scaled_linear", "squaredcos_cap_v2"])


def zero_terminal(bars: Tensor) -> Tensor:
    """ᾱ [T] stretched so that nothing of the clip is left at the last timestep (Lin et al. 2024, algorithm 1)."""
    roots = bars.sqrt()
    first, last = roots[0].clone(), roots[-1].clone()
    return ((roots - last) * first / (first - last)) ** 2


def expand_to(values: Tensor, z: Tensor) -> Tensor:
    """Values of [], [B] or [B, F] shaped to multiply latents z [B, F, C, h, w], on its device."""
    return values.to(z.device).reshape(values.shape + (1,) * (z.ndim - values.ndim))


def unknown(what: str, given: Any, known: list[str]) -> ConfigError:
    """The error for a configuration that asks for what is not built here."""
    return ConfigError("E276", f"{what} {given!r} of a scheduler_config.json", did_you_mean(str(given), known))


def undefined_x0(t: float) -> ConfigError:
    """The error for asking a network that predicts noise about a timestep which is nothing but noise."""
    return ConfigError(
        "E277",
        f"at timestep {t:g} nothing of the clip is left, and this network predicts noise: its x0 would divide by zero",
        "Set model.schedule.spacing=leading, or leave model.schedule.zero_terminal_snr out.",
    )
