"""VideoMAE: features of a clip, self-supervised, of which MoAlign learns what is motion.

Tong et al., VideoMAE, NeurIPS 2022 (V2: Wang et al., CVPR 2023), in transformers' VideoMAEModel. A clip may have any
number of tubes and patches: positions are interpolated, as in VideoREPA (from 8 x 14 x 14 to 24 x 10 x 15).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retake.machine.device import device_of
from retake.networks.checkpoint import display_name, load_pretrained
from retake.weights.local import require

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Grid(NamedTuple):
    """Tokens of a clip: tubes of frames, rows, columns."""

    time: int
    height: int
    width: int


def load(reference: str, device: str = "auto") -> VideoMAE:
    """VideoMAE from local weights: a catalogue name, a folder, or org/repo that is in the hub's cache.

    Raises MachineError E302 when the weights are missing, E304 when the device is, ConfigError E262 when they are not
    a VideoMAE's.
    """
    from transformers import VideoMAEModel

    path = require(reference)
    model = load_pretrained(VideoMAEModel, path, "a folder of a VideoMAE")
    return VideoMAE(model, display_name(reference, path), device_of(device))


class VideoMAE:
    """The encoder without masks. tube, patch: frames and pixels a side of a token; width: of its features."""

    def __init__(self, model: Any, name: str, device: torch.device) -> None:
        self.model, self.name, self.device = model.to(device).eval(), f"VideoMAE {name}", device
        self.tube, self.patch = int(model.config.tubelet_size), int(model.config.patch_size)
        self.width = int(model.config.hidden_size)

    def clips(self, frames: NDArray[np.uint8]) -> Tensor:
        """The last layer's tokens float32 [B, time, height, width, D] of clips uint8 RGB [B, F, H, W, 3], whose sides
        and frames are whole tokens."""
        import torch

        pixels = torch.from_numpy(np.ascontiguousarray(frames)).to(self.device).float() / 255
        pixels = (pixels - pixels.new_tensor(MEAN)) / pixels.new_tensor(STD)
        with torch.inference_mode():
            return self.encoded(pixels.movedim(-1, 1))

    def encoded(self, pixels: Tensor) -> Tensor:
        """As `clips`, of normalised pixels [B, 3, F, H, W]."""
        embeddings = self.model.embeddings
        tokens = embeddings.patch_embeddings.projection(pixels)  # [B, D, time, height, width]
        grid = Grid(*tokens.shape[2:])
        tokens = tokens.flatten(2).mT + self.positions(grid).to(tokens)
        found = self.model.encoder(tokens).last_hidden_state
        if self.model.layernorm is not None:
            found = self.model.layernorm(found)
        return found.unflatten(1, grid)

    def positions(self, grid: Grid) -> Tensor:
        """The table of positions float32 [1, tokens, D] on a grid, interpolated where it is not the model's own."""
        from torch.nn import functional as F

        table, own = self.model.embeddings.position_embeddings, self.grid()
        if grid == own:
            return table
        table = table.mT.unflatten(-1, own).float()
        return F.interpolate(table, grid, mode="trilinear", align_corners=False).flatten(2).mT

    def grid(self) -> Grid:
        """That the model was trained on."""
        config = self.model.config
        return Grid(config.num_frames // self.tube, *(2 * [config.image_size // self.patch]))
