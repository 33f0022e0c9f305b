"""What the store costs: publishing a small artifact, looking it up, and hashing what is stored.

Peers, in the same run and on the same disk: for publishing, the same two writes (object and record) each made durable
by fsync of file and folder, and the same writes left to the system; for a look-up, reading and parsing the same JSON
file; for verifying, sha256 over the same bytes in memory and reading them without hashing. The store holds a thousand,
then ten thousand records of the stage while this is measured.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows.planning.why import nearest_record
from retake.artifact import File, Metrics
from retake.recipe import Recipe
from retake.store import Record, Store

RECORDS = 1_000, 10_000
REPEATS = 200
SMALL = 4096  # bytes
LARGE = 64 << 20  # bytes, about one chunk of frames of 1440x1000
ROUNDS = 5
SMOKE = {"sizes": (3,), "repeats": 21, "large": 1 << 20}  # one look-up in twenty also asks why: two of them


def run(sizes: tuple[int, ...] = RECORDS, repeats: int = REPEATS, large: int = LARGE) -> list[dict[str, Any]]:
    """Rows of tables: latencies for each number of records, and throughputs."""
    rows = []
    for records in sizes:
        with tempfile.TemporaryDirectory(prefix="retake-bench-") as folder:
            root = Path(folder)
            store = Store(root / "store")
            for n in range(records):
                publish(store, n)
            rows += latencies(root, store, records, repeats)
            speeds = throughputs(root, store, large)
    return [*rows, *speeds]


def latencies(root: Path, store: Store, records: int, repeats: int) -> list[dict[str, Any]]:
    """Store and peers in turn, so that both meet the same disk."""
    record_text = json.dumps(record_of(store.put("seed", b"seed"), 0).as_json()).encode()
    known = [recipe(n).key for n in range(records)]
    for n in range(records):
        (root / f"peer-{n}.json").write_bytes(record_text)
    taken: dict[str, list[float]] = {}

    def clocked(name: str, work: Callable[[], object]) -> None:
        begun = time.perf_counter()
        work()
        taken.setdefault(name, []).append(1000 * (time.perf_counter() - begun))

    for n in range(repeats):
        fresh = records + n
        data = content(fresh)
        target = root / "peer" / str(n)
        target.mkdir(parents=True)
        clocked("publish", lambda fresh=fresh: publish(store, fresh))
        clocked(
            "durable",
            lambda to=target, data=data: [write(to / "a", data, True), write(to / "b", record_text, True)],
        )
        clocked(
            "left",
            lambda to=target, data=data: [write(to / "c", data, False), write(to / "d", record_text, False)],
        )
        clocked("find", lambda n=n: store.find("metrics", known[n % records]))
        clocked("parse", lambda n=n: json.loads((root / f"peer-{n % records}.json").read_bytes()))
        if n % 20 == 0:
            clocked("why", lambda fresh=fresh: nearest_record(store, recipe(fresh + repeats)))
    names = {
        "publish": ("publish 4 KiB: object and record", "publish"),
        "durable": ("  peer: two files, fsync of file and folder", "publish"),
        "left": ("  peer: two files, no fsync", "publish"),
        "find": ("look-up, hit", "find"),
        "parse": ("  peer: read and parse a JSON file of that size", "find"),
        "why": ("nearest earlier result, for `why`", "why"),
    }
    rows = []
    for name, (text, base) in names.items():
        ours = statistics.median(taken[base])
        middle = statistics.median(taken[name])
        rows.append(
            {
                "table": f"Latency, {repeats} calls in turn, {records} records in the store",
                "": text,
                "median, ms": middle,
                "95th percentile, ms": statistics.quantiles(taken[name], n=20)[-1],
                "ours to this": ours / middle if name != base else None,
            }
        )
    return rows


def throughputs(root: Path, store: Store, large: int) -> list[dict[str, Any]]:
    """Median of rounds over one large object, warm in the file cache."""
    data = os.urandom(large)
    taken: dict[str, list[float]] = {}

    def clocked(name: str, work: Callable[[], object]) -> None:
        begun = time.perf_counter()
        work()
        taken.setdefault(name, []).append(large / 1e6 / (time.perf_counter() - begun))

    file = store.put("large", data)
    path = store.object_path(file.sha256)
    for n in range(ROUNDS):
        other = n.to_bytes(8, "little") + data[8:]
        clocked("put", lambda other=other: store.put("other", other))
        clocked("written", lambda n=n, other=other: write(root / f"large-{n}", other, True))
        clocked("verify", lambda: store.verify(file))
        clocked("read", lambda: store.read(file))
        clocked("sha256", lambda: hashlib.sha256(data).digest())
        clocked("plain", path.read_bytes)
    names = {
        "put": "put (sha256, md5, write, fsync)",
        "written": "  peer: write, fsync",
        "verify": "verify",
        "read": "read (verified)",
        "sha256": "  peer: sha256 in memory",
        "plain": "  peer: read without hashing",
    }
    title = f"Throughput, one object of {large >> 20} MiB, median of {ROUNDS}"
    return [{"table": title, "": text, "MB/s": statistics.median(taken[name])} for name, text in names.items()]


def publish(store: Store, n: int) -> None:
    """What a stage with one small file does last."""
    store.publish(record_of(store.put("metrics.json", content(n)), n))


def content(n: int) -> bytes:
    """SMALL bytes, other ones for every n."""
    return hashlib.shake_128(n.to_bytes(8, "little")).digest(SMALL)


def recipe(n: int) -> Recipe:
    return Recipe("metrics", 1, params={"n": n}, inputs={"frames": "0" * 64, "result": "1" * 64})


def record_of(file: File, n: int) -> Record:
    of = recipe(n)
    return Record(of.key, of.ingredients(), Metrics((file,), {"format": 1}), 1.0, {"device": "cpu"})


def write(path: Path, data: bytes, durable: bool) -> None:
    """Write by rename, as the store does."""
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as sink:
        sink.write(data)
        if durable:
            sink.flush()
            os.fsync(sink.fileno())
    os.replace(part, path)
    if durable:
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
