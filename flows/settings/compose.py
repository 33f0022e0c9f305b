"""Settings: one composition for the command line, flows and DVC; one validation into frozen models.

`compose` turns Hydra overrides (overrides.py) into a plain mapping, `validate` turns a mapping (composed, or read from
params.yaml) into `Settings`. Nothing below flows/ reads a settings file.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from flows.settings import dataset as manifest
from flows.settings.overrides import Override, lay, read, refuse_lookups, texts
from flows.settings.plain_yaml import read_yaml
from retake.diffusion.model import Model
from retake.errors import ConfigError, did_you_mean
from retake.lookup import lookup
from tasks import decode, frames, inversion, latents, metrics, region, report

CHECKOUT = Path(__file__).resolve().parents[2]
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

TAKES = {  # by the beginning of the name of a validation error
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string_pattern": "text of another form",
    "string": "text",
    "tuple": "a list",
    "list": "a list",
    "dict": "a mapping",
    "model": "a mapping",
    "literal": "{expected}",
    "greater_than_equal": "{ge} or more",
    "greater_than": "more than {gt}",
    "less_than_equal": "{le} or less",
    "less_than": "less than {lt}",
    "too_short": "{min_length} values or more",
    "too_long": "{max_length} values or fewer",
    "none": "null",
}

BOUNDS = {"ge": "at least {}", "gt": "more than {}", "le": "at most {}", "lt": "less than {}"}

_composing = threading.Lock()


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


def compose(overrides: Sequence[str]) -> dict[str, Any]:
    """Plain mapping of the composed settings. Raises ConfigError E203 to E208; what is wrong with an override itself
    is found before anything is composed."""
    asked = [read(text) for text in overrides]
    lay(asked)
    return _composed(asked)


def settings(overrides: Sequence[str]) -> Settings:
    """Composed and validated settings. What is wrong with them is found before anything is composed."""
    asked = [read(text) for text in overrides]
    validate(lay(asked))
    return validate(_composed(asked))


def laid(overrides: Sequence[str]) -> Settings:
    """What `settings` gives, from the files alone: Hydra takes a fifth of a second each time, and a sweep needs up to a
    thousand. Raises what `settings` raises."""
    return validate(lay([read(text) for text in overrides]))


def _composed(asked: Sequence[Override]) -> dict[str, Any]:
    """What Hydra makes of the files and of overrides. No interpolation is looked up: there may be none."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    with _composing:
        saved = GlobalHydra.instance().hydra  # another library may have left it initialised
        GlobalHydra.instance().clear()
        try:
            with initialize_config_dir(str(CHECKOUT / "params"), version_base=None):
                composed = hydra_compose("config", overrides=[one.text for one in asked])
                data: dict[str, Any] = OmegaConf.to_container(composed, resolve=False)  # type: ignore[assignment]
        except (HydraException, OmegaConfBaseException, ValueError, RecursionError) as error:
            why = " ".join(str(error).split())[:300]
            raise ConfigError("E205", f"the settings do not compose: {why}", "Settings read key=value.") from error
        finally:
            GlobalHydra.instance().clear()
            if saved is not None:
                GlobalHydra.instance().initialize(saved)
    for text in texts(data):
        refuse_lookups(text, text)
    return data


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


def checked_model(group: str, model: type[M], values: Mapping[str, Any]) -> M:
    """A model of plain values. Raises ConfigError E205 with the key's place and what to type."""
    try:
        made = model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join([group, *(str(part) for part in first["loc"])])
        if first["type"] == "extra_forbidden":
            hint = did_you_mean(str(first["loc"][-1]), sorted(within(model, first["loc"][:-1]).model_fields))
            hint = hint.replace("Did you mean ", f"Did you mean {place.rpartition('.')[0]}.")
            raise ConfigError("E205", f"unknown key {place}", hint) from error
        raise ConfigError("E205", f"{place} {taken(first)}", _next_step(group, model, place, first)) from error
    if strange := _not_finite(group, made.model_dump()):
        raise ConfigError("E205", f"{strange} is not a finite number", f"See params/{group}/ for what it takes.")
    return made


def taken(fault: Mapping[str, Any]) -> str:
    """What a setting takes instead of what was given."""
    kind, given, more = fault["type"], repr(fault["input"])[:80], fault.get("ctx", {})
    if kind == "value_error":
        return f"does not fit: {more['error']}"
    if kind == "missing":
        return "is missing"
    for known, words in TAKES.items():
        if kind.startswith(known):
            return f"takes {words.format(**more)}, not {given}"
    return f"takes no such value: {given}"


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


def _next_step(group: str, model: type[BaseModel], place: str, error: Mapping[str, Any]) -> str:
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
    loc = list(error["loc"])
    while loc and not isinstance(loc[-1], str):  # of a value within a list, the list
        loc.pop()
    field = within(model, loc[:-1]).model_fields.get(loc[-1]) if loc else None
    if field is None or not field.description:
        return f"See params/{group}/ for what it takes."
    found = [(m, name) for m in field.metadata for name in BOUNDS if getattr(m, name, None) is not None]
    bounds = " and ".join(BOUNDS[name].format(getattr(m, name)) for m, name in found)
    return f"{'.'.join([group, *map(str, loc)])}: {field.description}" + (f" ({bounds})" if bounds else "")


def _not_finite(place: str, value: Any) -> str | None:
    """Where NaN or infinity stands among nested settings: neither can be part of a key."""
    if isinstance(value, Mapping):
        return next((found for k, v in value.items() if (found := _not_finite(f"{place}.{k}", v))), None)
    if isinstance(value, list | tuple):
        return next((found for k, v in enumerate(value) if (found := _not_finite(f"{place}[{k}]", v))), None)
    return place if isinstance(value, float) and not math.isfinite(value) else None
