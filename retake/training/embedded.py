"""The embedded models from nothing: one recipe in two sizes.

    python -m retake.training.embedded --size cpu --folder artifacts/training --minutes 170
    python -m retake.training.embedded --size gpu --folder artifacts/training --minutes 9      (in slices)

Parts are made in the order of PARTS, each in slices that resume; `--part` makes one of them, so that a second process
can work beside the first. `--on-shipped` takes the parts that ship as finished and trains the others on them.
`export.py` makes the shipped folders of a finished training, or of its finished parts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from retake.errors import ConfigError, did_you_mean
from retake.synthetic.clips import Limits
from retake.training import autoencoder, denoisers, encoders, latents, shipped
from retake.training.denoisers import Lesson, Teacher
from retake.training.loop import Plan, Slice, Stopped, averaged, progress, train
from retake.training.pictures import Data

PARTS = ("vae", "clip", "judge", "latents", "unet", "motion", "transformer")
LEARNS_FROM = {
    "latents": ("vae", "clip"),
    "unet": ("latents",),
    "motion": ("latents", "unet"),
    "transformer": ("latents",),
}
CLIPS_FROM = 1_000_000  # seed of the first clip; clips below are for tests and scores
SEED = 20  # of initial weights; parts differ by their place in PARTS


@dataclass(frozen=True)
class Size:
    """What differs between the sizes: how much is drawn, how long each part learns, tokens of the transformer."""

    pictures: int
    clips: int
    vae: Plan
    vae_batch: int
    clip: Plan
    clip_batch: int
    unet: Plan
    unet_lessons: tuple[Lesson, ...]
    motion: Plan
    motion_lessons: tuple[Lesson, ...]
    transformer: Plan
    transformer_lessons: tuple[Lesson, ...]
    patch: int
    workers: int = 0  # processes that draw clips beside the one that encodes them
    half: bool = False  # the transformer's products in bfloat16


SIZES = {
    "cpu": Size(
        pictures=12_000,
        clips=16_000,
        vae=Plan(3_000, 1e-3, cooldown=0.5),
        vae_batch=16,
        clip=Plan(3_000, 1e-3, cooldown=0.5),
        clip_batch=128,
        unet=Plan(3_500, 1e-3),
        unet_lessons=(Lesson(1.0, 2, 32),),
        motion=Plan(2_200, 1e-3),
        motion_lessons=(Lesson(0.6, 2, 48), Lesson(0.82, 4, 24), Lesson(0.93, 8, 12), Lesson(1.0, 16, 7)),
        transformer=Plan(3_600, 1e-3),
        transformer_lessons=(Lesson(0.15, 2, 128), Lesson(0.4, 4, 96), Lesson(0.7, 8, 56), Lesson(1.0, 16, 28)),
        patch=4,
        half=True,
    ),
    "gpu": Size(
        pictures=30_000,
        clips=60_000,
        vae=Plan(6_000, 1e-3, cooldown=0.5),
        vae_batch=64,
        clip=Plan(4_000, 1e-3, cooldown=0.5),
        clip_batch=256,
        unet=Plan(8_000, 1e-3),
        unet_lessons=(Lesson(1.0, 2, 128),),
        motion=Plan(8_000, 1e-3),
        motion_lessons=(Lesson(0.15, 2, 256), Lesson(0.3, 4, 128), Lesson(0.6, 8, 64), Lesson(1.0, 16, 32)),
        transformer=Plan(12_000, 1e-3),
        transformer_lessons=(Lesson(0.15, 2, 512), Lesson(0.3, 4, 256), Lesson(0.5, 8, 128), Lesson(1.0, 16, 64)),
        patch=2,
        workers=12,
        half=True,
    ),
}


@dataclass
class Workshop:
    """A training in a folder: makes its parts, and hands out those that are finished."""

    folder: Path
    size: Size
    device: str
    share: tuple[int, int] = (0, 1)  # (k, n): the k-th of n processes that render latents together
    on_shipped: bool = False  # parts that ship count as finished
    say: Callable[[str], None] = print

    def make(self, part: str, minutes: float) -> bool:
        """Work on a part for at most so long; whether it is finished."""
        self.ready(part)
        if part == "latents":
            self.render(time.monotonic() + 60 * minutes)
            return self.finished(part)
        model, plan, loss = self.lesson(part)
        said = f"{part}: {sum(p.numel() for p in model.parameters() if p.requires_grad):,} parameters"
        self.say(f"{said}, step {progress(self.folder / part)['step']} of {plan.steps}")
        return train(self.folder / part, model, loss, plan, Slice(minutes), self.say)

    def wanted(self, part: str | None) -> list[str]:
        """The parts to be made, in order. One that is named is made though it ships, on latents of its own."""
        if part is None:
            return [name for name in PARTS if not self.finished(name)]
        first = ["latents"] if self.on_shipped and "latents" in LEARNS_FROM.get(part, ()) else []
        return [name for name in (*first, part) if not self.finished(name) or (name == part and self.as_shipped(name))]

    def ready(self, part: str) -> None:
        """Raises ConfigError E247 unless the parts that it learns from are finished: what half a network gave would be
        kept as if it were the whole one's."""
        if missing := [before for before in LEARNS_FROM.get(part, ()) if not self.finished(before)]:
            raise ConfigError(
                "E247",
                f"{part} needs {' and '.join(missing)}, not finished in {self.folder}",
                "Leave --part out: parts are then made in their order.",
            )

    def finished(self, part: str) -> bool:
        if part == "latents":
            count = len(list((self.folder / "latents").glob("clips-*.safetensors")))
            return count * latents.SHARD >= self.size.clips
        return progress(self.folder / part)["step"] >= self.plan_of(part).steps or self.as_shipped(part)

    def as_shipped(self, part: str) -> bool:
        """Whether a part is taken as it ships: it may be, and was not begun here."""
        return self.on_shipped and not progress(self.folder / part)["step"] and shipped.ships(part)

    def plan_of(self, part: str) -> Plan:
        return getattr(self.size, "clip" if part == "judge" else part)

    def render(self, until: float = float("inf")) -> None:
        """Latents of every clip, by the finished autoencoder and encoder, until a moment of time.monotonic()."""
        vae, tower, count = self.vae(), self.taught("clip").vision_model, self.size.clips
        to = self.folder / "latents"
        how = (self.device, self.share, self.size.workers)
        latents.render(to, vae, tower, CLIPS_FROM, count, Limits(), *how, until)

    def lesson(self, part: str) -> tuple[Any, Plan, Any]:
        """A part's fresh network, its plan and its loss."""
        size, device = self.size, self.device
        plan, seed = self.plan_of(part), SEED + PARTS.index(part)
        model = self.fresh(part)
        if part == "vae":
            data = Data(size.pictures, Limits().size, size.vae_batch, seed)
            return model, plan, autoencoder.loss(model, data, device)
        if part in ("clip", "judge"):
            data = Data(size.pictures, Limits().size, size.clip_batch, seed)
            return model, plan, encoders.loss(model, encoders.tokenizer(), data, device)
        teacher = self.teacher(seed)
        if part == "unet":
            return model, plan, denoisers.unet_loss(model, teacher, size.unet_lessons, plan.steps)
        if part == "motion":
            return model, plan, denoisers.motion_loss(model, teacher, size.motion_lessons, plan.steps)
        lessons = size.transformer_lessons
        return model, plan, denoisers.transformer_loss(model, teacher, lessons, plan.steps, size.half)

    def fresh(self, part: str) -> Any:
        """A part's network with initial weights."""
        torch.manual_seed(SEED + PARTS.index(part))
        if part == "vae":
            model = autoencoder.network().to(memory_format=torch.channels_last)
        elif part in ("clip", "judge"):
            towers = encoders.CONDITIONER if part == "clip" else encoders.JUDGE
            model = encoders.network(towers, len(encoders.tokenizer()))
        elif part == "unet":
            model = denoisers.unet()
        elif part == "motion":
            model = denoisers.motion(self.taught("unet"))
        else:
            model = denoisers.transformer(self.size.patch)
        return model.to(self.device)

    def trained(self, part: str) -> Any:
        """A part's network with the moving average of what it has learnt so far, ready to infer."""
        return averaged(self.folder / part, self.fresh(part)).eval().requires_grad_(False)

    def taught(self, part: str) -> Any:
        """A finished part that others learn from: as trained here, else as it ships."""
        return shipped.load(part).to(self.device) if self.as_shipped(part) else self.trained(part)

    def vae(self) -> Any:
        """The autoencoder, its latents scaled to unit variance."""
        vae = self.taught("vae")
        if not self.as_shipped("vae"):  # which says its factor
            vae.register_to_config(scaling_factor=round(latents.measured(vae, Limits(), device=self.device), 4))
        return vae

    def teacher(self, seed: int) -> Teacher:
        cache = latents.read(self.folder / "latents", self.size.clips)
        clip = self.taught("clip")
        return Teacher(cache, clip.text_model, encoders.tokenizer(), seed, self.device, power=0.8)


def run(
    size: str,
    folder: Path,
    part: str | None = None,
    minutes: float = float("inf"),
    device: str = "cpu",
    share: tuple[int, int] = (0, 1),
    on_shipped: bool = False,
    say: Callable[[str], None] = print,
) -> bool:
    """Train the parts that are not finished, in order, or one of them, for at most so long; whether all is done.

    Raises ConfigError E247 for a size or a part that there is not.
    """
    for what, name, known in (("size", size, tuple(SIZES)), ("part", part or PARTS[0], PARTS)):
        if name not in known:
            raise ConfigError("E247", f"the embedded models have no {what} {name!r}", did_you_mean(name, list(known)))
    workshop = Workshop(folder / size, SIZES[size], device, share, on_shipped, say)
    ends = time.monotonic() + 60 * minutes
    for name in workshop.wanted(part):
        left = (ends - time.monotonic()) / 60
        if left <= 0 or not workshop.make(name, left):
            return False
    return True


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train the embedded models; goes on from where it was.")
    parser.add_argument("--size", choices=sorted(SIZES), default="cpu")
    parser.add_argument("--folder", type=Path, required=True, help="where the training lives")
    parser.add_argument("--part", choices=PARTS, help="only this part")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="processor threads")
    parser.add_argument("--share", type=int, nargs=2, default=(0, 1), metavar=("K", "N"), help="of rendering latents")
    parser.add_argument("--on-shipped", action="store_true", help="take the parts that ship as finished")
    given = parser.parse_args(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)

    def say(line: str) -> None:
        print(line, flush=True)

    try:
        how = (given.device, tuple(given.share), given.on_shipped)
        done = run(given.size, given.folder, given.part, given.minutes, *how, say)
    except Stopped:
        done = False
    say("finished" if done else "not finished: the same command goes on from here")


if __name__ == "__main__":
    main()
