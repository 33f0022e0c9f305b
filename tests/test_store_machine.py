"""The store against a dictionary: any sequence of puts, reads, crashes, damage, gc, pushes and pulls, chosen by
Hypothesis, which shrinks what goes wrong to the shortest story.

The dictionary remembers what was promised. A result may be gone (damage, gc); one that is there is the very bytes that
were put, and nothing that was promised is gone without a reason.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import threading
from hashlib import sha256
from pathlib import Path

from dvc.fs import LocalFileSystem
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from benchmarks.faults.disk import Disk
from retake.artifact import Frames
from retake.errors import DamagedError, MachineError
from retake.recipe import Recipe
from retake.store import Record, Store, garbage
from retake.store.remote import Remote

KEYS = st.integers(0, 4)
SEEDS = st.integers(0, 2**32 - 1)
CONTENTS = st.lists(
    st.sampled_from([b"", b"a", b"shared", b"x" * 5000, bytes(range(256)) * 40]), min_size=1, max_size=3
)


def recipe(number: int, version: int) -> Recipe:
    return Recipe("frames", 1, params={"number": number, "version": version})


class Crash(BaseException):
    """The process dies here: what it would still have tidied up, it does not."""


class Dying(Disk):
    """At the chosen step, and ever after, nothing reaches the disk any more."""

    def step(self, what: str, path: str, half=lambda: None) -> None:
        self.steps.append(what)
        if len(self.steps) >= self.at:
            if len(self.steps) == self.at and self.luck.random() < 0.5:
                half()
            raise Crash


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.home = Path(
            tempfile.mkdtemp(prefix="retake-machine-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        )
        self.remote = Remote(LocalFileSystem(), str(self.home / "remote"))
        self.version: dict[int, int] = {}  # of a key: raised when it is put with other contents
        self.right: dict[str, list[bytes]] = {}  # by key: what a result must be, whenever it is there
        self.promised: set[str] = set()  # keys that must be there
        self.sent: set[str] = set()  # keys that must be on the remote
        self.hurt: set[str] = set()  # names of files that were damaged here,
        self.spoilt: set[str] = set()  # and there

    def teardown(self) -> None:
        for key in self.right:
            self.look(key)
        shutil.rmtree(self.home, ignore_errors=True)

    @property
    def store(self) -> Store:
        return Store(self.home / "store", lambda _: None)  # a new process each time

    def put_into(self, store: Store, number: int, contents: list[bytes]) -> str:
        of = recipe(number, self.version[number])
        files = tuple(store.put(f"{n:05d}.safetensors", data) for n, data in enumerate(contents))
        store.publish(Record(of.key, of.ingredients(), Frames(files, {}), 1.0, {}))
        return of.key

    def planned(self, number: int, contents: list[bytes]) -> str:
        """The key under which contents will lie: another one than before, where they are others."""
        self.version.setdefault(number, 0)
        while self.right.setdefault(recipe(number, self.version[number]).key, contents) != contents:
            self.version[number] += 1
        return recipe(number, self.version[number]).key

    def read(self, key: str) -> list[bytes] | None:
        store = self.store
        record = store.find("frames", key)
        return None if record is None else [store.read(file) for file in record.artifact.files]

    # ---- what may happen -----------------------------------------------------------------------------------------

    @rule(number=KEYS, contents=CONTENTS)
    def put(self, number: int, contents: list[bytes]) -> None:
        key = self.planned(number, contents)
        assert self.put_into(self.store, number, contents) == key
        self.promised.add(key)

    @rule(number=KEYS, contents=CONTENTS, at=st.integers(1, 40), seed=SEEDS)
    def put_and_die(self, number: int, contents: list[bytes], at: int, seed: int) -> None:
        key = self.planned(number, contents)
        try:
            with Dying(self.home / "store", at, seed=seed):
                self.put_into(self.store, number, contents)
            self.promised.add(key)
        except Crash:
            pass

    @rule(number=KEYS, contents=CONTENTS, at=st.integers(1, 40), how=st.sampled_from(["EIO", "ENOSPC", "short"]))
    def put_on_a_failing_disk(self, number: int, contents: list[bytes], at: int, how: str) -> None:
        key = self.planned(number, contents)
        try:
            with Disk(self.home / "store", at, how):
                self.put_into(self.store, number, contents)
            self.promised.add(key)
        except MachineError:  # E503 or E505; nothing else is let through
            pass

    @rule(number=KEYS, contents=CONTENTS, many=st.integers(2, 4))
    def put_by_several_at_once(self, number: int, contents: list[bytes], many: int) -> None:
        key = self.planned(number, contents)
        threads = [threading.Thread(target=self.put_into, args=(self.store, number, contents)) for _ in range(many)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.promised.add(key)

    @precondition(lambda self: self.right)
    @rule(seed=SEEDS)
    def get(self, seed: int) -> None:
        """Of what is not promised any more, too: the right bytes, or none. Damage is only met by who reads it."""
        self.look(random.Random(seed).choice(sorted(self.right)))

    def look(self, key: str) -> None:
        try:
            found = self.read(key)
        except DamagedError:
            assert key not in self.promised
        else:
            assert found == self.right[key] or (found is None and key not in self.promised)

    @rule(seed=SEEDS, where=st.sampled_from(["store/objects", "store/records", "remote/objects", "remote/records"]))
    def damage(self, seed: int, where: str) -> None:
        """A flip or a cut of any file; whatever stood on it is not promised any more."""
        rng = random.Random(seed)
        files = sorted(path for path in (self.home / where).rglob("*") if path.is_file() and path.stat().st_size)
        if not files:
            return
        path = rng.choice(files)
        raw = bytearray(path.read_bytes())
        if rng.random() < 0.5:
            raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        else:
            del raw[rng.randrange(len(raw)) :]
        os.chmod(path, 0o644)
        path.write_bytes(raw)
        if where.startswith("store"):
            self.hurt.add(path.name)
            self.promised = {key for key in self.promised if path.name not in self.names(key)}
        else:  # a push looks at names and sizes there, and does not read
            self.spoilt.add(path.name)
            self.sent = {key for key in self.sent if path.name not in self.names(key)}

    def names(self, key: str) -> set[str]:
        """What a result stands on: its record's name and its objects'."""
        return {key, *(sha256(data).hexdigest() for data in self.right[key])}

    @rule(budget=st.sampled_from([0, 6000, 10**9]), pinned=KEYS, old=st.booleans())
    def collect(self, budget: int, pinned: int, old: bool) -> None:
        """gc, also after the clock has jumped: pinned results stay whatever the budget, and no budget is no loss."""
        if old:
            for path in (self.home / "store").rglob("*"):
                os.utime(path, (1e9, 1e9))
        keep = {recipe(pinned, version).key for version in range(self.version.get(pinned, -1) + 1)}
        garbage.collect(self.store, budget, lambda record: record.key in keep)
        if budget < 10**9:
            self.promised &= keep

    @rule(years=st.sampled_from([-20, 20]))
    def clock_jumps(self, years: int) -> None:
        for path in (self.home / "store").rglob("*"):
            os.utime(path, (1.6e9 + years * 3e7,) * 2)

    @rule()
    def push(self) -> None:
        self.remote.push(self.store)
        listed = self.remote.list_files("records")
        assert {f"frames/{key}" for key in self.promised} <= listed
        self.sent |= {key for key in self.promised if not self.names(key) & self.spoilt}

    @rule()
    def pull(self) -> None:
        lacking = {key for key in self.sent if not self.store.record_path("frames", key).exists()}
        self.remote.pull(self.store)
        for key in lacking:
            try:
                assert self.read(key) == self.right[key]
                self.promised.add(key)
            except DamagedError:  # an object that was here, and that nobody had read since it was hurt
                assert self.names(key) & self.hurt

    # ---- what always holds ---------------------------------------------------------------------------------------

    @invariant()
    def what_is_promised_is_there(self) -> None:
        for key in self.promised:
            assert self.read(key) == self.right[key]

    @invariant()
    def no_lock_is_held(self) -> None:
        with self.store.lock("0" * 64, wait=False) as free:
            assert free


TestStore = StoreMachine.TestCase
TestStore.settings = settings(
    max_examples=50,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
