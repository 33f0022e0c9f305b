"""Keeping the store: making room in it, pins, forgetting a clip, sharing results through a DVC remote."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows.places import OUTS, PROJECT, datasets_home, edits_home, open_store
from flows.settings.plain_yaml import parse_yaml
from retake import dvc
from retake.clip import open_clip
from retake.errors import ConfigError, did_you_mean
from retake.machine.disk import format_bytes, write_atomic
from retake.store import Record, Store, garbage

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def bytes_of(text: str) -> int:
    """`20G`, `500 MB`, `1.5TB`, `100B`; only 0 needs no unit. Raises ConfigError E216."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?(?:e\d+)?)\s*([kmgt]?)(b?)\s*", text.lower())
    if match is None or not (match[2] or match[3] or float(match[1]) == 0):
        raise ConfigError("E216", f"not a size: {text!r}", "Write --max-size 20GB, or 500MB.")
    return int(float(match[1]) * UNITS[match[2]])


def make_room(budget: str, dry: bool) -> dict[str, Any]:
    """Take away what was used least recently until the store is within a budget; what is pinned, and what dvc.lock
    names, stays."""
    store = open_store()
    return as_json(garbage.collect(store, bytes_of(budget), pinned(store), dry), dry)


def as_json(done: garbage.Removal, dry: bool) -> dict[str, Any]:
    """What `--json` prints. results: how many by stage; seconds: what making them took."""
    return {
        "dry_run": dry,
        "freed": done.bytes,
        "objects": done.objects,
        "results": dict(sorted(Counter(str(record.recipe["stage"]) for record in done.records).items())),
        "kept": done.kept,
        "pinned": done.pinned,
        "seconds": round(sum(record.seconds for record in done.records), 1),
    }


def lines(done: dict[str, Any]) -> list[str]:
    """What `gc` and `forget` say."""
    verb = "would free" if done["dry_run"] else "freed"
    count = sum(done["results"].values())
    said = [f"{verb} {format_bytes(done['freed'])}: {count} results ({done['seconds']:.0f} s to make again)"]
    said += [f"  {stage:13} {number}" for stage, number in done["results"].items()]
    said.append(
        f"{format_bytes(done['kept'])} stay"
        + (f", {format_bytes(done['pinned'])} of them pinned" if done["pinned"] else "")
    )
    return said


def forget(clip: str, dry: bool) -> dict[str, Any]:
    """Take away everything that was made from a clip: results in the store, and the folders of its edits. left: folders
    that show it and are no edit's (sweeps, exports, those of datasets); pins: edits whose pins did not keep them."""
    store, opened = open_store(), open_clip(clip)
    done = garbage.forget(store, opened.digest(store), dry)
    keys, made = {record.key for record in done.records}, {record.artifact.digest for record in done.records}
    folders = [path.parent for path in edits_home().glob("*/*/recipe.json") if keys & keys_of(path)]
    homes = {edits_home() / opened.name, *(folder.parent for folder in folders)}
    left = [path for home in homes for path in home.glob("*/") if not (path / "recipe.json").exists()]
    for home in (OUTS, *datasets_home().glob("*/")):
        left += [home / "*" / path.parent.name for path in home.glob("frames/*/artifact.json") if told_by(path) in made]
    pins = [name for folder in folders if pin_of(name := f"{folder.parent.name}/{folder.name}").exists()]
    for folder in folders if not dry else ():
        shutil.rmtree(folder)
    told_of = {"folders": folders, "left": sorted(set(left)), "pins": sorted(pins)}
    return as_json(done, dry) | {name: list(map(str, paths)) for name, paths in told_of.items()}


def told_by(label: Path) -> str:
    """The digest of what was handed out into a folder."""
    try:
        return str(json.loads(label.read_text(encoding="utf-8"))["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def push(remote: str | None) -> dict[str, int]:
    """Send results to a DVC remote. Raises ConfigError E217."""
    return dvc.remote(PROJECT, remote).push(open_store()).as_json()


def pull(remote: str | None) -> dict[str, int]:
    """Fetch results from a DVC remote. Raises ConfigError E217."""
    return dvc.remote(PROJECT, remote).pull(open_store()).as_json()


def keys_of(recipe: Path) -> set[str]:
    """Keys that a handed-out edit is made of."""
    try:
        return {entry["key"] for entry in json.loads(recipe.read_text())["keys"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def pin(edit: str, on: bool) -> dict[str, Any]:
    """Protect an edit (CLIP/ID of `retake report`) from `retake gc`, or let it go again."""
    home = edits_home()
    known = sorted(f"{path.parent.parent.name}/{path.parent.name}" for path in home.glob("*/*/recipe.json"))
    place = pin_of(edit)
    if edit not in known and not (place.exists() and not on):
        raise ConfigError("E212", f"no edit {edit!r} was made here", did_you_mean(edit, known))
    if on:
        place.parent.mkdir(parents=True, exist_ok=True)
        keys = keys_of(home / edit / "recipe.json")
        write_atomic(place, json.dumps(sorted(keys)) + "\n")
        lacking = len(keys - {path.name for path in (open_store().root / "records").glob("*/*")})
    else:
        place.unlink(missing_ok=True)
        lacking = 0
    return {"edit": edit, "pinned": on, "lacking": lacking}


def pin_of(edit: str) -> Path:
    """The file that pins an edit, CLIP/ID, where it is pinned."""
    return open_store().root / "pins" / f"{edit.replace('/', '--')}.json"


def pinned(store: Store) -> Callable[[Record], bool]:
    """Whether a record is kept: pinned by its key, or with a file that an out of dvc.lock holds."""
    keys: set[str] = set()
    for path in (store.root / "pins").glob("*.json"):
        keys |= set(json.loads(path.read_text()))
    lock = PROJECT / "dvc.lock"
    held = dvc.held(PROJECT, parse_yaml(lock.read_text(), str(lock))) if lock.exists() else set()
    return lambda record: record.key in keys or any(file.md5 in held for file in record.artifact.files)
