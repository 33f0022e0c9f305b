"""A manifest of pairs: a CSV with a row for every clip and what is to be edited in it.

    id,category,clip,masks.box,edit.reference,edit.source_prompt
    cat-01,near,clips/cat.mp4,"[40,130,250,430]",tiger.png,a cat on a sofa

`id` and `clip` must stand there, `category` may; every other column is a setting, and an empty cell leaves it as it is.
Methods have different settings: a column is given to those that have it. Paths that lie beside the manifest are found
there, whatever the folder it is called from.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from flows.config import MAX_BYTES, parse_yaml
from flows.manifest import NAME
from retake.clip import open_clip
from retake.errors import ConfigError, RetakeError

MUST = ("id", "clip")
MOST = 8  # problems that are told; the rest are counted


@dataclass(frozen=True)
class Pair:
    """A row: a clip, and settings by their full names (`edit.reference`)."""

    id: str
    category: str
    clip: str
    settings: Mapping[str, Any]


def read_pairs(path: Path) -> list[Pair]:
    """The pairs of a manifest, which is checked whole: raises ConfigError E297 with every problem and its line."""
    try:
        text = path.read_bytes()[: MAX_BYTES + 1].decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("E297", f"cannot read the manifest {path}: {error}", "A manifest is a CSV file.") from error
    if len(text) > MAX_BYTES:
        raise ConfigError("E297", f"{path} is larger than {MAX_BYTES} bytes", "Split it.")
    reader = csv.DictReader(text.splitlines(), strict=True)
    problems: list[str] = []
    pairs: list[Pair] = []
    seen: dict[str, int] = {}
    try:
        columns = reader.fieldnames or []
        problems += [f"line 1: no column {name}" for name in MUST if name not in columns]
        problems += [f"line 1: {name!r} is neither id, category, clip nor a setting" for name in columns if odd(name)]
        for row in reader if not problems else ():
            found = problem_of(row, seen, reader.line_num) if None not in row else "more cells than columns"
            if found:
                problems.append(f"line {reader.line_num}: {found}")
                continue
            settings = {key: value(row[key], path.parent) for key in columns if "." in key and row[key]}
            clip = beside(row["clip"], path.parent)
            try:
                open_clip(clip)
            except RetakeError as error:
                problems.append(f"line {reader.line_num}: {error.message}")
            pairs.append(Pair(row["id"], row.get("category") or "", clip, settings))
    except csv.Error as error:
        problems.append(f"line {reader.line_num}: {error}")
    if not problems and not pairs:
        problems.append("line 2: no pair")
    if problems:
        more = f"; and {len(problems) - MOST} more" if len(problems) > MOST else ""
        raise ConfigError("E297", f"{path}: {'; '.join(problems[:MOST])}{more}", "Mend these lines; nothing has run.")
    return pairs


def odd(name: str) -> bool:
    return name not in (*MUST, "category") and (name.count(".") != 1 or not all(name.split(".")))


def problem_of(row: Mapping[str, Any], seen: dict[str, int], line: int) -> str | None:
    """What is wrong with a row's id or clip."""
    name = row["id"] or ""
    if not NAME.fullmatch(name):
        return f"an id is letters, digits, '.', '_' and '-', at most 128: {name[:40]!r}"
    if not row["clip"]:
        return "no clip"
    if name.lower() in seen:
        return f"the id {name!r} stands on line {seen[name.lower()]}, too"
    seen[name.lower()] = line
    return None


def value(cell: str, folder: Path) -> Any:
    """A cell as YAML reads a value: numbers and lists are such, the rest is text; a path as `beside` has it."""
    try:
        found = parse_yaml(f"value: {cell}", "a cell")["value"]
    except (ConfigError, yaml.YAMLError):
        found = cell
    return beside(found, folder) if isinstance(found, str) else found


def beside(text: str, folder: Path) -> str:
    """The path of a file that lies beside the manifest, else the text itself."""
    path = folder / text
    return str(path) if not Path(text).is_absolute() and "\0" not in text and path.exists() else text
