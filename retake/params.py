"""What of a stage's settings belongs in its key, and which files they name."""

from __future__ import annotations

import ast
import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from retake.errors import about
from retake.weights.local import local_path


def keyed_params(params: BaseModel, file_digest: Callable[[str], str]) -> dict[str, Any]:
    """The part of a params model that belongs in a key.

    Fields marked `inert` are left out. Fields marked `file` hold a path (or a mapping of paths): the path is
    replaced by the content digest that `file_digest` returns, so that a renamed file is the same ingredient. So is
    that of a field marked `weights` when it names a local file or folder (weights/local.py says when it does); names
    of the catalogue, repositories and what is not there stay as they are. Fields marked `listed` with another's name
    are left out while that one does not list them: the settings of what is not asked for.
    """
    keyed: dict[str, Any] = {}
    for name, marks in fields_in_use(params):
        value = getattr(params, name)
        if "inert" in marks:
            continue
        if "file" in marks and value is not None:
            with about(name):
                value = (
                    file_digest(value)
                    if not isinstance(value, Mapping)
                    else {str(k): file_digest(v) for k, v in value.items()}
                )
        elif "weights" in marks and value is not None and (path := local_path(value)) is not None:
            value = file_digest(str(path))
        elif isinstance(value, BaseModel):
            value = keyed_params(value, file_digest)
        elif models := models_in(value):
            keys = []
            for n, one in enumerate(models):
                with about(f"{name}.{n}"):
                    keys.append(keyed_params(one, file_digest))
            value = keys
        else:
            value = params.model_dump(mode="json", include={name})[name]
        keyed[name] = value
    return keyed


def fields_in_use(params: BaseModel) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(name, marks) of a model's fields, but of those marked `listed` only what is listed."""
    for name, info in type(params).model_fields.items():
        marks = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
        if "listed" not in marks or name in getattr(params, str(marks["listed"])):
            yield name, marks


def files_of(params: BaseModel) -> list[str]:
    """Every path that stands in a field marked `file`, also of models within."""
    found: list[str] = []
    for name, marks in fields_in_use(params):
        value = getattr(params, name)
        if "file" in marks and value is not None:
            found += list(value.values()) if isinstance(value, Mapping) else [value]
        for one in models_in((value,)) or models_in(value):
            found += files_of(one)
    return found


def models_in(value: Any) -> list[BaseModel]:
    """The models of a tuple that holds models alone."""
    if isinstance(value, tuple) and all(isinstance(one, BaseModel) for one in value):
        return list(value)
    return []


def as_written(value: Any, example: str) -> Any:
    """A list as it was typed: Hydra takes [{do: move}] for one, but JSON, whose keys stand in quotes, for text. Raises
    ValueError, which names the example, for text that is no list."""
    if not isinstance(value, str):
        return value
    for reader in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return reader(value)
    raise ValueError(f"not a list; write '{example}', in quotes")
