"""What the editing network learns from: clips with the mask of one object, depth and flow, and pictures of the object.

Made once, shard by shard. Clips of the sprite world have all of it exactly; real clips (those of a manifest) come from
the cached stages, and have no object: their mask is empty.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from retake.diffusion.grid import to_grid
from retake.imaging.signed import to_signed
from retake.machine.disk import atomic_path
from retake.synthetic import clips, pairs
from retake.synthetic.scene import Scene
from retake.synthetic.world import World
from retake.training.fours import Encode
from retake.training.shards import missing

LIMITS = clips.Limits()
SIDE = 16  # of a latent frame
SHARD = 100
SEED = 80_000_000  # of the first clip
STAGED = 0.3  # share of clips of several sprites that turn and grow
VERSION = 1  # raised by hand when what is kept of a clip changes
CLOSE = 1.6  # side of a picture of an object, in sides of its box


class Clip(NamedTuple):
    """A clip, or with a first axis more a batch of them: frames uint8 [F, H, W, 3]; latents float16 [F, C, h, w]; mask
    uint8 [F, H, W], 255 on the object; depth uint8 [F, H, W], nearest 255; flow float16 [F, 2, h, w], (dx, dy) in
    latent cells to the frame before, zero for the first; pictures uint8 [P, S, S, 3] of the object: its portrait, as
    it is seen in a frame, and as in a frame but on grey; of whole frames where there is none."""

    frames: Tensor
    latents: Tensor
    mask: Tensor
    depth: Tensor
    flow: Tensor
    pictures: Tensor


class Clips:
    """Many of them, in files that are read as clips are asked for: memory does not grow with their number."""

    def __init__(self, files: Iterable[Path]) -> None:
        """Raises FileNotFoundError where a file is missing."""
        self._files = [safe_open(path, "pt") for path in files]
        counts = [file.get_slice("mask").get_shape()[0] for file in self._files]
        self._at = [(n, row) for n, count in enumerate(counts) for row in range(count)]

    def __len__(self) -> int:
        return len(self._at)

    def take(self, picked: Iterable[int], frames: Sequence[int] | None = None) -> Clip:
        """The clips of some numbers, or some of their frames."""
        rows = [self._read(*self._at[n], frames) for n in picked]
        return Clip(*map(torch.stack, zip(*rows, strict=True)))

    def _read(self, file: int, row: int, frames: Sequence[int] | None) -> Clip:
        found = [self._files[file].get_slice(name)[row] for name in Clip._fields]
        if frames is not None:
            found[:-1] = [part[list(frames)] for part in found[:-1]]
        return Clip(*found)


def drawn(seed: int, limits: clips.Limits = LIMITS) -> tuple[Scene, int]:
    """The scene of that seed, and which of its sprites is the object."""
    rng = np.random.default_rng([seed, 51])
    if rng.uniform() >= STAGED:
        return clips.draw(seed, limits).scene, 0
    scene = pairs.stage(rng, limits.size, limits.size, limits.frames, limits.fps)
    return scene, int(rng.integers(len(scene.sprites)))


def of_world(seed: int, space: int, limits: clips.Limits = LIMITS) -> dict[str, NDArray[np.generic]]:
    """All but the latents of the clip of that seed. space: pixels a latent cell."""
    scene, sprite = drawn(seed, limits)
    world, rng = World(scene), np.random.default_rng([seed, 52])
    frames = np.stack([world.frame(t) for t in range(limits.frames)])
    mask = np.stack([world.mask(t, sprite) for t in range(limits.frames)])
    back = np.stack([world.flow(t + 1, t) for t in range(limits.frames - 1)])
    seen = [t for t in range(limits.frames) if mask[t].any()]
    near, far = rng.choice(seen, 2) if seen else (0, 0)
    alone = np.where(mask[far][..., None], frames[far], np.uint8(clips.GREY))
    shown = [
        clips.portrait(scene, sprite, limits.size),
        close_up(frames[near], mask[near], limits.size),
        close_up(alone, mask[far], limits.size),
    ]
    return {
        "frames": frames,
        "mask": np.uint8(255) * mask,
        "depth": np.rint(255 * np.stack([world.depth(t) for t in range(limits.frames)])).astype(np.uint8),
        "flow": on_cells(back, space),
        "pictures": np.stack(shown),
    }


def on_cells(backward: NDArray[np.float32], space: int) -> NDArray[np.float16]:
    """Flow [F - 1, H, W, 2] in pixels, from each frame to the one before, as `Clip` keeps it."""
    cells = to_grid(torch.from_numpy(backward), "flow", space, 1).movedim(-1, 1)
    return torch.cat([torch.zeros_like(cells[:1]), cells]).half().numpy()


def close_up(frame: NDArray[np.uint8], mask: NDArray[np.bool_], size: int) -> NDArray[np.uint8]:
    """A square picture [size, size, 3] around what a mask holds; the whole frame where it holds nothing."""
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return square(frame, size)
    side = CLOSE * max(np.ptp(rows), np.ptp(columns), 8)
    y, x = (rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2
    height, width = mask.shape
    top, left = (int(np.clip(round(c - side / 2), 0, max(n - side, 0))) for c, n in ((y, height), (x, width)))
    return square(frame[top : top + int(side), left : left + int(side)], size)


def square(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """A picture [h, w, 3] at [size, size, 3]."""
    x = torch.from_numpy(np.ascontiguousarray(picture)).movedim(-1, 0)[None].float()
    x = F.interpolate(x, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return x[0].round().clamp(0, 255).byte().movedim(0, -1).numpy()


def shards(folder: Path, count: int) -> list[Path]:
    return [folder / f"editing-{first:06d}.safetensors" for first in range(0, count, SHARD)]


def render(
    folder: Path,
    count: int,
    encode: Encode,
    space: int,
    until: float = math.inf,
    share: tuple[int, int] = (0, 1),
    seed: int = SEED,
) -> bool:
    """Make `count` clips of the sprite world shard by shard; those that are there are kept. Whether all are. until,
    share: as in shards.missing."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = shards(folder, count)
    for path, numbers in missing(paths, count, SHARD, until, share):
        write(path, (of_world(seed + n, space) for n in numbers), encode)
    return all(path.exists() for path in paths)


def write(path: Path, some: Iterable[dict[str, NDArray[np.generic]]], encode: Encode) -> None:
    """A shard of clips, coded one by one."""
    kept: dict[str, list[Tensor]] = {name: [] for name in Clip._fields}
    for one in some:
        for name, value in one.items():
            kept[name].append(torch.from_numpy(value))
        with torch.inference_mode():
            kept["latents"].append(encode(one["frames"][None])[0].half())  # type: ignore[arg-type]
    with atomic_path(path) as part:
        save_file({name: torch.stack(found).contiguous() for name, found in kept.items()}, part)


def blacked_out(frames: Tensor, mask: Tensor) -> Tensor:
    """Pixels [..., 3, H, W] in -1..1 of frames uint8 [..., H, W, 3]: black where the mask [..., H, W] is not 0, as
    MimicBrush's network was shown them."""
    shown = frames * (mask == 0)[..., None]
    return to_signed(shown).movedim(-1, -3)
