"""Overrides: what was typed as key=value, judged before Hydra composes anything from it.

Hydra's own grammar can read files beside params/ (edit=../x), import packages (hydra.searchpath=[pkg://x]), and hide an
interpolation behind a backslash. A setting here is a choice of a known group, or a value of a known key; nothing else
is handed to Hydra. `lay` works out what the settings will be from the files alone, so that what does not fit is refused
in milliseconds.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from flows.settings.plain_yaml import read_yaml
from retake.errors import ConfigError, did_you_mean

PARAMS = Path(__file__).resolve().parents[2] / "params"
LONGEST = 10_000  # characters of an override; Hydra reads about a hundred in a millisecond
DEEPEST = 16  # brackets within brackets
MOST = 1000  # values of one setting: as many as a sweep may have points
SHAPE = re.compile(r"(\+\+|\+|~|)([^=]*)(?:(=)(.*))?", re.DOTALL)
NAME = re.compile(r"[A-Za-z_]\w*(\.[\w-]+)*", re.ASCII)
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True)
class Override:
    """One override as Hydra reads it. `text`: as it is handed to Hydra; `parsed`: Hydra's own form of it."""

    text: str
    sign: str
    key: str
    typed: str
    parsed: Any

    @property
    def group(self) -> str:
        return self.key.partition(".")[0]

    @property
    def path(self) -> list[str]:
        """The key within its group; none for the choice of the group itself."""
        return self.key.split(".")[1:]


def read(text: str, sweeps: bool = False) -> Override:
    """An override that looks nothing up and calls nothing. `sweeps`: several values may stand there.

    Raises ConfigError E204, E205 for what cannot be a setting's key or value, E208 for what is no setting at all.
    """
    match = SHAPE.fullmatch(text)
    assert match is not None  # it takes every text
    sign, key, equals, typed = match[1], match[2], match[3], match[4] or ""
    refuse_lookups(text, text)
    refuse_long(key[:80], text)
    if re.split(r"[./@:\[]", key.lstrip("/ "))[0].strip().lower() == "hydra":
        raise ConfigError(
            "E204", f"not allowed in settings: {shown(text)}", "Hydra's own settings are off; leave it out."
        )
    if not key.strip() or not (equals or sign == "~"):
        raise ConfigError(
            "E208", f"{shown(text)} is not a setting", "Settings read key=value, for example edit.strength=0.5"
        )
    if not NAME.fullmatch(key):
        known = sorted(chosen_by_default())
        raise ConfigError(
            "E205", f"unknown setting {key[:80]!r}", did_you_mean(re.split(r"\W", key.lstrip("/"))[0][:80], known)
        )
    refuse_odd(key[:80], typed)
    text, parsed = parsed_of(text, sign + key, typed, bool(equals))
    if parsed.is_sweep_override() and not sweeps:
        hint = f"For each in turn: retake sweep ... {key}={typed[:60]}. A list takes brackets: [{typed[:60]}]"
        raise ConfigError("E205", f"{text[:80]} holds several values", hint)
    if not parsed.is_sweep_override():
        for part in texts(parsed.value()):
            refuse_lookups(part, text)
    return Override(text, sign, key, typed, parsed)


def shown(text: str) -> str:
    """The start of an override, as it was typed; escaped where a terminal would not show it."""
    start = text[:80]
    return f"'{start}'" if start.isprintable() else repr(start)


def refuse_lookups(text: str, override: str) -> None:
    """Raises ConfigError E204 for what would make OmegaConf look anything up, or somebody call anything."""
    if "${" in text or "_target_" in text:
        raise ConfigError(
            "E204",
            f"not allowed in settings: {shown(override)}",
            "Interpolations and _target_ are off. Write the value itself: key=value",
        )


def refuse_long(key: str, text: str) -> None:
    if len(text) > LONGEST:
        raise ConfigError(
            "E205",
            f"{key!r} stands in a setting of {len(text)} characters, more than {LONGEST}",
            "Write a short plain value; many belong in a file.",
        )


def refuse_odd(key: str, typed: str) -> None:
    """Raises ConfigError E205 for a value that no setting takes, whatever it is of."""
    wrong = None
    if found := CONTROL.search(typed):
        wrong = f"the character U+{ord(found[0]):04X}, which no setting takes"
    elif (deep := depth(typed)) > DEEPEST:
        wrong = f"{deep} brackets within one another"
    elif (many := values(typed)) > MOST:
        wrong = f"{many} values, more than {MOST}"
    if wrong:
        raise ConfigError("E205", f"{key} holds {wrong}", "Write a short plain value; many belong in a file.")


def values(text: str) -> int:
    """How many values stand side by side, also within choice(...): what stands in [] or {} is one."""
    many, now = 1, 0
    for character in re.findall(r"[\[\]{},]", text):
        now += (character in "[{") - (character in "]}")
        many += character == "," and now == 0
    return many


def depth(text: str) -> int:
    """How many brackets are open at once, at most."""
    most = now = 0
    for character in re.findall(r"[\[\](){}]", text):
        now += 1 if character in "[({" else -1
        most = max(most, now)
    return most


def parsed_of(text: str, name: str, typed: str, equals: bool) -> tuple[str, Any]:
    """An override in Hydra's form, with its text. A value that the grammar cannot read (a path with spaces, say) is
    taken as text."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    try:
        try:
            return text, parser.parse_override(text)
        except HydraException:
            quoted = typed.replace("\\", "\\\\").replace("'", "\\'")
            text = f"{name}='{quoted}'" if equals else name
            return text, parser.parse_override(text)
    except (HydraException, ValueError, RecursionError) as error:
        why = " ".join(str(error).split())[:120]
        raise ConfigError("E205", f"{shown(text)} cannot be read: {why}", "Settings read key=value.") from error


def texts(value: Any) -> Iterator[str]:
    """All texts of a value, keys too."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key)
            yield from texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts(inner)
    elif value is not None:
        yield getattr(value, "text", None) or str(value)


# ---- what the settings will be -----------------------------------------------------------------------------------


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


def chosen_by_default() -> dict[str, str]:
    """The choice of every group, as params/config.yaml has it."""
    entries = plain_file(PARAMS / "config.yaml").get("defaults", [])
    return {group: name for entry in entries if isinstance(entry, dict) for group, name in entry.items()}


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (PARAMS / group).glob("*.yaml"))


def stated(group: str, name: str) -> dict[str, Any]:
    """What a group's file says."""
    return plain_file(PARAMS / group / f"{name}.yaml")


def plain_file(path: Path) -> dict[str, Any]:
    try:
        told = path.stat()
    except OSError:
        return read_yaml(path)  # which says what is wrong
    return _plain_file(path, told.st_mtime_ns, told.st_size)


@lru_cache(maxsize=64)
def _plain_file(path: Path, mtime: int, size: int) -> dict[str, Any]:
    return read_yaml(path)


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
