"""The video encoder of the embedded models, from which MoAlign learns motion: a small VideoMAE, taught to fill in what
it does not see of clips of the sprite world and of natural stills that move, and to tell what a sprite's caption says.

Sources: VideoMAE (Tong et al., NeurIPS 2022) for the first, in which whole tubes of places are masked; here single
tokens are, and fewer of them: what is hidden for a whole clip can be told without knowing how it moves, and the small
encoder then does not know it. The second stands for the labels of actions on which the published encoders of MoAlign
and VideoREPA were finetuned (VideoMAE V2, Wang et al., CVPR 2023, sec. 3.3).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor, nn
from torch.nn import functional as F

from retake.machine.disk import atomic_path
from retake.networks.video_mae import MEAN, STD
from retake.synthetic import grammar
from retake.synthetic.clips import render
from retake.synthetic.grammar import Subject
from retake.synthetic.stills import travelling
from retake.training import motion_clips
from retake.training.encoders import codes
from retake.training.moving import Image

FRAMES = 16
PATCH, TUBE = 8, 2
MASKED = 0.5  # share of the tokens
WIDTH = 128  # of its features
NATURAL = 4  # one clip of so many shows a still that moves, of which nothing is said
SEED = 60_000_000  # of the first clip
WORDS = (
    len(grammar.SHAPES),
    len(grammar.HUES),
    len(grammar.TEXTURES),
    len(grammar.DIRECTIONS) + 1,
    len(grammar.GROUNDS),
    len(grammar.SPEEDS),
)  # how many there are of each kind
PIXELS = 12.0  # weight of the squared error of pixels (0..1) beside the words


class Taught(nn.Module):
    """A VideoMAEForPreTraining, and what tells the words from the mean of its encoder's tokens."""

    def __init__(self, mae: Any) -> None:
        super().__init__()
        self.mae = mae
        self.words = nn.Linear(mae.config.hidden_size, sum(WORDS))

    @property
    def videomae(self) -> Any:
        """The encoder."""
        return self.mae.videomae

    def forward(self, pixels: Tensor, hidden: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Squared error of hidden pixels (0..1), and the words of each kind, [B, words], of normalised pixels [B, F,
        3, H, W] of which tokens are hidden, bool [B, N], of each clip as many."""
        out = self.mae(pixel_values=pixels, bool_masked_pos=hidden, output_hidden_states=True)
        seen = self.videomae.layernorm(out.hidden_states[self.mae.config.num_hidden_layers])
        return out.loss, list(self.words(seen.mean(1)).split(WORDS, -1))


def network() -> Taught:
    """Of 1.5 M parameters, over clips of 16 frames of 64 pixels a side."""
    from transformers import VideoMAEConfig, VideoMAEForPreTraining

    mae = VideoMAEForPreTraining(
        VideoMAEConfig(
            image_size=motion_clips.LIMITS.size,
            num_frames=FRAMES,
            patch_size=PATCH,
            tubelet_size=TUBE,
            hidden_size=WIDTH,
            initializer_range=WIDTH**-0.5,
            num_hidden_layers=6,
            num_attention_heads=4,
            intermediate_size=512,
            decoder_hidden_size=96,
            decoder_num_hidden_layers=2,
            decoder_num_attention_heads=4,
            decoder_intermediate_size=384,
            use_mean_pooling=False,
            # Of patches that are a smooth ground, normalised pixels are what noise leaves.
            norm_pix_loss=False,
        )
    )
    return Taught(mae)


def pool(folder: Path, count: int) -> tuple[Image, Tensor]:
    """`count` clips uint8 [count, frames, size, size, 3], rendered into a file of the folder unless they are there, and
    their words int64 [count, 6]: numbers within each kind, -100 where nothing is said. The same count gives the same
    bytes."""
    frames, size = motion_clips.LIMITS.frames, motion_clips.LIMITS.size
    path = folder / f"told-{count}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as part:
            made = open_memmap(part, "w+", np.uint8, (count, frames, size, size, 3))
            for n in range(count):
                natural = n % NATURAL == 0
                rng = np.random.default_rng([SEED, n])
                made[n] = travelling(rng, frames, size) if natural else render(motion_clips.drawn(SEED + n).scene)
            made.flush()
    said = torch.full((count, len(WORDS)), -100)
    for n in range(count):
        if n % NATURAL:
            said[n] = words(motion_clips.drawn(SEED + n).subject)
    return np.load(path, mmap_mode="r"), said


def words(subject: Subject) -> Tensor:
    """Numbers of what a subject is, int64 [6]; -100 for a direction or a speed that it has not."""
    known = codes([subject])[0] - 1
    speed = grammar.SPEEDS.index(subject.speed) if subject.direction in grammar.DIRECTIONS else -1
    return torch.tensor([n if n >= 0 else -100 for n in (*known.tolist(), speed)])


def masked(random: torch.Generator, batch: int, tokens: int) -> Tensor:
    """Which tokens are not seen, bool [batch, tokens]: of each clip as many."""
    order = torch.rand(batch, tokens, generator=random).argsort(1)
    return order < round(MASKED * tokens)


def loss(
    model: Any, data: tuple[Image, Tensor], batch: int, seed: int, device: str
) -> Callable[[int], tuple[Tensor, dict[str, float]]]:
    """(step) -> error of the hidden pixels, times PIXELS, and mean cross-entropy of the words of a batch of clips; for
    the curve both. data: as `pool` gives them."""
    mean, std = (torch.tensor(some, device=device) for some in (MEAN, STD))
    frames, said = data
    tokens = (frames.shape[2] // PATCH) ** 2 * FRAMES // TUBE

    def of(step: int) -> tuple[Tensor, dict[str, float]]:
        random = torch.Generator().manual_seed(seed * 1_000_003 + step)
        picked = torch.randint(len(frames), (batch,), generator=random)
        begin = torch.randint(frames.shape[1] - FRAMES + 1, (batch,), generator=random)
        some = np.stack([frames[n][t : t + FRAMES] for n, t in zip(picked.tolist(), begin.tolist(), strict=True)])
        pixels = ((torch.from_numpy(some).to(device).float() / 255 - mean) / std).movedim(-1, 2)  # [B, F, 3, H, W]
        error, told = model(pixels, masked(random, batch, tokens).to(device))
        wanted = said[picked].to(device)
        told = [
            F.cross_entropy(row, right, reduction="none", ignore_index=-100)
            for row, right in zip(told, wanted.T, strict=True)
        ]
        entropy = torch.stack(told)[wanted.T >= 0].mean() if (wanted >= 0).any() else error.new_zeros(())
        return PIXELS * error + entropy, {"pixels": float(error.detach()), "words": float(entropy.detach())}

    return of
