"""Overrides on the command line: what Hydra and OmegaConf would do with them is the attack."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .case import BAIT, BAIT_NAME, HARMLESS, LOOKUP, Case, readable
from .payloads import CALLS, GROUPS, HYDRA, LOOKALIKES, LOOKUPS, PATHS, PLACED, PLACES, REFUSED, SPECIAL, TARGETS

FAMILY = "overrides"


def settings_of(text: str) -> None:
    """Compose and validate, then look for the bait in what came of it."""
    from flows.settings.compose import settings

    assert BAIT not in json.dumps(settings([text]).as_json(), default=str), "a look-up happened"


def sweep_of(text: str) -> None:
    from flows.experiments.sweep import points_of

    points_of([text])


def one(text: str, *expected: str) -> Case:
    return Case(FAMILY, readable(text), lambda _: settings_of(text), frozenset(expected or REFUSED))


def swept(text: str) -> Case:
    return Case(FAMILY, f"sweep {readable(text)}", lambda _: sweep_of(text), frozenset({"E218", *REFUSED}))


def cases() -> Iterator[Case]:
    for place in PLACES:
        for lookup in LOOKUPS:
            text = place.format(lookup)
            yield one(text, *(("E204",) if "${" in text else REFUSED))
    for text in LOOKALIKES:
        yield one(f"edit.reference={text}", *REFUSED, HARMLESS)
        yield from (one(place.format(text)) for place in ("edit={}", "edit.strength={}", "masks.box=[{}]", "{}=1"))
    yield from (one(place.format(call), "E204") for place in TARGETS for call in CALLS)
    for name in SPECIAL:
        yield from (one(f"{sign}edit.{name}=x") for sign in ("", "+", "++", "~"))
        yield from (one(text.format(name)) for text in ("{}=x", "+edit.{}.x=1", "dataset.skip={{{}:1}}"))
    yield from (one(text, "E204") for text in HYDRA)
    yield from (one(f"{sign}{HYDRA[0]}", "E204") for sign in ("+", "++", "~"))
    for group in GROUPS:
        yield from (one(f"{group}={path}") for path in PATHS)
    yield from (one(text) for text in PLACED)
    yield from (
        one(f"{sign}{group}{rest}") for group in GROUPS for sign, rest in (("~", ""), ("+", "=x"), ("++", "=x"))
    )
    yield Case(FAMILY, "a file beside params", lambda path: settings_of(f"edit={path}"), frozenset({"E206"}), beside)
    yield from odd_characters()
    yield from bombs()
    yield from sweeps()


def beside(folder: Path) -> Any:
    """A settings file outside params/ and the path to it from a group, as Hydra would read it."""
    from flows.places import CODE

    (folder / "evil.yaml").write_text(f"name: propagate\nreference: {LOOKUP}\n")
    up = "../" * len((CODE / "params" / "edit").parts[1:])
    return up + str((folder / "evil").resolve()).lstrip("/")


def odd_characters() -> Iterator[Case]:
    for code in (*range(9), *range(11, 13), *range(14, 32), 0x7F, 0x85, 0x202E, 0x2066, 0xD800, 0xDCFF):
        yield one(f"edit.reference=a{chr(code)}b", "E205")
        yield one(f"edit.stren{chr(code)}gth=1", "E205")
    for key in (
        "edit.a\nb",
        "edit.a\tb",
        "edit .strength",
        "edit. strength",
        "edit..strength",
        ".edit",
        "edit.",
        "edit[0]",
    ):
        yield one(f"{key}=1")
    for key in (
        "edit['x']",
        "edit.anchors[0]",
        "edit.(x)",
        'edit."x"',
        "edit.a/b",
        "edit.a\\b",
        "edit.a:b",
        "-",
        "--",
        "0",
        "a b",
    ):
        yield one(f"{key}=1")
    unicode = ["ｅdit.strength", "еdit.strength", "edit․strength", "edit.ﬆrength", "edit.stréngth"]
    unicode += [
        "edit\uff0estrength",
        "edit.strength\u200d",
        "\u202eedit.strength",
        "edit.\u017ftrength",
        "ed\u0131t.strength",
    ]
    for key in unicode:
        yield one(f"{key}=0.5", "E205")
    for text in (
        "",
        "=",
        "==",
        "=1",
        " =1",
        "+",
        "++",
        "+++edit.strength=1",
        "~",
        "~~edit",
        "edit.strength",
        "\n",
        "--help",
        "-x=1",
    ):
        yield one(text, "E205", "E208")
    for text in ("'", "'a", '"a', "a'b\"c", "\\", "\\'", "'\\", "''''", "a,b'", "[a", "a]", "{a", "{a:", "(a", "a)"):
        yield one(f"edit.strength={text}", "E205")
        yield one(f"metrics.names={text}", "E205")


def bombs() -> Iterator[Case]:
    for n in (17, 100, 1000, 10_000, 100_000):
        for mark in ("[", "{a:", "(", "str(", "[{a:", "choice("):
            yield one(f"edit.reference={mark * n}", "E205")
            yield one(f"edit.anchors={mark * n}1", "E205")
        yield one(f"edit.reference={'[' * n}{']' * n}", "E205")
        yield one(f"edit{'.a' * n}=1", "E205")
        yield one(f"{'a' * n}=1", "E205")
        yield one(f"edit={'a' * n}", "E205", "E206")
    for n in (10_001, 100_000, 1_000_000):
        for mark in ("x", "9", "'", "\\", "$", ",", "x ", ":", "\u00e9", "\n"):
            yield one(f"edit.reference={mark * n}", "E205")
    for number in (
        "1e999",
        "-1e999",
        "nan",
        "inf",
        "-inf",
        "NaN",
        "9" * 400,
        "9" * 5000,
        "0x" + "f" * 400,
        "1_0" * 99,
        "1e-999",
    ):
        allowed = ("E205", HARMLESS) if number in ("1e-999",) else ("E205",)
        yield one(f"edit.strength={number}", *allowed)
        yield one(f"report.tile={number}", "E205")
        yield one(f"masks.box=[{number},0,1,1]", "E205", *((HARMLESS,) if number[:2] in ("1e", "99", "1_") else ()))
        yield one(f"edit.anchors={{{number}:a.png}}", "E205", HARMLESS)  # a frame that no clip has


def sweeps() -> Iterator[Case]:
    ranges = [
        "0,1000000000",
        "0,1e300",
        "0,inf",
        "-inf,inf",
        "nan,1",
        "0,1,0",
        "0,1,1e-300",
        "0,1,-1",
        "9" * 400,
        "0," + "9" * 400,
    ]
    for inner in ranges:
        for call in ("range({})", "shuffle(range({}))", "sort(range({}))", "tag(a,range({}))"):
            yield swept(f"edit.strength={call.format(inner)}")
            yield one(f"edit.strength={call.format(inner)}", "E205")
    for text in (
        "glob(*)",
        "glob([a*,b*],exclude=c)",
        "interval(0,1)",
        "choice()",
        "choice(1)",
        "shuffle(1)",
        "tag(a)",
        "sort()",
    ):
        yield swept(f"edit={text}")
        yield one(f"edit={text}")
    for text in (
        "edit.strength=" + ",".join("1" * 1500),
        "edit=propagate,../x",
        f"edit.reference=a,{LOOKUP}",
        "hydra.run.dir=a,b",
    ):
        yield swept(text)
    yield swept(f"edit.reference=choice(a,$\\{{oc.env:{BAIT_NAME}\\}})")
    yield swept("edit._target_=a,b")
