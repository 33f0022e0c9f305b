"""A fork of this process, which has imported already what a Python of its own would import first."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable


class Forked:
    """Runs `work` and ends. As of a process of subprocess, `stdout` is what it prints, and it can be killed."""

    def __init__(self, work: Callable[[], object]) -> None:
        sys.stdout.flush()
        reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                os.dup2(writer, 1)
                sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115  as long as the process
                work()
                sys.stdout.flush()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)  # nothing of what this process does when it ends
        os.close(writer)
        self.stdout = os.fdopen(reader)

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """The exit status; the negative number of a signal."""
        self.stdout.close()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
