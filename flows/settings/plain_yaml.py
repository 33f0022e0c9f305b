"""Plain YAML: mappings, lists and scalars. What would make a reader copy, build or compute anything else is refused
while it is still text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from retake.errors import ConfigError

MAX_BYTES = 1 << 20
DEEPEST = 32  # mappings and lists within one another
LONGEST_NUMBER = 300  # characters: sixties and long integers take time that grows with the square of it
NUMBER = re.compile(r"[-+.\d][-+.:\w]*", re.ASCII)
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast where libyaml is there
HINT = "Write it anew: retake params"


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a file. Raises ConfigError E203."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        text = raw.decode("utf-8")
    except OSError as error:
        raise ConfigError("E203", f"cannot read {path}: {error.strerror}", HINT) from error
    except UnicodeDecodeError as error:
        raise ConfigError("E203", f"{path} is not text in UTF-8: {error.reason}", HINT) from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """A YAML mapping without anchors, aliases, tags, merges or repeated keys, at most 1 MiB and 32 levels deep.
    Raises ConfigError E203."""
    if len(text) > MAX_BYTES:
        raise ConfigError("E203", f"{where} is larger than {MAX_BYTES} bytes", "Settings are small text files.")
    try:
        count = _refuse_tricks(text)
        data = yaml.load(text, Loader=LOADER)  # noqa: S506  a safe loader
        if _keys(data) != count:
            raise yaml.YAMLError("a key stands twice, written in two ways")
    except (yaml.YAMLError, ValueError) as error:  # a date of month 13, half of a surrogate pair
        why = " ".join(str(error).split())[:300]
        raise ConfigError("E203", f"{where} is not plain YAML: {why}", HINT) from error
    if not isinstance(data, dict):
        raise ConfigError("E203", f"{where} holds no mapping", HINT)
    return data


def _refuse_tricks(text: str) -> int:
    """The number of keys. Raises yaml.YAMLError on what no settings file needs, before anything is built from it."""
    keys: list[set[str] | None] = []
    at_key: list[bool] = []
    count = 0
    for event in yaml.parse(text, Loader=LOADER):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.YAMLError("anchors and aliases are not allowed")
        if getattr(event, "tag", None):
            raise yaml.YAMLError("tags are not allowed")
        if isinstance(event, yaml.ScalarEvent):
            _refuse_number(event)
            if keys and keys[-1] is not None and at_key[-1]:
                _refuse_key(event, keys[-1])
                count += 1
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and at_key:
            at_key[-1] = not at_key[-1]
        if isinstance(event, yaml.CollectionStartEvent):
            if len(keys) == DEEPEST:
                raise yaml.YAMLError(f"more than {DEEPEST} levels within one another")
            keys.append(set() if isinstance(event, yaml.MappingStartEvent) else None)
            at_key.append(True)
        elif isinstance(event, yaml.CollectionEndEvent):
            keys.pop()
            at_key.pop()
    return count


def _refuse_key(event: yaml.ScalarEvent, seen: set[str]) -> None:
    if event.value == "<<":
        raise yaml.YAMLError("merges (<<) are not allowed")
    if event.value in seen:
        raise yaml.YAMLError(f"the key {event.value[:80]!r} stands twice")
    seen.add(event.value)


def _refuse_number(event: yaml.ScalarEvent) -> None:
    if not event.style and len(event.value) > LONGEST_NUMBER and NUMBER.fullmatch(event.value):
        raise yaml.YAMLError(f"a number of {len(event.value)} characters")


def _keys(data: Any) -> int:
    """Keys of all mappings within one another."""
    if isinstance(data, dict):
        return len(data) + sum(map(_keys, data.values()))
    return sum(map(_keys, data)) if isinstance(data, list) else 0
