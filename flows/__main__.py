"""The command line. Data on stdout, messages on stderr, `--json` for machines.

Exit codes: 0 done, 2 settings, 3 some clips failed, 4 media refused, 5 environment, 6 integrity, 130 interrupted.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from importlib import import_module
from pathlib import Path

import typer

from flows.commands import app
from flows.terminal.exits import (
    INTERRUPTED,
    at_once,
    command_path,
    fail,
    interrupted,
    interrupted_in_a_destructor,
)
from retake.errors import ConfigError, MachineError, RetakeError
from retake.machine import memory

for name in ("editing", "tracks", "datasets", "store", "machine", "tools"):  # in the order in which help lists them
    import_module(f"flows.commands.{name}")


def main() -> None:
    """Run the command line and exit. `python -m flows` comes here, and so does the console command."""
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    # A server of its own for one run takes half a minute to start while the machine is busy; Prefect waits 20 s.
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
    signal.signal(signal.SIGTERM, interrupted)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell may have it ignored
        signal.signal(signal.SIGINT, interrupted)
    sys.unraisablehook = interrupted_in_a_destructor
    for stream in (sys.stdout, sys.stderr):  # names of files need not be text, nor terminals take all of it
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    debug = "--debug" in sys.argv  # every command takes it
    words = [word for word in sys.argv[1:] if word != "--debug"]
    try:
        code = app(words, prog_name="retake", standalone_mode=False)
        if code == INTERRUPTED:  # Typer's way of handing on a KeyboardInterrupt
            raise KeyboardInterrupt
    except RetakeError as error:
        if debug:
            raise
        code = fail(error)
    except (KeyboardInterrupt, typer.Abort):
        at_once()
    except BrokenPipeError:
        code = 0
    except Exception as error:
        if text := getattr(error, "format_message", None):  # how Typer says that the command itself is wrong
            # Without a command it has shown the help, and has no more to say.
            code = fail(ConfigError("E201", text(), f"See: {command_path(error)} --help")) if text() else 2
        elif debug:
            raise
        elif memory.is_out_of_memory(error):
            code = fail(
                MachineError("E506", f"out of memory ({error})"[:200], "Close other programs, or use fewer pixels.")
            )
        else:
            text = f"unexpected {type(error).__name__}: {error}"
            code = fail(RetakeError("E999", text, "Run it again with --debug and report what it shows."))
    sys.stdout.flush()
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    from retake.checkout import enter

    enter(Path(__file__).resolve().parent.parent)
    main()
