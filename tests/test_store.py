"""The store: publish, verified reads, quarantine and healing, partial chunks, single flight, full disks."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import time
from pathlib import Path

import pytest

from benchmarks.faults.disk import Disk
from retake.artifact import Frames
from retake.errors import DamagedError, MachineError, MediaError
from retake.machine.disk import atomic_path, write_atomic
from retake.recipe import Recipe
from retake.store import Record, Store

KEY = Recipe("frames", 1, params={"a": 1}).key


def record(store: Store, *contents: bytes, key: str = KEY) -> Record:
    files = tuple(store.put(f"{i:05d}.safetensors", data) for i, data in enumerate(contents))
    return Record(key, Recipe("frames", 1, params={"a": 1}).ingredients(), Frames(files, {"count": 1}), 1.5, {})


def test_an_object_is_known_by_its_content_and_read_only(own_store):
    store = Store(own_store)
    one, two = store.put("a", b"hello"), store.put("b", b"hello")
    assert (one.sha256, one.md5) == (two.sha256, "5d41402abc4b2a76b9719d911017c592")
    assert one.sha256 == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert store.read(one) == b"hello"
    assert os.stat(store.object_path(one.sha256)).st_mode & 0o777 == 0o444


def test_without_a_record_there_is_no_artifact(own_store):
    store = Store(own_store)
    made = record(store, b"x" * 1000)
    assert store.find("frames", KEY) is None
    store.publish(made)
    found = store.find("frames", KEY)
    assert found is not None
    assert found.artifact.digest == made.artifact.digest
    assert found.seconds == 1.5


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "replace"])
def test_a_damaged_object_is_never_served(own_store, damage):
    said: list[str] = []
    store = Store(own_store, said.append)
    made = record(store, os.urandom(5000))
    store.publish(made)
    file = made.artifact.files[0]
    path = store.object_path(file.sha256)
    harm(path, damage)
    with pytest.raises(DamagedError):
        store.read(file)
    assert not path.exists()
    assert store.find("frames", KEY) is None  # the record does not promise what is gone
    assert said
    if damage != "remove":
        reasons = list((own_store / "quarantine").glob("*.reason"))
        assert len(reasons) == 1


def harm(path: Path, damage: str) -> None:
    os.chmod(path, 0o644)
    if damage == "remove":
        path.unlink()
    elif damage == "cut":
        os.truncate(path, path.stat().st_size // 2)
    elif damage == "replace":
        path.write_bytes(b"z" * path.stat().st_size)
    else:
        with open(path, "r+b") as file:
            file.seek(path.stat().st_size // 3)
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ 0x10]))


def test_a_hit_checks_size_but_not_bytes(own_store):
    """Hashing happens when bytes are used; a look-up stays a look-up."""
    store = Store(own_store, lambda _: None)
    made = record(store, b"y" * 4096)
    store.publish(made)
    harm(store.object_path(made.artifact.files[0].sha256), "flip")
    assert store.find("frames", KEY) is not None
    harm(store.object_path(made.artifact.files[0].sha256), "cut")
    assert store.find("frames", KEY) is None


def test_every_byte_of_a_record_is_covered_by_its_checksum(own_store):
    said: list[str] = []
    store = Store(own_store, said.append)
    made = record(store, b"payload")
    store.publish(made)
    path = store.record_path("frames", KEY)
    good = path.read_bytes()
    for position in range(0, len(good), max(1, len(good) // 60)):
        bad = bytearray(good)
        bad[position] ^= 1
        os.chmod(path, 0o644)
        path.write_bytes(bad)
        assert store.find("frames", KEY) is None, f"byte {position}"
        assert not path.exists()
        path.write_bytes(good)
        assert store.find("frames", KEY) is not None
    path.write_bytes(good[:-20])
    assert store.find("frames", KEY) is None


def test_a_write_through_a_hard_link_is_seen(own_store, tmp_path):
    store = Store(own_store, lambda _: None)
    file = store.put("a", b"0123456789")
    out = store.link_out(file, tmp_path / "out" / "a.safetensors")
    assert os.stat(out).st_ino == os.stat(store.object_path(file.sha256)).st_ino
    os.chmod(out, 0o644)
    out.write_bytes(b"0123456780")
    with pytest.raises(DamagedError):
        store.read(file)


def test_what_people_open_is_a_copy(own_store, tmp_path):
    store = Store(own_store)
    file = store.put("result.mp4", b"0123456789")
    out = store.copy_out(file, tmp_path / "result.mp4")
    out.write_bytes(b"mine now")
    assert store.read(file) == b"0123456789"


def test_damage_is_not_handed_out(own_store, tmp_path):
    store = Store(own_store, lambda _: None)
    file = store.put("result.mp4", b"0123456789")
    harm(store.object_path(file.sha256), "flip")
    with pytest.raises(DamagedError):
        store.copy_out(file, tmp_path / "result.mp4")
    assert list(tmp_path.glob("**/result*")) == []


def test_a_large_file_moves_in_and_is_hashed_on_the_way(own_store):
    store = Store(own_store)
    data = os.urandom(9 << 20)
    with store.scratch() as scratch:
        (scratch / "big").write_bytes(data)
        file = store.put_file("big", scratch / "big")
    assert store.put("again", data).sha256 == file.sha256
    assert store.put("again", data).md5 == file.md5
    assert not list((own_store / "tmp").glob("*"))


def test_sources_are_known_by_content_and_remembered(own_store, tmp_path):
    store = Store(own_store)
    clip = tmp_path / "clip.bin"
    clip.write_bytes(b"one")
    os.utime(clip, (time.time() - 60, time.time() - 60))
    first = store.source_digest(clip)
    renamed = clip.rename(tmp_path / "renamed.bin")
    assert store.source_digest(renamed) == first
    renamed.write_bytes(b"two")
    assert store.source_digest(renamed) != first
    with pytest.raises(MediaError, match="E400"):
        store.source_digest(tmp_path / "none.bin")


def test_a_source_edited_within_the_clocks_grain_is_seen(own_store, tmp_path):
    store = Store(own_store)
    clip = tmp_path / "clip.bin"
    seen = set()
    for value in range(50):
        clip.write_bytes(bytes([value]) * 100)
        seen.add(store.source_digest(clip))
    assert len(seen) == 50


def test_a_full_disk_is_told_and_leaves_nothing_half_written(own_store, tmp_path):
    """RLIMIT_FSIZE makes the kernel refuse the write as a full disk does."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=write_too_much, args=(own_store, queue))
    child.start()
    code, leftovers = queue.get(timeout=60)
    child.join()
    assert code == "E503"
    assert leftovers == []


def write_too_much(root: Path, queue) -> None:
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = Store(root)
    store.put("small", b"fits")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
    try:
        store.put("large", b"x" * (1 << 20))
        code = "none"
    except MachineError as error:
        code = error.code
    objects = [p for p in root.rglob("*") if p.is_file() and p.stat().st_size > 100]
    queue.put((code, [str(p) for p in objects]))


def test_eight_processes_on_one_key_compute_once(own_store):
    context = multiprocessing.get_context("spawn")
    log = own_store.parent / "computed"
    children = [context.Process(target=compute_slowly, args=(own_store, log)) for _ in range(8)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * 8
    assert log.read_text().count("computed") == 1


def compute_slowly(root: Path, log: Path) -> None:
    store = Store(root)
    with store.lock(KEY):
        if store.find("frames", KEY) is None:
            time.sleep(0.3)
            with open(log, "a") as file:
                file.write("computed\n")
            store.publish(record(store, b"result"))


def test_a_killed_holder_frees_the_lock(own_store):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=hold, args=(own_store, ready))
    holder.start()
    assert ready.wait(30)
    holder.kill()
    holder.join()
    with Store(own_store).lock(KEY):
        pass


def hold(root: Path, ready) -> None:
    with Store(root).lock(KEY):
        ready.set()
        time.sleep(600)


def test_records_are_plain_json_with_the_ingredients(own_store):
    store = Store(own_store)
    store.publish(record(store, b"x"))
    text = store.record_path("frames", KEY).read_text().splitlines()[0]
    assert json.loads(text)["recipe"]["params"] == {"a": 1}


def test_five_hundred_flips_and_cuts_are_all_seen(own_store):
    """Objects of every size, damaged at random; none is ever served."""
    rng = random.Random(0)
    store = Store(own_store, lambda _: None)
    served = 0
    for trial in range(500):
        data = rng.randbytes(rng.choice([1, 7, 100, 4096, 70_000]))
        file = store.put("x", data)
        path = store.object_path(file.sha256)
        raw = bytearray(data)
        if trial % 2 and len(raw) > 1:
            del raw[rng.randrange(len(raw)) :]
        else:
            raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        os.chmod(path, 0o644)
        path.write_bytes(raw)
        try:
            store.read(file)
            served += 1
        except DamagedError:
            assert store.read(store.put("x", data)) == data  # healed by making it again
    assert served == 0


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / ("n" * 250)  # the hidden name beside it must not be too long where this is not
    write_atomic(target, "before")
    with pytest.raises(KeyError), atomic_path(target, durable=True) as part:
        raise KeyError(part.write_text("half"))
    assert (target.read_text(), list(tmp_path.iterdir())) == ("before", [target])
    with atomic_path(target, durable=True) as part:
        part.write_text("after")
    assert (target.read_text(), list(tmp_path.iterdir())) == ("after", [target])
    with pytest.raises(MachineError, match="E502"):
        write_atomic(tmp_path / "nowhere" / "x", b"")


def test_a_disk_that_fails_while_damage_is_set_aside_says_so(tmp_path):
    store = Store(tmp_path / "store", lambda message: None)
    path = store.object_path(store.put("a", b"right").sha256)
    os.chmod(path, 0o644)
    path.write_bytes(b"wrong")
    with Disk(store.root, 1, "EIO"), pytest.raises(MachineError, match="E505"):
        store.put("a", b"right")
    file = store.put("a", b"right")
    assert store.read(file) == b"right"
