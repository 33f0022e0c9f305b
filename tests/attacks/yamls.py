"""YAML texts: params.yaml, and whatever is read as settings."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .case import BAIT_NAME, HARMLESS, LOOKUP, Case, file_case, readable

FAMILY = "yaml"
TAGS = [
    "!!python/object/apply:os.system ['touch sentinel']",
    "!!python/object/new:os.system [x]",
    "!!python/object:os.system {}",
    "!!python/name:os.system ''",
    "!!python/module:os ''",
    "!!python/tuple [1, 2]",
    "!!python/bytes 'x'",
    "!!binary aGk=",
    "!!set {a, b}",
    "!!omap [a: 1]",
    "!!pairs [a: 1]",
    "!!timestamp 2001-01-01",
    "!!float 1",
    "!!int '1'",
    "!!str 1",
    "!!null ''",
    "!!map {}",
    "!!seq []",
    "!!merge x",
    "!!value x",
    "!include /etc/passwd",
    "!env HOME",
    "!ref x",
    "! x",
    "!<tag:yaml.org,2002:python/object/apply:os.system> [x]",
    "!a!b x",
]
TWICE = [
    "a: 1\na: 2",
    "a: 1\n'a': 2",
    '"a": 1\na: 2',
    '"\\x61": 1\na: 2',
    "? a\n: 1\na: 2",
    "x: {a: 1, a: 2}",
    "x: [{a: 1, a: 2}]",
    "x:\n  y:\n    a: 1\n    a: 2",
    "1: a\n0x1: b",
    "1: a\n1.0: b",
    "1: a\n01: b",
    "10: a\n1_0: b",
    "60: a\n1:0: b",
    "true: a\nyes: b",
    "true: a\nTrue: b",
    "null: a\n~: b",
    "x: {0: a, 0.0: b}",
    "x: {2001-01-01: a, '2001-01-01': b}",
    "1: a\ntrue: b",
]
MERGES = [
    "<<: {a: 1}",
    "a: 1\n<<: {a: 2}",
    "x: {<<: [{a: 1}, {b: 2}]}",
    "'<<': {a: 1}",
    "x:\n  <<: {a: 1}\n  <<: {b: 1}",
]
BROKEN = [
    "",
    "\n",
    "---",
    "--- a\n--- b",
    "a: 1\n---\nb: 2",
    "a: 1\n...\nb: 2",
    "%YAML 9.9\n---\na: 1",
    "%TAG ! tag:example.org,2000:\n---\na: !x 1",
    "%FOO bar\n--- [",
    "[1, 2]",
    "text",
    "1",
    "null",
    "a: [",
    "a: {",
    "a: 'x",
    'a: "x',
    "a: b: c",
    "a:\n\t- b",
    "\ta: 1",
    "- a\nb: 1",
    "a: |\n\tx\n b",
    "? [a, b]\n: c",
    "? {a: b}\n: c",
    "{[a]: b}",
    "a: =",
    "a: 2001-99-99",
    "a: 2001-01-01T99:99:99Z",
    'a: "\\ud800"',
    'a: "\\U00110000"',
    "a: \x00",
    "a: \x07",
    "a: \x1b[31m",
    "a: \ud800",
    "@a: 1",
    "`a`: 1",
    "a: *b",
    "*a : 1",
    "a: &b",
]
NUMBERS = [
    "9" * 5000,
    "-" + "9" * 5000,
    "0x" + "f" * 9000,
    "0b" + "1" * 9000,
    "0" + "7" * 9000,
    "1:" * 400 + "1",
    "1:" * 20000 + "1",
]
WRONG = [
    1,
    -1.5,
    True,
    None,
    "text",
    [1],
    [[]],
    float("nan"),
    float("inf"),
    {1: 2},
    {"": 1},
    {"_target_": "os.system"},
    {"name": "../x"},
]
LITERAL = [
    LOOKUP,
    f"x{LOOKUP}",
    "${hydra:runtime.cwd}",
    "{{7*7}}",
    f"${BAIT_NAME}",
    "_target_",
    "!!python/name:os.system",
    "<<",
    "*a",
    "&a",
]


def laughs(kind: str, n: int = 12) -> str:
    """Every line names the one before nine times."""
    if kind == "list":
        lines = ["a0: &a0 [x]", *(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, n))]
    elif kind == "mapping":
        lines = ["a0: &a0 {x: x}"]
        lines += [f"a{i}: &a{i} {{{', '.join(f'k{j}: *a{i - 1}' for j in range(9))}}}" for i in range(1, n)]
    else:  # merge
        lines = ["a0: &a0 {x: x}", *(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, n))]
    return "\n".join(lines)


def parse(text: str) -> None:
    from flows.settings.plain_yaml import parse_yaml

    parse_yaml(text, "params.yaml")


def read_file(path: Path) -> None:
    from flows.settings.compose import read_params, validate

    validate(read_params(path))


@functools.cache
def settings_given() -> dict[str, Any]:
    from flows.places import CODE
    from flows.settings.compose import read_params

    return read_params(CODE / "params.yaml")


def with_values(group: Any, values: Any) -> None:
    from flows.settings.compose import validate

    validate({**settings_given(), group: values})


def stays_text(path: Path, text: str) -> None:
    """What is read from a file is the text that stands there, before and after it is validated."""
    from flows.settings.compose import read_params, validate

    data = read_params(path)
    assert data["edit"]["reference"] == text
    assert validate(data).edit.reference == text


def written(content: str | bytes) -> Any:
    def write(folder: Path) -> Path:
        path = folder / "params.yaml"
        path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
        return path

    return write


def with_reference(text: str) -> Any:
    import yaml

    def write(folder: Path) -> Path:
        given = settings_given()
        changed = {**given, "edit": {**given["edit"], "reference": text}}
        return written(yaml.safe_dump(changed, sort_keys=False))(folder)

    return write


def one(name: str, text: str, *expected: str) -> Case:
    return Case(FAMILY, name, lambda _: parse(text), frozenset(expected or ("E203",)))


def cases() -> Iterator[Case]:
    for kind in ("list", "mapping", "merge"):
        yield from (one(f"laughs {kind} {n}", laughs(kind, n)) for n in (3, 12, 40))
    yield one("an anchor in itself", "a: &a [*a]")
    yield one("an anchor that nobody names", "a: &a 1")
    yield one("an anchor on a key", "&a a: 1")
    for tag in TAGS:
        yield from (
            one(f"tag {tag} {place.format('')}", place.format(tag))
            for place in ("a: {}", "a: [{}]", "- {}", "? {}\n: x")
        )
    yield from (one(f"twice {readable(text)}", text) for text in TWICE)
    yield from (one(f"merge {readable(text)}", text) for text in MERGES)
    yield from (one(f"broken {readable(text)}", text) for text in BROKEN)
    yield from (one(f"number {readable(text)}", f"a: {text}") for text in NUMBERS)
    yield from (one(f"number in a list {readable(text)}", f"a: [{text}]") for text in NUMBERS)
    for n in (33, 200, 2000, 100_000):
        yield from (one(f"deep {mark} {n}", f"a: {mark * n}") for mark in ("[", "{a: ", "[{a: ", "{? "))
        yield one(f"deep list {n}", "- " * n + "a")
        yield one(f"deep key {n}", "? " * n + "a")
        yield one(f"deep and whole {n}", f"a: {'[' * n}{']' * n}")
    for n in (33, 300):
        yield one(f"deep block {n}", "\n".join(" " * i + "a:" for i in range(n)))
    for size in ((1 << 20) + 1, 50 << 20):
        yield file_case(FAMILY, f"a file of {size} bytes", written("a: " + "x" * size), read_file, "E203")
        yield file_case(FAMILY, f"a file of {size} keys", written("a: 1\n" * (size // 5)), read_file, "E203")
    for name, raw in {
        "latin-1": "a: \u00e9".encode("latin-1"),
        "utf-16": "a: 1".encode("utf-16"),
        "utf-32": "a: 1".encode("utf-32"),
        "a lone byte": b"a: \xff",
        "overlong": b"a: \xc0\xaf",
        "a surrogate": b"a: \xed\xa0\x80",
        "NUL": b"a: 1\0",
        "NUL only": b"\0" * 1000,
        "an archive": b"PK\x03\x04" + bytes(range(256)),
        "ELF": b"\x7fELF" + bytes(range(256)),
        "nothing": b"",
    }.items():
        yield file_case(FAMILY, f"bytes {name}", written(raw), read_file, "E203")
    yield file_case(FAMILY, "a mark in front", written("\ufeffa: 1"), read_file, "E203", "E205")
    yield Case(FAMILY, "no file", lambda folder: read_file(folder / "none.yaml"), frozenset({"E203"}))
    yield Case(FAMILY, "a folder", read_file, frozenset({"E203"}))
    for group in settings_given():
        for value in WRONG:
            allowed = ("E205", "E206", HARMLESS) if group == "model" and value == {"name": "../x"} else ("E205", "E206")
            yield Case(
                FAMILY,
                f"{group} is {readable(value)}",
                functools.partial(lambda g, v, _: with_values(g, v), group, value),
                frozenset(allowed),
            )
    for key in (
        1,
        None,
        True,
        1.5,
        "",
        "edit ",
        "Edit",
        "__class__",
        "hydra",
        "_target_",
        "x" * 10_000,
        "a\x1b[31m\n" * 9,
        (1, 2),
    ):
        yield Case(
            FAMILY,
            f"a group called {readable(key)}",
            functools.partial(lambda k, _: with_values(k, {}), key),
            frozenset({"E205"}),
        )
    for text in LITERAL:
        act = functools.partial(lambda t, path: stays_text(path, t), text)
        yield file_case(FAMILY, f"text stays {text}", with_reference(text), act, HARMLESS)
