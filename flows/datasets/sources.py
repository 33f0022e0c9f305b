"""From a manifest to the clips of a dataset: a file with a row for each, a DAVIS tree, or a folder of videos.

A folder may be an inbox that others write to: a file counts once it has not been written for `settle` seconds, or was
renamed into place (which leaves its time of writing as it was). Names that start with a dot are on their way.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flows.datasets.manifest import ENOUGH, ManifestError, Row, read_rows
from flows.settings.dataset import ClipEntry
from retake.clip import IMAGES, open_clip, slug
from retake.errors import ConfigError, RetakeError

VIDEOS = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".mxf", ".ogv", ".gif"}


def list_clips(manifest: str, settle: float) -> tuple[list[Row], list[str]]:
    """Clips of a manifest in order, and names of files that are still being written.

    Raises ManifestError E297 with every problem of it, ConfigError E298 for a folder without clips.
    """
    path = Path(manifest).expanduser()
    if not path.exists():
        raise ConfigError("E297", f"there is no manifest {manifest}", "It is a CSV, JSON lines, or a folder of clips.")
    if path.is_file():
        rows, problems = read_rows(path)
        lost = (f"line {row.line}: {found}" for row in rows if (found := no_clip(row.clip)))
        problems += itertools.islice(lost, ENOUGH)
        if problems or not rows:
            raise ManifestError(path, problems or ["no clip"])
        return rows, []
    if not path.is_dir():
        raise ConfigError("E297", f"{manifest} is neither a file nor a folder", "It is a CSV, or JSON lines.")
    if (path / "JPEGImages").is_dir():
        return list(davis_clips(path)), []
    return folder_clips(path, settle)


def no_clip(spec: str) -> str | None:
    """Why a text names no clip at all. What is wrong inside a clip is for the run to find out."""
    try:
        open_clip(spec)
    except RetakeError as error:
        return error.message if error.code != "E401" else None  # an empty file is a bad clip, not a bad line
    except (OSError, RuntimeError) as error:
        return f"{spec[:40]!r} is not a clip: {error}"[:200]
    return None


def davis_clips(root: Path) -> Iterator[Row]:
    """Every sequence of a DAVIS tree, with its masks where the tree has them."""
    resolutions = sorted((p for p in (root / "JPEGImages").iterdir() if p.is_dir()), key=lambda p: p.name != "480p")
    for folder in resolutions[:1]:
        for sequence in sorted(p for p in folder.iterdir() if p.is_dir() and slug(p.name) == p.name):
            masks = root / "Annotations" / folder.name / sequence.name
            settings: dict[str, Any] = {"masks.path": str(masks)} if masks.is_dir() else {}
            yield Row(sequence.name, "", f"{root}:{sequence.name}", settings)


def folder_clips(folder: Path, settle: float) -> tuple[list[Row], list[str]]:
    """Videos and folders of images in a folder, by name; names of those that were written a moment ago."""
    found, waiting = [], []
    now = time.time()
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not is_clip(path):
            continue
        if now - path.stat().st_mtime < settle:
            waiting.append(path.name)
        else:
            found.append(Row(slug(path.stem), "", str(path), {}))
    if not found and not waiting:
        hint = f"A clip is a folder of images or ends in {', '.join(sorted(VIDEOS))}."
        raise ConfigError("E298", f"{folder} holds no clip", hint)
    ids = [row.id.lower() for row in found]
    if twice := [row for row in found if ids.count(row.id.lower()) > 1]:
        names = ", ".join(Path(row.clip).name for row in twice)
        raise ManifestError(folder, [f"these would have one name, {twice[0].id}: {names}"])
    return found, waiting


def is_clip(path: Path) -> bool:
    if path.is_dir():
        return any(p.suffix.lower() in IMAGES for p in path.iterdir())
    return path.suffix.lower() in VIDEOS


def entry(row: Row) -> ClipEntry:
    """A row as an entry of the dataset: settings by group."""
    settings: dict[str, dict[str, Any]] = {}
    for name, value in row.settings.items():
        group, _, key = name.partition(".")
        settings.setdefault(group, {})[key] = value
    return ClipEntry(id=row.id, clip=row.clip, settings=settings)
