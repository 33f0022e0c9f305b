"""The dataset: every edit of every clip of params/dataset, or of a manifest.

`run_stage` is the command of a dvc.yaml stage; `process` makes all of it, clip by clip (batch.py), and commits what it
made to dvc.lock, so that the two fronts never repeat each other's work.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flows import graph
from flows.datasets import gallery, outputs
from flows.datasets.batch import Batch, folder_of, home_of, make_and_write, short_path
from flows.datasets.fingerprint import Marks
from flows.datasets.jobs import Job, work_of
from flows.datasets.manifest import PATHS, beside
from flows.datasets.plan import Outlook, outlook
from flows.datasets.states import BAD, GOOD, State, States
from flows.places import OUTS, PROJECT, open_store, require_project
from flows.runners import Local
from flows.settings.compose import compose, read_params, validate
from flows.terminal.console import Console, group_by_reason
from retake import dvc
from retake.artifact import Artifact
from retake.errors import ConfigError, did_you_mean
from retake.machine.disk import require_writable, write_atomic
from retake.recipe import digest
from retake.stage import Outcome
from retake.store import Store

MAX_REASONS = 10  # reasons of bad jobs at the end of a run


def run_stage(name: str, console: Console) -> dict[str, Any]:
    """Make one stage of the whole dataset and hand it out to artifacts/<name>. Reads root params.yaml; never composes.
    Jobs that are quarantined are left out. Raises ConfigError E209 for an unknown stage, and the error of a clip that
    is not set aside yet: `retake dataset` does that. Raises ConfigError E200 where there is no project."""
    require_project()
    if name not in graph.STAGES:
        raise ConfigError("E209", f"there is no stage {name!r}", did_you_mean(name, list(graph.STAGES)))
    require_writable(OUTS / name)

    def report(outcome: Outcome) -> None:
        if outcome.stage == name or outcome.status == "ran":  # the stages before it are there already
            console.outcome(outcome)

    runner = Local(open_store(), console, report)
    with contextlib.chdir(PROJECT):  # paths in the dataset are relative to the project, wherever this was called
        work = work_of(read_params())
        states, marks = States(home_of(work) / "states.jsonl"), Marks(runner.store)
        made: dict[outputs.Place, Artifact] = {}
        for job in work.jobs:
            place = outputs.place_of(name, job.clip, job.edit)
            known = states.of(job.name, marks.mark_of(job, work.dataset.skip))
            if place in made or name not in graph.closure(job.settings):
                continue
            if known is not None and known.state in ("quarantined", "skipped"):
                console.say(f"{job.name} is left out, {known.state}: {known.reason}")
                continue
            made[place] = make_and_write(runner, job, job.open(), OUTS, name)[name]
        outputs.tidy(OUTS / name, name, made)
        if name == "metrics" and made:
            outputs.write_scores(OUTS / name, made, work.fid_params())
        dvc.seed(PROJECT, runner.store, [file for artifact in made.values() for file in artifact.files])
    return {"stage": name, "artifacts": {"/".join(place): artifact.digest for place, artifact in made.items()}}


def process(
    runner: Local, console: Console, overrides: list[str], record: bool, retry_states: Sequence[str] = ()
) -> dict[str, Any]:
    """Make every edit of every clip with a runner, hand everything out, and record it for DVC.

    What comes of a job is in its state; raises only what concerns all of them: settings, the manifest, the machine.
    """
    common = settings_of(console, overrides, record)
    with contextlib.chdir(PROJECT):
        batch = Batch(runner, console, work_of(common), record, retry_states)
        if batch.home.name != batch.work.name:
            theirs = batch.home.with_name(batch.work.name)
            console.say(f"another manifest has {short_path(theirs)}: this one has {short_path(batch.home)}")
        settle = f"(dataset.settle={batch.work.dataset.settle:g})"  # seconds
        for name in batch.work.waiting:
            console.say(f"{name} is still being written: left for the next run {settle}")
        try:
            batch.run_all()
        finally:  # also of what was done until Ctrl-C
            if batch.worked or not (batch.home / "index.html").exists():
                gallery.write_page(batch.home, batch.to, batch.work.name, batch.results)
                gallery.write_results(batch.home, batch.to, batch.results)
        finish(batch)
    counts = Counter(state.state for state in batch.results.values())
    for line in final_lines(batch, counts):
        console.say(line)
    index = batch.home / "index.html"
    console.say(f"gallery  {short_path(index)}")
    good = {job: state for job, state in batch.results.items() if state.state in GOOD}
    return {
        "dataset": batch.work.name,
        "counts": dict(counts),
        "new_bad": batch.new_bad,
        "stages": dict(batch.stages),
        "waiting": list(batch.work.waiting),
        "gallery": str(index),
        "jobs": [summary(job, state) for job, state in batch.results.items()],
        "artifacts": artifacts(good),
    }


def plan(store: Store, console: Console, overrides: list[str], retry_states: Sequence[str] = ()) -> Outlook:
    """What `process` would do. Writes nothing, params.yaml included."""
    common = settings_of(console, overrides, record=False)
    with contextlib.chdir(PROJECT):
        work = work_of(common)
        return outlook(store, work, States(home_of(work) / "states.jsonl"), retry_states)


def final_lines(batch: Batch, counts: Mapping[str, int]) -> Iterator[str]:
    """The summary at the end of a run: how many jobs in each state, and why the bad ones failed."""
    bad = [(job, state) for job, state in batch.results.items() if state.state in BAD]
    if not counts:
        yield "no edits: " + (f"again in {batch.work.dataset.settle:g} s" if batch.work.waiting else "no clips")
        return
    yield "\n" + ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    reasons, more = group_by_reason(
        {job: (one.state, f"{one.code} {one.reason}".strip(), one.hint) for job, one in bad}, MAX_REASONS
    )
    for (name, reason, hint), jobs in reasons.items():
        yield f"{name:11}  {jobs}  {reason[:200]}"
        if hint:
            yield f"{'':11}  {hint[:200]}"
    if more:
        yield f"and {more} more"
    if bad:
        logs = short_path(batch.home / "logs")
        yield f"errors in full: {logs}; to try what is quarantined again: --retry quarantined"


def settings_of(console: Console, overrides: list[str], record: bool) -> dict[str, Any]:
    """Composed settings: those of params.yaml where DVC is to record what they make, with overrides written into it.
    Raises ConfigError E200 where these are asked for and there is no project."""
    if record or not overrides:
        require_project()
    if overrides and record:
        validate(compose(overrides))
        dvc.compose(PROJECT, overrides)
        console.say("params.yaml now holds these settings, for DVC; `retake params` puts it back")
    if overrides and not record:
        return {
            group: {key: from_here(key, value) for key, value in keys.items()}
            for group, keys in compose(overrides).items()
        }
    common = read_params()
    if not overrides and common != compose([]):
        console.say("note: params.yaml is not what params/ composes to (retake params writes it anew)")
    return common


def from_here(key: str, value: Any) -> Any:
    """A path that was typed means what lies in the folder where it was typed, as in `retake edit`."""
    return beside(value, Path.cwd()) if key in PATHS and isinstance(value, str) else value


def finish(batch: Batch) -> None:
    """What is written once all jobs have ended: tables, DVC's record. Nothing where nothing has changed since."""
    mark = batch.home / "finished"
    if not batch.worked and mark.exists() and mark.read_text() == fingerprint(batch):
        return
    places: dict[str, dict[outputs.Place, None]] = {stage: {} for stage in graph.STAGES}
    for job in batch.work.jobs:
        for stage in stages_to_keep(batch, job):
            places[stage][outputs.place_of(stage, job.clip, job.edit)] = None
    for stage, kept in places.items():
        outputs.tidy(batch.to / stage, stage, kept)
    if places["metrics"]:
        outputs.write_scores(batch.to / "metrics", places["metrics"], batch.work.fid_params())
    if batch.record and not dvc.is_set_up(PROJECT):
        batch.console.say("no dvc.lock was written: DVC is not set up here (retake init does that)")
    elif batch.record:
        if failed := sum(state.state == "failed" for state in batch.results.values()):
            batch.console.say(f"dvc.lock is left as it was: {failed} edits failed, and the next run tries them again")
            return
        dvc.commit_stages(PROJECT, list(graph.STAGES))
        batch.console.say("dvc.lock is current")
    batch.home.mkdir(parents=True, exist_ok=True)
    write_atomic(mark, fingerprint(batch))


def stages_to_keep(batch: Batch, job: Job) -> list[str]:
    """Stages whose folders of this job are kept. Those of a failed job are kept to look at, except where DVC records
    them."""
    state = batch.results[job.name]
    if state.state in GOOD:
        return list(state.stages or ())
    if state.state in BAD and not batch.record:
        return [stage for stage in graph.STAGES if folder_of(batch.to, stage, job).exists()]
    return []


def fingerprint(batch: Batch) -> str:
    """Digest of the jobs, their marks and DVC's files; as long as it stays, `finish` has nothing to do."""
    paths = (PROJECT / name for name in ("dvc.yaml", "dvc.lock", "params.yaml")) if batch.record else ()
    files = [path.read_text() if path.exists() else "" for path in paths]
    return digest([batch.record, sorted([name, state.mark] for name, state in batch.results.items()), files])


def summary(job: str, state: State) -> dict[str, Any]:
    """A finished job as JSON."""
    row = {"job": job, "state": state.state, "attempts": state.attempts, "seconds": state.seconds}
    if state.state in GOOD:
        masks = {"health": state.health, "doubt": state.doubt}
        return row | {"report": state.report, "metrics": state.scores, **masks}
    return row | {"code": state.code, "reason": state.reason, "hint": state.hint}


def artifacts(good: dict[str, State]) -> dict[str, dict[str, str]]:
    """Digests by stage and place."""
    made: dict[str, dict[str, str]] = {name: {} for name in graph.STAGES}
    for job, state in good.items():
        for stage, (_, content) in (state.stages or {}).items():
            made[stage]["/".join(outputs.place_of(stage, *job.split("/")))] = content
    return made
