"""Values of the types that settings have."""

from __future__ import annotations

from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel


def another(kind: Any, value: Any) -> Any:
    """A value of a field's type that differs from the given one."""
    origin = get_origin(kind)
    if origin is Literal:
        return next((choice for choice in get_args(kind) if choice != value), None)
    if origin in (Union, UnionType):
        inner = next(k for k in get_args(kind) if k is not type(None))
        return another(inner, value)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, info in kind.model_fields.items():
            if (other := another(info.annotation, getattr(value, name))) is not None:
                return value.model_copy(update={name: other})
        return None
    if kind is bool:
        return not value
    if kind in (int, float):
        return (value or 0) + 1
    if kind in (str, Any):
        return f"{value}-other"
    if origin is dict:
        return {1: one(get_args(kind)[1]) if get_args(kind)[1] is not str else "some-file"}
    if origin is tuple:
        return value[:-1] if value else tuple(one(k) for k in get_args(kind) if k is not Ellipsis)
    raise AssertionError(f"the walk does not know {kind}")


def one(kind: Any) -> Any:
    """Some value of a type."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind(**{name: one(info.annotation) for name, info in kind.model_fields.items() if info.is_required()})
    return another(kind, get_args(kind)[0] if get_origin(kind) is Literal else 0)
