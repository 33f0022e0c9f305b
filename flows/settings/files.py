"""The files of params/: which groups there are, which choices of each, and what a file says.

A project's own are laid over the shipped ones, file by file: what it does not have is taken from there.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from flows.places import CODE, PROJECT, SETTINGS
from flows.settings.plain_yaml import read_yaml


def chosen_by_default() -> dict[str, str]:
    """The choice of every group, as params/config.yaml has it."""
    entries = plain_file(file("config.yaml")).get("defaults", [])
    return {group: name for entry in entries if isinstance(entry, dict) for group, name in entry.items()}


def choices(group: str) -> list[str]:
    return sorted({path.stem for folder in SETTINGS for path in (folder / group).glob("*.yaml")})


def stated(group: str, name: str) -> dict[str, Any]:
    """What a group's file says."""
    return plain_file(file(f"{group}/{name}.yaml"))


def file(name: str) -> Path:
    """Where a file of settings stands: in the project, else among the shipped ones."""
    return next((path for folder in SETTINGS if (path := folder / name).exists()), CODE / "params" / name)


def shown(group: str) -> str:
    """The folder in which a person can read what a group takes."""
    return f"params/{group}/" if PROJECT == CODE else f"{CODE / 'params' / group}/"


def plain_file(path: Path) -> dict[str, Any]:
    try:
        status = path.stat()
    except OSError:
        return read_yaml(path)  # which says what is wrong
    return _plain_file(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _plain_file(path: Path, mtime: int, size: int) -> dict[str, Any]:
    return read_yaml(path)
