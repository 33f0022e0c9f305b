"""The diffusion engine: schedules, backbones over diffusers' classes, sampling, inversion. No Prefect, no Hydra."""
