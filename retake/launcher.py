"""The console command. It runs the code of the checkout that it is called in, else that with which it was installed.

`flows` and `tasks` are no packages of the environment: they are put on the path here. This module is the one place
where the library names what stands above it, and it does so by string.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from retake.checkout import enter, find_checkout
from retake.errors import MachineError
from retake.installed import CODE


def main() -> None:
    try:
        code = find_checkout(Path.cwd()) or CODE
    except FileNotFoundError:
        error = MachineError("E513", "the current folder has been deleted", "Go to one that exists: cd ~")
        as_text, as_json = f"\n{error.code} {error.message}\n     {error.hint}", json.dumps({"error": error.as_json()})
        print(as_json if "--json" in sys.argv else as_text, file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    enter(code)
    if code != CODE:  # of the library, too, all modules are that checkout's
        for name in [name for name in sys.modules if name.partition(".")[0] == "retake"]:
            del sys.modules[name]
    importlib.import_module("flows.__main__").main()
