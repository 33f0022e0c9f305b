"""A store's results on a DVC remote: `push` and `pull` move objects first and records last, as `put` and `publish` do.

    <remote>/retake/objects/ab/abcd...      <remote>/retake/records/<stage>/<key>

A record on the remote promises that its objects are there. What is pulled is hashed before a record is believed: a
remote that lost or changed a byte costs a recomputation, never a wrong result.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retake.artifact import File
from retake.errors import DamagedError, MachineError
from retake.machine.disk import explain_disk_errors
from retake.store import Record, Store

WORKERS = 8  # transfers at a time
NAME = re.compile(r"([a-z_]+)/([0-9a-f]{64})")  # of a record
DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass
class Transferred:
    """Counts of what was transferred. broken: records left out because they or their objects are damaged."""

    records: int = 0
    objects: int = 0
    bytes: int = 0
    broken: int = 0

    def as_json(self) -> dict[str, int]:
        return {"records": self.records, "objects": self.objects, "bytes": self.bytes, "broken": self.broken}


@dataclass
class Remote:
    """A remote copy of stores. fs: a DVC file system (dvc.py opens it); root: its folder `retake`."""

    fs: Any
    root: str

    def push(self, store: Store) -> Transferred:
        """Upload every result that the remote lacks. Damaged objects are quarantined here, their results skipped."""
        there, moved = self.list_files("objects"), Transferred()
        known = self.list_files("records")
        with ThreadPoolExecutor(WORKERS) as pool:
            for record in store.records():
                name = f"{record.recipe['stage']}/{record.key}"
                if name in known or store.find(str(record.recipe["stage"]), record.key) is None:
                    continue
                missing = {f.sha256: f for f in record.artifact.files if not self.has_object(f, there)}
                try:
                    for file in pool.map(lambda file: self.push_object(store, file), missing.values()):
                        there.add(object_name(file))
                        moved.objects += 1
                        moved.bytes += file.size
                except DamagedError:
                    moved.broken += 1
                    continue
                source = store.record_path(str(record.recipe["stage"]), record.key)
                self.upload(source, f"records/{name}")
                moved.records += 1
        return moved

    def pull(self, store: Store) -> Transferred:
        """Download every result that the store lacks."""
        found = [(match[1], match[2]) for name in sorted(self.list_files("records")) if (match := NAME.fullmatch(name))]
        return self.fetch_results(store, (result for result in found if not store.record_path(*result).exists()))

    def repair(self, store: Store, results: Iterable[tuple[str, str]]) -> Transferred:
        """Download the missing or damaged parts of some results, (stage, key), where the remote has them."""
        there = self.list_files("records")
        return self.fetch_results(store, (result for result in results if "/".join(result) in there))

    def fetch_results(self, store: Store, results: Iterable[tuple[str, str]]) -> Transferred:
        """Download results, (stage, key), that the remote lists: each record and the objects missing here."""
        moved = Transferred()
        with ThreadPoolExecutor(WORKERS) as pool, store.scratch() as scratch:
            for stage, key in results:
                body = scratch / key
                self.fs.get_file(self.path_of(f"records/{stage}/{key}"), str(body))
                record = store.read_record(body, key)
                if record is None or not is_safe(record, stage):
                    moved.broken += 1
                    continue
                missing = {f.sha256: f for f in record.artifact.files if not store.has(f)}.values()
                fetched = list(pool.map(lambda file: self.pull_object(store, file, scratch), missing))
                if not all(fetched):
                    moved.broken += 1
                    continue
                store.publish(record)
                moved.records += 1
                moved.objects += len(missing)
                moved.bytes += sum(file.size for file in missing)
        return moved

    def push_object(self, store: Store, file: File) -> File:
        """Upload one verified object. Raises DamagedError."""
        store.verify(file)
        self.upload(store.object_path(file.sha256), f"objects/{object_name(file)}")
        return file

    def pull_object(self, store: Store, file: File, scratch: Path) -> bool:
        """Download one object; whether its bytes arrived and match its hash."""
        to = scratch / file.sha256
        try:
            with explain_disk_errors(store.root):  # a full disk here is not the remote's damage
                self.fs.get_file(self.path_of(f"objects/{object_name(file)}"), str(to))
        except OSError:
            return False
        return store.put_file(file.name, to).sha256 == file.sha256

    def upload(self, source: Path, name: str) -> None:
        try:
            self.fs.makedirs(self.fs.parent(self.path_of(name)), exist_ok=True)
            self.fs.put_file(str(source), self.path_of(name))
        except OSError as error:
            raise MachineError(
                "E511",
                f"cannot write to the remote {self.root}: {error.strerror or error}",
                "Fix that, and run the same command again: it goes on with what is missing there.",
            ) from error

    def has_object(self, file: File, there: set[str]) -> bool:
        """Whether the remote has an object. In a local folder its size is checked too: a power cut can leave a
        truncated copy under its name."""
        if object_name(file) not in there:
            return False
        at = self.path_of(f"objects/{object_name(file)}")
        return self.fs.protocol != "local" or os.path.getsize(at) == file.size

    def list_files(self, folder: str) -> set[str]:
        """All files below a folder of the remote, relative to it."""
        root, found = self.path_of(folder), set()
        with contextlib.suppress(FileNotFoundError):
            found = {self.fs.relpath(path, root) for path in self.fs.find(root)}
        return {name for name in found if not name.endswith(".tmp")}

    def path_of(self, name: str) -> str:
        return self.fs.join(self.root, *name.split("/"))


def is_safe(record: Record, stage: str) -> bool:
    """Whether a record belongs to the stage it was filed under and its files are named by digests: both become local
    paths, and a remote may have been tampered with."""
    return record.recipe["stage"] == stage and all(DIGEST.fullmatch(file.sha256) for file in record.artifact.files)


def object_name(file: File) -> str:
    return f"{file.sha256[:2]}/{file.sha256}"
