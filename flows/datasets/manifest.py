"""A manifest: a row for every clip, as CSV or as JSON lines.

    id,category,clip,masks.box,edit.reference,edit.source_prompt
    cat-01,near,clips/cat.mp4,"[40,130,250,430]",tiger.png,a cat on a sofa

    {"id": "cat-01", "clip": "clips/cat.mp4", "masks.box": [40, 130, 250, 430]}

`id` and `clip` must stand there, `category` may; everything else is a setting by its full name, and an empty cell
leaves it as it is. Cells are separated as spreadsheets do it (table.py). Paths that lie beside the manifest are found
there, whatever the folder it is called from.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

from flows.datasets.table import SEPARATORS, Table, decoded
from flows.settings.dataset import NAME
from flows.settings.files import choices, chosen_by_default, stated
from flows.settings.plain_yaml import MAX_BYTES, parse_yaml
from retake.errors import ConfigError, did_you_mean

MUST = ("id", "clip")
MAY = "category"
LARGEST = 64 * MAX_BYTES  # of a manifest
MOST = 8  # problems that the message tells; the command prints all
ENOUGH = 1000  # problems, beyond which the rest of a manifest is not looked at
GUESSES = 200  # names of which the near miss is looked for
WIDEST = 1000  # columns, or settings of a line
LONGEST = 1000  # characters of a cell that is read as more than text
PATHS = ("reference", "path", "forward", "backward")  # settings that name files
PLAIN = re.compile(r"[-+]?[0-9.]+(e[-+]?[0-9]+)?|true|false|null|\[.*\]|\{.*\}", re.IGNORECASE | re.DOTALL)
BOX = re.compile(r"\s*[-+]?[0-9.]+\s*(,\s*[-+]?[0-9.]+\s*){3}")  # as --box reads it
LINES = (".jsonl", ".ndjson")


class ManifestError(ConfigError):
    """E297: what is wrong with a manifest, every problem with its line."""

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        problems = sorted(problems, key=line_of)
        more = f"; and {len(problems) - MOST} more" if len(problems) > MOST else ""
        message = f"{path}: {'; '.join(problems[:MOST])}{more}"
        super().__init__("E297", message, "Fix this; nothing has run.")
        self.problems = tuple(problems)

    def as_json(self) -> dict[str, Any]:
        return super().as_json() | {"problems": list(self.problems)}


def line_of(problem: str) -> int:
    found = re.match(r"line (\d+):", problem)
    return int(found[1]) if found else 0


@dataclass(frozen=True)
class Row:
    """A clip, and settings by their full names (`edit.reference`). `line`: where it stands, 0 where in no file."""

    id: str
    category: str
    clip: str
    settings: Mapping[str, Any]
    line: int = 0


def read_rows(path: Path) -> tuple[list[Row], list[str]]:
    """The rows of a manifest that name a clip, and what is wrong with it, with lines. A row whose id is wrong stands
    there as `line-N`, so that its other problems are reported too.

    Raises ConfigError E297 for a file that cannot be read at all.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST + 1)
    except OSError as error:
        hint = "A manifest is a CSV file, or JSON lines. For one clip: retake edit CLIP; of a folder of them its name."
        raise ConfigError("E297", f"cannot read the manifest {path}: {error}", hint) from error
    if len(raw) > LARGEST:
        raise ConfigError("E297", f"{path} is larger than {LARGEST} bytes", "Split it.")
    text = decoded(raw, path)
    problems: list[str] = []
    read = read_json_lines if path.suffix.lower() in LINES else read_csv
    seen: dict[str, int] = {}
    rows = []
    for line, given in read(text, problems):
        name = given.get("id")
        if found := problem_of(name, seen, line):
            problems.append(f"line {line}: {found}")
            name = f"line-{line}"
        settings = {
            key: value(key, cell, path.parent) for key, cell in given.items() if key in known_names() and cell != ""
        }
        clip = given.get("clip")
        if not isinstance(clip, str) or not clip:
            problems.append(f"line {line}: no clip")
            continue
        rows.append(Row(str(name), str(given.get(MAY) or ""), beside(clip, path.parent), settings, line))
    return rows, problems


def read_csv(text: str, problems: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a CSV with their lines. What keeps it from being read goes to `problems`."""
    wide = max(map(text.partition("\n")[0].count, SEPARATORS)) + 1
    if wide > WIDEST:
        problems.append(f"line 1: {wide} columns, more than {WIDEST}")
        return
    if long := next((n for n, line in enumerate(text.split("\n"), 1) if len(line) > MAX_BYTES), 0):
        problems.append(f"line {long}: more than {MAX_BYTES} characters")
        return
    line = 1
    try:
        table = Table(text, (*MUST, MAY))
        columns, line = table.columns, table.line
        lacking = [f"line {line}: no column {name}" for name in MUST if name not in columns]
        if len(lacking) == len(MUST):
            lacking.append(f"line {line}: columns are separated by commas, semicolons or tabs, or as a line sep=| says")
        twice = sorted({name for name in columns if columns.count(name) > 1})
        lacking += [f"line {line}: the column {name} stands twice" for name in twice]
        strange = [f"line {line}: {odd(name, n < GUESSES)}" for n, name in enumerate(columns) if odd(name)]
        problems += [*lacking, *strange]
        if "clip" not in columns or twice:
            return
        for line, cells in table:
            if enough(problems, line):
                return
            if len(cells) > len(columns):
                problems.append(f"line {line}: more cells than columns")
            else:
                named = {} if "id" in columns else {"id": f"line-{line}"}  # reported once, not of every line
                yield line, named | dict(zip_longest(columns, cells, fillvalue=""))
    except csv.Error as error:
        problems.append(f"line {line}: {error}")


def read_json_lines(text: str, problems: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Objects of JSON lines; a group may be an object of its own: {"masks": {"box": ...}}."""
    for number, line in enumerate(text.split("\n"), 1):
        if enough(problems, number):
            return
        if not line.strip():
            continue
        try:
            if len(line) > MAX_BYTES:
                raise ValueError(f"a line of {len(line)} characters, more than {MAX_BYTES}")
            given = json.loads(line, object_pairs_hook=once)
            if not isinstance(given, dict):
                raise ValueError("a line is one JSON object")
        except (ValueError, RecursionError) as error:
            problems.append(f"line {number}: {error}")
            continue
        named: list[tuple[str, Any]] = []
        for key, cell in given.items():
            group = isinstance(cell, dict) and "." not in key
            named += [(f"{key}.{name}", inner) for name, inner in cell.items()] if group else [(key, cell)]
        if len(named) > WIDEST:
            problems.append(f"line {number}: {len(named)} settings, more than {WIDEST}")
            continue
        flat = dict(named)
        if len(flat) < len(named):
            problems.append(f"line {number}: a setting stands twice")
        for key in flat:
            if found := odd(key, len(problems) < GUESSES):
                problems.append(f"line {number}: {found}")
        yield number, flat


def enough(problems: list[str], line: int) -> bool:
    """Whether so much is wrong that the rest of a manifest is not looked at: said among the problems, then."""
    if len(problems) > ENOUGH:
        problems.append(f"line {line}: what comes from here on was not looked at")
        return True
    return False


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Raises ValueError for a key that stands twice: readers differ on which of them counts."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


@lru_cache(maxsize=1)
def known_names() -> frozenset[str]:
    """Full names of all settings, whatever is chosen in their groups."""
    groups = chosen_by_default()
    return frozenset(f"{group}.{key}" for group in groups for name in choices(group) for key in stated(group, name))


def odd(name: str, guess: bool = False) -> str | None:
    """What is wrong with the name of a column, of which no cell would be read. `guess`: with the name that is near."""
    if name in (*MUST, MAY) or name in known_names():
        return None
    name = name[:80]
    group, _, key = name.partition(".")
    keys = [known.partition(".")[2] for known in known_names() if known.startswith(f"{group}.")]
    if not re.fullmatch(r"[^.]+\.[^.]+", name):
        what, typed, near = f"{name!r} is neither id, category, clip nor a setting", name, [*MUST, MAY, *known_names()]
    elif not keys:
        what, typed, near = f"unknown group {group!r}", group, list(chosen_by_default())
    else:
        what, typed, near = f"unknown key {name}", key, keys
    meant = did_you_mean(typed, sorted(near)) if guess else ""
    if typed == key and keys:
        meant = meant.replace("mean ", f"mean {group}.")  # what can be typed
    return what + (f" ({meant})" if meant.startswith("Did you mean") else "")


def problem_of(name: Any, seen: dict[str, int], line: int) -> str | None:
    """What is wrong with a row's id."""
    if not isinstance(name, str):
        return "no id"
    if not NAME.fullmatch(name):
        return f"an id is letters, digits, '.', '_' and '-', at most 128: {name[:40]!r}"
    if name.lower() in seen:
        return f"the id {name!r} stands on line {seen[name.lower()]}, too"
    seen[name.lower()] = line
    return None


def value(key: str, cell: Any, folder: Path) -> Any:
    """A cell: a number, a list, a mapping, true, false or null where it reads as one, else text; a path as `beside` has
    it where the setting is one."""
    if not isinstance(cell, str):
        return cell
    if key.rpartition(".")[2] in PATHS:
        return beside(cell, folder)
    if len(cell) <= LONGEST and key.rpartition(".")[2] == "box" and BOX.fullmatch(cell):
        cell = f"[{cell}]"
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
