"""What a whole dataset would take, before anything is started: `retake dataset MANIFEST --plan`.

Every job that is not settled is planned as `retake plan` would; what edits of one clip share is counted once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flows import graph
from flows.datasets import outputs
from flows.datasets.fingerprint import Marks
from flows.datasets.jobs import Work, broken_rule
from flows.datasets.states import GOOD, SETTLED, States
from flows.planning.forecast import Known
from flows.planning.table import format_duration, format_flops, total_cost
from flows.runners import Plan, Planned
from flows.terminal.console import group_by_reason
from retake.errors import RetakeError
from retake.store import Store
from retake.weights.local import fetch_command

EXPLAINED = 20  # edits of which it is found out why their stages would run: every look goes through many records
MAX_NAMES = 10  # files, and edits that would be set aside
DIGESTS = re.compile(r" \([0-9a-f]{10} -> [0-9a-f]{10}\)")  # no two clips share them
OF_A_MODEL = ("latents", "inversion", "motion_channels", "edit")  # stages that run on a GPU where there is one


@dataclass
class Outlook:
    """Counts of stages by what would happen, and what those that would run are likely to take. unknown: how many of
    them are of a kind that never ran here, which are the stages of `never_ran`; unreadable: edits that the run would
    set aside, with the reason, as far as the clip's container tells; why: how often a stage would run for which reason,
    among the first edits that are not settled, which are `explained`; waiting: files that were written less than
    `settle` seconds ago, which a run would leave for the next one.
    """

    jobs: int = 0
    settled: dict[str, int] = field(default_factory=dict)
    stages: dict[str, dict[str, int]] = field(default_factory=dict)
    seconds: float = 0.0
    device_seconds: float = 0.0
    bytes: int = 0
    flops: int = 0
    unknown: int = 0
    never_ran: list[str] = field(default_factory=list)
    lacks: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    why: dict[str, dict[str, int]] = field(default_factory=dict)
    explained: int = 0
    waiting: list[str] = field(default_factory=list)
    settle: float = 0.0

    def as_json(self) -> dict[str, Any]:
        return dict(vars(self))

    def add(self, planned: Planned, with_model: bool) -> None:
        """Count one stage, of a job that runs a diffusion model or not."""
        of_stage = self.stages.setdefault(planned.stage, {"cached": 0, "will run": 0, "may run": 0})
        of_stage[planned.status] += 1
        self.lacks += [name for name in planned.lacks if name not in self.lacks]
        if planned.status == "will run" and planned.why:
            reasons, why = self.why.setdefault(planned.stage, {}), DIGESTS.sub("", planned.why)
            reasons[why] = reasons.get(why, 0) + 1
        if planned.forecast is None:
            return
        if planned.forecast.seconds is None:
            self.unknown += 1
            self.never_ran += [planned.stage] * (planned.stage not in self.never_ran)
        self.seconds += planned.forecast.seconds or 0.0
        if with_model and planned.stage in OF_A_MODEL:
            self.device_seconds += planned.forecast.seconds or 0.0
        self.bytes += planned.forecast.bytes or 0
        self.flops += planned.forecast.flops or 0


def outlook(store: Store, work: Work, states: States, retry_states: Sequence[str] = ()) -> Outlook:
    """Plan every job that is not finished, and those of `retry_states`. Starts no stage and decodes no video; files are
    hashed, containers looked at."""
    found, marks = Outlook(jobs=len(work.jobs), waiting=list(work.waiting), settle=work.dataset.settle), Marks(store)
    shared: set[tuple[str, str]] = set()
    known = Known()
    for job in work.jobs:
        state = states.of(job.name, marks.mark_of(job, work.dataset.skip))
        if state is not None and state.state in SETTLED and state.state not in retry_states:
            name = "done" if state.state in GOOD else state.state
            found.settled[name] = found.settled.get(name, 0) + 1
            continue
        run = Plan(store, explain=found.explained < EXPLAINED, known=known)
        try:
            clip = job.open()
            if broken_rule(clip, work.dataset.skip, job.settings.frames.folder_fps):
                found.settled["skipped"] = found.settled.get("skipped", 0) + 1
                continue
            graph.edit_graph(run, clip, job.settings)
        except RetakeError as error:
            found.unreadable[job.name] = f"{error.code} {error.message}"
            continue
        found.explained += run.explain
        with_model = "latents" in graph.closure(job.settings)
        for planned in run.planned:
            place = planned.stage, planned.key or job.clip
            if planned.stage in outputs.OF_A_CLIP:
                if place in shared:
                    continue
                shared.add(place)
            found.add(planned, with_model)
    return found


def lines(found: Outlook) -> Iterator[str]:
    """For a terminal: a line a stage, then what all of it comes to."""
    settled = "".join(f", {count} {state}" for state, count in found.settled.items())
    yield f"{found.jobs} edits{settled}"
    yield from (
        f"{name} is still being written: left for a later run (dataset.settle={found.settle:g})"
        for name in found.waiting[:MAX_NAMES]
    )
    if len(found.waiting) > MAX_NAMES:
        yield f"and {len(found.waiting) - MAX_NAMES} more"
    if found.stages:
        yield f"{'':13} {'cached':>8} {'will run':>9} {'may run':>8}"
    for stage, counts in found.stages.items():
        yield f"{stage:13} {counts['cached']:8} {counts['will run']:9} {counts['may run']:8}"
    for stage, reasons in found.why.items():
        often = sorted(reasons.items(), key=lambda reason: -reason[1])
        yield from (
            f"why {stage}: {why[:160]} ({count} of the first {found.explained} edits)" for why, count in often[:3]
        )
    yield totals(found)
    aside, more = group_by_reason(found.unreadable, MAX_NAMES)
    yield from (f"would fail: {names}  {reason[:160]}" for reason, names in aside.items())
    if more:
        yield f"and {more} more"
    if found.lacks:
        yield f"first: {fetch_command(found.lacks)}"


def totals(found: Outlook) -> str:
    known = runs(found) > found.unknown
    costs: Mapping[str, str] = {
        "in all": total_cost(found.seconds, found.bytes, found.never_ran, known) if runs(found) else nothing(found),
        "with the model": format_duration(found.device_seconds) if found.device_seconds else "",
        "operations": f"up to {format_flops(found.flops)}" if found.flops else "",
    }
    return "; ".join(f"{what} {text}" for what, text in costs.items() if text)


def nothing(found: Outlook) -> str:
    aside = found.settled.get("quarantined", 0)
    more = f"; {aside} are quarantined: --retry quarantined tries them again" if aside else ""
    return ("nothing but those that would fail" if found.unreadable else "nothing to do") + more


def runs(found: Outlook) -> int:
    return sum(counts["will run"] + counts["may run"] for counts in found.stages.values())
