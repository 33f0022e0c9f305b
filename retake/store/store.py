"""The store: objects by content, records by key. Every front end asks here first.

    <root>/objects/ab/abcd...     bytes, addressed by sha256, read-only
    <root>/records/<stage>/<key>  one JSON record per key, with its own checksum: the promise that a result exists
    <root>/partial/<key>          the chunks a running stage has committed so far, and its state
    <root>/locks/<key>.lock       operating system locks: free the moment their holder dies
    <root>/memo/                  digests of sources, remembered by inode, times and size
    <root>/quarantine/            whatever was found damaged, with the reason
    <root>/tmp/                   files being written

Objects are published first and the record last; without a record there is no artifact. A hit checks the record's
checksum and the existence and size of every object; bytes are hashed when they are read. Anything in doubt is set
aside and made again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retake.artifact import Artifact, File, from_json
from retake.errors import DamagedError, MachineError, MediaError, did_you_mean
from retake.machine.disk import atomic_path, explain_disk_errors, explain_write_errors, make_folder, sync
from retake.recipe import digest

BLOCK = 4 << 20


@dataclass(frozen=True)
class Record:
    """The stored description of one result: the recipe behind its key, its files, the seconds it took and its cost."""

    key: str
    recipe: Mapping[str, Any]
    artifact: Artifact
    seconds: float
    cost: Mapping[str, Any]  # peak memory, device, versions, host, time

    def as_json(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "recipe": self.recipe,
            "artifact": self.artifact.as_json(),
            "seconds": self.seconds,
            "cost": dict(self.cost),
        }


def warn(message: str) -> None:
    """Print one line to stderr."""
    print(f"retake: {message}", file=sys.stderr)


def sha256_and_md5(data: bytes | memoryview) -> tuple[str, str]:
    """(sha256, md5) of data, in hex. From 1 MiB on md5, three times slower, runs in a second thread."""

    def md5() -> str:
        return hashlib.md5(data, usedforsecurity=False).hexdigest()

    if len(data) < 1 << 20:
        return hashlib.sha256(data).hexdigest(), md5()
    with ThreadPoolExecutor(1) as beside:
        waiting = beside.submit(md5)
        return hashlib.sha256(data).hexdigest(), waiting.result()


class Store:
    """Content-addressed store in the folder `root`, created by the first write.

    >>> store = Store("store")
    >>> file = store.put("notes.txt", b"hello")
    >>> store.read(file)
    b'hello'
    """

    def __init__(self, root: Path | str, on_warning: Callable[[str], None] = warn) -> None:
        self.root = Path(root)
        self.warn = on_warning
        self._warned: set[str] = set()  # damaged objects already warned about and not yet made again

    # ---- objects -----------------------------------------------------------------------------------------------

    def object_path(self, sha256: str) -> Path:
        return self.root / "objects" / sha256[:2] / sha256

    def put(self, name: str, data: bytes | memoryview) -> File:
        """Store bytes; returns their File. Durable before it returns. Raises MachineError E503 on a full disk."""
        sha, md5 = sha256_and_md5(data)
        if self._is_intact(sha, len(data)):
            self._protect(sha)
        else:
            self._write(self.object_path(sha), data)
            self._warned.discard(sha)
        return File(name, sha, md5, len(data))

    def put_file(self, name: str, path: Path) -> File:
        """Store a file from `scratch()` by moving it. Durable on return. Raises MachineError E502, E503, E505."""
        sha, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
        with explain_write_errors(self.root), open(path, "rb+") as source:
            while block := source.read(BLOCK):
                sha.update(block)
                md5.update(block)
                size += len(block)
            os.fsync(source.fileno())
        file = File(name, sha.hexdigest(), md5.hexdigest(), size)
        if self._is_intact(file.sha256, size):
            self._protect(file.sha256)
            with contextlib.suppress(OSError):  # the folder it lies in goes anyway
                path.unlink()
        else:
            with explain_write_errors(self.root):
                self._rename(path, self.object_path(file.sha256))
            self._warned.discard(file.sha256)
        return file

    def read(self, file: File) -> bytes:
        """The bytes of a stored file, checked by hash. Raises DamagedError, after quarantining the object."""
        path = self.object_path(file.sha256)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise self._damaged(file.sha256, error.strerror or "unreadable") from error
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise self._damaged(file.sha256, f"{len(data)} bytes that do not match the digest")
        return data

    def copy_out(self, file: File, target: Path) -> Path:
        """Write a verified copy to `target`, atomically. Raises DamagedError, MachineError E502, E503, E505."""
        sha = hashlib.sha256()
        with explain_write_errors(target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(target, durable=True) as part:
                try:
                    source = open(self.object_path(file.sha256), "rb")  # noqa: SIM115 (closed two lines down)
                except OSError as error:
                    raise self._damaged(file.sha256, error.strerror or "unreadable") from error
                with source, open(part, "wb") as sink:
                    while block := source.read(BLOCK):
                        sha.update(block)
                        sink.write(block)
                if sha.hexdigest() != file.sha256:
                    raise self._damaged(file.sha256, "bytes that do not match the digest")
        return target

    def link_out(self, file: File, target: Path) -> Path:
        """Hard-link a verified object to `target`, or copy it where links are impossible. Raises as `copy_out`."""
        source = self.object_path(file.sha256)
        self.verify(file)
        with explain_write_errors(target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with atomic_path(target) as part:  # where both names already are one inode, the rename does nothing
                    os.link(source, part)
            except OSError as error:
                if error.errno not in {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP}:
                    raise
                self.copy_out(file, target)
        return target

    def verify(self, file: File) -> None:
        """Check a stored object by hash. Raises DamagedError, after quarantining the object."""
        sha = hashlib.sha256()
        try:
            with open(self.object_path(file.sha256), "rb") as source:
                while block := source.read(BLOCK):
                    sha.update(block)
        except OSError as error:
            raise self._damaged(file.sha256, error.strerror or "unreadable") from error
        if sha.hexdigest() != file.sha256:
            raise self._damaged(file.sha256, "bytes that do not match the digest")

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A temporary folder on the store's file system, removed when the block ends."""
        folder = self.root / "tmp" / f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
        with explain_write_errors(self.root):
            make_folder(folder.parent)
            folder.mkdir()
        try:
            with explain_disk_errors(self.root):
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    # ---- records -----------------------------------------------------------------------------------------------

    def record_path(self, stage: str, key: str) -> Path:
        return self.root / "records" / stage / key

    def find(self, stage: str, key: str) -> Record | None:
        """The record of a key if every object exists, else None. Damaged files are quarantined, with one warning."""
        path = self.record_path(stage, key)
        record = self.read_record(path, key)
        if record is None:
            return None
        for file in record.artifact.files:
            if not self._has(file.sha256, file.size):
                self._damaged(file.sha256, "missing or of another size")
                return None
        with contextlib.suppress(OSError):  # of a store that is read-only
            os.utime(path)
        return record

    def read_record(self, path: Path, key: str) -> Record | None:
        """The record in a file, or None if missing. A damaged record, or one of another key, is quarantined."""
        body = self._read_checksummed(path)
        if body is None:
            return None
        try:
            record = Record(body["key"], body["recipe"], from_json(body["artifact"]), body["seconds"], body["cost"])
        except (KeyError, TypeError):
            self._set_aside(path, "a record of another shape")
            return None
        if record.key != key:
            self._set_aside(path, f"a record of key {record.key[:12]}")
            return None
        return record

    def has(self, file: File) -> bool:
        """Whether an object exists with the right size; its bytes are not hashed."""
        return self._has(file.sha256, file.size)

    def last_used(self, record: Record) -> float:
        """Time of the last cache hit, in seconds since the epoch; 0 if the record is gone."""
        try:
            return self.record_path(str(record.recipe["stage"]), record.key).stat().st_mtime
        except OSError:
            return 0.0

    def publish(self, record: Record) -> None:
        """Write a record, after its objects: from now on its key is a cache hit."""
        self._write_checksummed(self.record_path(str(record.recipe["stage"]), record.key), record.as_json())
        with contextlib.suppress(OSError):  # a leftover list of chunks is removed a week later
            self.partial_path(record.key).unlink()

    def records(self, stage: str | None = None) -> Iterator[Record]:
        """All readable records of one stage, or of all; within a stage the most recently used first. Objects are not
        checked."""
        folder = self.root / "records"
        stages = [stage] if stage else sorted(p.name for p in folder.glob("*") if p.is_dir())
        for name in stages:
            paths = [p for p in (folder / name).glob("*") if len(p.name) == 64]
            for path in sorted(paths, key=lambda p: (-p.stat().st_mtime_ns, p.name)):
                body = self._read_checksummed(path)
                with contextlib.suppress(KeyError, TypeError):
                    if body is not None:
                        artifact = from_json(body["artifact"])
                        yield Record(body["key"], body["recipe"], artifact, body["seconds"], body["cost"])

    # ---- chunks of a stage that is still running -----------------------------------------------------------------

    def partial_path(self, key: str) -> Path:
        return self.root / "partial" / key

    def load_partial(self, key: str, mark: str = "") -> dict[str, Any] | None:
        """The chunks and states that a killed run of this key committed, if all exist and its sources had this `mark`.

        Every object is hashed: a stage that goes on after its chunks does not read them again.
        """
        body = self._read_checksummed(self.partial_path(key))
        if body is None or body.get("mark") != mark:
            return None
        try:
            for file in [*body["files"], *body["states"]]:
                self.verify(File(**file))
        except (DamagedError, KeyError):  # without "states": of an earlier version
            return None
        return body

    def partial_objects(self) -> Iterator[str]:
        """sha256 of every object committed by a stage that is still running or was killed."""
        for path in (self.root / "partial").glob("*"):
            body = self._read_checksummed(path) if len(path.name) == 64 else None
            for file in [*body.get("files", ()), *body.get("states", ())] if body else ():
                yield file["sha256"]

    def save_partial(self, key: str, files: list[File], states: list[File], mark: str = "") -> None:
        body = {"files": [f.as_json() for f in files], "states": [f.as_json() for f in states], "mark": mark}
        self._write_checksummed(self.partial_path(key), body)

    # ---- locks -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def lock(self, key: str, on_wait: Callable[[], None] | None = None, wait: bool = True) -> Iterator[bool]:
        """Hold the lock of a key and yield True. If another process holds it, call `on_wait` once and wait; with
        wait=False yield False at once, without the lock."""
        import filelock

        lock = filelock.FileLock(self.root / "locks" / f"{key}.lock")
        try:
            with explain_write_errors(self.root):  # filelock.Timeout is an OSError, of no number
                make_folder(self.root / "locks")
                lock.acquire(timeout=0)
        except filelock.Timeout:
            if not wait:
                yield False
                return
            if on_wait:
                on_wait()
            lock.acquire(poll_interval=0.05)
        except MachineError as error:
            if getattr(error.__cause__, "errno", None) != errno.EROFS:
                raise
            yield True  # in a store that is read-only there is nothing to guard: what it has can still be handed out
            return
        try:
            yield True
        finally:
            lock.release()

    # ---- sources -----------------------------------------------------------------------------------------------

    def source_digest(self, path: Path | str) -> str:
        """sha256 of a file, or of the sorted names and digests of a folder's files. Remembered on disk by inode,
        times and size. Raises MediaError E400 when there is no such path."""
        path = Path(path)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
            return digest(["folder", [[str(p.relative_to(path)), self.source_digest(p)] for p in inside]])
        try:
            status = path.stat()
        except OSError as error:
            raise MediaError("E400", f"cannot read {path}: {error.strerror}", path_hint(path)) from error
        identity = [status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size]
        memo = self.root / "memo" / digest(["memo", str(path.absolute())])
        known = self._read_checksummed(memo)
        if known is not None and known.get("identity") == identity:
            return known["sha256"]
        with open(path, "rb") as source:
            sha = hashlib.file_digest(source, "sha256").hexdigest()
        # A file written within the clock's grain may change again and keep its times: not worth remembering yet.
        if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > 100_000_000:
            with contextlib.suppress(OSError, MachineError):  # of a store that is read-only, or full
                self._write_checksummed(memo, {"identity": identity, "sha256": sha}, durable=False)
        return sha

    # ---- within ------------------------------------------------------------------------------------------------

    def _has(self, sha256: str, size: int) -> bool:
        try:
            status = os.stat(self.object_path(sha256))
        except OSError:
            return False
        return stat.S_ISREG(status.st_mode) and status.st_size == size

    def _is_intact(self, sha256: str, size: int) -> bool:
        """Whether an object exists and its hash matches; if not, storing it again repairs it."""
        if not self._has(sha256, size):
            return False
        with contextlib.suppress(DamagedError):
            self.verify(File("", sha256, "", size))
            return True
        return False

    def _protect(self, sha256: str) -> None:
        """Set the access time, so garbage.py keeps an object about to be used; the modification time is DVC's."""
        path = self.object_path(sha256)
        with contextlib.suppress(OSError):
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))

    def _write(self, target: Path, data: bytes | memoryview, durable: bool = True) -> None:
        part = self.root / "tmp" / f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
        try:
            with explain_write_errors(self.root, len(data)):
                make_folder(part.parent)
                with open(part, "wb") as sink:
                    sink.write(data)
                    if durable:
                        sink.flush()
                        os.fsync(sink.fileno())
                self._rename(part, target, durable)
        finally:
            with contextlib.suppress(OSError):
                part.unlink()

    def _rename(self, part: Path, target: Path, durable: bool = True) -> None:
        os.chmod(part, 0o444)
        make_folder(target.parent)
        os.replace(part, target)
        if durable:
            sync(target.parent)

    def _write_checksummed(self, path: Path, body: Mapping[str, Any], durable: bool = True) -> None:
        text = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
        self._write(path, f"{text}\n{hashlib.sha256(text.encode()).hexdigest()}\n".encode(), durable)

    def _read_checksummed(self, path: Path) -> dict[str, Any] | None:
        """JSON written by `_write_checksummed`; None if missing, or if damaged and so quarantined."""
        try:
            raw = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self.warn(f"{path}: {error.strerror}; treated as missing")
            return None
        text, _, seal = raw.rstrip(b"\n").partition(b"\n")
        if raw[-1:] != b"\n" or hashlib.sha256(text).hexdigest().encode() != seal:
            self._set_aside(path, "its checksum does not match")
            return None
        return json.loads(text)

    def _damaged(self, sha256: str, reason: str) -> DamagedError:
        path = self.object_path(sha256)
        if os.path.lexists(path):
            self._set_aside(path, reason)
        elif sha256 not in self._warned:
            self.warn(f"object {sha256[:12]} is gone ({reason}): it will be made again")
        self._warned.add(sha256)
        return DamagedError(sha256, reason)

    def _set_aside(self, path: Path, reason: str) -> None:
        self.warn(f"{path.parent.name}/{path.name[:12]}: {reason}; set aside, will be made again")
        target = self.root / "quarantine" / f"{path.name[:80]}-{uuid.uuid4().hex[:8]}"
        with explain_write_errors(self.root), contextlib.suppress(FileNotFoundError):
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
            target.with_name(target.name + ".reason").write_text(f"{path}: {reason}\n", "utf-8", "replace")


def path_hint(path: Path) -> str:
    """A hint for a path that does not exist: a similar name in its folder, if there is one."""
    folder = path.expanduser().absolute().parent
    try:
        hint = did_you_mean(path.name, sorted(os.listdir(folder))[:5000])
    except OSError:
        return f"There is no folder {folder}: check the path."
    return hint if hint.startswith("Did") else f"{folder} holds nothing of that name: check the path."
