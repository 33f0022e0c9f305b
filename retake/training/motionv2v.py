"""The control branch of MotionV2V, taught on counterfactual pairs: from the source clip, its tracks and the target's,
the target.

Pairs of the sprite world have exact tracks (retake/synthetic/pairs.py). Of each some points are drawn, in colours of
their own, and some frames of them left out; everything is coded by the video autoencoder once, when it is rendered. The
base does not learn.

Source: MotionV2V (Burgert et al. 2025, sec. 3 and 4).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from retake.diffusion.families.cogvideox.transformer import evaluate, positions
from retake.diffusion.schedule import Schedule
from retake.imaging.blobs import SIGMA, blobs, colours_of
from retake.machine.disk import atomic_path
from retake.synthetic import pairs
from retake.synthetic.world import World
from retake.training.lessons import SCHEDULE
from retake.training.shards import missing
from retake.training.track_dropout import dropped
from retake.training.video_autoencoder import FRAMES, LATENT, SIDE

SHARD = 100
POINTS = 24  # of a pair, at most; so many are told as of 1 to 24 one draws
SEED = 60_000_000  # of the first pair
REAL = "real-{}.safetensors"  # shards of pairs of real clips (counterfactuals.py)
VIDEOS = 3  # that the branch reads: the target's tracks, the source's, the source

Encode = Callable[[NDArray[np.uint8]], Tensor]
"""Clips uint8 [N, F, H, W, 3] to scaled latents [N, f, C, h, w]."""


class Told(NamedTuple):
    """A pair as pictures, uint8 [F, H, W, 3] each."""

    target: NDArray[np.uint8]
    source: NDArray[np.uint8]
    target_tracks: NDArray[np.uint8]
    source_tracks: NDArray[np.uint8]


class Seen(NamedTuple):
    """A clip and points of it: frames uint8 [F, H, W, 3]; xy float32 [F, P, 2], pixels; visible bool [F, P]."""

    frames: NDArray[np.uint8]
    xy: NDArray[np.float32]
    visible: NDArray[np.bool_]


def told(seed: int, size: int, cell: int, family: str | None = None, whole: bool = False) -> Told:
    """The sprite pair of a seed, and what is told of its tracks. whole, cell: as in `pictured`."""
    rng = np.random.default_rng([seed, 31])
    pair = pairs.pair(seed, family, width=size, height=size, frames=FRAMES, points=POINTS)
    clips = (np.stack([World(scene).frame(t) for t in range(FRAMES)]) for scene in (pair.target, pair.source))
    target, source = (Seen(clip, *tracks) for clip, tracks in zip(clips, pair.tracks(), strict=True))
    return pictured(target, source, rng, cell, whole)


def pictured(target: Seen, source: Seen, rng: np.random.Generator, cell: int, whole: bool = False) -> Told:
    """A pair of clips with the same points, and 1 to 24 of these as pictures; some are left out on some frames, unless
    `whole`. cell: pixels a latent cell."""
    some = rng.permutation(target.xy.shape[1])[: int(rng.integers(1, POINTS + 1))]
    target_seen, source_seen = target.visible[:, some], source.visible[:, some]
    if not whole:
        source_seen, target_seen = dropped(source_seen, target_seen, rng)
    colours, size = colours_of(len(some), rng), target.frames.shape[2:0:-1]

    def drawn(xy: NDArray[np.float32], seen: NDArray[np.bool_]) -> NDArray[np.uint8]:
        return np.rint(255 * blobs(xy[:, some], seen, colours, size, SIGMA * cell)).astype(np.uint8)

    return Told(target.frames, source.frames, drawn(target.xy, target_seen), drawn(source.xy, source_seen))


def shards(folder: Path, count: int) -> list[Path]:
    return [folder / f"pairs-{first:06d}.safetensors" for first in range(0, count, SHARD)]


def render(
    folder: Path,
    count: int,
    encode: Encode,
    size: int,
    cell: int,
    until: float = math.inf,
    share: tuple[int, int] = (0, 1),
) -> bool:
    """Code `count` pairs shard by shard; those that are there are kept. Whether all are. until, share: as in
    shards.missing."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = shards(folder, count)
    for path, numbers in missing(paths, count, SHARD, until, share):
        write(path, (told(SEED + n, size, cell) for n in numbers), encode)
    return all(path.exists() for path in paths)


def write(path: Path, some: Iterable[Told], encode: Encode) -> None:
    """Code pairs into a shard."""
    kept: dict[str, list[Tensor]] = {name: [] for name in Told._fields}
    for one in some:
        with torch.inference_mode():
            coded = encode(np.stack(one)).half()
        for name, z in zip(Told._fields, coded, strict=True):
            kept[name].append(z)
    with atomic_path(path) as part:
        save_file({name: torch.stack(found) for name, found in kept.items()}, part)


def read(folder: Path, count: int) -> dict[str, Tensor]:
    """Latents float16 [N, f, C, h, w] by the names of `Told`: of so many sprite pairs, and of all pairs of real clips
    that lie beside them (`REAL`)."""
    parts: dict[str, list[Tensor]] = {name: [] for name in Told._fields}
    for path in (*shards(folder, count), *sorted(folder.glob(REAL.format("*")))):
        with safe_open(path, "pt") as file:
            for name, some in parts.items():
                some.append(file.get_tensor(name))
    return {name: torch.cat(some) for name, some in parts.items()}


def control_of(data: Mapping[str, Tensor], picked: Sequence[int] | Tensor) -> Tensor:
    """What the branch reads of some pairs, float32 [B, f, 3 C, h, w]."""
    return torch.cat([data[name][picked].float() for name in ("target_tracks", "source_tracks", "source")], 2)


def squared(branch: Any, base: Any, device: str) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """(x0, noise [B, f, C, h, w], times int64 [B], control [B, f, 3 C, h, w]) -> squared error of v, [B, f, C, h, w],
    under the words of no caption. base: transformer.Student; branch None: the base alone."""
    from retake.training.transformer import tokenised

    schedule = Schedule.from_config(SCHEDULE)
    places = positions(base.transformer, LATENT, SIDE, SIDE, torch.device(device))
    with torch.no_grad():
        text = base.text(tokenised([""]).to(device)).last_hidden_state

    def of(x0: Tensor, noise: Tensor, t: Tensor, control: Tensor) -> Tensor:
        z, v = schedule.noised(x0, noise, t).to(device), schedule.target(x0, noise, t).to(device)
        times, words = t.to(device)[:, None].expand(z.shape[:2]), text.expand(len(z), -1, -1)
        made = evaluate(base.transformer, z, times, words, places, branch, control.to(device))
        return (made.float() - v).square()

    return of


def loss(
    branch: Any, base: Any, data: Mapping[str, Tensor], batch: int, power: float, seed: int, device: str
) -> Callable[[int], tuple[Tensor, dict[str, float]]]:
    """(step) -> mean squared error of v for a batch of pairs; times are drawn as u**power. base: as `squared`."""
    errors, times = squared(branch, base, device), Schedule.from_config(SCHEDULE).length

    def of(step: int) -> tuple[Tensor, dict[str, float]]:
        random = torch.Generator().manual_seed(seed * 1_000_003 + step)
        picked = torch.randint(len(data["target"]), (batch,), generator=random)
        x0 = data["target"][picked].float()
        noise = torch.randn(x0.shape, generator=random)
        u = (torch.arange(batch) + torch.rand(batch, generator=random)) / batch
        t = (u**power * times).long().clamp(max=times - 1)
        square = errors(x0, noise, t, control_of(data, picked))
        noisy = square.detach().flatten(1).mean(1)[t.to(device) >= 600]
        return square.mean(), {"noisy": float(noisy.mean()) if len(noisy) else float(square.detach().mean())}

    return of
