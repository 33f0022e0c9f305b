"""Overrides: what was typed as key=value, judged before Hydra composes anything from it.

Hydra's own grammar can read files beside params/ (edit=../x), import packages (hydra.searchpath=[pkg://x]), and hide an
interpolation behind a backslash. A setting here is a choice of a known group, or a value of a known key; nothing else
is handed to Hydra. compose.py works out what the settings will be from the files alone, so that what does not fit is
refused in milliseconds.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flows.settings.files import chosen_by_default
from retake.errors import ConfigError, did_you_mean

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
        shell = shlex.quote(whole) if re.search(r'[$`"\\!]', whole := f"{key}={quoted(typed)}") else f'"{whole}"'
        hint = (
            f"One text with a comma takes quotes, twice for the shell: {shell[:200]} A list takes brackets: "
            f"[{typed[:60]}] For each in turn: retake sweep ... {key}={typed[:60]}"
        )
        raise ConfigError("E205", f"{text[:80]} holds several values", hint)
    if not parsed.is_sweep_override():
        for part in texts(parsed.value()):
            refuse_lookups(part, text)
    return Override(text, sign, key, typed, parsed)


def quoted(text: str) -> str:
    """The text as Hydra's grammar reads it back: in quotes, in which backslashes count only before a quote."""
    return "'" + re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text) + "'"


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
            f"{key!r} is in a setting of {len(text)} characters, more than {LONGEST}",
            "Write a short plain value; many belong in a file.",
        )


def refuse_odd(key: str, typed: str) -> None:
    """Raises ConfigError E205 for a value that no setting takes, whatever it is of."""
    wrong = None
    if found := CONTROL.search(typed):
        wrong = f"the character U+{ord(found[0]):04X}, which no setting takes"
        if 0xDC80 <= ord(found[0]) <= 0xDCFF:
            raise ConfigError(
                "E205", f"{key} holds the byte 0x{ord(found[0]) - 0xDC00:02X}, which is not UTF-8", "Rename the file."
            )
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
            text = f"{name}={quoted(typed)}" if equals else name
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
