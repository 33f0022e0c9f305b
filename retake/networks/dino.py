"""DINO: self-supervised image features (the class token).

Caron et al., Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021, in transformers' ViTModel.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retake.machine.device import device_of
from retake.networks.checkpoint import display_name, load_pretrained
from retake.weights.local import require

if TYPE_CHECKING:
    import torch

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load(reference: str, device: str = "auto") -> Dino:
    """DINO from local weights: a catalogue name, a folder, or org/repo that is in the hub's cache.

    Raises MachineError E302 when the weights are missing, E304 when the device is, ConfigError E262 when they are not
    a ViT's.
    """
    path = require(reference)
    return Dino(path, display_name(reference, path), device_of(device))


class Dino:
    """The ViT, with frames preprocessed as in VBench: short side to the network's own (224) without antialiasing, not
    cropped, so that position embeddings are interpolated for the longer side; ImageNet's mean and deviation."""

    def __init__(self, path: Path, label: str, device: torch.device) -> None:
        from transformers import ViTModel

        self.name, self.device = f"DINO {label}", device
        self.model: Any = load_pretrained(ViTModel, path, "a folder of a ViT", add_pooling_layer=False).to(device)

    def images(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The last layer's class tokens, not normalised: uint8 RGB [B, H, W, 3] -> float32 [B, D]."""
        import torch
        from torchvision.transforms import functional as shape

        pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
        pixels = shape.resize(pixels, [self.model.config.image_size], antialias=False).float() / 255
        pixels = shape.normalize(pixels, list(MEAN), list(STD)).to(self.device)
        with torch.inference_mode():
            found = self.model(pixel_values=pixels, interpolate_pos_encoding=True)
        return found.last_hidden_state[:, 0].float().cpu().numpy()
