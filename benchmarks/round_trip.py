"""How well clips come back: encoded, inverted, denoised and decoded, against the autoencoder alone.

With the embedded models, as an edit does it: the settings of the inversion stage, no prompt, guidance 1. *VAE* is PSNR
to the source of what is encoded and decoded, *back* that of the whole round trip, *lost* the difference (the bar is
0.5 dB); *to VAE* is PSNR of the round trip to the autoencoder's reconstruction. *Evaluations* is how often the
inversion asked the network about each window. *Exact* keeps levels in float32 and refines them to 1e-5. Peer: plain
DDIM inversion, one evaluation a level.

A long clip goes in windows that are blended at every level. *Seam* is the mean change from frame to frame where a
window begins or ends, to that everywhere else: compare it with the source's own. A clip made from noise has no source
to hold its windows together; with windows that do not overlap it shows what a seam would be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.embedded import MODELS, REAL, pixels, tensor
from retake.diffusion.model import Model

if TYPE_CHECKING:
    from torch import Tensor

    from retake.diffusion.backbone import Backbone, Condition
    from retake.diffusion.sampling.windows import Windows
    from tasks.inversion import Params

CLIPS = 4
FIRST = 4_000  # seed of the first sprite clip; training began at a million
LONG = 48
BAR = 0.5  # dB
SMOKE = {"clips": 1, "long": 12, "steps": 2}
EXACT = {"precision": "float32", "tolerance": 1e-5, "iterations": 50}


def run(
    models: Mapping[str, Model] = MODELS, clips: int = CLIPS, long: int = LONG, steps: int | None = None
) -> list[dict[str, Any]]:
    """Rows of three tables: clips of the model's length, a long clip, long clips from noise. steps: of the inversion,
    the stage's own by default."""
    from retake.diffusion.loading.load import load

    backbones = {name: load(model) for name, model in models.items()}
    settings = inversion(steps)
    rows = [row for name, backbone in backbones.items() for row in short_clips(name, backbone, clips, settings)]
    rows += [long_clip(name, backbone, long, settings) for name, backbone in backbones.items()]
    for name, backbone in backbones.items():
        rows += from_noise(name, backbone, long, min(20, settings.steps), settings.overlap)
    return rows


def inversion(steps: int | None) -> Params:
    """The inversion stage's settings, of so many steps."""
    from tasks.inversion import Params

    return Params(**{} if steps is None else {"steps": steps})  # type: ignore[arg-type]


def short_clips(name: str, backbone: Backbone, clips: int, settings: Params) -> Iterator[dict[str, Any]]:
    """A row for each clip: inversion by default and as exact as it gets, and plain DDIM inversion beside them."""
    kinds = {
        "": settings,
        "exact: ": settings.model_copy(update=EXACT),
        "plain: ": settings.model_copy(update={"iterations": 0}),
    }
    for clip, frames in sources(backbone, clips):
        row: dict[str, Any] = {
            "table": f"Round trip, {backbone.frames} frames, {settings.steps} steps",
            "model": name,
            "clip": clip,
        }
        if frames is None:
            yield row
            continue
        z = backbone.encode(tensor(frames[None], backbone.device))[0]
        coded = decoded(backbone, z)
        row["VAE, dB"] = psnr(coded, frames)
        for kind, chosen in kinds.items():
            back, evaluations = there_and_back(backbone, z, chosen)
            row[f"{kind}evaluations"] = evaluations
            row[f"{kind}back, dB"] = psnr(back, frames)
            row[f"{kind}lost, dB"] = psnr(coded, frames) - psnr(back, frames)
            row[f"{kind}to VAE, dB"] = psnr(back, coded)
            if not kind.startswith("plain"):
                row[f"{kind}within {BAR} dB"] = row[f"{kind}lost, dB"] <= BAR
        yield row


def long_clip(name: str, backbone: Backbone, frames: int, settings: Params) -> dict[str, Any]:
    """A row on a sprite clip that takes several windows."""
    from retake.diffusion.sampling.windows import Windows
    from retake.synthetic import clips

    scene = clips.draw(FIRST, clips.Limits(size=backbone.height, frames=frames)).scene
    source = clips.render(scene)
    z = backbone.encode(tensor(source[None], backbone.device))[0]
    windows, coded = Windows.of(backbone, len(z), settings.overlap), decoded(backbone, z)
    back, evaluations = there_and_back(backbone, z, settings, windows)
    lost = psnr(coded, source) - psnr(back, source)
    return {
        "table": f"A sprite clip of {frames} frames, windows overlap by {settings.overlap}",
        "model": name,
        "windows": len(windows.spans),
        "evaluations": evaluations,
        "VAE, dB": psnr(coded, source),
        "back, dB": psnr(back, source),
        "lost, dB": lost,
        f"within {BAR} dB": lost <= BAR,
        "to VAE, dB": psnr(back, coded),
        "seam": seam(back, windows),
        "seam of the source": seam(source, windows),
    }


def from_noise(name: str, backbone: Backbone, frames: int, steps: int, overlap: int) -> Iterator[dict[str, Any]]:
    """Rows on a clip made from noise, with windows that overlap and with windows that do not."""
    from retake.diffusion.sampling.ddim import noise, sample
    from retake.diffusion.sampling.windows import Windows

    grid = backbone.grid(frames, backbone.height, backbone.width)
    for shared in overlap, 0:
        windows = Windows.of(backbone, grid.frames, shared)
        z = noise(FIRST, range(grid.frames), grid[1:]).to(backbone.device)
        condition = backbone.condition(text=["a red disc moving left"])
        sample(backbone, z, condition, steps=steps, guidance=4.0, windows=windows, batch=len(windows.spans))
        yield {
            "table": f"{frames} frames from noise, {steps} steps, guidance 4",
            "model": name,
            "overlap": shared,
            "windows": len(windows.spans),
            "seam": seam(decoded(backbone, z), windows),
        }


def there_and_back(
    backbone: Backbone, z: Tensor, settings: Params, windows: Windows | None = None
) -> tuple[np.ndarray, int]:
    """Frames uint8 [F, H, W, 3] of latents z after inversion and denoising, and evaluations of each window."""
    import torch

    from retake.diffusion.sampling.ddim import sample
    from retake.diffusion.sampling.inversion import invert

    condition: Condition = backbone.condition(text=[""])
    many: dict[str, Any] = {
        "steps": settings.steps,
        "windows": windows,
        "batch": len(windows.spans) if windows else 1,
    }
    exactly = {"iterations": settings.iterations, "tolerance": settings.tolerance}
    top: Any = z
    evaluations = 0
    for level in invert(backbone, z, condition, stored=getattr(torch, settings.precision), **exactly, **many):
        top, evaluations = level.latents, evaluations + level.evaluations
    top = torch.as_tensor(top).to(backbone.device, torch.float32)
    return decoded(backbone, torch.as_tensor(sample(backbone, top, condition, **many))), evaluations


def sources(backbone: Backbone, clips: int) -> Iterator[tuple[str, np.ndarray | None]]:
    """(name, frames uint8 [F, H, W, 3]) of sprite clips and of the real clips; None where those are not there."""
    from retake.synthetic import clips as sprites
    from retake.video import Selection, decode

    limits = sprites.Limits(size=backbone.height, frames=backbone.frames)
    for n in range(clips):
        yield f"sprite clip {n + 1}", sprites.render(sprites.draw(FIRST + n, limits).scene)
    found = sorted(REAL.glob("*.mp4"))
    if not found:
        yield f"real clips: none, there is no {REAL.parent.name}/{REAL.name} beside the checkout", None
    for path in found:
        wanted, size = Selection(last=backbone.frames - 1), (backbone.width, backbone.height)
        yield path.stem, np.stack([frame for _, frame in decode(path, wanted, size)])


def decoded(backbone: Backbone, z: Tensor) -> np.ndarray:
    """Frames uint8 [F, H, W, 3] of latents [F, C, h, w]."""
    return pixels(backbone.decode(z[None].float()))[0]


def psnr(frames: np.ndarray, of: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of uint8 frames, over all of them together; infinite where they are equal."""
    error = np.square(frames.astype(float) - of).mean()
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def seam(frames: np.ndarray, windows: Windows) -> float:
    """Mean change between neighbouring frames [F, ...] where a window begins or ends, to that between the others."""
    change = np.abs(np.diff(frames.astype(float), axis=0)).reshape(len(frames) - 1, -1).mean(1)
    edges = [at - 1 for span in windows.spans for at in (span.start, span.stop) if 0 < at < windows.count]
    there = np.isin(np.arange(len(change)), edges)
    return float(change[there].mean() / change[~there].mean())
