"""The checkout: where it is found, and what makes it importable here and in child processes."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def find_checkout(start: Path) -> Path | None:
    """The nearest folder at or above `start` that holds dvc.yaml and flows/."""
    for folder in (start, *start.parents):
        if (folder / "dvc.yaml").is_file() and (folder / "flows").is_dir():
            return folder
    return None


def enter(checkout: Path) -> None:
    """Make the checkout importable here and in every child, and let children find this very Python."""
    own_bin = str(Path(sys.executable).parent)
    if str(checkout) not in sys.path[:1]:
        sys.path.insert(0, str(checkout))
    paths = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p != str(checkout)]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(checkout), *paths])
    if own_bin not in os.environ.get("PATH", "").split(os.pathsep)[:1]:
        os.environ["PATH"] = os.pathsep.join([own_bin, os.environ.get("PATH", "")])
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DVC_NO_ANALYTICS", "true")
