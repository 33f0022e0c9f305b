"""Settings: one composition for the command line, flows and DVC; one validation into frozen models.

`compose` turns Hydra overrides into a plain mapping, `validate` turns a mapping (composed, or read from params.yaml)
into `Settings`. Nothing below flows/ reads a settings file.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from flows import manifest
from retake.diffusion.model import Model
from retake.errors import ConfigError, did_you_mean
from retake.lookup import lookup
from tasks import decode, frames, inversion, latents, metrics, region, report

CHECKOUT = Path(__file__).resolve().parent.parent
MAX_BYTES = 1 << 20
M = TypeVar("M", bound=BaseModel)

# Groups whose files name a module (its Params validate them) and groups with one model of their own.
CHOICES = {
    "optical_flow": "priors.optical_flow",
    "depth": "priors.depth",
    "masks": "priors.masks",
    "tracks": "priors.tracks",
    "edit": "methods",
}
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

_composing = threading.RLock()  # explaining an error composes again


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

    def as_json(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name).model_dump(mode="json") for f in fields(self)}


def compose(overrides: list[str]) -> dict[str, Any]:
    """Plain mapping of the composed settings. Raises ConfigError E204 to E208."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    overrides = [_quoted(_checked(text)) for text in overrides]
    with _composing:
        saved = GlobalHydra.instance().hydra  # another library may have left it initialised
        GlobalHydra.instance().clear()
        try:
            with initialize_config_dir(str(CHECKOUT / "params"), version_base=None):
                composed = hydra_compose("config", overrides=overrides)
                return OmegaConf.to_container(composed, resolve=True)  # type: ignore[return-value]
        except (HydraException, OmegaConfBaseException) as error:
            raise _explained(overrides, error) from error
        finally:
            GlobalHydra.instance().clear()
            if saved is not None:
                GlobalHydra.instance().initialize(saved)


def settings(overrides: list[str]) -> Settings:
    """Composed and validated settings."""
    return validate(compose(overrides))


def read_params(path: Path | None = None) -> dict[str, Any]:
    """The snapshot that DVC reads, root params.yaml, as a plain mapping. Raises ConfigError E203."""
    path = path or CHECKOUT / "params.yaml"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError("E203", f"cannot read {path}: {error.strerror}", "Write it: retake params") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """A YAML mapping without anchors, aliases, tags or repeated keys, at most 1 MiB. Raises ConfigError E203."""
    if len(text) > MAX_BYTES:
        raise ConfigError("E203", f"{where} is larger than {MAX_BYTES} bytes", "Settings are small text files.")
    try:
        _refuse_tricks(text)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError("E203", f"{where} is not plain YAML: {error}", "Write it anew: retake params") from error
    if not isinstance(data, dict):
        raise ConfigError("E203", f"{where} holds no mapping", "Write it anew: retake params")
    return data


def validate(data: Mapping[str, Any]) -> Settings:
    """Frozen models of a plain mapping. Raises ConfigError E205 (unknown key or bad value), E206 (unknown name)."""
    known = [f.name for f in fields(Settings)]
    for group in data:
        if group not in known:
            raise ConfigError("E205", f"unknown group {group!r}", did_you_mean(group, known))
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


def checked_model(group: str, model: type[M], values: Mapping[str, Any]) -> M:
    """A model of plain values. Raises ConfigError E205 with the key's place and what to type."""
    try:
        made = model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join([group, *(str(part) for part in first["loc"])])
        if first["type"] == "extra_forbidden":
            hint = did_you_mean(str(first["loc"][-1]), sorted(within(model, first["loc"][:-1]).model_fields))
            raise ConfigError("E205", f"unknown key {place}", hint) from error
        got = f" (got {first['input']!r})" if not isinstance(first["input"], Mapping) else ""
        raise ConfigError("E205", f"{place}: {first['msg']}{got}", _next_step(group, place, first)) from error
    if strange := _not_finite(group, made.model_dump()):
        raise ConfigError("E205", f"{strange} is not a finite number", f"See params/{group}/ for what it takes.")
    return made


def within(model: type[BaseModel], place: Sequence[Any]) -> type[BaseModel]:
    """The model that an error's place leads to, through lists, mappings and nested models."""
    for part in place:
        kinds = [model.model_fields[part].annotation] if part in model.model_fields else []
        while kinds:
            kind = kinds.pop()
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                model = kind
            kinds += get_args(kind)
    return model


def _next_step(group: str, place: str, error: Mapping[str, Any]) -> str:
    """What to type in place of a value that does not fit."""
    given = error["input"]
    if error["type"] == "tuple_type" and isinstance(given, str | int | float):
        last = error["loc"][-1]
        of_lists = f"It takes a list of lists: {place.rpartition('.')[0]}=[[...], [...]]"
        return of_lists if isinstance(last, int) else f"It takes a list: {place}=[{given}]"
    if error["type"] == "missing" and ".points." in place:
        return "A point is [x, y, label]: label 1 on the object, 0 beside it."
    if error["type"] == "literal_error" and isinstance(given, str):
        return did_you_mean(given, re.findall(r"'([^']*)'", str(error["ctx"]["expected"])))
    return f"See params/{group}/ for what it takes."


def _not_finite(place: str, value: Any) -> str | None:
    """Where NaN or infinity stands among nested settings: neither can be part of a key."""
    if isinstance(value, Mapping):
        return next((found for k, v in value.items() if (found := _not_finite(f"{place}.{k}", v))), None)
    if isinstance(value, list | tuple):
        return next((found for k, v in enumerate(value) if (found := _not_finite(f"{place}[{k}]", v))), None)
    return place if isinstance(value, float) and not math.isfinite(value) else None


def _checked(override: str) -> str:
    """Refuse what would make Hydra or OmegaConf look anything up or call anything."""
    if len(override) > MAX_BYTES or "${" in override or "_target_" in override:
        raise ConfigError(
            "E204",
            f"not allowed in settings: {override[:80]}",
            "Interpolations and _target_ are off. Write the value itself: key=value",
        )
    name = override.lstrip("+~").partition("=")[0]
    if not name.strip() or ("=" not in override and not override.startswith("~")):
        raise ConfigError(
            "E208", f"{override!r} is not a setting", "Settings read key=value, for example edit.strength=0.5"
        )
    return override


def _quoted(override: str) -> str:
    """A value that Hydra's grammar cannot read (a path with spaces, say) is taken as text."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(override)
        return override
    except HydraException:
        name, _, value = override.partition("=")
        text = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"{name}='{text}'"


def _explained(overrides: list[str], error: Exception) -> ConfigError:
    """The override that Hydra could not place, with the nearest key that exists."""
    if overrides:
        defaults = compose([])
        for override in overrides:
            name = override.lstrip("+~").partition("=")[0]
            group, _, rest = name.partition(".")
            value = override.partition("=")[2]
            if group not in defaults:
                if not rest and (owners := sorted(g for g, keys in defaults.items() if group in keys)):
                    typed = f"{owners[0]}.{override.lstrip('+~')}"
                    return ConfigError("E205", f"unknown setting {name!r}", f"Did you mean {typed}?")
                return ConfigError("E205", f"unknown setting {name!r}", did_you_mean(group, list(defaults)))
            choices = sorted(p.stem for p in (CHECKOUT / "params" / group).glob("*.yaml"))
            if not rest and value not in choices:
                return ConfigError("E206", f"there is no {group}={value}", did_you_mean(value, choices))
            if rest and rest.split(".")[0] not in _keys(group, overrides):
                if owners := _owners(group, rest.split(".")[0]):
                    return ConfigError("E205", f"the chosen {group} have no {rest}", f"It is of {owners}.")
                near = did_you_mean(rest.split(".")[0], _keys(group, overrides))
                return ConfigError("E205", f"unknown key {name}", near.replace("mean ", f"mean {group}."))
            if value.startswith("{") and isinstance(defaults[group].get(rest), list):
                return ConfigError("E205", f"{name} takes a list", f"Put brackets around it: {name}=[{value}]")
    text = re.sub(r"\s+", " ", str(error)).strip()
    if "multirun" in text and (several := [o for o in overrides if "," in o and "[" not in o and "{" not in o]):
        name, _, value = several[0].partition("=")
        hint = f"A list takes brackets: {name}=[{value}]. For each in turn: retake sweep"
        return ConfigError("E205", f"{several[0]} holds several values", hint)
    return ConfigError("E205", f"the settings do not compose: {text[:300]}", "Settings read key=value.")


def _owners(group: str, key: str) -> str:
    """The choices of a group whose files state a key, as they would be typed."""
    files = sorted((CHECKOUT / "params" / group).glob("*.yaml"))
    return ", ".join(f"{group}={f.stem}" for f in files if key in parse_yaml(f.read_text(), str(f)))


def _keys(group: str, overrides: list[str]) -> list[str]:
    """The keys that the chosen file of a group states."""
    chosen = [o.partition("=")[2] for o in overrides if o.partition("=")[0] == group]
    path = CHECKOUT / "params" / group / f"{chosen[-1] if chosen else ''}.yaml"
    if path.is_file():
        return sorted(parse_yaml(path.read_text(), str(path)))
    return sorted(compose([])[group])


def _refuse_tricks(text: str) -> None:
    """Raises yaml.YAMLError on aliases, anchors, tags and repeated keys, before anything is built from them."""
    keys: list[set[str] | None] = []
    depth_key: list[bool] = []
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.YAMLError("anchors and aliases are not allowed")
        if getattr(event, "tag", None):
            raise yaml.YAMLError("tags are not allowed")
        if isinstance(event, yaml.ScalarEvent) and keys and keys[-1] is not None and depth_key[-1]:
            if event.value in keys[-1]:
                raise yaml.YAMLError(f"the key {event.value!r} stands twice")
            keys[-1].add(event.value)
        if isinstance(event, yaml.ScalarEvent | yaml.MappingStartEvent | yaml.SequenceStartEvent) and depth_key:
            depth_key[-1] = not depth_key[-1]
        if isinstance(event, yaml.MappingStartEvent):
            keys.append(set())
            depth_key.append(True)
        elif isinstance(event, yaml.SequenceStartEvent):
            keys.append(None)
            depth_key.append(True)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            keys.pop()
            depth_key.pop()
