"""Clips as the denoisers read them: latents, reference states and captions, rendered ahead into shards.

A shard is one safetensors file of `SHARD` clips, written whole or not at all, so that a second process can render
while the first trains and both can be killed.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from retake.diffusion.families.common.conditioning import image_states
from retake.machine.disk import atomic_path
from retake.synthetic import clips
from retake.training.autoencoder import tensor

SHARD = 500


@dataclass(frozen=True)
class Cache:
    """Latents float16 [N, F, C, h, w], already scaled to unit variance; states of the reference picture float16
    [N, P, D]; captions, one a clip."""

    latents: Tensor
    references: Tensor
    captions: list[str]


def render(
    folder: Path,
    vae: Any,
    encoder: Any,
    seed: int,
    count: int,
    limits: clips.Limits,
    device: str,
    share: tuple[int, int] = (0, 1),
    workers: int = 0,
    until: float = float("inf"),
) -> None:
    """Render clips seed .. seed + count, shard by shard; those that are there are kept.

    share: (k, n) is the k-th of n processes that render together. workers: processes that draw the frames, beside this
    one, which encodes them. until: a moment of time.monotonic() after which no shard is begun.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with drawing(workers) as each:
        for first in range(share[0] * SHARD, count, share[1] * SHARD):
            path = folder / f"clips-{first:06d}.safetensors"
            if path.exists():
                continue
            if time.monotonic() > until:
                return
            rows, pictures, captions = [], [], []
            seeds = [seed + n for n in range(first, min(first + SHARD, count))]
            for caption, frames, picture in each(seeds, limits):
                captions.append(caption)
                pictures.append(picture)
                with torch.inference_mode():
                    z = vae.encode(tensor(frames, device)).latent_dist.mean * vae.config.scaling_factor
                rows.append(z.half().cpu())
            with torch.inference_mode():
                states = image_states(encoder, tensor(np.stack(pictures), device)).half().cpu()
            tensors = {"latents": torch.stack(rows).contiguous(), "references": states.contiguous()}
            with atomic_path(path) as part:
                save_file(tensors, part, {"captions": json.dumps(captions)})


Drawn = tuple[str, np.ndarray, np.ndarray]


@contextlib.contextmanager
def drawing(workers: int) -> Iterator[Callable[[list[int], clips.Limits], Iterator[Drawn]]]:
    """A function that draws the clips of seeds, in order: here, or in so many processes."""
    if not workers:
        yield lambda seeds, limits: (drawn(seed, limits) for seed in seeds)
        return
    # Not forked: torch has threads by now, and a fork would inherit their locks.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield lambda seeds, limits: pool.map(partial(drawn, limits=limits), seeds, chunksize=8)


def drawn(seed: int, limits: clips.Limits) -> Drawn:
    """Caption, frames uint8 [F, S, S, 3] and portrait uint8 [S, S, 3] of a clip."""
    scene, _, caption = clips.draw(seed, limits)
    return caption, clips.render(scene), clips.portrait(scene, size=limits.size)


def read(folder: Path, count: int) -> Cache:
    """The first `count` clips. Raises FileNotFoundError when they have not all been rendered."""
    latents, references, captions = [], [], []
    for first in range(0, count, SHARD):
        path = folder / f"clips-{first:06d}.safetensors"
        with safe_open(path, "pt") as file:
            latents.append(file.get_tensor("latents"))
            references.append(file.get_tensor("references"))
            captions += json.loads(file.metadata()["captions"])
    return Cache(torch.cat(latents)[:count], torch.cat(references)[:count], captions[:count])


def measured(vae: Any, limits: clips.Limits, count: int = 64, seed: int = 1 << 30, device: str = "cpu") -> float:
    """The factor that brings an autoencoder's latents of clips to unit variance."""
    short, square, total = replace(limits, frames=2), 0.0, 0
    for n in range(count):
        with torch.inference_mode():
            z = vae.encode(tensor(clips.render(clips.draw(seed + n, short).scene), device)).latent_dist.mean
        square, total = square + float(z.double().square().sum()), total + z.numel()
    return (square / total) ** -0.5
