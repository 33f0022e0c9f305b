"""Whatever a person can meet is documented: every error code, with one meaning, and the commands that hints name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.command import CHECKOUT

from flows.settings import reference
from flows.settings.compose import compose

FAMILIES = {
    "ConfigError": "E2",
    "MediaError": "E4",
    "MachineError": "E3 E5",
    "IntegrityError": "E6",
    "SomeFailedError": "E7",
}
CODE = re.compile(r"\bE\d{3}\b")


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for layer in ("retake", "flows", "tasks"):
        for path in sorted((CHECKOUT / layer).rglob("*.py")):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def texts(tree: ast.AST) -> Iterator[str]:
    """Every string of a module, docstrings and the fixed parts of f-strings included; no comments."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def documented() -> dict[str, tuple[str, str]]:
    """(meaning, what to do) by code, from the tables of docs/errors.md."""
    rows = re.findall(r"^\| (E\d{3}) \| (.+?) \| (.+?) \|$", (CHECKOUT / "docs/errors.md").read_text(), re.MULTILINE)
    assert len({code for code, _, _ in rows}) == len(rows), "a code stands in two rows"
    return {code: (meaning, action) for code, meaning, action in rows}


def test_every_code_is_documented_and_every_documented_code_exists():
    found = {code for _, tree in sources() for text in texts(tree) for code in CODE.findall(text)}
    assert found == set(documented())


def test_no_two_codes_mean_the_same():
    meanings = [meaning for meaning, _ in documented().values()]
    assert len(set(meanings)) == len(meanings)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_first_digit_of_a_code_is_its_class(name):
    for path, tree in sources():
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name):
                continue
            if node.args:
                codes = {code for text in texts(node.args[0]) for code in CODE.findall(text)}
                assert all(code[:2] in FAMILIES[name].split() for code in codes), f"{path}:{node.lineno} {codes}"


def test_commands_that_texts_name_exist():
    from flows.__main__ import app

    commands = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback}
    commands |= {str(group.name) for group in app.registered_groups}
    pages = [path.read_text() for path in (CHECKOUT / "docs").glob("*.md")]
    spoken = [text for _, tree in sources() for text in texts(tree)] + pages
    named = {found for text in spoken for found in re.findall(r"(?:`|: |^)retake ([a-z]+)\b", text, re.MULTILINE)}
    assert named
    assert named <= commands


def test_the_container_file_takes_what_the_checkout_has():
    ignored = (CHECKOUT / ".dockerignore").read_text().splitlines()
    taken = re.findall(r"^COPY (.+) \S+$", (CHECKOUT / "Containerfile").read_text(), re.MULTILINE)
    names = [name for line in taken for name in line.split()]
    assert {"retake", "flows", "tasks", "params", "constraints.txt"} <= set(names)
    for name in names:
        assert (CHECKOUT / name).exists()
        assert f"!{name}" in ignored


def test_every_fault_of_the_list_has_a_test_and_codes_of_its_exit_status():
    """docs/faults.md: each row has a test that exists and codes whose class is the exit status before them."""
    page = (CHECKOUT / "docs/faults.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (.+?) \| (.+?) \| (.+?) \| (test_\S+::\S+) \|$", page, re.MULTILINE)
    assert [int(number) for number, *_ in rows] == list(range(1, max(44, len(rows) + 1)))
    classes = {"E2": "2", "E7": "3", "E4": "4", "E3": "5", "E5": "5", "E6": "6", "E1": "130"}
    for number, _, _, ending, test in rows:
        file, _, name = test.partition("::")
        assert f"\ndef {name}(" in (CHECKOUT / "tests" / file).read_text(), f"row {number}: there is no {test}"
        status = ""
        for word in re.findall(r"\w+", ending):
            if CODE.fullmatch(word):
                assert word in documented(), f"row {number}: {word}"
                assert classes[word[:2]] == status, f"row {number}: {word} ends with {classes[word[:2]]}"
            status = status if CODE.fullmatch(word) else word
        assert CODE.search(ending) or ending == "0", f"row {number}: {ending}"


def test_the_page_of_settings_is_what_the_code_takes():
    written = (CHECKOUT / reference.PAGE).read_text(encoding="utf-8")
    assert written == reference.page(), "python -m flows.settings.reference writes it anew"
    told = set(re.findall(r"^\| `([\w.]+)` \|", written, re.MULTILINE))
    for group, values in compose(["edit=moca", "masks=sam2", "tracks=given"]).items():
        if group != "dataset":
            known = {one for one in told if one.startswith(f"{group}.")}
            assert {f"{group}.{name}" for name in values} - {f"{group}.name"} <= known | prefixes(known)
    assert {"edit.prompt", "metrics.lpips.weights", "model.schedule.spacing"} <= told
    described = [line for line in written.splitlines() if line.startswith("| `") and "=" not in line.split("|")[1]]
    assert all(line.split("|")[4].strip() for line in described), "a setting without a description"


def prefixes(names: set[str]) -> set[str]:
    return {name.rpartition(".")[0] for name in names}
