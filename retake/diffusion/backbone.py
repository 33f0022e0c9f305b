"""The one interface to a video diffusion model. Methods use it and never look behind it.

Everything is laid out with frames before channels: pixels [B, F, 3, H, W] in -1..1, latents [B, F, C, h, w], timesteps
[B, F]. Adapters (families/) permute to what diffusers' class wants.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from retake.diffusion import attention, grid
from retake.diffusion.control_branch import takes_no_branch
from retake.diffusion.schedule import Schedule
from retake.errors import ConfigError

Times = Tensor | float
Attention = Callable[..., Tensor] | attention.Around


class Predicted(NamedTuple):
    """What a network says of z at t, whatever it predicts itself: float32 [B, F, C, h, w] each."""

    x0: Tensor
    eps: Tensor


@dataclass(frozen=True, eq=False)
class Condition:
    """What the network is conditioned on, for B clips; `negative` takes its place in classifier-free guidance.

    Each maps names of the adapter's own inputs to tensors whose first axis is B (text states [B, L, D], image states,
    image latents).
    """

    positive: Mapping[str, Tensor]
    negative: Mapping[str, Tensor] = field(default_factory=dict)


class Grid(NamedTuple):
    """The latent grid of a clip: frames, channels, height, width."""

    frames: int
    channels: int
    height: int
    width: int


@dataclass(frozen=True)
class Site:
    """A named place inside the network whose output can be read. `grid` is for the model's own clip."""

    name: str
    grid: Grid


class Backbone(ABC):
    """A network with its autoencoder, its encoders and its schedule.

    space: pixels a latent cell, per axis. time: frames a latent frame; with time > 1 clips have 1 + time * k frames and
    1 + k latent frames. frames, height, width: of the clips it was trained on, in pixels. channels: of a latent.

    >>> backbone = load(Model(weights="embedded", height=64, width=64, frames=16))
    >>> z = backbone.encode(torch.zeros(1, 16, 3, 64, 64))
    >>> x0, eps = backbone.predict(z, 300, backbone.condition(["a red disc"]))
    >>> backbone.decode(x0).shape
    torch.Size([1, 16, 3, 64, 64])
    """

    schedule: Schedule
    device: torch.device
    dtype: torch.dtype
    space: int
    time: int
    channels: int
    frames: int
    height: int
    width: int

    @property
    def length(self) -> int:
        """Latent frames of the clips that it was trained on: longer clips go in windows of so many."""
        return 1 + (self.frames - 1) // self.time

    # ---- pixels and latents ----------------------------------------------------------------------------------------

    @abstractmethod
    def encode(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Latents [B, f, C, h, w] (scaled to about unit variance, float32) of pixels [B, F, 3, H, W] in -1..1.

        The mean of the posterior, or a sample of it where a generator is given. Works in chunks of frames: memory does
        not grow with F.
        """

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Pixels [B, F, 3, H, W] in -1..1 (clamped, float32) of latents; in chunks as `encode`."""

    def grid(self, frames: int, height: int, width: int) -> Grid:
        """The latent grid of a clip in pixels. Raises ConfigError E272 where the clip does not fit it."""
        return Grid(
            grid.latent_frames(frames, self.time),
            self.channels,
            grid.cells(height, self.space, "pixels of height"),
            grid.cells(width, self.space, "pixels of width"),
        )

    def to_grid(self, values: Tensor, kind: str) -> Tensor:
        """Masks or depth [F, H, W], flow [F-1, H, W, 2], tracks [F, P, 2] or visible [F, P] of pixels, on the latent
        grid. `kind` is that name. See grid.py."""
        return grid.to_grid(values, kind, self.space, self.time)

    # ---- conditioning ----------------------------------------------------------------------------------------------

    @abstractmethod
    def condition(
        self,
        text: Sequence[str] | None = None,
        image: Tensor | None = None,
        negative: str = "",
        extra: Sequence[str] = (),
    ) -> Condition:
        """Encode prompts (B of them), reference images [B, 3, H, W] in -1..1, or both, and the negative prompt.

        extra: further prompts, whose states follow those of every prompt; the negative prompt is repeated as often.
        Raises ConfigError E273 for a kind of conditioning that the model was not trained on.
        """

    @property
    @abstractmethod
    def reads_images(self) -> bool:
        """Whether `condition` takes reference images."""

    @abstractmethod
    def tokens_of(self, prompt: str, part: str) -> list[int]:
        """Where the tokens of a part of a prompt stand in its states. Raises ConfigError E294 where there are none."""

    # ---- the network -----------------------------------------------------------------------------------------------

    @abstractmethod
    def forward(self, z: Tensor, t: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """The network's own output [B, F, C, h, w] for z [B, F, C, h, w] at per-frame timesteps t float32 [B, F]."""

    def predict(self, z: Tensor, t: Times, condition: Condition, guidance: float = 1.0) -> Predicted:
        """(x0, eps) for z at t: one number, [B] or [B, F].

        With guidance other than 1, both halves go in one batch (Ho & Salimans 2022, eq. 6, with 1 + w = guidance).
        Raises ConfigError E273 where the condition has no negative to guide away from, E278 where the network
        gives NaN or infinity.
        """
        t = times(t, z)
        inputs = dict(condition.positive)
        if guidance == 1.0:
            output = self.forward(z, t, inputs).float()
        elif condition.negative.keys() != inputs.keys():
            raise ConfigError("E273", f"guidance {guidance} has nothing to guide away from", "Use guidance=1.")
        else:
            both = {name: torch.cat([condition.negative[name], value]) for name, value in inputs.items()}
            output = self.forward(torch.cat([z, z]), twice(t), both).float()
            without, with_ = output.chunk(2)
            output = without + guidance * (with_ - without)
        return Predicted(*self.schedule.to_x0_eps(finite(output, "the network", self.dtype), z, t))

    def controlled(self, branch: Path, scale: float = 1.0) -> AbstractContextManager[None]:
        """Within the block a control branch (a folder) works beside the network, and conditions hold its videos'
        latents, "control" [B, F, videos * C, h, w]. scale: weight of what it adds. Raises ConfigError E258 for a
        network that takes none or that the branch was not made for, E280 to E283 and E289 for a folder of something
        else."""
        raise takes_no_branch("this model")

    @abstractmethod
    def sites(self) -> Sequence[Site]:
        """Every named place at which `features` can read, in the order in which the network reaches them."""

    @abstractmethod
    def features(self, z: Tensor, t: Times, condition: Condition, names: Sequence[str]) -> dict[str, Tensor]:
        """Outputs [B, f, C', h', w'] at named sites; the network stops after the last of them. Gradients reach z where
        it requires them. Raises ConfigError E274 for a name that is not a site."""

    @property
    @abstractmethod
    def motion_site(self) -> str:
        """The site whose features say most of motion, where nobody names another."""

    @property
    @abstractmethod
    def appearance(self) -> str | None:
        """Pattern of the self-attention layers on the way up, within single frames, whose keys and values hold looks;
        None for a network whose attention goes over frames and space at once."""

    @abstractmethod
    def checkpointed(self) -> AbstractContextManager[None]:
        """Within it, gradients of a large network run blocks again in place of keeping what they made
        (checkpointing.py)."""

    @abstractmethod
    def attention(self, replace: Mapping[str, Attention]) -> AbstractContextManager[None]:
        """Within the block, attention layers whose names match a pattern use another processor; afterwards, and after
        an error, the network is exactly as it was."""


def times(t: Times, z: Tensor) -> Tensor:
    """Timesteps float32 [B, F] of one number, [B] or [B, F], on z's device."""
    t = torch.as_tensor(t, device=z.device)
    if t.ndim == 1:
        t = t[:, None]
    return t.to(torch.float32).expand(z.shape[:2])


def twice(t: Tensor) -> Tensor:
    """Timesteps [B, F] for two of each clip, [2 B, F]; one number expanded over the frames stays one."""
    column = t[:, :1] if t.stride(1) == 0 else t
    return torch.cat([column, column]).expand(-1, t.shape[1])


def finite(values: Tensor, what: str, dtype: torch.dtype) -> Tensor:
    """The values, if all of them are numbers. Raises ConfigError E278 where one is NaN or infinite.

    Looked at before a result leaves the model, so that nothing of it is kept. On a GPU this waits for the result.
    """
    # In float64 no sum of float32 overflows, so it is finite where all of them are: one pass over them, no copy.
    if values.device.type == "meta" or math.isfinite(values.detach().sum(dtype=torch.float64)):
        return values
    kind = str(dtype).removeprefix("torch.")
    hint = "Look for NaN in the weights and in what was put in."
    if dtype in (torch.float16, torch.bfloat16):
        hint = "It overflows: use model.dtype=bfloat16 or float32." if dtype == torch.float16 else "Use float32."
    raise ConfigError("E278", f"{what} gives NaN or infinity in {kind}", hint)
