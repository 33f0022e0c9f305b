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
from retake.machine.disk import disk_explained
from retake.store import Record, Store

WORKERS = 8  # transfers at a time
NAME = re.compile(r"([a-z_]+)/([0-9a-f]{64})")  # of a record
DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass
class Moved:
    """What went over. broken: records that were left where they are, because something of them is damaged."""

    records: int = 0
    objects: int = 0
    bytes: int = 0
    broken: int = 0

    def as_json(self) -> dict[str, int]:
        return {"records": self.records, "objects": self.objects, "bytes": self.bytes, "broken": self.broken}


@dataclass
class Remote:
    """A place that holds results. fs: a file system of DVC (dvc.py opens it); root: its folder `retake`."""

    fs: Any
    root: str

    def push(self, store: Store) -> Moved:
        """Send every result that the remote lacks. Damaged objects are set aside here, and their results not sent."""
        there, moved = self.listed("objects"), Moved()
        known = self.listed("records")
        with ThreadPoolExecutor(WORKERS) as pool:
            for record in store.records():
                name = f"{record.recipe['stage']}/{record.key}"
                if name in known or store.find(str(record.recipe["stage"]), record.key) is None:
                    continue
                lacking = {f.sha256: f for f in record.artifact.files if not self.whole(f, there)}
                try:
                    for file in pool.map(lambda file: self.send(store, file), lacking.values()):
                        there.add(place(file))
                        moved.objects += 1
                        moved.bytes += file.size
                except DamagedError:
                    moved.broken += 1
                    continue
                source = store.record_path(str(record.recipe["stage"]), record.key)
                self.put(source, f"records/{name}")
                moved.records += 1
        return moved

    def pull(self, store: Store) -> Moved:
        """Fetch every result that the store lacks."""
        found = [(match[1], match[2]) for name in sorted(self.listed("records")) if (match := NAME.fullmatch(name))]
        return self.bring(store, (result for result in found if not store.record_path(*result).exists()))

    def mend(self, store: Store, results: Iterable[tuple[str, str]]) -> Moved:
        """Fetch what is damaged of some results, (stage, key), as far as the remote has them."""
        there = self.listed("records")
        return self.bring(store, (result for result in results if "/".join(result) in there))

    def bring(self, store: Store, results: Iterable[tuple[str, str]]) -> Moved:
        """Fetch results, (stage, key), that the remote lists: the record, and of its objects those that lack here."""
        moved = Moved()
        with ThreadPoolExecutor(WORKERS) as pool, store.scratch() as scratch:
            for stage, key in results:
                body = scratch / key
                self.fs.get_file(self.at(f"records/{stage}/{key}"), str(body))
                record = store.sealed_record(body, key)
                if record is None or not plain(record, stage):
                    moved.broken += 1
                    continue
                lacking = [f for f in record.artifact.files if not store.has(f)]
                fetched = list(pool.map(lambda file: self.fetch(store, file, scratch), lacking))
                if not all(fetched):
                    moved.broken += 1
                    continue
                store.publish(record)
                moved.records += 1
                moved.objects += len(lacking)
                moved.bytes += sum(file.size for file in lacking)
        return moved

    def send(self, store: Store, file: File) -> File:
        """Raises DamagedError for an object that is not what it was."""
        store.verify(file)
        self.put(store.object_path(file.sha256), f"objects/{place(file)}")
        return file

    def fetch(self, store: Store, file: File, scratch: Path) -> bool:
        """Whether an object came over whole."""
        to = scratch / file.sha256
        try:
            with disk_explained(store.root):  # a full disk here is not the remote's damage
                self.fs.get_file(self.at(f"objects/{place(file)}"), str(to))
        except OSError:
            return False
        return store.put_file(file.name, to).sha256 == file.sha256

    def put(self, source: Path, name: str) -> None:
        try:
            self.fs.makedirs(self.fs.parent(self.at(name)), exist_ok=True)
            self.fs.put_file(str(source), self.at(name))
        except OSError as error:
            raise MachineError(
                "E511",
                f"cannot write to the remote {self.root}: {error.strerror or error}",
                "Mend that, and run the same command again: it goes on with what is missing there.",
            ) from error

    def whole(self, file: File, there: set[str]) -> bool:
        """Whether the remote has an object. In a folder its size is looked at, too: a copy that the loss of power cut
        short there keeps its name."""
        if place(file) not in there:
            return False
        at = self.at(f"objects/{place(file)}")
        return self.fs.protocol != "local" or os.path.getsize(at) == file.size

    def listed(self, folder: str) -> set[str]:
        """Files below a folder, relative to it."""
        root, found = self.at(folder), set()
        with contextlib.suppress(FileNotFoundError):
            found = {self.fs.relpath(path, root) for path in self.fs.find(root)}
        return {name for name in found if not name.endswith(".tmp")}

    def at(self, name: str) -> str:
        return self.fs.join(self.root, *name.split("/"))


def plain(record: Record, stage: str) -> bool:
    """Whether a record is of the stage under whose name it lay, and its files are named by digests: both become paths
    here, and whoever writes to a remote could write anything."""
    return record.recipe["stage"] == stage and all(DIGEST.fullmatch(file.sha256) for file in record.artifact.files)


def place(file: File) -> str:
    return f"{file.sha256[:2]}/{file.sha256}"
