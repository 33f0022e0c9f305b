"""Results on a DVC remote: a second store computes nothing, and a remote that is damaged is never believed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from helpers.command import reference, sprite_clip

from flows.editing import edit
from flows.runners import Local
from retake import dvc
from retake.artifact import KINDS, File
from retake.errors import ConfigError
from retake.recipe import Recipe
from retake.store import Record, Store
from retake.store.remote import Remote


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A DVC repository with a folder for a remote."""
    from dvc.repo import Repo

    folder = tmp_path / "checkout"
    folder.mkdir()
    Repo.init(str(folder), no_scm=True)
    (folder / ".dvc" / "config").write_text(
        f"[core]\n    no_scm = true\n    remote = shared\n['remote \"shared\"']\n    url = {tmp_path / 'shared'}\n"
    )
    return folder


@pytest.fixture
def remote(checkout) -> Remote:
    return dvc.remote(checkout)


def edited(store: Store, folder: Path, *more: str) -> dict[str, str]:
    """Status by stage of a small edit."""
    clip, cat = folder / "clip.mp4", folder / "cat.png"
    if not clip.exists():
        sprite_clip(clip, frames=4)
        reference(cat)
    settings = ["masks.box=[20,20,80,80]", f"edit.reference={cat}", "report.tile=64", *more]
    done = edit.edit(str(clip), settings, runner=Local(store), folder=folder / "out")
    return {outcome.stage: outcome.status for outcome in done.outcomes}


def test_a_second_store_computes_nothing_after_a_pull(remote, tmp_path):
    one, other = Store(tmp_path / "one"), Store(tmp_path / "other", lambda message: None)
    edited(one, tmp_path)
    sent = remote.push(one)
    assert sent.records == len(list(one.records())) == 9
    files = {file.sha256: file.size for record in one.records() for file in record.artifact.files}
    assert (sent.objects, sent.bytes) == (len(files), sum(files.values()))
    assert remote.push(one).as_json() == {"records": 0, "objects": 0, "bytes": 0, "broken": 0}
    assert remote.pull(other).as_json() == sent.as_json()
    assert set(edited(other, tmp_path).values()) == {"cached"}
    assert remote.pull(other).records == 0
    assert not any((other.root / "tmp").iterdir())

    # What one adds, the other gets, and only that.
    assert list(edited(other, tmp_path, "edit.strength=0.5").values()).count("ran") == 4
    assert remote.push(other).records == 4
    assert remote.pull(one).records == 4
    assert set(edited(one, tmp_path, "edit.strength=0.5").values()) == {"cached"}


def test_files_of_one_content_are_fetched_once(remote, tmp_path):
    """Two downloads of one object would take each other's file away."""
    one, other = Store(tmp_path / "one"), Store(tmp_path / "other")
    recipe = Recipe("frames", 1, params={})
    files = tuple(one.put(f"{n:05d}.safetensors", b"the same") for n in range(4))
    one.publish(Record(recipe.key, recipe.ingredients(), KINDS["frames"](files, {}), 1.0, {}))
    assert remote.push(one).objects == 1
    assert remote.pull(other).as_json() == {"records": 1, "objects": 1, "bytes": len(b"the same"), "broken": 0}
    record = other.find("frames", recipe.key)
    assert record is not None
    assert [other.read(file) for file in record.artifact.files] == [b"the same"] * 4


def test_a_damaged_remote_costs_a_recomputation_and_nothing_else(remote, tmp_path):
    one, other = Store(tmp_path / "one"), Store(tmp_path / "other", lambda message: None)
    edited(one, tmp_path)
    remote.push(one)
    frames = next(record for record in one.records("frames"))
    masks = next(record for record in one.records("masks"))
    flow = next(record for record in one.records("optical_flow"))
    shared = tmp_path / "shared" / "retake"
    sha = frames.artifact.files[0].sha256
    flip(shared / "objects" / sha[:2] / sha)
    sha = flow.artifact.files[0].sha256
    (shared / "objects" / sha[:2] / sha).unlink()
    flip(shared / "records" / "masks" / masks.key)
    pulled = remote.pull(other)
    assert (pulled.records, pulled.broken) == (6, 3)
    result = edited(other, tmp_path)
    assert [stage for stage, status in result.items() if status == "ran"] == ["frames", "optical_flow", "masks"]
    digests = [{r.key: r.artifact.digest for r in store.records()} for store in (one, other)]
    assert digests[0] == digests[1]


def test_damage_here_is_not_sent_and_holds_nothing_else_up(remote, tmp_path):
    one = Store(tmp_path / "one", lambda message: None)
    edited(one, tmp_path)
    masks = next(record for record in one.records("masks"))
    flip(one.object_path(masks.artifact.files[0].sha256))
    sent = remote.push(one)
    assert (sent.records, sent.broken) == (8, 1)
    assert not (tmp_path / "shared" / "retake" / "records" / "masks").exists()


@pytest.mark.parametrize("what", ["stage", "digest", "key"])
def test_a_record_that_would_write_elsewhere_is_left_there(remote, tmp_path, what):
    other = Store(tmp_path / "deep" / "other", lambda message: None)
    one = Store(tmp_path / "one")
    recipe = {"stage": "../../../loot" if what == "stage" else "frames", "inputs": {}, "params": {}}
    good = one.put("a.bin", b"bytes")
    file = File("a.bin", "../../../../loot", good.md5, good.size) if what == "digest" else good
    key = "../../loot" if what == "key" else "a" * 64
    body = Record(key, recipe, KINDS["frames"]((file,), {}), 1.0, {}).as_json()
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    there = tmp_path / "shared" / "retake" / "records" / "frames"
    there.mkdir(parents=True)
    (there / ("a" * 64)).write_text(f"{text}\n{hashlib.sha256(text.encode()).hexdigest()}\n")
    pulled = remote.pull(other)
    assert (pulled.records, pulled.broken) == (0, 1)
    assert not list(tmp_path.rglob("loot*"))
    assert list(other.records()) == []


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def test_an_unknown_remote_is_said(checkout):
    with pytest.raises(ConfigError, match="E217"):
        dvc.remote(checkout, "nowhere")
    (checkout / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    with pytest.raises(ConfigError, match="dvc remote add"):
        dvc.remote(checkout)
