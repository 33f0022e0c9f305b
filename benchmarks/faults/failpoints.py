"""A fault at every step of what the store writes: it is killed there, the disk fails or is full there, a write falls
short there, the power fails there.

Five works: *publish* (two chunks with a state, a file that is moved in, the record), *hand-out* (a copy, a link, the
memo of a source), *push* and *pull* (a folder as remote), *gc*. Each is done once to count its steps (disk.py); then
once for each step, way of failing and seed, in a process of its own. Afterwards:

- *bad*: an object, record or list of chunks under its final name that is not what it should be, or a handed-out file
  that is not whole;
- *lost*: something that the store had said is kept, and is not there;
- *stuck*: the same work, done again, does not come to the right end (a lock that stays, a file in the way);
- *unexplained*: an error that is not one of ours, with a code;
- *litter*: an unfinished file that is left although the process could have removed it (not after a kill or power).
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.faults.disk import HOWS, POWER, Disk
from retake.artifact import File, Frames
from retake.errors import RetakeError
from retake.recipe import Recipe
from retake.store import Record, Store, garbage
from retake.store.remote import Remote

SEEDS = 20
EXPLAINED, UNEXPLAINED = 3, 4  # exit statuses of a child that met an error
Tell = Callable[[str], None]
SMOKE = {"seeds": 1, "every": 60, "hows": HOWS[:1]}


def run(seeds: int = SEEDS, every: int = 1, hows: Sequence[str] = HOWS) -> list[dict[str, Any]]:
    """A row for each work and way of failing. every: 4 takes a quarter of the steps, each way of failing others."""
    rows = []
    for work in WORKS:
        steps = count(work)
        for n, how in enumerate(hows):
            found = Counter[str]()
            for seed in range(seeds):
                for at in range(1 + n % every, steps + 1, every):
                    found.update(trial(work, at, how, seed))
            print(f"failpoints: {work.name} {how} {dict(found)}", file=sys.stderr, flush=True)
            rows.append(
                {
                    "table": f"A fault at every step of what the store writes, {seeds} times each",
                    "work": work.name,
                    "steps": steps,
                    "fault": how,
                    "met": found["met"],
                    **{name: found[name] for name in ("bad", "lost", "stuck", "unexplained", "litter")},
                }
            )
    return rows


# ---- what is done --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """prepare: what is there before. do: under fire; tells what it was promised. right: whether, done once more, all is
    as it should be."""

    name: str
    prepare: Callable[[Path, int], None]
    do: Callable[[Path, int, Tell], None]
    right: Callable[[Path, int], bool]


def contents(seed: int) -> list[bytes]:
    """Two chunks, their states, and a file."""
    rng = random.Random(seed)
    return [rng.randbytes(rng.choice([1, 60, 4096, 30_000])) + bytes([n]) for n in range(5)]


def recipe(seed: int) -> Recipe:
    return Recipe("frames", 1, params={"seed": seed}, inputs={"clip": "0" * 64})


def quiet(root: Path) -> Store:
    return Store(root / "store", lambda _: None)


def publish(root: Path, seed: int, tell: Tell) -> None:
    """As a stage does that commits chunk by chunk and goes on from what there is."""
    store, key = quiet(root), recipe(seed).key
    *pieces, last = contents(seed)
    with store.lock(key):
        if store.find("frames", key) is not None:
            return
        partial = store.load_partial(key) or {"files": [], "states": []}
        files = [File(**file) for file in partial["files"]]
        for n in range(len(files), 2):
            state = store.put("state", pieces[2 + n])
            files.append(store.put(f"{n:05d}.safetensors", pieces[n]))
            store.save_partial(key, files, [state])
            tell(f"chunk {n}")
        with store.scratch() as scratch:
            with open(scratch / "view", "wb") as sink:
                sink.write(last)
            files.append(store.put_file("view.mp4", scratch / "view"))
        store.publish(Record(key, recipe(seed).ingredients(), Frames(tuple(files), {}), 1.0, {}))
        tell("record")


def published(root: Path, seed: int) -> bool:
    store, (one, two, _, _, last) = quiet(root), contents(seed)
    record = store.find("frames", recipe(seed).key)
    return record is not None and [store.read(file) for file in record.artifact.files] == [one, two, last]


def already(root: Path, seed: int) -> None:
    publish(root, seed, print_nothing)


def hand_out(root: Path, seed: int, tell: Tell) -> None:
    store = quiet(root)
    record = store.find("frames", recipe(seed).key)
    assert record is not None
    one, two, last = record.artifact.files
    store.copy_out(last, root / "out" / "result.mp4")
    tell("copy")
    store.link_out(one, root / "out" / "0.safetensors")
    store.link_out(two, root / "out" / "0.safetensors")
    store.source_digest(root / "clip")


def handed_out(root: Path, seed: int) -> bool:
    _, two, _, _, last = contents(seed)
    out = root / "out"
    return (out / "result.mp4").read_bytes() == last and (out / "0.safetensors").read_bytes() == two


def with_source(root: Path, seed: int) -> None:
    already(root, seed)
    (root / "clip").write_bytes(b"a clip")
    os.utime(root / "clip", (1e9, 1e9))


def folder(root: Path) -> Remote:
    from dvc.fs import LocalFileSystem

    return Remote(LocalFileSystem(), str(root / "remote"))


def push(root: Path, seed: int, tell: Tell) -> None:
    folder(root).push(quiet(root))
    tell("pushed")


def pushed(root: Path, seed: int) -> bool:
    shutil.rmtree(root / "store")
    return folder(root).pull(quiet(root)).broken == 0 and published(root, seed)


def elsewhere(root: Path, seed: int) -> None:
    already(root, seed)
    folder(root).push(quiet(root))
    shutil.rmtree(root / "store")


def pull(root: Path, seed: int, tell: Tell) -> None:
    if not folder(root).pull(quiet(root)).broken:
        tell("record")


def with_others(root: Path, seed: int) -> None:
    for n in range(3):
        publish(root, seed + 1000 * n, print_nothing)
    for path in (root / "store" / "objects").glob("*/*"):
        os.utime(path, (1e9, 1e9))
    old = root / "store" / "tmp" / "1-old"
    old.mkdir()
    (old / "half").write_bytes(b"half")
    os.utime(old, (1e9, 1e9))


def collect(root: Path, seed: int, tell: Tell) -> None:
    garbage.collect(quiet(root), 0)
    tell("collected")


def collected(root: Path, seed: int) -> bool:
    store = quiet(root)
    return not list(store.records()) and not list((store.root / "objects").glob("*/*"))


def print_nothing(_: str) -> None: ...


WORKS = (
    Work("publish", lambda root, seed: None, publish, published),
    Work("hand-out", with_source, hand_out, handed_out),
    Work("push", already, push, pushed),
    Work("pull", elsewhere, pull, published),
    Work("gc", with_others, collect, collected),
)


# ---- one trial -----------------------------------------------------------------------------------------------------


def trial(work: Work, at: int, how: str, seed: int) -> Counter[str]:
    """What went wrong, by kind, when one step of a work did; `met` where that step was reached."""
    with home() as (root, aside):
        work.prepare(root, seed)
        status, promises, _ = child(root, lambda tell: work.do(root, seed, tell), at, how, seed, aside)
        found = Counter(met=int(status != 0))
        found["unexplained"] += status == UNEXPLAINED
        found["bad"] += sum(1 for _ in bad(root, seed))
        found["lost"] += sum(not kept(work, root, seed, promise) for promise in promises)
        if status in (EXPLAINED, UNEXPLAINED):
            found["litter"] += sum(1 for _ in litter(root))
        again, _, _ = child(root, lambda tell: work.do(root, seed, tell))
        found["stuck"] += again != 0 or not work.right(root, seed)
        return +found


def count(work: Work) -> int:
    """Steps of a work that nothing disturbs."""
    with home() as (root, aside):
        work.prepare(root, 0)
        status, _, steps = child(root, lambda tell: work.do(root, 0, tell), aside=aside)
        assert status == 0
        return len(steps)


def child(
    root: Path,
    work: Callable[[Tell], None],
    at: int = 0,
    how: str = "",
    seed: int = 0,
    aside: Path | None = None,
) -> tuple[int, list[str], list[str]]:
    """(exit status, what it was promised, its steps) of a work in a process of its own; at most ten seconds."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(out)
        signal.alarm(10)
        status = UNEXPLAINED
        with suppress(BaseException):
            status = one(root, work, at, how, seed, aside, into)
        os._exit(status)
    os.close(into)
    with open(out) as pipe:
        lines = pipe.read().splitlines()
    _, ended = os.waitpid(pid, 0)
    steps = [line.removeprefix("step ") for line in lines if line.startswith("step ")]
    return os.waitstatus_to_exitcode(ended), [line for line in lines if not line.startswith("step ")], steps


def one(root: Path, work: Callable[[Tell], None], at: int, how: str, seed: int, aside: Path | None, into: int) -> int:
    def tell(line: str) -> None:
        os.write(into, f"{line}\n".encode())

    with Disk(root, at, how, seed, aside) as disk:
        try:
            work(tell)
            status = 0
        except RetakeError:
            status = EXPLAINED
        except OSError as error:
            tell(f"step unexplained {error!r} at {disk.steps[-1]}")
            status = UNEXPLAINED
    for step in disk.steps:
        tell(f"step {step}")
    return status


class home:
    """A fresh folder for a trial, and one beside it for what power brings back."""

    def __enter__(self) -> tuple[Path, Path]:
        self.folder = Path(tempfile.mkdtemp(prefix="retake-faults-", dir=SHM if SHM.is_dir() else None))
        for name in ("root", "aside"):
            (self.folder / name).mkdir()
        return self.folder / "root", self.folder / "aside"

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


SHM = Path("/dev/shm")


# ---- judging -------------------------------------------------------------------------------------------------------


def bad(root: Path, seed: int) -> Iterator[Path]:
    """Files under final names that are not what their name says. Looks at the bytes alone."""
    for path in (root / "store" / "objects").glob("*/*"):
        status = path.stat()
        if hashlib.sha256(path.read_bytes()).hexdigest() != path.name:
            yield path
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # gc spares what somebody has just read
    for path in [*(root / "store" / "records").glob("*/*"), *(root / "store" / "partial").glob("*")]:
        text, _, seal = path.read_bytes().rstrip(b"\n").partition(b"\n")
        if hashlib.sha256(text).hexdigest().encode() != seal:
            yield path
    right = {hashlib.sha256(data).digest() for data in contents(seed)}
    for path in (root / "out").glob("[!.]*"):
        if hashlib.sha256(path.read_bytes()).digest() not in right:
            yield path


def kept(work: Work, root: Path, seed: int, promise: str) -> bool:
    """Whether the store holds what it promised."""
    store, key = quiet(root), recipe(seed).key
    what, _, number = promise.partition(" ")
    if what == "chunk":
        partial = store.load_partial(key)
        return published(root, seed) or (partial is not None and len(partial["files"]) > int(number))
    return what != "record" or published(root, seed)


def litter(root: Path) -> Iterator[Path]:
    yield from (path for path in (root / "store" / "tmp").rglob("*") if path.is_file() and path.parent.name != "1-old")
    yield from (path for path in root.rglob("*.part"))


assert POWER not in (EXPLAINED, UNEXPLAINED)
