"""What makes a result: its ingredients, their one canonical encoding, and the key made of them.

Pure functions. Every preimage carries a type tag and a length, so that `1`, `1.0`, `"1"` and `True` differ and no
two values share an encoding. A key names what shapes the bytes of a result and nothing else (docs/caching.md).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from typing import Any

SCHEMA = "retake/1"


def encode(value: Any) -> bytes:
    """Canonical bytes of a plain value: None, bool, int, float, str, bytes, list or tuple, mapping with str keys.

    Raises TypeError for any other type and ValueError for NaN or infinity, which have no place in a key.
    """
    match value:
        case None:
            return b"n"
        case bool():
            return b"t" if value else b"f"
        case int():
            return b"i%d;" % value
        case float():
            if not math.isfinite(value):
                raise ValueError(f"{value} cannot be part of a key")
            return b"d" + (value + 0.0).hex().encode() + b";"  # + 0.0 makes -0.0 and 0.0 one value
        case str():
            raw = value.encode("utf-8", "surrogatepass")  # names of files need not be text
            return b"s%d:" % len(raw) + raw
        case bytes():
            return b"y%d:" % len(value) + value
        case list() | tuple():
            return b"l%d:" % len(value) + b"".join(encode(item) for item in value)
        case Mapping():
            if not all(isinstance(name, str) for name in value):
                raise TypeError("only str keys can be part of a key")
            pairs = (encode(name) + encode(value[name]) for name in sorted(value))
            return b"m%d:" % len(value) + b"".join(pairs)
    raise TypeError(f"{type(value).__name__} cannot be part of a key")


def digest(value: Any) -> str:
    """sha256, in hex, of the canonical encoding of a plain value."""
    return hashlib.sha256(encode(value)).hexdigest()


@dataclass(frozen=True)
class Recipe:
    """The ingredients of one result. `key` is their sha256."""

    stage: str
    version: int
    format: int = 1  # VERSION of the format in which the result is written
    implementation: str = ""  # "dis@1": the module that was chosen and its hand-written VERSION
    params: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)  # name -> content digest of an upstream output
    weights: Mapping[str, str] = field(default_factory=dict)  # name -> repo@revision or content digest
    dtype: str = ""
    backends: Mapping[str, str] = field(default_factory=dict)  # library -> version, where it shapes bytes

    def ingredients(self) -> dict[str, Any]:
        """Plain nested mapping, as encoded and as kept in the record."""
        return {
            "stage": self.stage,
            "version": self.version,
            "format": self.format,
            "implementation": self.implementation,
            "params": dict(self.params),
            "inputs": dict(self.inputs),
            "weights": dict(self.weights),
            "dtype": self.dtype,
            "backends": dict(self.backends),
        }

    @property
    def key(self) -> str:
        return digest([SCHEMA, self.ingredients()])


def differences(new: Mapping[str, Any], old: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Leaves at which two ingredient mappings differ, as (dotted name, new value, old value)."""
    found: list[tuple[str, Any, Any]] = []
    for name in sorted(set(new) | set(old)):
        here, a, b = f"{prefix}{name}", new.get(name), old.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, here + ".")
        elif encode(a) != encode(b):
            found.append((here, a, b))
    return found


def installed(*packages: str) -> dict[str, str]:
    """Versions of installed packages, without importing them. A package that is not there reads "absent"."""
    return {package: version(package) for package in packages}


@cache  # every stage asks, and a look takes milliseconds
def version(package: str) -> str:
    """The version of one installed package, or "absent"."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"
