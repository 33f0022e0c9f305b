"""What a stage is at, on a terminal: a spinner until there is something to count, then a bar and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from flows.planning.table import format_duration

BAR = 24  # columns, so that the line fits into 80


class StageProgress:
    """One stage at a time. screen: rich's console, by default standard error; clock: seconds."""

    def __init__(self, screen: Any = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._screen, self._clock = screen, clock
        self._bar: Any = None
        self._task: Any = None
        self._stage, self._total = "", 0
        self._since = (0.0, 0)  # (seconds, how many were done then): what the time left is reckoned from

    def start(self, stage: str) -> None:
        """Show that a stage is at work, and for how long."""
        from rich.console import Console
        from rich.progress import Progress

        self.stop()
        self._stage, self._total, self._since = stage, 0, (self._clock(), 0)
        self._bar = Progress(*columns(), console=self._screen or Console(stderr=True), transient=True)
        self._bar.start()
        self._task = self._bar.add_task(stage, total=None, left="")

    def count(self, stage: str, done: int, total: int) -> None:
        """Show how much of a stage is done; nothing to count yet where that is 0."""
        if self._bar is None or self._stage != stage:
            self.start(stage)
        if done <= 0:
            return
        bar: Any = self._bar
        now, (then, before) = self._clock(), self._since
        if total != self._total:  # the first count, or another kind: an edit counts steps, then frames
            before = done if self._total else 0
            self._total, self._since = total, (now, done)
            bar.columns = columns(counting=True)
        each = (now - then) / (done - before) if before < done < total else None
        left = "" if each is None else f"{format_duration(each * (total - done))} left"
        bar.update(self._task, completed=done, total=total, left=left)

    def stop(self) -> None:
        """Take the line away."""
        if self._bar is not None:
            self._bar.stop()
        self._bar, self._stage = None, ""


def columns(counting: bool = False) -> tuple[Any, ...]:
    """Of the line: spinner, stage, the bar and its numbers once there is something to count, time so far and left."""
    from rich import progress

    begin = progress.SpinnerColumn(), progress.TextColumn("{task.description:15}")
    bar = (progress.BarColumn(BAR), progress.MofNCompleteColumn()) if counting else ()
    return *begin, *bar, progress.TimeElapsedColumn(), progress.TextColumn("{task.fields[left]}")
