"""LPIPS: perceptual distance of two images, by a network fitted to human judgements.

Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, CVPR 2018, version 0.1, in
torchmetrics' class and with the linear heads that torchmetrics ships. The trunk is torchvision's AlexNet, VGG-16 or
SqueezeNet 1.1, from its own file; which one is read off the file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from retake.imaging.signed import to_signed
from retake.machine.device import device_of
from retake.networks.checkpoint import display_name, load_tensors, wrong_weights
from retake.weights.local import require

if TYPE_CHECKING:
    import torch

Trunk = Literal["alex", "vgg", "squeeze"]
MIN_SIDE = 64  # px; the trunks shrink pictures by 8 to 32, and below 31 AlexNet has nothing left
LAYER = re.compile(r"slices?\.?\d+\.(.+)")
# A tensor that only one of the trunks has: its name and shape.
TRUNK_TENSORS: dict[Trunk, tuple[str, tuple[int, ...]]] = {
    "alex": ("features.0.weight", (64, 3, 11, 11)),
    "vgg": ("features.28.weight", (512, 512, 3, 3)),
    "squeeze": ("features.3.squeeze.weight", (16, 64, 1, 1)),
}


def load(reference: str, device: str = "auto") -> Lpips:
    """LPIPS over local weights of a trunk: a catalogue name or a .pth or .safetensors file.

    Raises MachineError E302 when the weights are missing, E304 when the device is, ConfigError E262 when they are none
    of the three trunks'.
    """
    path = require(reference)
    return Lpips(path, display_name(reference, path), device_of(device))


class Lpips:
    """The metric; `name` gives the trunk and its weights."""

    def __init__(self, path: Path, label: str, device: torch.device) -> None:
        from torchmetrics.functional.image.lpips import _LPIPS

        found = load_tensors(path)
        self.trunk = identify_trunk(found, path)
        self.name, self.device = f"LPIPS 0.1 {self.trunk}, trunk {label}", device
        # pnet_rand: the class would download a trunk otherwise; every tensor of it is replaced in the next lines
        network: Any = _LPIPS(pretrained=True, net=self.trunk, pnet_rand=True)
        try:
            network.net.load_state_dict({key: found[torchvision_key(key)] for key in network.net.state_dict()})
        except (KeyError, RuntimeError) as error:
            raise wrong_weights(path, f"the trunk {self.trunk} of LPIPS", str(error)) from error
        self.model = network.eval().to(device)

    def pairs(self, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Distances of two uint8 RGB [B, H, W, 3] -> float32 [B]. Pictures with a side under 64 px are enlarged,
        bilinearly, both alike. One pair at a time: VGG's features of a whole frame take a gigabyte."""
        import torch

        with torch.inference_mode():
            rows = [self.model(self._prepared(a), self._prepared(b)) for a, b in zip(first, second, strict=True)]
        return np.array([float(row) for row in rows], np.float32)

    def _prepared(self, frame: NDArray[np.uint8]) -> Any:
        import torch

        pixels = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].to(self.device)
        pixels = to_signed(pixels)
        height, width = frame.shape[:2]
        if min(height, width) < MIN_SIDE:
            size = [max(MIN_SIDE, side * MIN_SIDE // min(height, width)) for side in (height, width)]
            pixels = torch.nn.functional.interpolate(pixels, size, mode="bilinear", align_corners=False)
        return pixels


def torchvision_key(key: str) -> str:
    """`slice2.3.weight` and `slices.1.3.weight` become torchvision's `features.3.weight`."""
    match = LAYER.fullmatch(key)
    assert match, key
    return f"features.{match[1]}"


def identify_trunk(found: dict[str, Any], path: Path) -> Trunk:
    """The trunk that a state dict belongs to. Raises ConfigError E262 if none."""
    for trunk, (key, shape) in TRUNK_TENSORS.items():
        if key in found and tuple(found[key].shape) == shape:
            return trunk
    raise wrong_weights(path, "torchvision's AlexNet, VGG-16 or SqueezeNet 1.1", "its tensors do not match")
