"""manifest.json of an export: what the folder holds, what made it, and that it is an export."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retake.exchange.atomic_folder import list_files

NAME = "manifest.json"
WRITTEN_BY = "retake export"


def write(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write `facts`, which include `name` (of the clip) and `what` (the kinds of data exported), and `written_by`."""
    text = json.dumps({**facts, "written_by": WRITTEN_BY}, indent=1, sort_keys=True, ensure_ascii=False)
    (folder / NAME).write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def read(folder: Path) -> dict[str, Any] | None:
    """What `write` wrote, with `name` a str and `what` a list of str; None where the folder is no export."""
    path = folder / NAME
    try:
        facts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(facts, dict) or facts.get("written_by") != WRITTEN_BY or not isinstance(facts.get("name"), str):
        return None
    what = facts.get("what")
    return facts if isinstance(what, list) and all(isinstance(thing, str) for thing in what) else None


def why_not_same_export(folder: Path, name: str, what: Sequence[str]) -> str:
    """Why a folder must not be overwritten: it is no export, one of another clip, or holds more than `what`. Empty
    if it may be, has no files, or is not a folder. SHA256SUMS alone does not say whose it is; the manifest does."""
    if not folder.is_dir() or not list_files(folder):
        return ""
    earlier = read(folder)
    if earlier is None:
        return "it holds files, and is not an export"
    if earlier["name"] != name:
        return f"it is an export of another clip, {earlier['name']}"
    if lost := sorted(set(earlier["what"]) - set(what)):
        return f"it also holds {', '.join(lost)}, which would be lost; name all of them, or another folder"
    return ""
