"""Garbage collection: least recently used results go first; results that are pinned or named by DVC stay.

A record goes before its objects, so that a kill in between leaves objects that nobody names, which the next time takes.
Chunks of a stage that is running, or was killed within the last week, stay, too; and so does any object younger than
GRACE, which a stage may be about to name. A run that misses something all the same makes it again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from retake.machine.disk import explain_write_errors
from retake.store import Record, Store

GRACE = 3600.0  # seconds
STALE = 7 * 24 * 3600.0  # of unfinished stages and of what was set aside


@dataclass
class Removal:
    """What was removed, or would be in a dry run. bytes: removed objects; kept: bytes of the objects that remain."""

    records: list[Record] = field(default_factory=list)
    objects: int = 0
    bytes: int = 0
    kept: int = 0
    pinned: int = 0
    """Bytes of pinned results, which no budget removes."""


def collect(
    store: Store, budget: int, pinned: Callable[[Record], bool] = lambda record: False, dry: bool = False
) -> Removal:
    """Remove the least recently used results until objects take at most `budget` bytes. Pinned results stay, with
    every object they share with others."""
    records = sorted(store.records(), key=lambda record: (store.last_used(record), record.key))
    if not dry:
        remove_leftovers(store, time.time())
    references = Counter(sha for record in records for sha in {file.sha256 for file in record.artifact.files})
    references.update(set(store.partial_objects()))
    sizes = dict(objects(store))
    total = sum(sizes.values())
    kept = {file.sha256 for record in records if pinned(record) for file in record.artifact.files}
    done = Removal(pinned=sum(sizes.get(sha, 0) for sha in kept))
    now = time.time()
    gone = [sha for sha in sizes if sha not in references and not is_recent(store.object_path(sha), now)]
    left = total - sum(sizes[sha] for sha in gone)
    for record in records:
        if left <= budget:
            break
        if pinned(record):
            continue
        done.records.append(record)
        for sha in {file.sha256 for file in record.artifact.files}:
            references[sha] -= 1
            if not references[sha] and sha in sizes:
                gone.append(sha)
                left -= sizes[sha]
    done.objects, done.bytes, done.kept = len(gone), total - left, left
    if not dry:
        remove(store, done.records, gone)
    return done


def forget(store: Store, source: str, dry: bool = False) -> Removal:
    """Remove every result made from a source, directly or through other results, pinned or not, with its quarantined
    files. source: its content digest."""
    rest, found, made = list(store.records()), [], {source}
    more = True
    while more:
        stay, more = [], False
        for record in rest:
            if made.isdisjoint(record.recipe["inputs"].values()):
                stay.append(record)
            else:
                found.append(record)
                made.add(record.artifact.digest)
                more = True
        rest = stay
    others = {file.sha256 for record in rest for file in record.artifact.files} | set(store.partial_objects())
    sizes = dict(objects(store))
    gone = {file.sha256 for record in found for file in record.artifact.files} & sizes.keys() - others
    total = sum(sizes.values())
    freed = sum(sizes[sha] for sha in gone)
    if not dry:
        remove(store, found, gone)
        theirs = {file.sha256 for record in found for file in record.artifact.files} - others
        theirs |= {record.key for record in found}
        for path in (store.root / "quarantine").glob("*"):
            if path.name[:64] in theirs:
                path.unlink(missing_ok=True)
    return Removal(found, len(gone), freed, total - freed)


def objects(store: Store) -> Iterable[tuple[str, int]]:
    """(sha256, bytes) of every object."""
    for path in (store.root / "objects").glob("*/*"):
        with contextlib.suppress(OSError):
            yield path.name, path.stat().st_size


def is_recent(path: Path, now: float) -> bool:
    """Whether an object was written or reused within the last GRACE seconds."""
    try:
        status = path.stat()
    except OSError:
        return True
    return now - max(status.st_mtime, status.st_atime) < GRACE


def remove(store: Store, records: Iterable[Record], gone: Collection[str]) -> None:
    """Delete records, then objects. Missing files are fine: two collections may run at once."""
    with explain_write_errors(store.root):
        for record in records:
            store.record_path(str(record.recipe["stage"]), record.key).unlink(missing_ok=True)
        for sha in gone:
            store.object_path(sha).unlink(missing_ok=True)


def remove_leftovers(store: Store, now: float) -> None:
    """Delete leftovers of crashes: partial results and quarantined files after a week, temporary files after a day."""
    for folder, age in (("partial", STALE), ("quarantine", STALE), ("tmp", 24 * 3600.0)):
        for path in (store.root / folder).glob("*"):
            with contextlib.suppress(OSError):
                if now - path.stat().st_mtime < age:
                    continue
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else os.unlink(path)
