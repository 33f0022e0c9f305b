"""Making room: least recently used first; pins and shared objects stay; nothing goes that cannot be made again."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from helpers.command import Shell, reference, sprite_clip

from flows.upkeep.housekeeping import bytes_of
from retake.artifact import KINDS
from retake.errors import ConfigError
from retake.store import Record, Store, garbage


def put(store: Store, name: str, *content: bytes, age: float, inputs: dict[str, str] | None = None) -> Record:
    """A result of some files that was last used `age` seconds ago, its objects being older than GRACE."""
    files = tuple(store.put(f"{n}.bin", data) for n, data in enumerate(content))
    key = (name * 64)[:64]
    recipe = {"stage": "frames", "inputs": inputs or {}, "params": {}, "implementation": ""}
    record = Record(key, recipe, KINDS["frames"](files, {}), 1.0, {})
    store.publish(record)
    when = time.time() - age
    os.utime(store.record_path("frames", key), (when, when))
    for file in files:
        os.utime(store.object_path(file.sha256), (when - 2 * garbage.GRACE,) * 2)
    return record


def names(records: list[Record]) -> list[str]:
    return [record.key[0] for record in records]


def left(store: Store) -> list[str]:
    return sorted(record.key[0] for record in store.records())


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "own")


def test_what_was_used_least_recently_goes_first(store):
    for n, name in enumerate("abcd"):
        put(store, name, name.encode() * 1000, age=100 - n)
    assert store.find("frames", "a" * 64)  # used now
    tried = garbage.collect(store, 2000, dry=True)
    assert (names(tried.records), tried.bytes, tried.kept) == (["b", "c"], 2000, 2000)
    assert left(store) == list("abcd")
    assert names(garbage.collect(store, 2000).records) == ["b", "c"]
    assert left(store) == ["a", "d"]
    assert sum(size for _, size in garbage.objects(store)) == 2000
    assert garbage.collect(store, 2000).records == []
    assert store.find("frames", "b" * 64) is None


def test_shared_objects_stay_while_somebody_names_them(store):
    put(store, "a", b"x" * 1000, b"y" * 10, age=100)
    put(store, "b", b"x" * 1000, age=50)
    done = garbage.collect(store, 1000)
    assert (names(done.records), done.bytes) == (["a"], 10)
    assert store.find("frames", "b" * 64)


def test_pins_stay_whatever_the_budget(store):
    put(store, "a", b"x" * 1000, age=100)
    put(store, "b", b"y" * 1000, age=50)
    done = garbage.collect(store, 0, pinned=lambda record: record.key[0] == "a")
    assert (names(done.records), done.pinned, done.kept) == (["b"], 1000, 1000)
    assert left(store) == ["a"]


def test_objects_that_nobody_names_yet_are_left_while_they_are_young(store):
    lost, fresh = store.put("x", b"lost"), store.put("y", b"fresh")
    os.utime(store.object_path(lost.sha256), (1, 1))
    garbage.collect(store, 10**9)
    assert [name for name, _ in garbage.objects(store)] == [fresh.sha256]
    os.utime(store.object_path(fresh.sha256), (1, 1))
    store.put("y", b"fresh")  # a stage that is running needs it
    garbage.collect(store, 10**9)
    assert [name for name, _ in garbage.objects(store)] == [fresh.sha256]


def test_chunks_of_an_unfinished_stage_stay_however_old_they_are(store):
    put(store, "a", b"x" * 1000, age=100)
    chunk, state = store.put("00000.safetensors", b"chunk" * 100), store.put("state", b"state" * 100)
    store.save_partial("c" * 64, [chunk], [state], "mark")
    for file in (chunk, state):
        os.utime(store.object_path(file.sha256), (1, 1))
    garbage.collect(store, 0)
    assert left(store) == []
    assert store.load_partial("c" * 64, "mark")
    garbage.forget(store, "nobody")
    assert store.load_partial("c" * 64, "mark")


def test_what_crashes_left_is_cleared(store):
    put(store, "a", b"x", age=10)
    for name in ("partial/old", "quarantine/old", "tmp/old"):
        path = store.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        os.utime(path, (1, 1))
        path.with_name("new").write_text("x")
    garbage.collect(store, 10**9)
    assert sorted(
        str(p.relative_to(store.root)) for f in ("partial", "quarantine", "tmp") for p in (store.root / f).iterdir()
    ) == [
        "partial/new",
        "quarantine/new",
        "tmp/new",
    ]


def test_forgetting_takes_all_that_was_made_of_a_source_and_nothing_else(store):
    a = put(store, "a", b"frames", age=9, inputs={"clip": "source"})
    b = put(store, "b", b"flow", age=8, inputs={"frames": a.artifact.digest})
    put(store, "c", b"mask", age=7, inputs={"frames": a.artifact.digest, "optical_flow": b.artifact.digest})
    put(store, "d", b"flow", age=6, inputs={"frames": "of another"})  # the same bytes
    assert sorted(names(garbage.forget(store, "source", dry=True).records)) == list("abc")
    for record in (a, b):  # bytes of `b` are another's, too
        path = store.object_path(record.artifact.files[0].sha256)
        (store.root / "quarantine").mkdir(exist_ok=True)
        for end in ("", ".reason"):
            (store.root / "quarantine" / f"{path.name}-1234abcd{end}").write_text("x")
    done = garbage.forget(store, "source")
    assert {path.name[:64] for path in (store.root / "quarantine").iterdir()} == {b.artifact.files[0].sha256}
    assert (left(store), done.bytes) == (["d"], 10)
    assert store.find("frames", "d" * 64)
    assert garbage.forget(store, "nobody").records == []


@pytest.mark.parametrize(
    ("text", "count"),
    [("20GB", 20 * 10**9), ("500 mb", 5 * 10**8), ("1.5T", 15 * 10**11), ("7B", 7), ("1e3 k", 10**6), ("0", 0)],
)
def test_sizes(text, count):
    assert bytes_of(text) == count


@pytest.mark.parametrize("text", ["", "much", "-1G", "1 PB", "GB", "10"])
def test_no_sizes(text):
    with pytest.raises(ConfigError, match="E216"):
        bytes_of(text)


def test_gc_pin_and_forget_from_the_command_line(tmp_path: Path):
    shell = Shell(tmp_path)
    clip, cat = sprite_clip(tmp_path / "clip.mp4", frames=4), reference(tmp_path / "cat.png")
    words = ("edit", clip, "--box", "20,20,80,80", f"edit.reference={cat}", "report.tile=64", "--json")
    kept = shell(*words).data["edit"]
    shell(*words, "edit.strength=0.5")
    assert "not in the store" not in shell("pin", f"clip/{kept}").out
    assert shell("pin", "clip/nothing", "--json").error["code"] == "E212"
    assert shell("gc", "--max-size", "much", "--json").error["code"] == "E216"
    tried = shell("gc", "--max-size", "0", "--dry-run", "--json").data
    assert tried["results"] == {"decode": 1, "edit": 1, "metrics": 1, "report": 1}  # of the other edit alone
    freed = shell("gc", "--max-size", "0", "--json").data
    assert freed["freed"] == tried["freed"] > 0
    assert shell(*words).ran() == []
    assert shell(*words, "edit.strength=0.5").ran() == ["edit", "decode", "metrics", "report"]
    assert "would free" in shell("forget", clip, "--dry-run").out
    done = shell("forget", clip, "--json").data
    assert len(done["folders"]) == 2
    assert not list((tmp_path / "edits").glob("*/*/recipe.json"))
    assert len(shell(*words).ran()) == 9
    assert shell("verify").code == 0
    other = shell(*words, "edit.strength=0.5").data["edit"]
    shell("gc", "--max-size", "0")
    assert shell("pin", f"clip/{other}", "--json").data["lacking"] == 4
