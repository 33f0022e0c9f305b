"""A batch: every job of a dataset brought to an end, whatever becomes of any one of them.

A job is tried as often as what went wrong may pass; a clip that is wrong is set aside; what the machine lacks, and
Ctrl-C, stop the batch. Several processes may be at one batch: each takes the jobs that nobody is at.
"""

from __future__ import annotations

import os
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from flows import graph
from flows.datasets import gallery, outputs
from flows.datasets.fingerprint import Marks
from flows.datasets.jobs import Job, Work, broken_rule
from flows.datasets.states import BAD, GOOD, SETTLED, State, States
from flows.editing import result_folder
from flows.places import OUTS, PROJECT, datasets_home
from flows.planning.table import format_duration
from flows.runners import Local
from flows.terminal.console import Console
from retake import dvc
from retake.artifact import Artifact
from retake.clip import Clip
from retake.errors import MachineError, RetakeError
from retake.health.verdict import worst
from retake.machine.disk import explain_write_errors, require_writable, write_atomic
from retake.recipe import digest
from retake.store import Store

OWNER = "manifest.txt"  # beside the states: the manifest that they are of
DEATHS = 5  # of the process at one job, before it is set aside
BACK_OFF = 0.5  # seconds before the second try; twice as long before each further one, at most LONGEST
LONGEST = 30.0
PASSING = ("E408", "E600", "E601")  # a decoder that took too long, damage that came back, a file that is being written


@dataclass
class Batch:
    """One run over the jobs of a dataset.

    record: its outs are DVC's, else they stand beside its states. retry_states: states that are tried
    again though their inputs have not changed. results: the final state of each job, by name; worked: how many were not
    finished before, new_bad: how many of these failed; stages: how many ran and how many were cached.
    """

    runner: Local
    console: Console
    work: Work
    record: bool
    retry_states: Sequence[str] = ()
    results: dict[str, State] = field(default_factory=dict)
    stages: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.home = claim_home(self.work, self.runner.store)
        self.to = OUTS if self.record else self.home
        for place in (self.home, self.to):
            require_writable(place)
        self.store, self.rules = self.runner.store, self.work.dataset.skip
        self.states, self.marks = States(self.home / "states.jsonl"), Marks(self.store)
        self.began, self.worked, self.new_bad = time.monotonic(), 0, 0

    def run_all(self) -> None:
        """Finished jobs first, so the ETA counts only real work; jobs that another process has locked last."""
        todo = [job for job in self.work.jobs if not self.is_settled(job, self.marks.mark_of(job, self.rules))]
        elsewhere = [job for job in todo if not self.run_one(job, wait=False)]
        for job in elsewhere:
            self.run_one(job, wait=True)
        self.results = {job.name: self.results[job.name] for job in self.work.jobs}

    def run_one(self, job: Job, wait: bool) -> bool:
        """Run a job unless it is finished; false where another process has it locked."""
        mark = self.marks.mark_of(job, self.rules)
        if self.is_settled(job, mark):
            return True
        key = digest(["job", str(self.home), job.name])
        with self.store.lock(key, lambda: self.console.say(f"{job.name}: waiting for another process"), wait) as mine:
            if not mine:
                return False
            self.states.read()
            if not self.is_settled(job, mark):
                self.end(job, self.attempted(job, mark))
        return True

    def is_settled(self, job: Job, mark: str) -> bool:
        """Whether a job is finished: inputs unchanged, outputs still there, no retry asked for."""
        known = self.states.of(job.name, mark)
        if known is None or known.state in self.retry_states or known.state not in SETTLED:
            return False
        if known.state in GOOD:
            places = [folder_of(self.to, stage, job) for stage in known.stages or ()]
            if not all((place / "artifact.json").exists() for place in places):
                return False
            known = replace(known, state="cached", report=self.report_of(job))
        self.results[job.name] = known
        return True

    def attempted(self, job: Job, mark: str) -> State:
        """Try a job until it is done or given up; its last state. Raises what ends the whole run: what the machine
        lacks, and Ctrl-C."""
        before = self.states.of(job.name, mark)
        tries = before.attempts if before is not None and before.state == "begun" else 0
        if tries >= DEATHS and "quarantined" not in self.retry_states:
            reason = f"the process died {tries} times while it was at this"
            hint = "Look at the clip and at the memory of the machine; then --retry quarantined"
            return self.states.add(State(job.name, "quarantined", mark, reason, "E299", hint, tries))
        for n in range(1, self.work.dataset.attempts + 1):
            self.states.add(State(job.name, "begun", mark, attempts=tries + n))
            start = time.monotonic()
            try:
                state = self.made(job, mark)
                return self.states.add(replace(state, attempts=tries + n, seconds=round(time.monotonic() - start, 3)))
            except MachineError as error:
                self.states.add(State(job.name, "interrupted", mark, str(error)))
                raise
            except Exception as error:
                kind = verdict(error)
                if kind != "passing" or n == self.work.dataset.attempts:
                    state = "quarantined" if kind == "permanent" else "failed"
                    self.log(job, error)
                    return self.states.add(State(job.name, state, mark, *describe_error(error), tries + n))
                pause = min(LONGEST, BACK_OFF * 2 ** (n - 1))
                self.console.say(f"{job.name}: {describe_error(error)[0]}; again in {pause:g} s")
                time.sleep(pause)
            except BaseException:
                self.states.add(State(job.name, "interrupted", mark))
                raise
        raise AssertionError("a loop of at least one attempt returns or raises")

    def made(self, job: Job, mark: str) -> State:
        """Make one job and hand it out. Raises what making it raises."""
        clip = job.open()
        if rule := broken_rule(clip, self.rules, job.settings.frames.folder_fps):
            return State(job.name, "skipped", mark, rule)
        # A page that DVC records is the same whichever dataset it is of.
        made = make_and_write(self.runner, job, clip, self.to, home=None if self.record else self.home)
        gallery.write_thumbnail(self.home, job.name, self.store, made)
        if self.record:
            dvc.seed(PROJECT, self.store, [file for artifact in made.values() for file in artifact.files])
        counted = Counter(outcome.status for outcome in self.runner.outcomes)
        self.stages += counted
        keys = {outcome.stage: outcome.key for outcome in self.runner.outcomes}
        health, doubt = worst(made["report"].meta.get("health", {}))
        return State(
            job.name,
            "ok" if counted["ran"] else "cached",
            mark,
            report=self.report_of(job),
            scores=result_folder.scores_by_name(self.store, made["metrics"]),
            health=health,
            doubt=doubt,
            stages={stage: (keys.get(stage, ""), artifact.digest) for stage, artifact in made.items()},
        )

    def report_of(self, job: Job) -> str:
        """Path of a job's page, relative to the gallery."""
        return os.path.relpath(folder_of(self.to, "report", job) / "report.html", self.home)

    def end(self, job: Job, state: State) -> None:
        """Note a job's end, and say so with the time that is left."""
        self.results[job.name] = state
        self.worked += 1
        self.new_bad += state.state in BAD
        done, total = len(self.results), len(self.work.jobs)
        left = (time.monotonic() - self.began) / self.worked * (total - done)
        what = f"{state.code} {state.reason}".strip()
        if state.state in GOOD:
            what = "  ".join(filter(None, (short_path(self.home / state.report), state.doubt)))
        eta = f"; {format_duration(left)} left" if done < total else ""
        self.console.say(f"{done}/{total}  {job.name}  {state.state}  {what}{eta}")

    def log(self, job: Job, error: Exception) -> None:
        """The whole of an error, beside the states: of one that nobody expected also where it was raised."""
        path = self.home / "logs" / job.clip / f"{job.edit}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        expected = isinstance(error, RetakeError)
        write_atomic(path, f"{error}\n" if expected else "".join(traceback.format_exception(error)))


def home_of(work: Work) -> Path:
    """Where the states of a dataset stand: a folder of its name, with a digest where another manifest of that name was
    there first."""
    home = datasets_home() / work.name
    try:
        theirs = (home / OWNER).read_text(encoding="utf-8").strip() != work.source
    except OSError:  # nobody's yet, or of a time when folders had no owner
        theirs = False
    return home.with_name(f"{home.name}-{digest(work.source)[:8]}") if theirs else home


def claim_home(work: Work, store: Store) -> Path:
    """The folder of a dataset, which is no other's from here on."""
    home = datasets_home() / work.name
    with explain_write_errors(home), store.lock(digest(["dataset", str(home)])):
        if not (home / OWNER).exists():
            home.mkdir(parents=True, exist_ok=True)
            write_atomic(home / OWNER, work.source + "\n")
    return home_of(work)


def make_and_write(
    runner: Local, job: Job, clip: Clip, to: Path, until: str = "report", home: Path | None = None
) -> dict[str, Artifact]:
    """Run one edit and hand out what it made (of a run that stops at a stage only that), healing what is damaged. home:
    where the gallery is that its page leads back to."""

    def build() -> dict[str, Artifact]:
        made = graph.edit_graph(runner, clip, job.settings, until)
        # The page says of every stage that it stands in the store: the same page whichever front made it.
        outcomes = [replace(outcome, status="cached") for outcome in runner.outcomes]
        page = folder_of(to, "report", job)
        elsewhere = {os.path.relpath(gallery.video_of(to, job.name), page): "the result, H.264"}
        back = os.path.relpath(home / "index.html", page) if home else ""
        edit = result_folder.Finished(job.edit, clip, job.settings, made, outcomes, "", elsewhere, back)
        for stage, artifact in made.items() if until == "report" else [(until, made[until])]:
            folder = folder_of(to, stage, job)
            outputs.hand_out(runner.store, folder, artifact, edit if stage == "report" else None)
        return made

    runner.outcomes.clear()
    return runner.healed(build)


def folder_of(to: Path, stage: str, job: Job) -> Path:
    return (to / stage).joinpath(*outputs.place_of(stage, job.clip, job.edit))


def short_path(path: Path) -> str:
    """A path as a person would type it in the project."""
    path = Path(os.path.normpath(path))
    return str(path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path)


def verdict(error: Exception) -> str:
    """Of an error: passing, it may go well the next time; permanent, the clip or its settings are wrong; unknown, a
    fault of ours perhaps."""
    if isinstance(error, RetakeError):
        return "passing" if error.code in PASSING else "permanent"
    return "passing" if isinstance(error, OSError) else "unknown"


def describe_error(error: Exception) -> tuple[str, str, str]:
    """Message, code and hint of an error; code and hint are empty for one that is not Retake's own."""
    if isinstance(error, RetakeError):
        return error.message, error.code, error.hint
    return f"{type(error).__name__}: {error}"[:500], "", ""
