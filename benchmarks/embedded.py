"""What the shipped diffusion models can do, read off their samples by a detector that knows the sprite world.

Both denoisers make clips of captions that ask for a shape, a hue, a texture, a direction (each as often; chance is one
in eight) and a speed, through the interface that the methods use: DDIM from noise with guidance. The world's own clips
of the same captions are the yardstick, as they are and through each model's autoencoder. *Object in frames* is the
share of frames that show the object. Speeds are of the object, in pixels a frame; *off* is how far the speeds lie from
the world's, rank by rank, in pixels a frame. *Object the same* is the correlation of the object from frame to frame
with its motion removed; *sharpness* the variance of the Laplacian beside that of the autoencoder; *flicker* the
distance of the background from the mean of its neighbours in time, of 255.

Samples are written as sheets to artifacts/sheets/, to be looked at: a row a clip, every second frame, and beside them
the captions in order.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retake.diffusion.model import Model
from retake.imaging.signed import to_signed, to_uint8

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from retake.diffusion.backbone import Backbone
    from retake.synthetic.grammar import Subject

CLIPS = 64
STEPS = 50
GUIDANCE = 2.0
SEED = 7
BATCH = 16
MODELS: dict[str, Model] = {
    "embedded": Model(),
    "embedded_dit": Model(name="embedded_dit", family="cogvideox", weights="embedded_dit", frames=17),
}
HERE = Path(__file__).resolve().parents[1]
SHEETS = HERE / "artifacts" / "sheets"
REAL = HERE.parent / "shared" / "clips"
SPEEDS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, np.inf)  # bins, pixels a frame
WORLD, CODED = "the world", "the world, coded by {}"
SMOKE = {"clips": 1, "steps": 2, "coded": 1}


def run(
    models: Mapping[str, Model] = MODELS,
    clips: int = CLIPS,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    sheets: Path = SHEETS,
    coded: int = 32,
) -> list[dict[str, Any]]:
    """Rows of three tables: captions, speeds, and what autoencoders lose. coded: sprite clips of the last."""
    from retake.diffusion.loading.load import load
    from retake.synthetic.clips import Limits
    from retake.training import scores

    backbones = {name: load(model) for name, model in models.items()}
    subjects, quiet = scores.asked(clips, SEED), scores.asked_to_rest(max(clips // 4, 1), SEED)
    made: dict[str, tuple[np.ndarray, float]] = {WORLD: (scores.rendered(subjects, SEED, Limits()), 0.0)}
    rest = {WORLD: scores.rendered(quiet, SEED, Limits())}
    for name, backbone in backbones.items():
        limits = Limits(frames=backbone.frames)
        through_it = CODED.format(name)
        made[through_it] = through(backbone, scores.rendered(subjects, SEED, limits)), 0.0
        rest[through_it] = through(backbone, scores.rendered(quiet, SEED, limits))
        begun = time.perf_counter()
        shown = sampled(backbone, [str(subject) for subject in subjects], steps, guidance)
        made[name] = shown, (time.perf_counter() - begun) / clips
        rest[name] = sampled(backbone, [str(subject) for subject in quiet], steps, guidance)
    for name, (shown, _) in made.items():
        write(sheets, name.replace(", ", "_").replace(" ", "_"), shown, subjects)
    title = f"Captions: {clips} clips, {steps} steps, guidance {guidance:g}"
    rows = [attributes(title, name, shown, subjects, seconds) for name, (shown, seconds) in made.items()]
    sharp = {row["clips of"]: row["sharpness"] for row in rows}
    for row in rows:
        name = row["clips of"]
        row["sharpness"] = sharp[name] / sharp[CODED.format(name)] if name in backbones else None
    shown = {name: clips for name, (clips, _) in made.items()}
    alone = [row for name, backbone in backbones.items() for row in reconstructions(name, backbone, coded)]
    return [*rows, *paces(shown, subjects, rest, quiet), *speeds(shown), *alone]


def attributes(title: str, name: str, made: np.ndarray, subjects: Sequence[Subject], seconds: float) -> dict[str, Any]:
    """Shares of clips that show what their captions ask for."""
    from retake.training import scores

    found = scores.score(made, subjects)
    return {
        "table": title,
        "clips of": name,
        "hue": found.hue,
        "shape": found.shape,
        "direction": found.direction,
        "object in frames": found.present,
        "object the same": found.same,
        "sharpness": found.sharp,
        "flicker": found.flicker,
        "seconds a clip": seconds or None,
    }


def paces(
    made: Mapping[str, np.ndarray],
    subjects: Sequence[Subject],
    rest: Mapping[str, np.ndarray],
    quiet: Sequence[Subject],
) -> Iterator[dict[str, Any]]:
    """Median speed by the word that the caption says of it."""
    from retake.training import scores

    for name, clips in made.items():
        found = scores.speeds(clips, subjects) | scores.speeds(rest[name], quiet)
        said = {word or "no word": found.get(word) for word in ("slowly", "", "quickly", "resting")}
        yield {"table": "Words for speed: median, px a frame", "clips of": name, **said}


def speeds(made: Mapping[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    """Quartiles and histogram of the object's speed; the first clips are those of the data."""
    from retake.synthetic import detector

    found = {name: np.sort([detector.read(clip).speed for clip in clips]) for name, clips in made.items()}
    data = next(iter(found.values()))
    for name, speed in found.items():
        low, middle, high = np.quantile(speed, (0.25, 0.5, 0.75))
        counts, _ = np.histogram(speed, SPEEDS)
        bins = {f"to {end:g}": n / len(speed) for end, n in zip(SPEEDS[1:], counts, strict=True)}
        bins["above"] = bins.pop("to inf")
        quartiles = {"lower quartile": float(low), "median": float(middle), "upper quartile": float(high)}
        off = float(np.abs(speed - data).mean())
        yield {"table": "Speeds, px a frame: share of clips", "clips of": name, **bins, **quartiles, "off": off}


def sampled(backbone: Backbone, prompts: Sequence[str], steps: int, guidance: float) -> np.ndarray:
    """Clips uint8 [N, F, H, W, 3] of N prompts, from noise."""
    import torch

    from retake.diffusion.sampling.ddim import noise

    grid = backbone.grid(backbone.frames, backbone.height, backbone.width)
    made = []
    for first in range(0, len(prompts), BATCH):
        some = prompts[first : first + BATCH]
        condition = backbone.condition(text=some)
        numbers = range(first * grid.frames, (first + len(some)) * grid.frames)
        z = noise(SEED, numbers, grid[1:]).unflatten(0, (-1, grid.frames)).to(backbone.device)
        with torch.inference_mode():
            for t, to in backbone.schedule.step_pairs(steps):
                z = backbone.schedule.step(*backbone.predict(z, t, condition, guidance), t, to)
            made.append(pixels(backbone.decode(z)))
    return np.concatenate(made)


def write(folder: Path, name: str, made: np.ndarray, subjects: Sequence[Subject], rows: int = 16) -> None:
    """Sheets of clips, so many on each, and what they should show."""
    from retake.training import scores
    from retake.video import write_png

    folder.mkdir(parents=True, exist_ok=True)
    for part in range(0, len(made), rows):
        write_png(folder / f"{name}-{part:02d}.png", scores.sheet(made[part : part + rows]))
    (folder / "captions.txt").write_text("".join(f"{n:02d} {subject}\n" for n, subject in enumerate(subjects)))


def reconstructions(name: str, backbone: Backbone, count: int) -> Iterator[dict[str, Any]]:
    """What the autoencoder loses on sprite clips, and on real clips where they are there."""
    from retake.synthetic import clips

    limits = clips.Limits(frames=backbone.frames)
    made = np.stack([clips.render(clips.draw(4_000 + n, limits).scene) for n in range(count)])
    shown = {f"{count} sprite clips": made}
    shown |= {path.stem: every_fifth(path, backbone)[None] for path in sorted(REAL.glob("*.mp4"))}
    for clip, frames in shown.items():
        error = np.square(through(backbone, frames).astype(float) - frames).mean()
        row = {"table": "Autoencoder alone", "model": name, "clip": clip, "frames": int(np.prod(frames.shape[:2]))}
        yield row | {"PSNR, dB": float(10 * np.log10(255**2 / error))}


def every_fifth(path: Path, backbone: Backbone) -> np.ndarray:
    """Every fifth frame of a video at the model's size, as many as its autoencoder takes, uint8 [F, H, W, 3]."""
    from retake.video import decode

    frames = decode(path, size=(backbone.width, backbone.height))
    found = [frame for n, (_, frame) in enumerate(frames) if n % 5 == 0]
    return np.stack(found[: len(found) - (len(found) - 1) % backbone.time])


def through(backbone: Backbone, clips: np.ndarray) -> np.ndarray:
    """Clips uint8 [N, F, H, W, 3], encoded and decoded."""
    return np.concatenate(
        [pixels(backbone.decode(backbone.encode(tensor(clip[None], backbone.device)))) for clip in clips]
    )


def tensor(clips: np.ndarray, device: torch.device) -> Tensor:
    """Pixels float32 [N, F, 3, H, W] in -1..1 of clips uint8 [N, F, H, W, 3]."""
    import torch

    return to_signed(torch.from_numpy(np.ascontiguousarray(clips)).to(device).permute(0, 1, 4, 2, 3))


def pixels(clips: Tensor) -> np.ndarray:
    """Clips uint8 [N, F, H, W, 3] of pixels [N, F, 3, H, W] in -1..1."""
    return to_uint8(clips).permute(0, 1, 3, 4, 2).cpu().numpy()
