"""Where things stand: the code, the project, the store, and the folders that results are handed out to.

A project is the nearest folder at or above the current one with a dvc.yaml of Retake's; where there is none, results go
to the current folder. A checkout holds the code and is a project as well.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from retake.dvc import cache_dir
from retake.errors import ConfigError
from retake.installed import CODE
from retake.store import Store

OURS = re.compile(r"^\s*cmd: (?:python -m flows|retake) stage ", re.MULTILINE)


def is_project(folder: Path) -> bool:
    """Whether a folder holds a dvc.yaml of Retake's."""
    try:
        return bool(OURS.search((folder / "dvc.yaml").read_text(encoding="utf-8", errors="replace")))
    except OSError:
        return False


def find_project(start: Path) -> Path | None:
    """The nearest project at or above a folder."""
    return next((folder for folder in (start, *start.parents) if is_project(folder)), None)


_FOUND = find_project(Path.cwd())
PROJECT = _FOUND or Path.cwd()
OUTS = PROJECT / "artifacts"  # a folder a stage, which DVC tracks; edits and datasets beside them
_OWN = (_FOUND / "params",) if _FOUND and _FOUND != CODE else ()
SETTINGS: tuple[Path, ...] = (*_OWN, CODE / "params")  # of two files of one name the first counts


def require_project() -> None:
    """Raises ConfigError E200 where there is none."""
    if not is_project(PROJECT):
        what = f"this needs a project, and there is none at or above {PROJECT}"
        raise ConfigError("E200", what, "Make one here: retake init. Or go to yours: cd path/to/project")


def open_store() -> Store:
    """The store: RETAKE_STORE, else DVC's cache folder where one is set, else one for all that this user does outside
    checkouts; a checkout has its own."""
    return Store(cache_dir(PROJECT, None if PROJECT == CODE else user_cache()) / "retake")


def user_cache() -> Path:
    """The folder in which the store of this user stands: retake/ under XDG_CACHE_HOME, which is ~/.cache by default."""
    stated = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (stated if stated.is_absolute() else Path.home() / ".cache") / "retake"


def edits_home() -> Path:
    """Folder of all single edits: artifacts/edits of the project, or RETAKE_EDITS."""
    return _chosen("RETAKE_EDITS", OUTS / "edits")


def datasets_home() -> Path:
    """Folder of all datasets: artifacts/datasets of the project, or RETAKE_DATASETS."""
    return _chosen("RETAKE_DATASETS", OUTS / "datasets")


def _chosen(variable: str, default: Path) -> Path:
    chosen = os.environ.get(variable)
    return Path(chosen).expanduser().absolute() if chosen else default
