"""Atomic and durable files, and disk errors turned into messages that say what to do."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from retake.errors import MachineError

FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
BROKEN = {errno.EIO, errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.EREMOTEIO, errno.EUCLEAN}
REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT, errno.EEXIST, errno.EISDIR}
REFUSED.add(errno.ENAMETOOLONG)


@contextlib.contextmanager
def explain_write_errors(where: Path, wanted: int = 0) -> Iterator[None]:
    """Turn an OSError of writing to `where` into an error with a hint. wanted: bytes to be written, if known.

    Raises MachineError E503 (no space, quota or file size limit), E502 (no permission, read-only, not a folder), E505
    (the disk or the network file system fails).
    """
    try:
        yield
    except OSError as error:
        if error.errno in REFUSED:
            raise MachineError(
                "E502",
                f"cannot write to {where}: {error.strerror}",
                "Check its permissions, or choose another folder: RETAKE_STORE for the store, RETAKE_EDITS for edits.",
            ) from error
        with explain_disk_errors(where, wanted):
            raise


def require_writable(folder: Path) -> None:
    """Refuse a folder that could not be made or written to, before work is done whose results belong there. Leaves no
    trace. Raises MachineError E502, E503, E505, as writing there would."""
    with explain_write_errors(folder):
        there = next(one for one in (folder, *folder.absolute().parents) if one.is_symlink() or one.exists())
        tempfile.TemporaryFile(dir=there).close()


@contextlib.contextmanager
def explain_disk_errors(where: Path, wanted: int = 0) -> Iterator[None]:
    """The part of `explain_write_errors` that does not depend on the path: MachineError E503 and E505."""
    try:
        yield
    except OSError as error:
        if error.errno in BROKEN:
            raise MachineError(
                "E505",
                f"the disk under {where} fails: {error.strerror}",
                "What was finished is kept. Look at the disk (dmesg), or point RETAKE_STORE at another one.",
            ) from error
        if error.errno not in FULL:
            raise
        existing = next(folder for folder in (where, *where.absolute().parents) if folder.is_dir())
        free = f"{format_bytes(shutil.disk_usage(existing).free)} free"
        needed = f", {format_bytes(wanted)} needed now" if wanted else ""
        raise MachineError(
            "E503",
            f"the disk is full: cannot write to {where} ({free}{needed})",
            "What was finished is kept. Make room, or point RETAKE_STORE at a larger disk, and run the same command.",
        ) from error


@contextlib.contextmanager
def atomic_path(target: Path, durable: bool = False) -> Iterator[Path]:
    """Yields a hidden path beside `target` to write to; when the block ends, it is renamed to `target` atomically. On
    any error it is removed and the old `target` stays. durable: fsync, so that the file survives a power cut. Raises
    OSError."""
    part = target.with_name(f".{target.name[:40]}.{uuid.uuid4().hex[:8]}.part")
    try:
        yield part
        if durable:
            sync(part)
        os.replace(part, target)
        if durable:
            sync(target.parent)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def write_atomic(target: Path, data: str | bytes) -> None:
    """Write a file atomically, text as UTF-8; of a file's name what is no UTF-8 becomes \\udcXX, which JSON reads back.

    Raises MachineError E502, E503, E505.
    """
    with explain_write_errors(target.parent), atomic_path(target) as part:
        part.write_bytes(data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data)


def format_bytes(count: float) -> str:
    """`21.4 MB`: bytes in powers of 1000."""
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents durably (fsync): a file survives a power cut only if its folders do."""
    missing = list(itertools.takewhile(lambda one: not one.is_dir(), (folder, *folder.parents)))
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync(made.parent)


def sync(path: Path) -> None:
    """fsync a file, or the entries of a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
