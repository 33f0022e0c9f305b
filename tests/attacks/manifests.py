"""Manifests of a dataset, CSV and JSON lines; and the manifest of an export."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .case import BAIT_NAME, HARMLESS, LOOKUP, Case, file_case, readable
from .names import ADDRESSES
from .yamls import settings_given

FAMILY = "manifests"
CLIP = "sprites:drift"
IDS = [
    "../x",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "",
    " ",
    ".",
    "..",
    ".hidden",
    "-rf",
    "a b",
    "a\0b",
    "a\nb",
    "a\tb",
    "\U0001f600",
    "\u00e9",
    "\uff41",
    "a\u202eb",
    "x" * 129,
    "x" * 100_000,
    "=1+1",
    "=cmd|' /C calc'!A0",
    "@SUM(A1)",
    "+1",
    "${x}",
    LOOKUP,
    "a:b",
    "a*",
    "a|b",
    "$(id)",
    "a'b",
    'a"b',
    "~",
    "\u0661",
]
CELLS = [
    LOOKUP,
    f"$\\{{oc.env:{BAIT_NAME}\\}}",
    "{_target_: os.system}",
    "[_target_]",
    "=cmd|' /C calc'!A0",
    "@SUM(1)",
    "!!python/object/apply:os.system [id]",
    "[&a 1, *a]",
    "[" * 900,
    "{a: " * 200,
    "9" * 999,
    "1e999",
    "-.inf",
    ".nan",
    "nan",
    "1:1:1",
    "2001-01-01",
    "null",
    "[1,2",
    "\x1b[31m",
    "x" * 60_000,
    "../../etc/passwd",
    "http://example.org/x.png",
    "{<<: {a: 1}}",
]
KEYS = [
    "edit._target_",
    "edit.__class__",
    "hydra.run",
    "edit.name",
    "x.y",
    "edit.reference.x",
    ".edit",
    "edit.",
    "edit",
    "edit..x",
    "\x1b.x",
    "a" * 500,
]


def listed(path: Path) -> None:
    from flows.datasets.sources import list_clips as read

    read(str(path), 0)


def worked(path: Path) -> None:
    """All jobs of a manifest. Where they come to be, no text in them has become anything else."""
    from flows.datasets.jobs import work_of

    dataset = {**settings_given()["dataset"], "clips": [], "manifest": str(path)}
    edits = [{"id": "edit", "settings": {}}]
    work = work_of({**settings_given(), "dataset": {**dataset, "edits": edits}})
    for job in work.jobs:
        assert "bait-" not in json.dumps(job.settings.as_json(), default=str)


def csv(*rows: list[str], head: str = "id,clip") -> Any:
    import csv as library
    import io

    sink = io.StringIO()
    library.writer(sink).writerows(rows)
    return written("m.csv", head + "\n" + sink.getvalue())


def lines(*rows: Any) -> Any:
    return written("m.jsonl", "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")


def written(name: str, content: str | bytes) -> Any:
    def write(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
        return path

    return write


def one(name: str, write: Any, *expected: str) -> Case:
    return file_case(FAMILY, name, write, worked, *(expected or ("E297",)))


def cases() -> Iterator[Case]:
    for text in IDS:
        yield one(f"id {readable(text)} in a table", csv([text, CLIP]))
        yield one(f"id {readable(text)} in lines", lines({"id": text, "clip": CLIP}))
    for text in ADDRESSES:
        yield one(f"clip {text}", csv(["a", text]))
    for text in (
        "",
        "../x",
        "/nowhere",
        "a\0b",
        "x" * 5000,
        "~nobody-here/x",
        "\ud800",
        "sprites:nothing",
        "sprites:../x",
        "-",
        "/dev/zero",
    ):
        yield one(f"clip {readable(text)}", lines({"id": "a", "clip": text}), "E297", HARMLESS)
    for text in CELLS:
        allowed = ("E297", HARMLESS) if text in ("null", "../../etc/passwd") else ("E297",)
        for key in ("edit.reference", "edit.strength", "masks.box", "edit.anchors"):
            yield one(f"{key} is {readable(text)}", csv(["a", CLIP, text], head=f"id,clip,{key}"), *allowed)
            yield one(f"{key} is {readable(text)} in lines", lines({"id": "a", "clip": CLIP, key: text}), *allowed)
        yield one(
            f"prompt {readable(text)}", csv(["a", CLIP, "sdedit", text], head="id,clip,edit.name,edit.prompt"), "E297"
        )
    for key in KEYS:
        yield one(f"column {readable(key)}", csv(["a", CLIP, "x"], head=f"id,clip,{key}"))
        yield one(f"key {readable(key)}", lines({"id": "a", "clip": CLIP, key: "x"}))
    yield from tables()
    yield from objects()
    yield from of_exports()


def tables() -> Iterator[Case]:
    good = f"a,{CLIP}"
    for name, text in {
        "nothing": "",
        "no id": f"clip\n{CLIP}",
        "no clip": "id\na",
        "a head alone": "id,clip\n",
        "the same id": f"id,clip\n{good}\n{good}",
        "ids of one folder": f"id,clip\n{good}\nA,{CLIP}",
        "a column twice": f"id,id,clip\na,a,{CLIP}",
        "more cells": f"id,clip\n{good},x",
        "an open quote": f'id,clip\n"a,{CLIP}',
        "a quote inside": f'id,clip\na"b,"{CLIP}"x',
        "NUL": f"id,clip\na\0,{CLIP}",
        "a long cell": f"id,clip\n{'x' * 200_000},{CLIP}",
        "a million columns": "id,clip," + ",".join(map(str, range(1_000_000))),
        "a million empty columns": "id,clip" + "," * 1_000_000,
        "a million cells": f"id,clip\n{good}{',x' * 1_000_000}",
        "tabs": "id\tclip\na\tb",
        "semicolons": f"id;clip\na;{CLIP}",
        "other line ends": f"id,clip\ra,{CLIP}\rA,{CLIP}",
        "ten thousand bad ids": "id,clip\n" + f"../x,{CLIP}\n" * 10_000,
        "formulas in the head": f"=1+1,clip\na,{CLIP}",
    }.items():
        yield one(f"table: {name}", written("m.csv", text))
    yield one("table: a mark and CRLF", written("m.csv", f"\ufeffid,clip\r\n{good}\r\n"), "E297", HARMLESS)
    for name, raw in {
        "utf-16": "id,clip\na,b".encode("utf-16"),
        "latin-1": "id,clip\n\u00e9,b".encode("latin-1"),
        "zip": b"PK\3\4\0\xff",
    }.items():
        yield one(f"table: {name}", written("m.csv", raw))
    yield one(
        "a link to a device",
        lambda folder: ((folder / "m.csv").symlink_to("/dev/zero"), folder / "m.csv")[1],
        "E297",
        "E298",
    )
    yield one("an empty folder", lambda folder: folder, "E298")
    yield one("a file that is not there", lambda folder: folder / "none.csv")


def objects() -> Iterator[Case]:
    good = {"id": "a", "clip": CLIP}
    for name, text in {
        "no object": "[1]",
        "a number": "1",
        "text": "{",
        "deep": "[" * 100_000,
        "deep within": '{"id": "a", "clip": ' + '{"a":' * 50_000,
        "NaN": json.dumps({**good, "edit.strength": float("nan")}),
        "infinity": json.dumps({**good, "masks.box": [float("inf")] * 4}),
        "a number without end": '{"id": "a", "clip": "sprites:drift", "edit.strength": 1e999}',
        "a number of many digits": '{"id": "a", "clip": "sprites:drift", "edit.strength": ' + "9" * 5000 + "}",
        "id twice": '{"id": "a", "id": "b", "clip": "sprites:drift"}',
        "a setting twice": '{"id": "a", "clip": "sprites:drift", "edit": {"strength": 1, "strength": 0}}',
        "a setting twice, in two ways": '{"id": "a", "clip": "sprites:drift", "edit.crf": 1, "edit": {"crf": 0}}',
        "an id that is a list": '{"id": ["a"], "clip": "sprites:drift"}',
        "a clip that is an object": '{"id": "a", "clip": {"x": 1}}',
        "no id": '{"clip": "sprites:drift"}',
        "half a pair": '{"id": "\\ud800", "clip": "sprites:drift"}',
        "a clip of half a pair": '{"id": "a", "clip": "\\ud800"}',
        "NUL": '{"id": "a\\u0000", "clip": "sprites:drift"}',
        "a prototype": '{"id": "a", "clip": "sprites:drift", "__proto__.x": 1}',
        "a call": '{"id": "a", "clip": "sprites:drift", "edit": {"_target_": "os.system"}}',
        "a group in a group": '{"id": "a", "clip": "sprites:drift", "edit": {"anchors": {"0": {"_target_": "x"}}}}',
        "comments": '// x\n{"id": "a", "clip": "sprites:drift"}',
        "two on a line": '{"id": "a", "clip": "sprites:drift"}{"id": "b", "clip": "sprites:drift"}',
        "ids of one folder": json.dumps(good) + "\n" + json.dumps({**good, "id": "A"}),
        "a hundred thousand keys": json.dumps({**good, **{f"k{i}": i for i in range(100_000)}}),
    }.items():
        yield one(f"lines: {name}", written("m.jsonl", text))
    yield one(
        "lines: a text with other line ends",
        lines({**good, "report.tile": 64, "category": "a\u2028b\x85c"}),
        "E297",
        HARMLESS,
    )


def of_exports() -> Iterator[Case]:
    def told_of(folder: Path) -> None:
        from retake.exchange.manifest import read, why_not_same_export

        found = read(folder)
        assert found is None or isinstance(found["name"], str)
        assert why_not_same_export(folder, "mine", ["frames"])

    for name, text in {
        "nothing": "",
        "text": "x",
        "deep": "[" * 100_000,
        "a list": "[]",
        "NUL": "\0",
        "a name that is none": '{"written_by": "retake export", "name": 1, "what": []}',
        "what that is none": '{"written_by": "retake export", "name": "x", "what": "frames"}',
        "a path for a name": '{"written_by": "retake export", "name": "../../x", "what": []}',
        "another clip's": '{"written_by": "retake export", "name": "other", "what": ["frames"]}',
        "digits": '{"written_by": "retake export", "name": "x", "what": [' + "9" * 5000 + "]}",
        "not text": b"\xff\xfe\x00",
    }.items():

        def write(folder: Path, text: Any = text) -> Path:
            return written("manifest.json", text)(folder).parent

        yield file_case(FAMILY, f"export: {name}", write, told_of, HARMLESS)
