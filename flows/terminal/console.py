"""What a person sees while stages run: a bar on a terminal, one line a stage in a log, nothing with --json."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, TypeVar

from retake.machine.disk import format_bytes
from retake.stage import Outcome

Reason = TypeVar("Reason")


class Console:
    """Messages go to stderr; data, elsewhere, to stdout."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.live = not quiet and sys.stderr.isatty()
        self._bar: Any = None
        self._task: Any = None
        self._stage = ""
        self._notes: list[str] = []

    def progress(self, stage: str, done: int, total: int) -> None:
        if not self.live:
            return
        if self._stage != stage:
            self._close()
            from rich.console import Console as Rich
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description:13}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Rich(stderr=True), transient=True)
            self._bar.start()
            self._task, self._stage = self._bar.add_task(stage, total=total), stage
        self._bar.update(self._task, completed=done, total=total)

    def waiting(self, stage: str) -> None:
        self.say(f"{stage:13} another process is making it; waiting")

    def outcome(self, outcome: Outcome) -> None:
        """One line a stage, and below it what a person should know of its result."""
        self._close()
        if outcome.stage == "correction":  # what it puts right is not to be complained of
            self._notes.clear()
        self.tell_notes()
        made = format_bytes(outcome.artifact.bytes)
        took = f"{outcome.seconds:7.1f} s" if outcome.status == "ran" else f"{'':9}"
        saved = f"saved {outcome.recorded_seconds:.1f} s" if outcome.status == "cached" else ""
        self.say(f"{outcome.stage:13} {outcome.status:7}{took}  {made:>9}  {outcome.key[:10]}  {saved}".rstrip())
        self._notes += outcome.artifact.meta.get("notes", ())
        if outcome.stage not in ("masks", "correction"):
            self.tell_notes()

    def tell_notes(self) -> None:
        """Say what is to be known about the masks, once it is clear that no correction follows."""
        for note in self._notes:
            self.say(f"{'':13} note: {note}")
        self._notes.clear()

    def say(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar, self._stage = None, ""


def alike(reasons: Mapping[str, Reason], most: int) -> tuple[dict[Reason, str], int]:
    """The first names of each reason, in a few words; of how many names the reasons are beyond the first `most`."""
    names: dict[Reason, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    told = list(names.items())
    few = {why: ", ".join(of[:3]) + (f" and {len(of) - 3} more" if len(of) > 3 else "") for why, of in told[:most]}
    return few, sum(len(of) for _, of in told[most:])
