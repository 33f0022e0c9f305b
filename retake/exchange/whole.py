"""A folder of files that appears whole or not at all, and knows its files again by SHA256SUMS (`sha256sum -c`)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from retake.errors import MachineError
from retake.machine.disk import writing_explained

SUMS = "SHA256SUMS"


@contextlib.contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """Yields a hidden folder beside `folder`, of a name that nobody else has. Once the block is left it is sealed with
    SHA256SUMS and takes the place of `folder`, whatever was there; when anything fails, what was there stays. Callers
    see to it that one process at a time writes a folder, and ask `why_kept` first. A run that is killed leaves the
    hidden folder behind: nothing here deletes what it did not make. Raises MachineError E502, E503."""
    part = beside(folder, "part")
    try:
        with writing_explained(folder):
            part.mkdir(parents=True)
            yield part
            lines = [f"{sha256(part / file)}  {file}\n" for file in files_of(part)]
            (part / SUMS).write_text("".join(lines), encoding="utf-8")
            take_place(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def take_place(part: Path, folder: Path) -> None:
    """Rename `part` to `folder` and delete what was there; where that fails, what was there is put back.

    Raises OSError, and MachineError E502 with the place of what was there if it cannot be put back either."""
    old = beside(folder, "old")
    try:
        if folder.exists():
            os.rename(folder, old)
        os.rename(part, folder)
    except BaseException:
        if part.exists() and old.exists():
            put_back(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def put_back(old: Path, folder: Path) -> None:
    """Raises MachineError E502 where it cannot be done."""
    try:
        os.rename(old, folder)
    except OSError as error:
        raise MachineError(
            "E502", f"cannot put {folder} back: {error.strerror}", f"What it held lies in {old}: move it back."
        ) from error


def beside(folder: Path, what: str) -> Path:
    """A hidden name beside a folder that nothing has."""
    return folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:12]}.{what}")


def why_kept(folder: Path) -> str:
    """Why a folder holds more than `whole` wrote there, and must be kept; empty where it is not there, holds no file,
    or all its files are as they were written. Hashes them. Whose SHA256SUMS it is, the caller has to know."""
    if not folder.exists() and not folder.is_symlink():
        return ""
    if not folder.is_dir():
        return "it is no folder"
    files = files_of(folder)
    if not files:
        return ""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines() if (folder / SUMS).is_file() else None
    except (OSError, ValueError):
        lines = None
    if lines is None:
        return "it holds files, and is no export"
    sums = {file: known for known, _, file in (line.partition("  ") for line in lines)}
    if more := sorted(set(files) - sums.keys() - {SUMS}):
        return f"{more[0]} is not of the export"
    if changed := [file for file in files if file != SUMS and not as_written(folder / file, sums[file])]:
        return f"{changed[0]} was changed since it was written: perhaps you painted it"
    return ""


def as_written(path: Path, known: str) -> bool:
    """Whether a path is a plain file of that sha256; a link, a pipe and what cannot be read are not."""
    try:
        return path.is_file() and not path.is_symlink() and sha256(path) == known
    except OSError:
        return False


def files_of(folder: Path) -> list[str]:
    """Relative names of all files (and links) of a folder, sorted."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir() or p.is_symlink())


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
