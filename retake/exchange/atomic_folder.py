"""Write a folder atomically, with a SHA256SUMS to check its files by (`sha256sum -c`)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from retake.errors import MachineError
from retake.machine.disk import explain_write_errors

SUMS = "SHA256SUMS"


@contextlib.contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yields a hidden folder with a unique name beside `folder`. When the block ends, SHA256SUMS is written into it and
    it replaces `folder`; on any error the old `folder` stays. Callers make sure that one process at a time writes a
    folder, and ask `why_not_replaceable` first. A killed run leaves the hidden folder behind: nothing here deletes what
    it did not make. Raises MachineError E502, E503."""
    part = hidden_sibling(folder, "part")
    try:
        with explain_write_errors(folder):
            part.mkdir(parents=True)
            yield part
            lines = [f"{sha256(part / file)}  {file}\n" for file in list_files(part)]
            (part / SUMS).write_text("".join(lines), encoding="utf-8")
            replace_folder(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def replace_folder(part: Path, folder: Path) -> None:
    """Rename `part` to `folder` and delete the old `folder`; if that fails, the old one is put back.

    Raises OSError, or MachineError E502 naming where the old folder is if it cannot be put back either."""
    old = hidden_sibling(folder, "old")
    try:
        if folder.exists():
            os.rename(folder, old)
        os.rename(part, folder)
    except BaseException:
        if part.exists() and old.exists():
            restore_folder(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def restore_folder(old: Path, folder: Path) -> None:
    """Rename `old` to `folder` again. Raises MachineError E502."""
    try:
        os.rename(old, folder)
    except OSError as error:
        raise MachineError(
            "E502", f"cannot put {folder} back: {error.strerror}", f"What it held lies in {old}: move it back."
        ) from error


def hidden_sibling(folder: Path, what: str) -> Path:
    """A unique hidden path beside `folder`."""
    return folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:12]}.{what}")


def why_not_replaceable(folder: Path) -> str:
    """Why a folder must not be replaced: it holds files that `atomic_folder` did not write, or that were changed since.
    Empty when it is missing, has no files, or all match SHA256SUMS (all are hashed; the caller checks whose it is)."""
    if not folder.exists() and not folder.is_symlink():
        return ""
    if not folder.is_dir():
        return "it is not a folder"
    files = list_files(folder)
    if not files:
        return ""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines() if (folder / SUMS).is_file() else None
    except (OSError, ValueError):
        lines = None
    if lines is None:
        return "it holds files, and is not an export"
    sums = {file: known for known, _, file in (line.partition("  ") for line in lines)}
    if more := sorted(set(files) - sums.keys() - {SUMS}):
        return f"{more[0]} is not of the export"
    if changed := [file for file in files if file != SUMS and not is_unchanged(folder / file, sums[file])]:
        return f"{changed[0]} was changed since it was written: perhaps you painted it"
    return ""


def is_unchanged(path: Path, known: str) -> bool:
    """Whether a path is a regular, readable file with that sha256; False for links and pipes."""
    try:
        return path.is_file() and not path.is_symlink() and sha256(path) == known
    except OSError:
        return False


def list_files(folder: Path) -> list[str]:
    """Relative paths of all files and links in a folder, recursively, sorted."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir() or p.is_symlink())


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
