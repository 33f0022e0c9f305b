"""Run by test_bare.py in a process of its own: the numeric core at work where nothing of the pipeline is installed."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import tempfile
from pathlib import Path

BLOCKED = (
    "prefect",
    "dvc",
    "hydra",
    "omegaconf",
    "typer",
    "rich",
    "decord",
    "av",
    "sam2",
    "torchvision",
    "flows",
    "tasks",
)


def main() -> None:
    for name in BLOCKED:
        sys.modules[name] = None  # type: ignore[assignment]  # to Python: not installed
    import torch

    torch.set_num_threads(1)
    for package in ("retake.diffusion", "retake.training"):
        home = importlib.import_module(package)
        for module in pkgutil.walk_packages(home.__path__, f"{package}."):
            importlib.import_module(module.name)

    from helpers.small_diffusion import save_embedded_like
    from retake.diffusion.loading.load import load
    from retake.diffusion.model import Model
    from retake.diffusion.sampling.ddim import noise, sample
    from retake.diffusion.sampling.inversion import invert

    with tempfile.TemporaryDirectory() as folder:
        path = save_embedded_like(Path(folder) / "model")
        backbone = load(Model(weights=str(path), height=32, width=32, frames=4))
        condition = backbone.condition(text=["a red disc"])
        grid = backbone.grid(4, 32, 32)
        z = sample(
            backbone, noise(0, range(4), (grid.channels, grid.height, grid.width)), condition, steps=3, guidance=2.0
        )
        levels = list(invert(backbone, z, condition, steps=2))
        pixels = backbone.decode(z[None])
    assert torch.isfinite(pixels).all()
    assert len(levels) == 2
    print(f"Python {sys.version_info.major}.{sys.version_info.minor}: sampled, inverted, decoded")


if __name__ == "__main__":
    main()
