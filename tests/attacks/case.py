"""One attack, and how the families say what they expect."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HARMLESS = "harmless"
BAIT = "bait-5e1f"  # the value of the environment variable that look-ups are after
BAIT_NAME = "RETAKE_BAIT"
LOOKUP = f"${{oc.env:{BAIT_NAME}}}"


@dataclass(frozen=True)
class Case:
    """`act` is given what `make` returned and calls the public entry point: it is refused with one of the codes of
    `expected`, or, where `HARMLESS` is among them, goes through without any effect. `make` writes the hostile files
    into an empty folder; it is not watched, `act` is."""

    family: str
    name: str
    act: Callable[[Any], object]
    expected: frozenset[str]
    make: Callable[[Path], Any] = lambda folder: folder


def file_case(
    family: str, name: str, write: Callable[[Path], Any], act: Callable[[Any], object], *expected: str
) -> Case:
    return Case(family, name, act, frozenset(expected), write)


def readable(text: object) -> str:
    """A short name for a case from its payload."""
    shown = ascii(text)[1:-1] if isinstance(text, str) else ascii(text)
    return shown if len(shown) <= 70 else f"{shown[:50]}... ({len(shown)})"


OTHERS: list[bool] = []  # not empty while somebody else acts, whom nobody watches
AIDED: list[bool] = []  # not empty once somebody else has acted


@contextlib.contextmanager
def somebody_else() -> Iterator[None]:
    """What is done inside is not Retake's doing."""
    OTHERS.append(True)
    try:
        yield
    finally:
        OTHERS.pop()
        AIDED.append(True)
