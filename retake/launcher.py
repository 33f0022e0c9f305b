"""The console command: find the checkout, put it first on the path, run its command line.

Only `retake` is installed; `flows` and `tasks` live in the checkout. This module is the one place where the library
names what stands above it, and it does so by string.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from retake.checkout import enter, find_checkout
from retake.errors import ConfigError


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
