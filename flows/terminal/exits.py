"""How a command ends: its data on stdout, its error on stderr, its exit status, and Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from retake.errors import RetakeError

INTERRUPTED = 130


def show(value: Any) -> None:
    print(json.dumps(value, indent=1 if sys.stdout.isatty() else None, ensure_ascii=False))


def answer(as_json: bool, data: Any, lines: Iterable[str], outputs: Mapping[str, Any] | None = None) -> None:
    """What a command found: one JSON object, or lines for a person, of which the last say where its files are."""
    if as_json:
        show(data)
        return
    for line in (*lines, *(f"{what:8} {path}" for what, path in (outputs or {}).items())):
        print(line)


def open_page(page: Path) -> None:
    """Open a page in the browser; where there is none, say so: its path is printed anyway."""
    import webbrowser

    if not webbrowser.open(page.absolute().as_uri()):
        print("no browser could be opened here", file=sys.stderr)


def fail(error: RetakeError) -> int:
    """Tell an error: one JSON object with --json, else at most six lines; of a manifest all that is wrong with it."""
    if "--json" in sys.argv:
        print(json.dumps({"error": error.as_json()}, ensure_ascii=False), file=sys.stderr)
    else:
        lines = [line for line in error.message[:900].splitlines() if line.strip()][:4]
        if problems := getattr(error, "problems", ()):  # of a manifest: every one of them, with its line
            many = f"{len(problems)} problems" if len(problems) > 1 else "one problem"
            lines = [f"{many} in the manifest", *problems]
        print(f"\n{error.code} " + "\n     ".join(map(visible, lines)), file=sys.stderr)
        if error.hint:
            print(f"     {visible(error.hint)}"[:400], file=sys.stderr)
    return error.exit_code


def visible(text: str) -> str:
    """A line in which nothing speaks to the terminal: names of files may hold escapes and line breaks."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def told_stopped() -> int:
    kept = "What was finished is kept: the same command goes on from there."
    fail(RetakeError("E130", "stopped", kept))
    return INTERRUPTED


def interrupted(*_: Any) -> None:
    """Ctrl-C, and SIGTERM, also where a shell started it with SIGINT ignored: the write that is under way is finished,
    and the run ends. A second one does not wait."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, at_once)
    raise KeyboardInterrupt


def interrupted_in_a_destructor(dropped: Any) -> None:
    """`sys.unraisablehook`. What is raised in a destructor or a callback Python prints and drops, and an interrupt may
    come just there: it is raised again a moment later, when the destructor is over."""
    if not isinstance(dropped.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(dropped)
        return
    signal.signal(signal.SIGALRM, interrupted)
    signal.setitimer(signal.ITIMER_REAL, 0.01)


def at_once(*_: Any) -> None:
    """End this process and its children now. The store is made for that: what was committed stays."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # nothing is left to hurry
    import psutil

    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    told_stopped()
    sys.stderr.flush()
    os._exit(INTERRUPTED)


def stop_at_once() -> None:
    """On Ctrl-C, do not ask Prefect, whose own server may be gone by then."""
    signal.signal(signal.SIGINT, at_once)


def command_path(error: Any) -> str:
    context = getattr(error, "ctx", None)
    return context.command_path if context else "retake"
