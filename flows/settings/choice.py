"""What the settings of a group choose: a module, and what it says of itself under these settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from retake.lookup import lookup

# Groups whose files name a module, by the package that holds it; its Params validate the group.
CHOICES = {
    "optical_flow": "priors.optical_flow",
    "depth": "priors.depth",
    "masks": "priors.masks",
    "tracks": "priors.tracks",
    "edited_tracks": "priors.edited_tracks",
    "edit": "methods",
}


@dataclass(frozen=True)
class Choice:
    """A chosen module. needs: names of the priors that it reads; weights: references of those that it loads, by role;
    label: how it stands in a key, as "dis@1"."""

    module: ModuleType
    params: Any
    needs: tuple[str, ...]
    weights: Mapping[str, str]
    label: str

    @property
    def call(self) -> dict[str, Any]:
        """Keyword arguments for a runner, besides the settings."""
        return {"implementation": self.label, "weights": self.weights}


def choose(group: str, params: Any) -> Choice:
    """The choice that validated settings of a group make. Raises ConfigError E206 where there is no such module."""
    module = lookup(CHOICES[group], params.name)
    needs = module.needs(params) if hasattr(module, "needs") else module.NEEDS
    weights = module.weights(params) if hasattr(module, "weights") else {}
    return Choice(module, params, tuple(needs), weights, label(module))


def label(module: ModuleType) -> str:
    """How a module stands in a key: its name and hand-written VERSION."""
    return f"{module.__name__.rpartition('.')[2]}@{module.VERSION}"
