"""Settings: one composition for the command line, flows and DVC; one validation into frozen models.

`compose` turns overrides into a plain mapping, `validate` turns a mapping (composed, or read from params.yaml) into
`Settings`. Composition is ours, because Hydra takes a fifth of a second each time; a test holds it to
Hydra's, through which `dvc exp run -S` goes. Nothing below flows/ reads a settings file.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from flows.places import PROJECT
from flows.settings import dataset as manifest
from flows.settings.choice import CHOICES, Choice, choose
from flows.settings.explain import checked_model
from flows.settings.files import choices, chosen_by_default, stated
from flows.settings.overrides import Override, read, refuse_lookups, shown, texts
from flows.settings.plain_yaml import read_yaml
from retake.diffusion.model import Model
from retake.errors import ConfigError, did_you_mean
from retake.lookup import lookup
from tasks import decode, frames, inversion, latents, metrics, motion_channels, region, report

# Groups with one model of their own; the others are choices of a module, whose Params they are.
MODELS: dict[str, type[BaseModel]] = {
    "frames": frames.Params,
    "region": region.Params,
    "model": Model,
    "latents": latents.Params,
    "inversion": inversion.Params,
    "motion_channels": motion_channels.Params,
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
    edited_tracks: Any
    model: Any
    latents: Any
    inversion: Any
    motion_channels: Any
    edit: Any
    decode: Any
    metrics: Any
    report: Any
    dataset: Any

    @cached_property
    def choices(self) -> dict[str, Choice]:
        """The chosen modules, by group, looked up once."""
        return {group: choose(group, getattr(self, group)) for group in CHOICES}

    def __getstate__(self) -> dict[str, Any]:
        """Without the modules of `choices`: settings are handed to other processes."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def as_json(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name).model_dump(mode="json") for f in fields(self)}


def compose(overrides: Sequence[str]) -> dict[str, Any]:
    """Plain mapping of the settings: the files of params/ with overrides laid over them. Raises ConfigError E203 to
    E208."""
    return lay([read(text) for text in overrides])


def settings(overrides: Sequence[str], spec: str = "") -> Settings:
    """Composed and validated settings, of the clip with that name. Raises what `compose` and `validate` raise."""
    return for_clip(validate(compose(overrides)), spec)


def for_clip(p: Settings, spec: str) -> Settings:
    """Settings as a clip is edited with them: a scene of the sprite world knows where its first sprite is, so where
    nobody says what to follow, that is taken."""
    if not spec.startswith("sprites:") or has_region(p):
        return p
    default = chosen_by_default()["masks"]
    if p.masks != _model("masks", stated("masks", default)):
        return p
    return replace(p, masks=_model("masks", {**stated("masks", "given"), "own": True, "object": 1}))


def has_region(p: Settings) -> bool:
    """Whether the settings say where the edited object is."""
    said = (getattr(p.masks, key, None) for key in ("path", "own", "text"))
    return any(said) or bool(getattr(p.masks, "prompts", dict)())


def read_params(path: Path | None = None) -> dict[str, Any]:
    """The snapshot that DVC reads, root params.yaml, as a plain mapping. Raises ConfigError E203."""
    return read_yaml(path or PROJECT / "params.yaml")


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


def lay(asked: Sequence[Override]) -> dict[str, Any]:
    """The files of params/ with overrides laid over them, as Hydra does it: first choices of groups, then values.

    Raises ConfigError E203 for a file that is not plain, E204 for a look-up in one, E205 for a key, E206 for a choice
    that there is not.
    """
    chosen = dict(chosen_by_default())
    for one in asked:
        if one.group not in chosen and not (not one.path and one.sign == "+" and choices(one.group)):
            raise unknown(one, chosen)
        if not one.path:
            chosen[one.group] = choice(one, chosen)
    laid = {group: copy.deepcopy(stated(group, name)) for group, name in chosen.items()}
    for one in asked:
        if one.path:
            put(laid[one.group], one, chosen)
    for text in texts(laid):  # of the files, too
        refuse_lookups(text, text)
    return laid


def choice(one: Override, chosen: Mapping[str, str]) -> str:
    """The choice that an override makes of a group. Raises ConfigError E206, E208."""
    if one.sign == "~" or one.sign == "++" or (one.sign == "+" and one.group in chosen):
        raise ConfigError("E208", f"{shown(one.text)} is not a setting", f"A choice reads {one.group}=NAME.")
    known, name = choices(one.group), one.parsed.value()
    if isinstance(name, str) and name in known:
        return name
    raise ConfigError("E206", f"there is no {one.group}={one.typed[:80]}", did_you_mean(one.typed[:80], known))


def unknown(one: Override, chosen: Mapping[str, str]) -> ConfigError:
    """The error for a group that there is not, with the group that has such a key."""
    owners = sorted(g for g, name in chosen.items() if one.key in stated(g, name))
    if not one.path and owners:
        return ConfigError("E205", f"unknown setting {one.key!r}", f"Did you mean {owners[0]}.{one.key}={one.typed}?")
    return ConfigError("E205", f"unknown setting {one.key[:80]!r}", did_you_mean(one.group[:80], list(chosen)))


def put(values: dict[str, Any], one: Override, chosen: Mapping[str, str]) -> None:
    """Lay one value over a group, in place. Raises ConfigError E205 where there is no such key to set."""
    *above, last = one.path
    inner: Any = values
    for part in above:
        if isinstance(inner, dict) and "+" in one.sign and inner.get(part) is None:
            inner[part] = {}
        inner = within(inner, part, one, chosen)
    if "+" not in one.sign or not isinstance(inner, dict):
        within(inner, last, one, chosen)
    if one.sign == "~":
        del inner[place(inner, last)]
        return
    given: Any = one.parsed.value()
    old: Any = inner.get(last) if isinstance(inner, dict) else None
    if isinstance(given, dict) and isinstance(old, list):
        hint = f"Put brackets around it: {one.key}=[{one.typed[:80]}]"
        raise ConfigError("E205", f"{one.key} takes a list", hint)
    both = isinstance(given, dict) and isinstance(old, dict)
    if both and "+" not in one.sign and (odd := added(old, given)):
        known = [f"{one.key}.{key}" for key in old]
        raise ConfigError("E205", f"unknown key {one.key}.{odd[:80]}", did_you_mean(f"{one.key}.{odd[:80]}", known))
    inner[place(inner, last)] = merged(old, given) if both else given


def within(inner: Any, part: str, one: Override, chosen: Mapping[str, str]) -> Any:
    """What stands under a part of a key. Raises ConfigError E205."""
    try:
        return inner[place(inner, part)]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise no_such_key(one, part, chosen) from error


def place(inner: Any, part: str) -> Any:
    return int(part) if isinstance(inner, list) else part


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Two mappings in one, as OmegaConf merges them."""
    both = dict(old)
    for key, value in new.items():
        both[key] = merged(both[key], value) if isinstance(both.get(key), dict) and isinstance(value, dict) else value
    return both


def added(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """The first key of a mapping that another one does not have, at any depth."""
    for key, value in new.items():
        if key not in old:
            return str(key)
        if isinstance(value, dict) and isinstance(old[key], dict) and (below := added(old[key], value)):
            return f"{key}.{below}"
    return None


def no_such_key(one: Override, part: str, chosen: Mapping[str, str]) -> ConfigError:
    """The error for a key that the chosen file does not have: where it is from, or what is near it."""
    group, first = one.group, one.path[0]
    known = sorted(stated(group, chosen[group]))
    if first in known:
        return ConfigError(
            "E205", f"unknown key {one.key[:80]}: nothing is called {part[:40]} there", f"Write {group}.{first} whole."
        )
    files = {name: stated(group, name) for name in choices(group)}
    if owners := ", ".join(f"{group}={name}" for name, keys in files.items() if first in keys):
        return ConfigError("E205", f"{group}={chosen[group]} has no {'.'.join(one.path)}", f"Choose {owners}.")
    near = did_you_mean(first[:80], known)
    return ConfigError("E205", f"unknown key {one.key[:80]}", near.replace("mean ", f"mean {group}."))
