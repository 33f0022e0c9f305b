"""Inception of 2015: the features behind FID and KID.

Szegedy et al., Rethinking the Inception Architecture, CVPR 2016, with the weights of TensorFlow's release of December
2015, in torch-fidelity's class: bilinear to 299 x 299 as TensorFlow 1 did, without antialiasing; the 2048 values after
the last pooling.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retake.machine.device import device_of
from retake.networks.checkpoint import display_name, load_tensors, wrong_weights
from retake.weights.local import require

if TYPE_CHECKING:
    import torch

LAYER = "2048"


def load(reference: str, device: str = "auto") -> Inception:
    """Inception from local weights: a catalogue name or a .pth or .safetensors file.

    Raises MachineError E302 when the weights are missing, E304 when the device is, ConfigError E262 when they are not
    torch-fidelity's Inception.
    """
    path = require(reference)
    return Inception(path, display_name(reference, path), device_of(device))


class Inception:
    """The feature extractor; `name` gives its weights."""

    def __init__(self, path: Path, label: str, device: torch.device) -> None:
        import torch
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        self.name, self.device = f"Inception {label}, pool {LAYER}", device
        # The class unpickles its file without checks, so it gets tensors that were read safely and saved again.
        packed = io.BytesIO()
        torch.save(load_tensors(path), packed)
        packed.seek(0)
        try:
            model = FeatureExtractorInceptionV3("inception", [LAYER], feature_extractor_weights_path=packed)
        except RuntimeError as error:
            raise wrong_weights(path, "torch-fidelity's Inception of 2015", str(error)) from error
        self.model = model.to(device)

    def images(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features: uint8 RGB [B, H, W, 3] -> float32 [B, 2048]."""
        import torch

        pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).to(self.device)
        with torch.inference_mode():
            return self.model(pixels)[0].float().cpu().numpy()
