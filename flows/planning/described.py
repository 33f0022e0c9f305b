"""What the settings of a stage come to, in words."""

from __future__ import annotations

from typing import Any

from retake.diffusion.model import Modelled
from retake.lookup import lookup
from retake.stage import Stage
from retake.weights.catalogue import CATALOGUE, Shipped


def described(stage: Stage, params: Any) -> str:
    """`texture transfer: the object's mask, with depth; by a small model that knows sprites only`. Empty where there is
    nothing to say."""
    if stage.name != "edit":
        return ""
    settings: Any = params.settings if isinstance(params, Modelled) else params
    method = lookup("methods", settings.name)
    own = method.describe(settings) if hasattr(method, "describe") else ""
    entry = CATALOGUE.get(params.model.weights) if isinstance(params, Modelled) else None
    small = "by a small model that knows sprites only" if entry and isinstance(entry.source, Shipped) else ""
    return "; ".join(filter(None, (own, small)))
