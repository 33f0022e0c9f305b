"""Faults of the disk under the store, at the steps of its own writing: what it is, and what it promised, stays true."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from functools import partial

import pytest
from helpers.command import CHECKOUT
from helpers.forked import Forked

from benchmarks.faults.disk import HOWS, POWER, Disk
from retake.errors import IntegrityError
from retake.stage import Sources
from retake.store import Store

WORKS = ("publish", "hand-out", "push", "pull", "gc")


def test_a_fault_at_a_step_harms_nothing():
    """A fifth of the steps of publish, hand-out, push, pull and gc, each way of failing others; all of them, twenty
    times: `python -m benchmarks faults.failpoints`. In a process of its own, since every trial is a fork of it."""
    script = "import json; from benchmarks.faults import failpoints; print(json.dumps(failpoints.run(1, 5)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout)
    assert {(row["work"], row["fault"]) for row in rows} == set(itertools.product(WORKS, HOWS))
    assert sum(row["met"] for row in rows) > 150  # a step that is only a courtesy may fail unnoticed
    for row in rows:
        assert {row[name] for name in ("bad", "lost", "stuck", "unexplained", "litter")} == {0}, row


def written(root, aside, synced, seed):
    """A file under its last name, and a folder, when the power goes."""
    with Disk(root, 6 if synced else 4, "power", seed, aside):
        with open(root / "a", "wb") as f:
            f.write(b"0123456789")
            if synced:
                os.fsync(f.fileno())
        os.replace(root / "a", root / "b")
        if synced:
            os.fsync(os.open(root, os.O_RDONLY))
        os.mkdir(root / "c")


def test_the_disk_takes_away_what_was_not_synced(tmp_path):
    """The layer itself: without a sync the bytes, or the name, can be gone; with both they never are."""
    for synced in (False, True):
        lost = 0
        for seed in range(12):
            root, aside = tmp_path / f"{synced}{seed}" / "root", tmp_path / f"{synced}{seed}" / "aside"
            root.mkdir(parents=True)
            aside.mkdir()
            assert Forked(partial(written, root, aside, synced, seed)).wait() == POWER
            target = root / "b"
            lost += not (target.exists() and target.read_bytes() == b"0123456789")
        assert lost == 0 if synced else lost > 3


def test_steps_are_counted_and_nothing_stays_wrapped(tmp_path):
    plain = os.replace, open
    with Disk(tmp_path) as disk:
        (tmp_path / "a").write_bytes(b"1")
        os.replace(tmp_path / "a", tmp_path / "b")
        (tmp_path / "b").read_bytes()
    assert disk.steps == ["open a", "write a", "replace b"]
    assert (os.replace, open) == plain


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_link_that_is_turned_to_another_source_meanwhile_is_seen(kind, own_store, tmp_path):
    """What a stage reads by name is looked at again before anything is published under the old content."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(name.encode())
    at = "0.png" if kind == "file" else ""
    link = tmp_path / "clip"
    link.symlink_to(tmp_path / "one" / at)
    sources = Sources(Store(own_store), [str(link)])
    sources()  # nothing has changed yet
    link.unlink()
    link.symlink_to(tmp_path / "two" / at)
    with pytest.raises(IntegrityError, match="E601"):
        sources()
