"""A manifest of pairs: a CSV with a row for every clip and what is to be edited in it.

    id,category,clip,masks.box,edit.reference,edit.source_prompt
    cat-01,near,clips/cat.mp4,"[40,130,250,430]",tiger.png,a cat on a sofa

`id` and `clip` must stand there, `category` may; every other column is a setting, and an empty cell leaves it as it is.
Methods have different settings: a column is given to those that have it. Paths that lie beside the manifest are found
there, whatever the folder it is called from.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.config import MAX_BYTES, parse_yaml
from flows.manifest import NAME
from retake.clip import open_clip
from retake.errors import ConfigError, RetakeError
from retake.video import read_image

MUST = ("id", "clip")
MOST = 8  # problems that are told; the rest are counted
LONGEST = 1000  # characters of a cell that is read as more than text
PATHS = ("reference", "path")  # settings that name files
PLAIN = re.compile(r"[-+]?[0-9.]+(e[-+]?[0-9]+)?|true|false|null|\[.*\]|\{.*\}", re.IGNORECASE | re.DOTALL)


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
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        text = raw.decode("utf-8-sig")  # spreadsheets write a mark in front
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("E297", f"cannot read the manifest {path}: {error}", "A manifest is a CSV file.") from error
    if len(raw) > MAX_BYTES:
        raise ConfigError("E297", f"{path} is larger than {MAX_BYTES} bytes", "Split it.")
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    problems: list[str] = []
    pairs: list[Pair] = []
    seen: dict[str, int] = {}
    try:
        columns = reader.fieldnames or []
        problems += [f"line 1: no column {name}" for name in MUST if name not in columns]
        problems += [f"line 1: {name!r} is neither id, category, clip nor a setting" for name in columns if odd(name)]
        problems += [
            f"line 1: the column {name} stands twice" for name in sorted({c for c in columns if columns.count(c) > 1})
        ]
        for row in reader if not problems else ():
            found = problem_of(row, seen, reader.line_num) if None not in row else "more cells than columns"
            if found:
                problems.append(f"line {reader.line_num}: {found}")
                continue
            settings = {key: value(key, row[key], path.parent) for key in columns if "." in key and row[key]}
            clip = beside(row["clip"], path.parent)
            try:
                open_clip(clip)
                read_pictures(settings)
            except RetakeError as error:
                problems.append(f"line {reader.line_num}: {error.message}")
            except (OSError, RuntimeError) as error:  # a name too long, a home that nobody has
                problems.append(f"line {reader.line_num}: {clip[:40]!r} is no clip: {error}"[:200])
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


def value(key: str, cell: str, folder: Path) -> Any:
    """A cell: a number, a list, a mapping, true, false or null where it reads as one, else text; a path as `beside` has
    it where the setting is one."""
    if key.rpartition(".")[2] in PATHS:
        return beside(cell, folder)
    if len(cell) > LONGEST or not PLAIN.fullmatch(cell):
        return cell
    try:
        return parse_yaml(f"value: {cell}", "a cell")["value"]
    except (ConfigError, RecursionError):
        return cell


def beside(text: str, folder: Path) -> str:
    """The path of a file that lies beside the manifest, else the text itself."""
    try:
        return str(folder / text) if not Path(text).is_absolute() and (folder / text).exists() else text
    except (OSError, ValueError):
        return text


def read_pictures(settings: Mapping[str, Any]) -> None:
    """Raises what reading the reference raises: it must not fail after an hour."""
    if given := settings.get("edit.reference"):
        read_image(given)
