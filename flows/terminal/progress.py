"""What a stage is at, on a terminal: a spinner until there is something to count, then a bar and the time left, of the
stage and of the whole run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from flows.planning.table import format_duration

BAR = 10  # columns, so that the line fits into 80
TRUST = 4.0  # a forecast is taken to be off by at most so much, either way


class StageProgress:
    """One stage at a time. screen: rich's console, by default standard error; clock: seconds."""

    def __init__(self, screen: Any = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._screen, self._clock = screen, clock
        self._bar: Any = None
        self._task: Any = None
        self._stage, self._total = "", 0
        self._since = (0.0, 0)  # (seconds, how many were done then): what the time left is reckoned from
        self._ahead: list[tuple[str, float | None]] = []  # stages that are to come, and their forecast
        self._began, self._expected = 0.0, None
        self._forecast, self._took = 0.0, 0.0  # seconds of the stages that ended, as forecast and as they were

    def expect(self, stages: Sequence[tuple[str, float | None]]) -> None:
        """The stages that a run will make, in their order, and the seconds that each is forecast to take; None where
        nothing is known of it."""
        self._ahead, self._forecast, self._took = list(stages), 0.0, 0.0

    def _reached(self, stage: str) -> float | None:
        """Leave a stage's forecast behind, and those of stages before it, which were not made after all."""
        names = [name for name, _ in self._ahead]
        if stage not in names:
            return None
        at = names.index(stage)
        seconds = self._ahead[at][1]
        del self._ahead[: at + 1]
        return seconds

    def ended(self, stage: str) -> None:
        """A stage was made: what it took corrects what is forecast of the others."""
        if self._bar is not None and stage == self._stage and self._expected is not None:
            self._forecast += self._expected
            self._took += self._clock() - self._began

    def to_come(self) -> float | None:
        """Seconds of the stages after this one, as forecast and corrected by those that ended; None where nothing is
        known of one."""
        known = [seconds for _, seconds in self._ahead if seconds is not None]
        if len(known) < len(self._ahead):
            return None
        ratio = self._took / self._forecast if self._forecast > 0 else 1.0
        return sum(known) * min(max(ratio, 1 / TRUST), TRUST)

    def start(self, stage: str) -> None:
        """Show that a stage is at work, and for how long."""
        from rich.console import Console
        from rich.progress import Progress

        self.stop()
        self._stage, self._total, self._since = stage, 0, (self._clock(), 0)
        self._began, self._expected = self._clock(), self._reached(stage)
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
        bar.update(
            self._task, completed=done, total=total, left=self._left(None if each is None else each * (total - done))
        )

    def _left(self, seconds: float | None) -> str:
        """`about 3.2 s left`; `3.2 s left, 41.0 s to the end`."""
        if seconds is None:
            return ""
        if not (later := self.to_come()):
            return f"{format_duration(seconds)} left"
        own, whole = (format_duration(value, "").strip() for value in (seconds, seconds + later))
        return f"{own} left, {whole} to the end"

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
