"""Pictures of what the parts of MoAlign and IVEDiff have learnt, for the page that ends their training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retake.imaging.signed import to_uint8
from retake.networks.video_mae import MEAN, STD
from retake.training import (
    editing_clips,
    editing_samples,
    ivediff,
    judging,
    motion_clips,
    scores,
    transformer,
    video_mae,
)
from retake.training.workshop import Workshop

Image = NDArray[np.uint8]
GREY = 128  # of what is hidden


class Flows(NamedTuple):
    """Frames uint8 [N, H, W, 3], and their flow and that told of them, float32 [N, h, w, 2] in cells."""

    frames: Image
    true: NDArray[np.float32]
    told: NDArray[np.float32]


@torch.inference_mode()
def filled(shop: Workshop, count: int = 6) -> Image:
    """Clips in rows: a frame, what the encoder sees of it, and with the rest filled in; uint8 [count * H, 3 * W, 3]."""
    frames, _ = video_mae.pool(shop.folder / "video_mae", shop.size.moving)
    some = torch.from_numpy(np.stack([frames[n, : video_mae.FRAMES] for n in range(min(count, len(frames)))]))
    model, mean, std = shop.taught("video_mae").mae, torch.tensor(MEAN), torch.tensor(STD)
    pixels = some.float() / 255
    cells = cut(pixels)
    hidden = video_mae.masked(torch.Generator().manual_seed(0), *cells.shape[:2])
    given = ((pixels - mean) / std).movedim(-1, 2).to(shop.device)
    made = model(pixel_values=given, bool_masked_pos=hidden.to(shop.device)).logits.cpu()
    seen, whole = cells.clone(), cells.clone()
    seen[hidden], whole[hidden] = GREY / 255, made.flatten(0, 1).clamp(0, 1)
    at = video_mae.FRAMES // 2
    rows = torch.cat([pixels[:, at], joined(seen)[:, at], joined(whole)[:, at]], 2)
    return (255 * torch.cat(list(rows))).round().byte().numpy()


def cut(pixels: Tensor) -> Tensor:
    """Clips [B, F, H, W, 3] as VideoMAE's patches [B, tokens, tube * patch * patch * 3]."""
    tube, patch = video_mae.TUBE, video_mae.PATCH
    parts = pixels.unflatten(3, (-1, patch)).unflatten(2, (-1, patch)).unflatten(1, (-1, tube))
    return parts.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4).flatten(1, 3)


def joined(patches: Tensor) -> Tensor:
    """The square clips [B, F, H, W, 3] of patches."""
    tube, patch = video_mae.TUBE, video_mae.PATCH
    tubes = video_mae.FRAMES // tube
    side = round((patches.shape[1] // tubes) ** 0.5)
    parts = patches.unflatten(1, (tubes, side, side)).unflatten(4, (tube, patch, patch, 3))
    return parts.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(len(patches), -1, side * patch, side * patch, 3)


@torch.inference_mode()
def flows(shop: Workshop, files: Sequence[tuple[Path, list[str]]] = (), count: int = 6) -> Flows:
    """The last clips that were studied, by their frames half-way, through the autoencoder: those of `files` last."""
    clips = motion_clips.read(shop.studies(), files)
    some = clips.take(range(max(0, len(clips) - count), len(clips)))
    subspace = shop.taught("motion_subspace")
    told = subspace(some.features.float().to(shop.device), some.flow.shape[-2:]).cpu()
    at = some.flow.shape[1] // 2
    shown = judging.decoded(shop.video_vae(), some.latents.float())
    scale = some.flow.shape[-1] / motion_clips.SCALE
    true, made = (scale * x[:, at].float().movedim(1, -1).numpy().astype(np.float32) for x in (some.flow, told))
    return Flows(shown[:, 1 + motion_clips.TUBE * at], true, made)


def samples(shop: Workshop, part: str, count: int = 8, steps: int = 25) -> Image:
    """A sheet of clips that an aligned transformer draws, a row a clip."""
    aligned: Any = shop.trained(part)
    shape = motion_clips.read(shop.studies()).take([0]).latents.shape[1:]
    prompts = [str(subject) for subject in scores.asked(count, 7)]
    made = judging.drawn(
        aligned.student, shop.video_vae(), transformer.tokenised, shape, torch.zeros(0), prompts, steps
    )
    return scores.sheet(made)


@torch.inference_mode()
def edited(shop: Workshop, part: str, count: int = 6, frames: int = 8, steps: int = 16, guidance: float = 3.0) -> Image:
    """A sheet of clips of the sprite world, in rows of so many frames: a clip with its object hidden, and as it is made
    anew from the picture that stands before them; the last clips in a rectangle without depth. Of the network of
    pictures, each frame by itself."""
    network, eyes = shop.trained(part), ivediff.Eyes(shop.vae(), shop.taught("clip").vision_model, shop.device)
    data = editing_clips.Clips(editing_clips.shards(shop.folder / "editing", shop.size.editing))
    count, rows = min(count, len(data)), []
    for n in range(len(data) - count, len(data)):
        kind = "rectangle" if n >= len(data) - count // 2 else "object"
        some = data.take([n], range(frames))
        given = editing_samples.hidden(network, eyes, some, kind)
        made = judging.decoded(shop.vae(), editing_samples.filled(network, eyes, given, steps, guidance, n))[0]
        shown, picture = to_uint8(given.shown[0]).movedim(1, -1).numpy(), some.pictures[0, 0].numpy()
        rows += [np.concatenate([np.zeros_like(picture), *shown], 1), np.concatenate([picture, *made], 1)]
    return np.concatenate(rows)
