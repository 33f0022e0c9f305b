"""Settings: one composition for the command line, flows and DVC; one validation into frozen models.

`compose` turns overrides into a plain mapping, `validate` turns a mapping (composed, or read from params.yaml) into
`Settings`. Composition is ours (layers.py), because Hydra takes a fifth of a second each time; a test holds it to
Hydra's, through which `dvc exp run -S` goes. Nothing below flows/ reads a settings file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from flows.places import CHECKOUT
from flows.settings import dataset as manifest
from flows.settings.choice import CHOICES, Choice, choose
from flows.settings.explain import checked_model
from flows.settings.layers import lay
from flows.settings.overrides import read
from flows.settings.plain_yaml import read_yaml
from retake.diffusion.model import Model
from retake.errors import ConfigError, did_you_mean
from retake.lookup import lookup
from tasks import decode, frames, inversion, latents, metrics, region, report

# Groups with one model of their own; the others are choices of a module, whose Params they are.
MODELS: dict[str, type[BaseModel]] = {
    "frames": frames.Params,
    "region": region.Params,
    "model": Model,
    "latents": latents.Params,
    "inversion": inversion.Params,
    "decode": decode.Params,
    "metrics": metrics.Params,
    "report": report.Params,
    "dataset": manifest.Dataset,
}


@dataclass(frozen=True)
class Settings:
    """Validated settings, one frozen model a group."""

    frames: Any
    optical_flow: Any
    depth: Any
    masks: Any
    region: Any
    tracks: Any
    model: Any
    latents: Any
    inversion: Any
    edit: Any
    decode: Any
    metrics: Any
    report: Any
    dataset: Any

    @cached_property
    def choices(self) -> dict[str, Choice]:
        """The chosen modules, by group, looked up once."""
        return {group: choose(group, getattr(self, group)) for group in CHOICES}

    def as_json(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name).model_dump(mode="json") for f in fields(self)}


def compose(overrides: Sequence[str]) -> dict[str, Any]:
    """Plain mapping of the settings: the files of params/ with overrides laid over them. Raises ConfigError E203 to
    E208."""
    return lay([read(text) for text in overrides])


def settings(overrides: Sequence[str]) -> Settings:
    """Composed and validated settings. Raises what `compose` and `validate` raise."""
    return validate(compose(overrides))


def read_params(path: Path | None = None) -> dict[str, Any]:
    """The snapshot that DVC reads, root params.yaml, as a plain mapping. Raises ConfigError E203."""
    return read_yaml(path or CHECKOUT / "params.yaml")


def validate(data: Mapping[str, Any]) -> Settings:
    """Frozen models of a plain mapping. Raises ConfigError E205 (unknown key or bad value), E206 (unknown name)."""
    known = [f.name for f in fields(Settings)]
    for group in data:
        if group not in known:
            raise ConfigError("E205", f"unknown group {str(group)[:80]!r}", did_you_mean(str(group)[:80], known))
    models = {}
    for group in known:
        values = data.get(group)
        if not isinstance(values, Mapping):
            raise ConfigError("E205", f"the group {group} is missing or is not a mapping", "Write it: retake params")
        models[group] = _model(group, values)
    return Settings(**models)


def _model(group: str, values: Mapping[str, Any]) -> BaseModel:
    model = MODELS.get(group)
    if model is None:
        model = lookup(CHOICES[group], str(values.get("name", ""))).Params
    assert model is not None
    return checked_model(group, model, values)
