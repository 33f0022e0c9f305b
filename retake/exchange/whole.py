"""A folder of files that appears whole or not at all, and knows its files again by SHA256SUMS (`sha256sum -c`)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from retake.store import writing_explained

SUMS = "SHA256SUMS"


@contextlib.contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """Yields a hidden folder beside `folder`. Once the block is left it is sealed with SHA256SUMS and takes the place
    of `folder`, whatever was there; when the block raises, nothing was there. Callers see to it that one process at a
    time writes a folder, and ask `why_kept` first. Raises MachineError E502, E503."""
    part, old = (folder.with_name(f".{folder.name}.{kind}") for kind in ("part", "old"))
    for left in (part, old):  # of a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    try:
        with writing_explained(folder):
            part.mkdir(parents=True)
            yield part
            lines = [f"{sha256(part / file)}  {file}\n" for file in files_of(part)]
            (part / SUMS).write_text("".join(lines), encoding="utf-8")
            if folder.exists():
                os.rename(folder, old)
            os.rename(part, folder)
    finally:
        for left in (part, old):
            shutil.rmtree(left, ignore_errors=True)


def why_kept(folder: Path) -> str:
    """Why a folder holds more than `whole` wrote there, and must be kept; empty where it is not there, holds no file,
    or all its files are as they were written. Hashes them."""
    if not folder.exists() and not folder.is_symlink():
        return ""
    if not folder.is_dir():
        return "it is no folder"
    files = files_of(folder)
    if not files:
        return ""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return "it holds files, and is no export"
    sums = {file: known for known, _, file in (line.partition("  ") for line in lines)}
    if more := sorted(set(files) - sums.keys() - {SUMS}):
        return f"{more[0]} is not of the export"
    if changed := [file for file in files if file != SUMS and sha256(folder / file) != sums[file]]:
        return f"{changed[0]} was changed since it was written: perhaps you painted it"
    return ""


def files_of(folder: Path) -> list[str]:
    """Relative names of all files (and links) of a folder, sorted."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir() or p.is_symlink())


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
