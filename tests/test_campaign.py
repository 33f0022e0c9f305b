"""The promise of the store, under fire: fifty kill -9, five hundred damaged files, eight processes on one key.

Nothing damaged is ever served, no lock stays, one key is computed once, and what is made again is what was there.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
from collections import Counter
from dataclasses import replace

import pytest
from helpers.fire import (
    CHUNKED,
    STAGES,
    Front,
    complete,
    complete_frames,
    crowd,
    digests,
    finished,
    lines,
    prefork,
    quiet,
    render,
    take,
    tiny,
    wait_for,
    ward_of,
)

from flows.upkeep.verify import verify_store
from retake.errors import DamagedError
from retake.formats import READERS
from retake.stage import Silent
from retake.synthetic import scenes
from retake.synthetic.world import World


@pytest.fixture(scope="module")
def forks():
    return prefork()


def test_fifty_kills_leave_a_store_that_goes_on_where_it_was(tmp_path, monkeypatch, forks):
    """Four stores, each killed twelve times in the order of the stages of one edit, and once in an edit that differs
    in one setting. Chunks that were committed are never made again."""
    rng = random.Random(7)
    spec, first = render(tmp_path, (64, 48), 41)
    world = World(scenes.scene("drift", width=64, height=48, frames=41))
    variants = [first, tiny(world, 20, "optical_flow.preset=fast")]
    kills: Counter[str] = Counter()
    for number in range(4):
        home = tmp_path / f"store{number}"
        monkeypatch.setenv("RETAKE_STORE", str(home))
        p = variants[number % 2]
        changed = replace(p, edit=p.edit.model_copy(update={"strength": 0.5}))
        targets = sorted([*STAGES, *rng.choices(STAGES, k=4)], key=STAGES.index)
        log = tmp_path / f"commits{number}"
        for asked, moments in [(p, targets), (changed, [rng.choice(STAGES[4:])])]:
            plain = complete(quiet(tmp_path / f"plain{number % 2}"), spec, asked)
            seconds = {o.stage: o.recorded_seconds for o in plain.outcomes}
            front = Front(home / "retake", spec, asked, log, seconds)
            for target in moments:
                died = front.kill_once(forks, target, rng)
                front.check()
                if died is not None:
                    kills[died] += 1
            resumed = complete(quiet(front.root), spec, asked, log)
            assert digests(resumed.made) == digests(plain.made)
            front.check()
        committed = Counter(line for line in lines(log) if line.startswith("commit"))
        assert set(committed.values()) == {1}, "a committed chunk was made again"
        assert len(committed) >= len(CHUNKED) * 3 + 2 * 3 - 13  # a kill may fall between a commit and its line here
    # An edit that was done before its killer came does not count, and of a stage of a few milliseconds it takes luck.
    for number in range(200):
        missed = [stage for stage in CHUNKED if stage not in kills]
        if kills.total() >= 50 and not missed:
            break
        home = tmp_path / f"more{number}"
        monkeypatch.setenv("RETAKE_STORE", str(home))
        front = Front(home / "retake", spec, first, tmp_path / "more", dict.fromkeys(STAGES, 0.02))
        if died := front.kill_once(forks, rng.choice(missed or STAGES[:7]), rng):
            kills[died] += 1
        front.check()
    assert kills.total() >= 50
    assert set(kills) >= set(CHUNKED), kills


@pytest.fixture(scope="module")
def ward(tmp_path_factory):
    return ward_of(tmp_path_factory.mktemp("ward"))


def test_damaged_objects_are_seen_by_whoever_reads_them_and_made_again(ward, tmp_path):
    """432 flips and cuts, 48 for every kind of artifact."""
    expected, seen = digests(ward.made), Counter[str]()
    for name, trial in itertools.product(STAGES, range(48)):
        artifact = ward.made[name]
        file = ward.rng.choice(artifact.files)
        store = ward.store()
        ward.hurt(store.object_path(file.sha256), cut=trial % 2 == 1)
        with pytest.raises(DamagedError):
            take(store, artifact, file, tmp_path, ward.rng)
        assert not (tmp_path / "copy").exists()
        assert not (tmp_path / "link").exists()
        assert not store.object_path(file.sha256).exists(), "damage was left where it was"
        assert len(ward.heard) == 1
        if name == "report" and trial % 4:
            store.put(file.name, ward.pristine[file.sha256])  # as the stage would, which takes a while
        assert ward.compute(store, name).digest == expected[name]
        assert store.read(file) == ward.pristine[file.sha256]
        seen[artifact.kind] += 1
    not_needed = {"depth", "editedtracks", "latents", "inversion", "motionchannels"}  # by this edit
    kinds = {*READERS, "metrics", "report"} - not_needed
    assert seen == dict.fromkeys(kinds, 48)
    assert list((ward.root / "quarantine").glob("*.reason"))


def test_a_whole_edit_over_damage_gives_what_it_gave_before(ward, tmp_path):
    """32 whole edits: every kind, flipped and cut. In half of them what comes after the damaged artifact must run
    again, so that the damaged bytes are read by a stage; in the others only handing out meets them."""
    expected = digests(ward.made)
    for name, cut, rerun in itertools.product(STAGES, (False, True), (False, True)):
        file = ward.rng.choice(ward.made[name].files)
        ward.hurt(ward.store().object_path(file.sha256), cut)
        if rerun:
            for later in STAGES[STAGES.index(name) + 1 :]:
                ward.record(later).unlink()
        assert ward.heal(tmp_path) == expected
        assert ward.heard, f"nobody noticed: {name}"
        assert ward.store().read(file) == ward.pristine[file.sha256]


def test_verify_names_what_a_cached_run_does_not_read(ward, tmp_path, monkeypatch, capsys):
    """8 flips of one bit, one in each kind: a cached edit is right not to read them; `retake verify` does."""
    monkeypatch.setenv("RETAKE_STORE", str(ward.root.parent))
    hurt = [ward.rng.choice(artifact.files).sha256 for artifact in ward.made.values()]
    for sha in hurt:
        ward.hurt(ward.store().object_path(sha), cut=False)
    assert {o.status for o in complete(ward.store(), ward.spec, ward.p).outcomes} == {"cached"}
    assert sorted(entry["object"] for entry in verify_store()["damaged"]) == sorted(hurt)
    assert capsys.readouterr().err.count("set aside") == len(hurt)
    assert ward.heal(tmp_path) == digests(ward.made)


def test_damaged_records_are_no_records(ward, tmp_path):
    """40 flips and cuts of records: the stage runs again, and everything after it is still there."""
    expected = digests(ward.made)
    for trial in range(40):
        name = STAGES[trial % len(STAGES)]
        store = ward.store()
        ward.hurt(ward.record(name), cut=trial % 3 == 0)
        run = complete(store, ward.spec, ward.p)
        assert digests(run.made) == expected
        assert [o.stage for o in run.outcomes if o.status == "ran"] == [name]
        assert len(ward.heard) == 1


class Interrupt(Silent):
    """Ctrl-C after the first committed chunk."""

    def progress(self, stage: str, done: int, total: int) -> None:
        raise KeyboardInterrupt


def test_damage_to_the_chunks_of_an_interrupted_stage_does_no_harm(ward, tmp_path):
    """36 flips and cuts: of the list of chunks, of a chunk, of the state to go on from."""
    expected = digests(ward.made)
    for trial in range(36):
        name = CHUNKED[trial % len(CHUNKED)]
        store = ward.store()
        ward.record(name).unlink()
        with pytest.raises(KeyboardInterrupt):
            ward.compute(store, name, Interrupt())
        key = ward.record(name).name
        partial = json.loads(store.partial_path(key).read_text().splitlines()[0])
        assert sum(file["name"][:5].isdigit() for file in partial["files"]) == 1  # beside masks stands their state
        wounds = [store.partial_path(key), *(store.object_path(file["sha256"]) for file in partial["files"])]
        wounds += [store.object_path(state["sha256"]) for state in partial["states"]]
        ward.hurt(wounds[trial // len(CHUNKED) % len(wounds)], cut=ward.rng.random() < 0.5)
        assert ward.heal(tmp_path) == expected
        assert ward.heard, f"nobody noticed: {name}"


def test_eight_processes_on_one_key_compute_it_once(own_store, tmp_path, forks):
    log = tmp_path / "log"
    outcomes = finished(crowd(forks, own_store, log, 8), log)
    assert Counter(status for status, _ in outcomes) == {"ran": 1, "cached": 7}
    assert len({digest for _, digest in outcomes}) == 1
    assert len({line.split()[1] for line in lines(log) if line.startswith("computing")}) == 1
    assert sum(line.startswith("waiting") for line in lines(log)) == 7


def test_when_the_one_that_computes_is_killed_a_waiter_goes_on(own_store, tmp_path, forks):
    log = tmp_path / "log"
    children = crowd(forks, own_store, log, 8)
    computing = lambda: [line for line in lines(log) if line.startswith("computing")]  # noqa: E731
    assert wait_for(lambda: bool(computing()), 30)
    victim = int(computing()[0].split()[1])
    os.kill(victim, signal.SIGKILL)
    dead = next(child for child in children if child.pid == victim)
    dead.join(10)
    assert dead.exitcode == -signal.SIGKILL
    outcomes = finished([child for child in children if child is not dead], log)
    assert Counter(status for status, _ in outcomes) == {"ran": 1, "cached": 6}
    assert len({digest for _, digest in outcomes}) == 1
    commits = Counter(line for line in lines(log) if line.startswith("commit"))
    assert len(commits) == 3
    assert set(commits.values()) == {1}, "the killed one's chunk was made again"
    shutil.rmtree(own_store)
    alone = complete_frames(own_store)
    assert {digest for _, digest in outcomes} == {alone}
