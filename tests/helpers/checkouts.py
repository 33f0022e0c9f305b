"""Copies of the program, to be added to or run elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path

from helpers.command import CHECKOUT


def copied(checkout: Path) -> Path:
    """A checkout of its own: the program and its settings, with what Python has compiled of them, so that a child does
    not compile all anew (a file there counts while the source's size and time are the same)."""
    for part in ("retake", "flows", "tasks", "params"):
        shutil.copytree(CHECKOUT / part, checkout / part, ignore=shutil.ignore_patterns("*.pyc.*"))
    return checkout
