"""Clips under any name that the system allows: not UTF-8, no ASCII letter, accents composed in either way."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import unicodedata
from pathlib import Path

import pytest
from helpers.command import Child, reference, sprite_clip

from flows.settings.compose import compose
from flows.settings.overrides import quoted, read
from flows.terminal.arguments import split_manifest
from retake.clip import slug
from retake.errors import ConfigError
from retake.recipe import digest

SMALL = ("--box", "20,20,80,80", "frames.last=3", "report.tile=64", "metrics.names=[]")
NOT_UTF8 = os.fsdecode(b"gr\xf6sse.mp4")


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return sprite_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", frames=4)


def test_a_name_that_is_not_utf8_goes_through_everything_that_prints_or_stores_it(clip, tmp_path):
    path = tmp_path / NOT_UTF8
    shutil.copy(clip, path)
    shell = Child(tmp_path)
    words = (path, *SMALL, f"edit.reference={reference(tmp_path / 'cat.png')}")
    made = shell("edit", *words, "--json")
    assert made.code == 0, made.err
    folder = Path(json.loads(made.out)["outputs"]["report"]).parent
    assert json.loads((folder / "recipe.json").read_text(encoding="utf-8"))["clip"] == str(path)
    for command in (("plan", *words), ("why", *words), ("edit", *words), ("report",), ("verify",)):
        told = shell(*command)
        assert told.code == 0, told.err
        assert "E999" not in told.err
    told = shell("export", path, *SMALL[:3], "--what", "masks")
    assert told.code == 0, told.err


def test_clips_of_a_folder_keep_apart_whatever_they_are_called(clip, tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("猫.mp4", "狗.mp4", NOT_UTF8, "grösse.mp4", "plain.mp4"):
        shutil.copy(clip, folder / name)
        os.utime(folder / name, (1, 1))
    (folder / os.fsdecode(b"b\xf6se.mp4")).write_bytes(b"no video")
    os.utime(folder / os.fsdecode(b"b\xf6se.mp4"), (1, 1))
    words = ("dataset", folder, "masks.box=[20,20,80,80]", f"edit.reference={reference(tmp_path / 'cat.png')}")
    told = Child(tmp_path)(*words, *SMALL[2:], "--json")
    assert told.code == 3, told.err
    jobs = {job["job"].partition("/")[0]: job["state"] for job in json.loads(told.out)["jobs"]}
    assert len(jobs) == 6
    assert [name for name, state in jobs.items() if state not in ("ok", "cached")] == [slug(os.fsdecode(b"b\xf6se"))]
    assert "plain" in jobs


def test_a_folder_name_of_letters_beyond_ascii_stays_what_it_is_and_unlike_others():
    assert slug("holiday 1") == "holiday-1"
    names = ["猫", "狗", "café", "cafe", "größe", NOT_UTF8]
    assert len({slug(name) for name in names}) == len(names)
    assert slug("café").startswith("cafe-")
    assert slug(unicodedata.normalize("NFD", "café")) == slug(unicodedata.normalize("NFC", "café"))
    assert digest(["a", NOT_UTF8]) != digest(["a", "grösse.mp4"])


@pytest.mark.parametrize("name", [r"a\b (1).png", "it's, he said.png", r"C:\x, y\ ", r"\\'", "a{b}"])
def test_a_name_in_quotes_is_read_back(name):
    assert read(f"edit.reference={quoted(name)}").parsed.value() == name


@pytest.mark.parametrize("name", [r"a\b.png", r"a\b (1).png", r"it's\x.png"])
def test_a_name_with_a_backslash_is_taken_as_it_is_typed(name):
    assert compose([f"edit.reference={name}"])["edit"]["reference"] == name


@pytest.mark.parametrize("name", ["a,b.png", r"a\b, $c.png", "a b, c.png"])
def test_the_hint_at_a_comma_holds_what_the_shell_hands_on_as_that_name(name):
    with pytest.raises(ConfigError, match="several values") as refusal:
        compose([f"edit.reference={name}"])
    _, _, typed = refusal.value.hint.partition("the shell: ")
    word = shlex.split(typed.partition(" A list")[0])
    assert len(word) == 1
    assert compose(word)["edit"]["reference"] == name


def test_manifests_and_pairs_may_have_commas_in_their_names(tmp_path):
    path = tmp_path / "a, b's.csv"
    path.write_text("id,clip\na,sprites:drift\n")
    words = split_manifest([str(path), "edit.reference=params/dataset/ball.png"])
    assert compose(words)["dataset"]["manifest"] == str(path)
