"""The console command: find the checkout, put it first on the path, run its command line.

Only `retake` is installed; `flows` and `tasks` live in the checkout. This module is the one place where the library
names what stands above it, and it does so by string.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

from retake.errors import ConfigError


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


def main() -> None:
    checkout = find_checkout(Path.cwd())
    if checkout is None:
        what = f"this folder is not inside a Retake checkout (no dvc.yaml and flows/ at or above {Path.cwd()})"
        error = ConfigError("E200", what, "Go to your checkout first: cd path/to/retake")
        as_text, as_json = f"\n{error.code} {what}\n     {error.hint}", json.dumps({"error": error.as_json()})
        print(as_json if "--json" in sys.argv else as_text, file=sys.stderr)
        raise SystemExit(error.exit_code)
    enter(checkout)
    importlib.import_module("flows.__main__").main()
