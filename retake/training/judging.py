"""A look at a denoiser in training: what it hears of each word, what its clips show, and a sheet of them.

    python -m retake.training.judging --folder artifacts/training --part motion

A row of scores.jsonl and a sheet-STEP.png in the part's folder; a training adds one every half hour.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retake.diffusion.schedule import Schedule
from retake.imaging.signed import to_uint8
from retake.synthetic import grammar
from retake.training import fours, scores, unet, video_autoencoder
from retake.training.fours import Fours
from retake.training.lessons import SCHEDULE, Teacher, heard
from retake.training.loop import progress
from retake.training.sizes import SIZES
from retake.training.workshop import COURSES, Workshop

HELD_OUT = {
    "unet": ("world", 50_000_000),
    "motion": ("clips", 51_000_000),
    "transformer_frames": ("world", 52_000_000),
    "transformer": ("world", 52_000_000),
}
"""Kind of the fours by which a part's hearing is told, and the first seed, of which nothing learns."""
OF_FRAMES = ("unet", "transformer_frames")
TIMES = (980, 850, 600, 300)
GUIDANCE = 3.0
BATCH = 8


def judged(shop: Workshop, part: str, count: int = 100, clips: int = 32, steps: int = 25) -> dict[str, Any]:
    """Scores of a part as far as it has been trained: the rise of the loss by attribute and time over `count` held-out
    fours (lessons.heard), and what `clips` sampled clips show; written beside its state."""
    from retake.video import write_png  # which a bare GPU machine may lack

    folder = shop.folder / part
    student = shop.trained(part)
    teacher = listener(shop, part, count)
    single = torch.zeros(1, dtype=torch.long) if part in OF_FRAMES else None
    row: dict[str, Any] = dict(progress(folder))
    row["heard"] = {t: heard(student, teacher, "heard", t, single) for t in TIMES}
    subjects = scores.asked(clips, 7)
    made = sampled(shop, part, student, teacher, [str(s) for s in subjects], steps)
    row["scores"] = scores.score(np.repeat(made, 2, 1) if made.shape[1] == 1 else made, subjects).row()
    if part == "transformer":
        pairs = scores.asked_pairs(clips, 7)
        said = [grammar.together(*pair) for pair in pairs]
        row["both right"] = scores.both_right(sampled(shop, part, student, teacher, said, steps), pairs)
    rows = [made[n : n + BATCH, 0] for n in range(0, clips, BATCH)] if made.shape[1] == 1 else made[:16]
    write_png(folder / f"sheet-{row['step']:06d}.png", scores.sheet(np.asarray(rows), 1 if made.shape[1] == 1 else 2))
    with (folder / "scores.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    return row


def listener(shop: Workshop, part: str, count: int) -> Teacher:
    """A teacher of held-out fours, kept beside the others; what makes frames is asked by one frame of each clip."""
    name, seed = HELD_OUT[part]
    kind = replace(COURSES[part].KINDS[name], seed=seed, frames=1 if part in OF_FRAMES else None)
    folder = shop.folder / "fours" / shop.eyes(part)
    fours.render(folder, f"heard-{part}", kind, count, shop.coder(part))
    data: dict[str, Fours] = {"heard": fours.read(folder, f"heard-{part}", count)}
    frames = video_autoencoder.LATENT if shop.eyes(part) == "video_vae" else unet.FRAMES
    return Teacher(data, COURSES[part].tokenised, frames, 1.0, (0.0, 1.0, 0.0, 0.0), 0, shop.device)


@torch.inference_mode()
def sampled(
    shop: Workshop, part: str, student: Any, teacher: Teacher, prompts: Sequence[str], steps: int
) -> scores.Image:
    """Clips uint8 [N, F, H, W, 3] of N prompts by DDIM from noise with guidance; of what makes frames, one frame."""
    shape = teacher.data["heard"].latents.shape[2:]
    references = teacher.data["heard"].references[0, 0]
    coder = shop.video_vae() if shop.eyes(part) == "video_vae" else shop.vae()
    return drawn(student, coder, COURSES[part].tokenised, shape, references, prompts, steps)


@torch.inference_mode()
def drawn(
    student: Any,
    coder: Any,
    tokenised: Callable[[Sequence[str]], Tensor],
    shape: Sequence[int],
    references: Tensor,
    prompts: Sequence[str],
    steps: int,
) -> scores.Image:
    """As `sampled`, by a student whose clips have latents of a shape [f, C, h, w], shown by `coder`."""
    schedule = Schedule.from_config(SCHEDULE)
    random = torch.Generator().manual_seed(3)
    tokens, silent, at = tokenised(prompts), tokenised([""]), torch.arange(shape[0])
    device = next(student.parameters()).device
    made = []
    for first in range(0, len(prompts), BATCH):
        some = tokens[first : first + BATCH]
        z = torch.randn(len(some), *shape, generator=random)
        both = torch.cat([some, silent.expand_as(some)])
        for t, to in schedule.step_pairs(steps):
            given = {
                "z": torch.cat([z, z]),
                "t": torch.full((len(both),), int(t)),
                "tokens": both,
                "references": torch.zeros(len(both), *references.shape),
                "at": at,
            }
            with_, without = student({k: v.to(device) for k, v in given.items()}).float().cpu().chunk(2)
            x0, eps = schedule.to_x0_eps(without + GUIDANCE * (with_ - without), z, t)
            z = schedule.step(x0, eps, t, to)
        made.append(decoded(coder, z))
    return np.concatenate(made)


def decoded(coder: Any, z: Tensor) -> scores.Image:
    """Pixels uint8 [B, F, H, W, 3] of scaled latents, by either autoencoder."""
    from retake.diffusion.families.cogvideox import vae as causal
    from retake.diffusion.families.common import image_vae

    by = causal if type(coder).__name__ == "AutoencoderKLCogVideoX" else image_vae
    shown = by.decode(coder, z.to(coder.device)).cpu().clamp(-1, 1)
    return to_uint8(shown).permute(0, 1, 3, 4, 2).numpy()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Look at a denoiser in training.")
    parser.add_argument("--size", choices=sorted(SIZES), default="cpu")
    parser.add_argument("--folder", type=Path, required=True, help="where the training lives")
    parser.add_argument("--part", choices=sorted(HELD_OUT), required=True)
    parser.add_argument("--on-shipped", action="store_true", help="take the parts that ship as finished")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    row = judged(Workshop(given.folder / given.size, SIZES[given.size], "cpu", on_shipped=given.on_shipped), given.part)
    for t, rises in row["heard"].items():
        print(f"t {t}: " + ", ".join(f"{name} {rise:+.2%}" for name, rise in rises.items()))
    print(row["scores"] | {name: row[name] for name in ("both right",) if name in row})


if __name__ == "__main__":
    main()
