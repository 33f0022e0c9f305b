"""A track edit: a list of operators, each of which takes what those before it left. A JSON file of one is

{"version": 1, "edits": [{"do": "move", "by": [120, 0], "frames": [0, 40]}, ...]}
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ValidationError

from retake.errors import ConfigError, MediaError, did_you_mean
from retake.track_edits import operators
from retake.track_edits.operators import Model, Operator, Points

MOST = 1 << 20  # bytes of a file
OPERATORS = "docs/moving.md for the operators and what they take, or: retake tracks schema"


class Program(Model):
    """version: of the format. edits: in the order in which they are done."""

    version: Literal[1] = 1
    edits: tuple[operators.Any, ...] = ()


def kinds() -> dict[str, type[Operator]]:
    """The operators by name."""
    named = [kind for kind in vars(operators).values() if isinstance(kind, type) and issubclass(kind, Operator)]
    told = {kind: kind.model_fields["do"].annotation for kind in named if "do" in kind.model_fields}
    return {get_args(annotation)[0]: kind for kind, annotation in told.items()}


def names() -> list[str]:
    """Names of the operators."""
    return sorted(kinds())


def schema() -> dict[str, Any]:
    """JSON Schema of a file."""
    return Program.model_json_schema()


def parse(data: Any, where: str) -> Program:
    """A program of plain data. Raises ConfigError E237 with the place of what is wrong, and what it takes."""
    try:
        return Program.model_validate(data)
    except ValidationError as error:
        # A field that there is not is told before one that is missing: it is most often the one that was meant.
        found = error.errors(include_url=False)
        first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
        parts = [part for n, part in enumerate(first["loc"]) if n != 2 or first["loc"][0] != "edits"]
        loc = [str(part) for part in parts if not re.search(r"[\[(]|^Points$", str(part))]
        place = ".".join(loc) or "the file"  # without the operator's name, by which pydantic tells them apart
        wants = re.sub("[Tt]uple", "list", first["msg"].removeprefix("Value error, "))
        given = json.dumps(first["input"], default=str)[:80]
        if first["type"].startswith("union_tag"):
            asked = str(first["input"].get("do", "")) if isinstance(first["input"], dict) else ""
            raise ConfigError(
                "E237",
                f"{where}: {place} has no operator {asked[:40]!r}",
                f"{did_you_mean(asked, names())} Operators: {', '.join(names())}.",
            ) from error
        if first["type"] == "extra_forbidden":
            known = (
                sorted(kinds()[str(first["loc"][2])].model_fields) if len(first["loc"]) == 4 else ["version", "edits"]
            )
            hint = did_you_mean(loc[-1], known)
            if {"xy", "visible"} <= set(data if isinstance(data, dict) else ()):
                hint = "This is a file of tracks: edited_tracks=given edited_tracks.path=FILE"
            raise ConfigError("E237", f"{where}: there is no field {place}", hint) from error
        if first["type"] == "missing":
            raise ConfigError("E237", f"{where}: {place} is missing", f"See {OPERATORS}") from error
        raise ConfigError(
            "E237",
            f"{where}: {place}: {wants}, not {given}",
            f"See {OPERATORS}",
        ) from error


def read(path: Path) -> Program:
    """The program of a JSON file. Raises MediaError E400 (no such file), ConfigError E237 (not a track edit)."""
    if not path.is_file():
        raise MediaError("E400", f"there is no file {path}", "Give a JSON file of edits; see docs/moving.md.")
    try:
        if path.stat().st_size > MOST:
            raise ValueError(f"it has more than {MOST >> 10} KiB")
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            "E237", f"{path} is not JSON: {error}"[:300], 'Write {"version": 1, "edits": [...]}; see docs/moving.md.'
        ) from error
    if isinstance(data, list):
        data = {"edits": data}
    return parse(data, str(path))


def check(program: Program, count: int, width: int, height: int, objects: tuple[int, ...] | None = None) -> None:
    """Refuse what a clip of so many frames of width x height px, with masks of these objects, has no place for: raises
    ConfigError E238 (a frame beyond the end, a point outside, an object that there is not). objects None: not known
    yet."""
    for number, one in enumerate(program.edits):
        where = f"edits.{number} ({one.do})"
        for name, frame in frames_of(one):
            if frame >= count:
                raise ConfigError(
                    "E238", f"{where}: {name}: there is no frame {frame}", f"The clip has frames 0 to {count - 1}."
                )
        for name, (x, y) in places_of(one):
            if not (0 <= x <= width and 0 <= y <= height):
                raise ConfigError(
                    "E238",
                    f"{where}: {name} ({x:g}, {y:g}) is outside the frame, which has {width}x{height} px",
                    "Read places from: retake frame CLIP N",
                )
        for chosen in (one.points, getattr(one, "reference", None)):
            asked = chosen.object if isinstance(chosen, Points) else None
            if asked and objects is not None and asked not in objects:
                raise ConfigError(
                    "E238", f"{where}: there is no object {asked}", f"The masks hold {list(objects)}; 0: background."
                )


def frames_of(one: Any) -> Iterator[tuple[str, int]]:
    """Names of the frames that an operator mentions, and the frames."""
    if one.frames is not None:
        yield from (("frames", frame) for frame in one.frames)
    yield from ((name, value) for name in ("at", "to", "start") if isinstance(value := getattr(one, name, None), int))
    yield from ((f"keys.{n}.frame", key.frame) for n, key in enumerate(getattr(one, "keys", ())))
    if isinstance(one.points, Points) and one.points.box:
        yield "points.frame", one.points.frame
    if (falloff := getattr(one, "falloff", None)) is not None:
        yield "falloff.frame", falloff.frame


def places_of(one: Any) -> Iterator[tuple[str, tuple[float, float]]]:
    """Names of the places in the frame that an operator mentions, and the places."""
    if isinstance(one.points, Points) and one.points.box:
        x0, y0, x1, y1 = one.points.box
        yield from (("points.box", (x0, y0)), ("points.box", (x1, y1)))
    if isinstance(about := getattr(one, "about", None), tuple):
        yield "about", about
    if (falloff := getattr(one, "falloff", None)) is not None:
        yield "falloff.centre", falloff.centre
