"""The files of params/: which groups there are, which choices of each, and what a file says."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from flows.settings.plain_yaml import read_yaml

PARAMS = Path(__file__).resolve().parents[2] / "params"


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
        status = path.stat()
    except OSError:
        return read_yaml(path)  # which says what is wrong
    return _plain_file(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _plain_file(path: Path, mtime: int, size: int) -> dict[str, Any]:
    return read_yaml(path)
