"""What a denoiser of the embedded models is shown, step by step, and how well it hears each word.

Noisy fours (fours.py), each four under one noise at one time where much of it is noise; the times of a batch are
spread evenly. Cells that a sprite covers weigh more at first: it is they that say shape, and they are few.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from retake.diffusion.schedule import Schedule, expand_to
from retake.training.fours import FOUR, Fours

SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.025,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "clip_sample": False,
    "set_alpha_to_one": True,
    "steps_offset": 0,
}
"""Without signal at its end; the noise is strong for long, because a clip repeats its object in every frame, and where
it is and which way it goes is decided while little of it can be seen."""


APART = 400
"""Below this time the clips of a four have noise and times of their own: what they show is decided there, and a batch
teaches the more, the more its noise differs."""


@dataclass(frozen=True)
class Lesson:
    """Until the share `until` of the steps: `fours` fours of one of `kinds`, `frames` (latent) frames of each, evenly
    spread where `spread` and in a row where not; of kinds that keep single frames, so many more fours. `weight` of
    cells that a sprite fills, others weigh 1."""

    until: float
    kinds: tuple[str, ...]
    frames: int
    fours: int
    weight: float = 1.0
    spread: bool = True


Evaluate = Callable[[Mapping[str, Tensor]], Tensor]
"""What a denoiser makes of what `Teacher.draw` gives: v [B, f, C, h, w]."""


class Teacher:
    """Draws noisy fours and their conditions by the number of the step.

    data: by kind. tokenise: captions to ids [N, L]. frames: that a clip has in its latents; fours that keep fewer are
    of single frames. power: times are drawn as u**power of 1000. told: shares of clips conditioned on nothing, the
    caption, the reference picture, both.
    """

    def __init__(
        self,
        data: Mapping[str, Fours],
        tokenise: Callable[[Sequence[str]], Tensor],
        frames: int,
        power: float,
        told: tuple[float, float, float, float],
        seed: int,
        device: str = "cpu",
    ) -> None:
        self.data, self.frames, self.power, self.told = data, frames, power, told
        self.seed, self.device = seed, device
        self.schedule = Schedule.from_config(SCHEDULE)
        self.tokens = {
            kind: tokenise([caption for four in fours.captions for caption in four]).unflatten(0, (-1, FOUR))
            for kind, fours in data.items()
        }
        self.silent = tokenise([""])[0]

    def draw(self, step: int, lesson: Lesson) -> dict[str, Tensor]:
        """Of B = 4 `fours` clips: x0, noise and z [B, f, C, h, w], t [B], tokens [B, L], references [B, P, D], weight
        [B, f, 1, h, w], and the frames' numbers at [f]."""
        random = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        kind = lesson.kinds[step % len(lesson.kinds)]
        at = self._frames(self.data[kind].latents.shape[2], lesson, random)
        count = lesson.fours * lesson.frames // len(at)
        picked = torch.randint(len(self.data[kind].attributes), (count,), generator=random)
        u = (torch.arange(count) + torch.rand(count, generator=random)) / count
        apart = (APART / self.schedule.length) ** (1 / self.power)
        each = apart * torch.rand(count, FOUR, generator=random)
        u = torch.where((u < apart)[:, None], each, u[:, None])
        t = (u**self.power * self.schedule.length).long().clamp(max=self.schedule.length - 1)
        return self.shown(kind, picked, at, t, random, lesson.weight)

    def _frames(self, have: int, lesson: Lesson, random: torch.Generator) -> Tensor:
        if have < self.frames:
            return torch.randint(have, (1,), generator=random)
        if lesson.spread:
            stride = have // lesson.frames
            return torch.arange(int(torch.randint(stride, (1,), generator=random)), stride * lesson.frames, stride)
        first = int(torch.randint(have - lesson.frames + 1, (1,), generator=random))
        return torch.arange(first, first + lesson.frames)

    def shown(
        self, kind: str, picked: Tensor, at: Tensor, t: Tensor, random: torch.Generator, weight: float = 1.0
    ) -> dict[str, Tensor]:
        """As `draw`, of the fours `picked` [G] at frames `at` [f] and times t [G, 4]."""
        data = self.data[kind]
        x0 = data.latents[picked][:, :, at].float()
        noise = torch.randn(x0.shape, generator=random)
        noise = torch.where(expand_to((t >= APART).all(1), x0), noise[:, :1], noise).flatten(0, 1)
        x0, t = x0.flatten(0, 1), t.flatten()
        told = torch.multinomial(torch.tensor(self.told), len(x0), True, generator=random)
        text = ((told == 1) | (told == 3))[:, None]
        cells = data.cells[picked][:, :, at].flatten(0, 1).float()[:, :, None] / 255
        drawn = {
            "x0": x0,
            "noise": noise,
            "z": self.schedule.noised(x0, noise, t),
            "t": t,
            "tokens": torch.where(text, self.tokens[kind][picked].flatten(0, 1), self.silent),
            "references": data.references[picked].flatten(0, 1).float() * (told >= 2)[:, None, None],
            "weight": 1 + (weight - 1) * cells,
            "at": at,
        }
        return {name: value.to(self.device) for name, value in drawn.items()}

    def error(self, v: Tensor, drawn: Mapping[str, Tensor]) -> Tensor:
        """Squared error of v [B, f, C, h, w]."""
        return (v.float() - self.schedule.target(drawn["x0"], drawn["noise"], drawn["t"])).square()


def loss(
    evaluate: Evaluate, teacher: Teacher, lessons: Sequence[Lesson], steps: int, half: bool = False
) -> Callable[[int], Any]:
    """(step) -> weighted squared error of v; for the curve the plain one, and that of clips at t of 600 and more.
    half: products in bfloat16, where the machine has units for it."""

    def of(step: int) -> tuple[Tensor, dict[str, float]]:
        lesson = next(lesson for lesson in lessons if step < lesson.until * steps or lesson is lessons[-1])
        drawn = teacher.draw(step, lesson)
        with torch.autocast(teacher.device, torch.bfloat16, enabled=half):
            made = evaluate(drawn)
        square = teacher.error(made, drawn)
        plain = square.detach().flatten(1).mean(1)
        noisy = plain[drawn["t"] >= 600]
        figures = {"plain": float(plain.mean()), "noisy": float((noisy if len(noisy) else plain).mean())}
        return (square * drawn["weight"]).mean() / drawn["weight"].mean(), figures

    return of


@torch.no_grad()
def heard(
    evaluate: Evaluate, teacher: Teacher, kind: str, t: int, frames: Tensor | None = None, seed: int = 0, batch: int = 4
) -> dict[str, float]:
    """By how much the loss rises, as a share of it, when captions go round within the fours, by attribute; at time t,
    over all fours of a kind. Zero: the word is not heard."""
    data = teacher.data[kind]
    at = torch.arange(data.latents.shape[2]) if frames is None else frames
    right: dict[str, float] = {}
    wrong: dict[str, float] = {}
    random = torch.Generator().manual_seed(seed)
    for first in range(0, len(data.attributes), batch):
        picked = torch.arange(first, min(first + batch, len(data.attributes)))
        drawn = teacher.shown(kind, picked, at, torch.full((len(picked), FOUR), t), random)
        drawn["tokens"] = teacher.tokens[kind][picked].flatten(0, 1).to(teacher.device)
        drawn["references"] = torch.zeros_like(drawn["references"])
        rolled = {**drawn, "tokens": drawn["tokens"].unflatten(0, (-1, FOUR)).roll(1, 1).flatten(0, 1)}
        for told, sums in ((drawn, right), (rolled, wrong)):
            error = teacher.error(evaluate(told), told).flatten(1).mean(1).unflatten(0, (-1, FOUR)).mean(1)
            for n, value in zip(picked.tolist(), error.tolist(), strict=True):
                sums[data.attributes[n]] = sums.get(data.attributes[n], 0.0) + value
    return {attribute: wrong[attribute] / right[attribute] - 1 for attribute in sorted(right)}
