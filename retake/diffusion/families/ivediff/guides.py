"""What stands between a picture, a depth map and the editing network: MimicBrush's projection and depth guider.

Source: MimicBrush's published code (ali-vilab/MimicBrush at 2ec7bc8, mimicbrush/resampler.py, models/depth_guider.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn


class ImageProjection(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """States of an image encoder [B, N, image_width] to what the networks attend to, [B, N, width].

    penultimate: they are those before its last layer, and of no picture those of a grey one, as MimicBrush's are; else
    its last, normalised, and zeros."""

    @register_to_config
    def __init__(self, image_width: int, width: int, penultimate: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(image_width, width)

    def forward(self, states: Tensor) -> Tensor:
        return self.linear(states)


class DepthGuider(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Depth maps [N, 1, H, W] to [N, channels, H / s, W / s], s = 2 ** (len(widths) - 1).

    unit: depth is given to it in shares of the clip's nearest, 0..1; else as its estimator says it."""

    @register_to_config
    def __init__(self, channels: int = 4, widths: Sequence[int] = (16, 32, 64, 128), unit: bool = False) -> None:
        super().__init__()
        self.layers = ControlNetConditioningEmbedding(channels, 1, tuple(widths))
        # Its last layer begins at zero in ControlNet; here what reads it does, and of two zeros neither would learn.
        self.layers.conv_out.reset_parameters()

    def forward(self, depth: Tensor) -> Tensor:
        return self.layers(depth)
