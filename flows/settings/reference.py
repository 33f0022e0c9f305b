"""docs/settings.md: every setting of every choice, from the models that check them.

python -m flows.settings.reference      writes it
"""

from __future__ import annotations

import json
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from flows.places import CODE
from flows.settings.choice import CHOICES
from flows.settings.compose import MODELS
from flows.settings.explain import BOUNDS
from flows.settings.files import choices, chosen_by_default, stated
from retake.lookup import lookup

UNIONS = (Union, types.UnionType)
PAGE = Path("docs/settings.md")
PLAIN = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null"}
BEGINNING = """# Settings

Every setting with its default and what it takes, written from the code by `python -m flows.settings.reference`. On the
command line a setting is `group.name=value` and a choice of a group is `group=choice`:

```
retake edit dog.mp4 --box 70,40,300,460 edit=sdedit edit.prompt="a red fox" edit.strength=0.6
```

The defaults are those of `params/GROUP/CHOICE.yaml`, whose comments say when to change them. Choices that share their
settings stand in one table, with the defaults of the first. Datasets and evaluations: [dataset.md](dataset.md),
[evaluation.md](evaluation.md).
"""


def page() -> str:
    """The page's text."""
    parts = [BEGINNING]
    for group in chosen_by_default():
        if group not in ("dataset", "evaluation"):
            parts += section(group)
    return "\n".join(parts)


def section(group: str) -> Iterator[str]:
    """A group: its choices, and a table for each model of settings."""
    default = chosen_by_default()[group]
    named = sorted(choices(group), key=lambda name: (name != default, name))
    yield f"## {group}\n"
    if len(named) > 1:
        yield f"Choices: {', '.join(f'`{group}={name}`' for name in named)}; the first is the default.\n"
    shown: set[type[BaseModel]] = set()
    for name in named:
        model, values = model_of(group, name)
        if model in shown:
            continue
        shown.add(model)
        if len(named) > 1 and group in CHOICES:
            yield f"### {group}={name}\n"
        yield "| setting | default | takes | meaning |"
        yield "|---|---|---|---|"
        for place, field, default_ in fields(group, model, values):
            meaning = (field.description or "").replace("|", "/")
            yield f"| `{place}` | `{default_}` | {takes(field)} | {meaning} |"
        yield ""


def model_of(group: str, name: str) -> tuple[type[BaseModel], dict[str, Any]]:
    """The model that checks a choice's settings, and what its file states."""
    values = stated(group, name)
    return MODELS.get(group) or lookup(CHOICES[group], values["name"]).Params, values


def fields(place: str, model: type[BaseModel], values: dict[str, Any]) -> Iterator[tuple[str, FieldInfo, str]]:
    """Every setting below a place, those of models within it included: its full name, its field, its default as it is
    typed."""
    for name, field in model.model_fields.items():
        if name == "name" and place in CHOICES:
            continue
        inner, value = inside(field.annotation), values.get(name, field.get_default(call_default_factory=True))
        if inner is not None and value is not None:
            below = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
            yield from fields(f"{place}.{name}", inner, below)
        else:
            yield f"{place}.{name}", field, written(value)


def written(value: Any) -> str:
    """A value as it is typed."""
    if isinstance(value, str):
        return value or '""'
    return json.dumps(value.model_dump(mode="json") if isinstance(value, BaseModel) else value)


def options(kind: Any) -> list[str]:
    """The words that a type takes, where they are few."""
    if kind is bool:
        return ["true", "false"]
    if get_origin(kind) is Literal:
        return [str(one) for one in get_args(kind)]
    return [one for part in get_args(kind) for one in options(part)] if get_origin(kind) in UNIONS else []


def inside(kind: Any) -> type[BaseModel] | None:
    """The model that a field is, if it is one."""
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def takes(field: FieldInfo) -> str:
    """What a field takes, with its bounds."""
    found = [(m, name) for m in field.metadata for name in BOUNDS if getattr(m, name, None) is not None]
    bounds = " and ".join(BOUNDS[name].format(getattr(m, name)) for m, name in found)
    return kind_of(field.annotation) + (f", {bounds}" if bounds else "")


def kind_of(kind: Any) -> str:
    """A type in words."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return kind_of(inner[0])
    if origin is Literal:
        return ", ".join(f"`{one}`" for one in inner)
    if origin in UNIONS:
        return " or ".join(dict.fromkeys(kind_of(one) for one in inner))
    if origin is dict or kind is dict:
        return "mapping"
    if origin in (tuple, list):
        return "list"
    return PLAIN.get(kind, "mapping" if inside(kind) else "text")


if __name__ == "__main__":
    (CODE / PAGE).write_text(page())
