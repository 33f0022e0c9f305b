"""What is wrong with a value, in words: its place, what it takes, what to type instead."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from flows.settings.files import shown
from retake.errors import ConfigError, did_you_mean

M = TypeVar("M", bound=BaseModel)


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
        raise ConfigError("E205", f"{strange} is not a finite number", f"See {shown(group)} for what it takes.")
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
        known = re.findall(r"'([^']*)'", str(error["ctx"]["expected"]))
        near = did_you_mean(given, known)
        return near if near.startswith("Known") else f"{near} Known: {', '.join(sorted(known))}."
    loc = list(error["loc"])
    while loc and not isinstance(loc[-1], str):  # of a value within a list, the list
        loc.pop()
    field = within(model, loc[:-1]).model_fields.get(loc[-1]) if loc else None
    if field is None or not field.description:
        return f"See {shown(group)} for what it takes."
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
