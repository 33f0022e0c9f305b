"""A checkout of Retake: where it is found, and what makes its code importable here and in child processes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from retake.machine.share import claim


def find_checkout(start: Path) -> Path | None:
    """The nearest folder at or above `start` that holds Retake's own code."""
    for folder in (start, *start.parents):
        if (folder / "retake" / "launcher.py").is_file() and (folder / "flows" / "__main__.py").is_file():
            return folder
    return None


def enter(code: Path) -> None:
    """Make flows/ and tasks/ of a folder importable here and in every child, and let children find this very Python."""
    own_bin = str(Path(sys.executable).parent)
    if str(code) not in sys.path[:1]:
        sys.path.insert(0, str(code))
    paths = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p != str(code)]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(code), *paths])
    if own_bin not in os.environ.get("PATH", "").split(os.pathsep)[:1]:
        os.environ["PATH"] = os.pathsep.join([own_bin, os.environ.get("PATH", "")])
    claim(os.environ)
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DVC_NO_ANALYTICS", "true")
