"""Features of a clip that is there already, read a little way up its inversion, where little is noise.

Source: MOFT (Xiao et al., NeurIPS 2024, sec. 3.2 and 8.2); its published pipeline reads them at the sixth of 25 steps
of DDIM inversion without a prompt (animatediff/pipelines/pipeline.py at f57184b).
"""

from __future__ import annotations

import torch
from torch import Tensor

from retake.diffusion.backbone import Backbone
from retake.diffusion.sampling.ddim import timesteps
from retake.diffusion.sampling.inversion import invert

STEPS = 25
LEVEL = 5


@torch.no_grad()
def read(backbone: Backbone, z: Tensor, site: str, level: int = LEVEL, steps: int = STEPS) -> Tensor:
    """Features float32 [f, C, h, w] at a site of a clip's latents z [f, C, h, w], at a level of so many steps. Raises
    ConfigError E274 for a site that there is not."""
    silent = backbone.condition(text=[""])
    below = z
    for found in invert(backbone, z, silent, steps=steps, iterations=0, stored=torch.float32):
        if found.number == level:
            below = found.latents[: len(z)]
            break
    t = timesteps(backbone.schedule, steps)[level]
    return backbone.features(below[None].to(backbone.device), t, silent, [site])[site][0].float()
