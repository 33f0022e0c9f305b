"""What loops are compared on: diffusion models with a condition, from their folders, or at the real sizes of published
configurations with random weights.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from retake.diffusion.model import Model

if TYPE_CHECKING:
    import torch

    from retake.diffusion.backbone import Backbone, Condition
    from retake.diffusion.cost.measure import Architecture

SEED = 3

# As the models' scheduler_config.json say; AnimateDiff's spacing is one that the inverse scheduler knows.
PUBLISHED: dict[str, dict[str, Any]] = {
    "animatediff": {
        "_class_name": "DDIMScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "linear",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
    },
    "cogvideox_2b": {
        "_class_name": "CogVideoXDDIMScheduler",
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
        "snr_shift_scale": 3.0,
        "clip_sample": False,
    },
}


class Case(NamedTuple):
    """A model to compare on: its backbone and condition, its schedule's settings, floating-point operations of one
    evaluation of one clip."""

    name: str
    backbone: Backbone
    condition: Condition
    schedule: Mapping[str, Any]
    flops: int


def shipped(model: Model) -> Case:
    """A model from its folder."""
    from retake.diffusion.cost import measure
    from retake.diffusion.loading import components
    from retake.diffusion.loading.load import load, sources

    backbone, folders = load(model), sources(model)
    size: dict[str, Any] = {"frames": model.frames, "height": model.height, "width": model.width}
    architecture = measure.of_folder(model.family, *folders, dtype=model.dtype, **size)
    folder = components.find("scheduler", *folders)
    assert folder is not None  # loading has looked
    settings = components.settings(folder / "scheduler_config.json")
    condition = backbone.condition(text=["a red disc moving left"])
    return Case(
        model.name, backbone, condition, settings, measure.cost(architecture, ["evaluation"]).works["evaluation"].flops
    )


def randomised(name: str, architecture: Architecture, schedule: Mapping[str, Any], device: torch.device) -> Case:
    """A configuration with random weights and text states. The autoencoder and the encoders do not take part."""
    import torch

    from retake.diffusion.backbone import Condition
    from retake.diffusion.cost import measure
    from retake.diffusion.loading.load import adapter_of
    from retake.diffusion.loading.offload import Parts
    from retake.diffusion.schedule import Schedule

    a, dtype = architecture, getattr(torch, architecture.dtype)
    torch.manual_seed(SEED)
    adapter = adapter_of(a.family)
    parts = Parts({"network": network(a, device).to(dtype)}, device, dtype)
    backbone = adapter.Adapter(parts, Schedule.from_config(schedule), a.frames, a.height, a.width)
    width = adapter.text_width(parts.look("network").config)
    states = torch.randn(2, 1, a.states, width).to(device, dtype)
    condition = Condition({"states": states[0]}, {"states": states[1]})
    return Case(name, backbone, condition, schedule, measure.cost(a, ["evaluation"]).works["evaluation"].flops)


def network(architecture: Architecture, device: torch.device) -> Any:
    """The denoiser of a configuration, initialised on the device by its own class, in float32."""
    import diffusers
    import torch

    from retake.diffusion.cost.measure import configuration
    from retake.diffusion.loading.load import ENCODERS, assembled

    def made(role: str) -> Any:
        facts = configuration(architecture.parts[role])
        return getattr(diffusers, facts["class"].rpartition(".")[2]).from_config(facts["config"])

    with torch.device(device):
        parts = {role: made(role) for role in architecture.parts if role not in ENCODERS}
        return assembled(architecture.family, parts)


def reading_noise(case: Case) -> Case:
    """The same network under a schedule for networks that predict noise."""
    from retake.diffusion.schedule import Schedule

    settings = {**case.schedule, "prediction_type": "epsilon", "rescale_betas_zero_snr": False}
    backbone = copy.copy(case.backbone)
    backbone.schedule = Schedule.from_config(settings)
    return case._replace(backbone=backbone, schedule=settings)
