"""What a person sees while stages run: a bar on a terminal, one line a stage in a log, nothing with --json."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from flows.terminal.progress import StageProgress
from retake.machine.disk import format_bytes
from retake.report.notes import weighed
from retake.stage import Outcome

Reason = TypeVar("Reason")


class Console:
    """Progress and notes on stderr; stdout is left to the command's own output."""

    def __init__(self, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet, self.verbose = quiet, verbose
        self.live = not quiet and sys.stderr.isatty()
        self._shown = StageProgress()
        self._notes: list[str] = []
        self._untold: dict[str, None] = {}  # technical notes

    def started(self, stage: str) -> None:
        if self.live:
            self._shown.start(stage)

    def progress(self, stage: str, done: int, total: int) -> None:
        if self.live:
            self._shown.count(stage, done, total)

    def stopped(self, stage: str) -> None:
        self._shown.ended(stage)
        self._shown.stop()

    def expect(self, stages: Sequence[tuple[str, float | None]]) -> None:
        """The stages that will be made and their forecast in seconds: for the time that is left of them all."""
        self._shown.expect(stages)

    def waiting(self, stage: str) -> None:
        self.say(f"{stage:15} another process is making it; waiting")

    def outcome(self, outcome: Outcome) -> None:
        """One line a stage, and below it the notes on its result."""
        if outcome.stage == "correction":  # the notes on the masks no longer hold
            self._notes.clear()
        self.print_notes()
        made = format_bytes(outcome.artifact.bytes)
        took = f"{outcome.seconds:7.1f} s" if outcome.status == "ran" else f"{'':9}"
        saved = f"saved {outcome.recorded_seconds:.1f} s" if outcome.status == "cached" else ""
        self.say(f"{outcome.stage:15} {outcome.status:7}{took}  {made:>9}  {outcome.key[:10]}  {saved}".rstrip())
        self._notes += outcome.artifact.meta.get("notes", ())
        if outcome.stage not in ("masks", "correction"):
            self.print_notes()

    def plays(self, video: Path) -> None:
        """The result can be looked at before the rest is made."""
        self.say(f"video    {video}   plays; metrics and report follow")

    def print_notes(self) -> None:
        """Print the notes on the masks, held back until it is clear that no correction follows; of technical ones only
        how many there were, at the end, unless all are asked for."""
        found = weighed(self._notes)
        for note in (*found.notes, *(found.technical if self.verbose else ())):
            self.say(f"{'':15} note: {note}")
        self._untold |= dict.fromkeys(() if self.verbose else found.technical)
        self._notes.clear()

    def end(self, where: str = "the report") -> None:
        """Say how many notes were kept back, and where they stand."""
        self.print_notes()
        if count := len(self._untold):
            self.say(f"{count} technical note{'s' * (count > 1)}: see {where}, or -v")
        self._untold.clear()

    def say(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)


def group_by_reason(reasons: Mapping[str, Reason], most: int) -> tuple[dict[Reason, str], int]:
    """For each of the first `most` reasons, its first three names and how many more; and how many names remain."""
    names: dict[Reason, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    groups = list(names.items())
    first = {why: ", ".join(of[:3]) + (f" and {len(of) - 3} more" if len(of) > 3 else "") for why, of in groups[:most]}
    return first, sum(len(of) for _, of in groups[most:])
