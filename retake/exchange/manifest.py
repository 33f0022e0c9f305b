"""manifest.json of an export: what is in the folder and what made it; and how an export is told from other folders."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retake.exchange.whole import files_of

NAME = "manifest.json"
WRITTEN_BY = "retake export"


def write(folder: Path, told: Mapping[str, Any]) -> None:
    """Write what is told, which states `name` (the clip's) and `what` (the things), with who wrote it."""
    text = json.dumps({**told, "written_by": WRITTEN_BY}, indent=1, sort_keys=True, ensure_ascii=False)
    (folder / NAME).write_text(text + "\n", encoding="utf-8")


def read(folder: Path) -> dict[str, Any] | None:
    """What `write` wrote, with `name` a str and `what` a list of str; None where the folder is no export."""
    path = folder / NAME
    try:
        told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or told.get("written_by") != WRITTEN_BY or not isinstance(told.get("name"), str):
        return None
    what = told.get("what")
    return told if isinstance(what, list) and all(isinstance(thing, str) for thing in what) else None


def why_other(folder: Path, name: str, what: Sequence[str]) -> str:
    """Why a folder with files is no export of that clip, or holds things beside `what`; empty where it is one that
    holds no others, holds no file, or is no folder. A folder with sums of its own may be anybody's: only the manifest
    says whose it is."""
    if not folder.is_dir() or not files_of(folder):
        return ""
    earlier = read(folder)
    if earlier is None:
        return "it holds files, and is no export"
    if earlier["name"] != name:
        return f"it is an export of another clip, {earlier['name']}"
    if lost := sorted(set(earlier["what"]) - set(what)):
        return f"it also holds {', '.join(lost)}, which would be lost; name all of them, or another folder"
    return ""
