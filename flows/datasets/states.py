"""How far each edit of each clip of a dataset has come: a log that every run reads first and adds to.

    artifacts/datasets/<name>/states.jsonl     a line for every step of every job; the last line of a job is its state

    ok           made in this run, or found in the store
    skipped      left out by rule (dataset.skip)
    failed       something that may pass went wrong, as often as it was tried: the next run tries again
    quarantined  the clip or its settings are wrong, or the process died at it, `attempts` times: left alone
                 until the file or the settings change, or it is asked for (--retry quarantined)
    begun        being worked on; where no other line follows and nobody works on it, the process died
    interrupted  stopped by a person

A state holds as long as its mark: what the job is made from (jobs.py says of what).
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from retake.machine.disk import explain_write_errors

GOOD, BAD = ("ok", "cached"), ("failed", "quarantined")
SETTLED = (*GOOD, "skipped", "quarantined")  # while the mark holds


@dataclass(frozen=True)
class State:
    """One line. reason: what a person reads; code: of the error; hint: what to do about it; attempts: how often it was
    begun under this mark."""

    job: str
    state: str
    mark: str
    reason: str = ""
    code: str = ""
    hint: str = ""
    attempts: int = 0
    seconds: float = 0.0
    report: str = ""
    scores: dict[str, Any] | None = None
    health: str = ""
    """The worst verdict on its masks (retake/health), of a job that is ok; doubt: in words, where it is not good."""
    doubt: str = ""
    stages: dict[str, tuple[str, str]] | None = None
    """Key and digest of what each stage made, of a job that is ok."""
    time: float = 0.0


class States:
    """The states of one dataset. Several processes may add to one log: a line is written whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last: dict[str, State] = {}
        self._read = 0  # bytes of the log
        self.read()

    def read(self) -> None:
        """Read what was added since. Half a line, of a process that was killed, is passed over, and so is any other
        nonsense."""
        try:
            with self.path.open("rb") as log:
                log.seek(self._read)
                text = log.read()
        except FileNotFoundError:
            return
        whole = text.rfind(b"\n") + 1
        self._read += whole
        for line in text[:whole].splitlines():
            try:
                state = State(**json.loads(line))
            except (ValueError, TypeError):
                continue
            self._last[state.job] = state

    def of(self, job: str, mark: str) -> State | None:
        """The state of a job while its mark holds, else None."""
        state = self._last.get(job)
        return state if state is not None and state.mark == mark else None

    def all(self) -> list[State]:
        """The last state of every job, whatever its mark."""
        return list(self._last.values())

    def add(self, state: State) -> State:
        """Append a state, durably."""
        state = State(**{**asdict(state), "time": round(time.time(), 3)})
        kept = {key: value for key, value in asdict(state).items() if value not in ("", None)}
        with explain_write_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_CREAT | os.O_APPEND | os.O_RDWR, 0o644)
            try:
                text = json.dumps(kept, sort_keys=True, ensure_ascii=False) + "\n"
                if (end := os.lseek(handle, 0, os.SEEK_END)) and os.pread(handle, 1, end - 1) != b"\n":
                    text = "\n" + text  # a killed process left half a line
                os.write(handle, text.encode("utf-8", "backslashreplace"))
                os.fsync(handle)
            finally:
                os.close(handle)
        self._last[state.job] = state
        return state
