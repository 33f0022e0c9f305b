"""What Hydra itself makes of the files of params/ and of overrides: what our own composition is held to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from flows.places import CODE
from flows.settings.overrides import read


def composed_by_hydra(overrides: Sequence[str]) -> dict[str, Any]:
    """Plain mapping of the settings, interpolations left as they are."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CODE / "params"), version_base=None):
        composed = compose("config", overrides=[read(text).text for text in overrides])
    data: dict[str, Any] = OmegaConf.to_container(composed, resolve=False)  # type: ignore[assignment]
    return data
