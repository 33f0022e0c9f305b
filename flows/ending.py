"""How a command ends: its data on stdout, its error on stderr, its exit status, and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from retake.errors import RetakeError

INTERRUPTED = 130


def show(value: Any) -> None:
    print(json.dumps(value, indent=1 if sys.stdout.isatty() else None, ensure_ascii=False))


def fail(error: RetakeError) -> int:
    """Tell an error: one JSON object with --json, else at most six lines; of a manifest all that is wrong with it."""
    if "--json" in sys.argv:
        print(json.dumps({"error": error.as_json()}, ensure_ascii=False), file=sys.stderr)
    else:
        lines = [line for line in error.message[:900].splitlines() if line.strip()][:4]
        if problems := getattr(error, "problems", ()):  # of a manifest: every one of them, with its line
            lines = [f"{len(problems)} problems in the manifest" if len(problems) > 1 else "the manifest", *problems]
        print(f"\n{error.code} " + "\n     ".join(lines), file=sys.stderr)
        if error.hint:
            print(f"     {error.hint}"[:400], file=sys.stderr)
    return error.exit_code


def told_stopped() -> int:
    kept = "What was finished is kept: the same command goes on from there."
    fail(RetakeError("E130", "stopped", kept))
    return INTERRUPTED


def interrupted(*_: Any) -> None:
    """SIGTERM ends a run as Ctrl-C does, also where a shell started it with SIGINT ignored."""
    raise KeyboardInterrupt


def stop_at_once() -> None:
    """On Ctrl-C, end this process and its children without asking Prefect, whose own server may be gone by then. The
    store is made for that: what was committed stays."""

    def stop(*_: Any) -> None:
        import psutil

        for child in psutil.Process().children(recursive=True):
            child.kill()
        told_stopped()
        sys.stderr.flush()
        os._exit(INTERRUPTED)

    signal.signal(signal.SIGINT, stop)


def command_path(error: Any) -> str:
    context = getattr(error, "ctx", None)
    return context.command_path if context else "retake"
