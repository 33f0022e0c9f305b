"""Features of a clip that is there already, read a little way up its inversion, where little is noise.

Source: MOFT (Xiao et al., NeurIPS 2024, sec. 3.2 and 8.2); its published pipeline reads them at the sixth of 25 steps
of DDIM inversion without a prompt (animatediff/pipelines/pipeline.py at f57184b).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from retake.diffusion.backbone import Backbone
from retake.diffusion.sampling.ddim import timesteps
from retake.diffusion.sampling.inversion import invert

STEPS = 25
LEVEL = 5


def read(backbone: Backbone, z: Tensor, site: str, level: int = LEVEL, steps: int = STEPS) -> Tensor:
    """Features float32 [f, C, h, w] at a site of a clip's latents z [f, C, h, w], at a level of so many steps. Raises
    ConfigError E274 for a site that there is not."""
    return read_all(backbone, z, [site], [level], steps)[site, level]


@torch.no_grad()
def read_all(
    backbone: Backbone, z: Tensor, sites: Sequence[str], levels: Sequence[int], steps: int = STEPS
) -> dict[tuple[str, int], Tensor]:
    """The same at several sites and levels, by (site, level)."""
    silent, times = backbone.condition(text=[""]), timesteps(backbone.schedule, steps)
    read: dict[tuple[str, int], Tensor] = {}
    for found in invert(backbone, z, silent, steps=steps, iterations=0, stored=torch.float32):
        if found.number in levels:
            below = found.latents[: len(z)][None].to(backbone.device)
            of = backbone.features(below, times[found.number], silent, sites)
            read |= {(site, found.number): features[0].float() for site, features in of.items()}
        if found.number >= max(levels):
            break
    return read
