"""Completion of settings in bash, zsh and fish: `edit=<TAB>` names the choices, `edit.str<TAB>` the setting with its
default. What is offered is whole: a shell sets a space behind it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator


def settings(incomplete: str) -> list[str]:
    """What a word of settings may become. bash takes what follows an = for a word of its own, and so do its offers."""
    line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS", "")
    before = ""
    if "COMP_WORDS" in os.environ:
        words, at = line.split("\n"), int(os.environ.get("COMP_CWORD", "0"))
        if words[at : at + 1] == ["="]:
            before, incomplete = f"{words[at - 1]}=", ""
        elif words[max(0, at - 1) : at] == ["="]:
            before = f"{words[at - 2]}="
    wanted = before + incomplete
    chosen = dict(re.findall(r"(?:^|\s)(\w+)\s?=\s?(\w+)(?=\s)", line))
    return sorted(word[len(before) :] for word in offered(wanted, chosen) if word.startswith(wanted))


def offered(wanted: str, chosen: dict[str, str]) -> Iterator[str]:
    """Whole words that may begin as `wanted`. chosen: choices of groups that stand earlier on the line."""
    from flows.settings.files import choices, chosen_by_default

    groups = chosen_by_default()
    named = wanted.partition("=")[0].partition(".")[0]
    for group in groups:
        yield from (f"{group}={name}" for name in choices(group) if len(choices(group)) > 1)
        if group == named and "." in wanted:  # others' settings would be hundreds
            name = chosen[group] if chosen.get(group) in choices(group) else groups[group]
            yield from settings_of(group, name)


def settings_of(group: str, name: str) -> Iterator[str]:
    """Settings of a choice with their defaults; of those that take a few words, with each of them."""
    from flows.settings.reference import fields, model_of, options

    if group == "dataset":
        return
    for place, field, default in fields(group, *model_of(group, name)):
        plain = "" if re.search(r"[\s\"']", default) else default
        yield from (f"{place}={one}" for one in options(field.annotation) or [plain])
