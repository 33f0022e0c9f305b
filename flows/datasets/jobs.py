"""The jobs of a dataset: every edit of every clip, with valid settings."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flows import graph
from flows.datasets.manifest import ManifestError, Row, read_rows
from flows.datasets.sources import entry, list_clips, no_clip
from flows.places import PROJECT
from flows.settings.compose import Settings, for_clip, validate
from flows.settings.dataset import ClipEntry, Dataset, Entry, Rules, overlaid
from flows.settings.explain import taken
from retake.clip import Clip, open_clip, slug
from retake.errors import ConfigError
from retake.metrics import fid
from retake.params import files_of

FEW = 200  # problems of a manifest, beyond which the settings of its rows are not looked at, too
OF_AN_EDIT = {"model", "latents", "inversion", "motion_channels", "edit", "decode", "metrics", "report"}


@dataclass(frozen=True)
class Job:
    """One edit of one clip."""

    clip: str
    edit: str
    spec: str
    settings: Settings

    @property
    def name(self) -> str:
        return f"{self.clip}/{self.edit}"

    def files(self) -> list[str]:
        """Files that the settings name."""
        return files_named(self.settings)

    def open(self) -> Clip:
        """The clip. Raises what `open_clip` raises."""
        return open_clip(self.spec)


def files_named(p: Settings) -> list[str]:
    """Files and folders that settings name, other than clips."""
    groups = (getattr(p, group) for group in p.__dataclass_fields__ if group != "dataset")
    return [path for params in groups for path in files_of(params)]


@dataclass(frozen=True)
class Work:
    """What a dataset asks for. name: of its folder; source: what names its clips; waiting: files that are still being
    written."""

    name: str
    source: str
    dataset: Dataset
    jobs: tuple[Job, ...]
    waiting: tuple[str, ...] = ()

    def fid_params(self) -> dict[str, fid.Params]:
        """Settings of FID by edit: it is one figure over all clips."""
        return {job.edit: job.settings.metrics.fid for job in self.jobs}


def work_of(common: Mapping[str, Any]) -> Work:
    """All jobs, clip by clip. Paths are relative to the working folder.

    Everything is looked at before anything runs: raises ConfigError E213 when an edit sets what belongs to a clip,
    E297 with every problem of a manifest and of the settings of its clips, E298 for a folder without clips.
    """
    dataset = validate(common).dataset
    for edit in dataset.edits:
        if strange := sorted(set(edit.settings) - OF_AN_EDIT):
            raise ConfigError(
                "E213",
                f"the edit {edit.id!r} sets {strange[0]}, which belongs to clips",
                "Priors are shared by all edits of a clip: put it under the clip's settings.",
            )
    clips, waiting, problems = clips_of(dataset, common)
    jobs: list[Job] = []
    lacking: dict[str, list[str]] = {}
    known: dict[str, CheckedJob] = {}  # most clips have settings that others have, too
    for where, clip in clips:
        faults_here: set[str] = set()
        lacks: dict[str, Sequence[str]] = {}
        for edit in dataset.edits:
            key = f"{edit.id} {clip.settings!r}"
            found = known[key] = known.get(key) or check_job(common, clip, edit)
            faults_here |= {f"{where}: {fault}" for fault in found.faults}
            if found.settings is not None:
                jobs.append(Job(clip.id, edit.id, clip.clip, found.settings))
            lacks[edit.id] = found.lacks
        problems += sorted(faults_here)
        if any(lacks.values()):
            column = " A column gives it to each clip." if where.startswith("line ") else ""
            lacking[where] = [f"{where}: {lack}{column}" for lack in by_edit(lacks)]
    if len(lacking) == len({job.clip for job in jobs}):  # what some lack sets these aside
        problems += [problem for lacks in lacking.values() for problem in lacks]
    if problems:
        problems = merge_common(problems, [where for where, _ in clips])
        raise ManifestError(Path(dataset.manifest or "params/dataset"), problems)
    if dataset.manifest is None:
        return Work("clips", "params/dataset", dataset, tuple(jobs))
    path = Path(os.path.normpath(Path(dataset.manifest).expanduser().absolute()))
    source = path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path  # hosts have folders of their own
    return Work(slug(path.stem), str(source), dataset, tuple(jobs), tuple(waiting))


@dataclass(frozen=True)
class CheckedJob:
    """Settings of a job, None where there can be none. faults: what is wrong with them; lacks: what is missing for the
    edit, and what to type: where the object is, what to put into it."""

    settings: Settings | None
    faults: list[str]
    lacks: Sequence[str] = ()


def check_job(common: Mapping[str, Any], clip: ClipEntry, edit: Entry) -> CheckedJob:
    """The settings of a clip and an edit, looked at before anything runs."""
    try:
        p = for_clip(validate(overlaid(common, clip, edit)), clip.clip)
    except ConfigError as error:
        return CheckedJob(None, faults(common, clip, edit, error))
    missing = [f"no such file: {path}" for path in files_named(p) if not os.path.exists(path)]
    lacks = [f"{error.message}. {error.hint}" for error in graph.config_errors(p, graph.closure(p))]
    return CheckedJob(p, missing, lacks)


def by_edit(lacks: Mapping[str, Sequence[str]]) -> list[str]:
    """What the edits of a clip lack, once each; named where others do not lack it."""
    edits: dict[str, list[str]] = {}
    for edit, found in lacks.items():
        for lack in found:
            edits.setdefault(lack, []).append(edit)
    return [lack if len(names) == len(lacks) else f"edit {', '.join(names)}: {lack}" for lack, names in edits.items()]


def merge_common(problems: list[str], clips: Sequence[str]) -> list[str]:
    """Report problems that every clip has once: they come from the common settings. `clips`: where each stands."""
    places: dict[str, set[str]] = {}
    for problem in problems:
        where, _, text = problem.partition(": ")
        places.setdefault(text, set()).add(where)
    common = [text for text, found in places.items() if len(clips) > 1 and found.issuperset(clips)]
    rest = [problem for problem in problems if problem.partition(": ")[2] not in common]
    return [*(f"every clip: {text}" for text in common), *rest]


def clips_of(dataset: Dataset, common: Mapping[str, Any]) -> tuple[list[tuple[str, ClipEntry]], list[str], list[str]]:
    """Clips with the place where each stands, names of files that are still being written, and problems."""
    clips = [(f"clip {clip.id}", clip) for clip in dataset.clips]
    problems = [f"{where}: {found}" for where, clip in clips if (found := no_clip(clip.clip))]
    if dataset.manifest is None:
        return clips, [], problems
    rows, waiting, wrong = rows_of(dataset.manifest, dataset.settle)
    own = {clip.id.lower() for _, clip in clips}
    problems += [*wrong, *(f"the id {row.id!r} is also in dataset.clips" for row in rows if row.id.lower() in own)]
    for row in rows:
        given = entry(row)
        if not row.line:  # what a tree holds beside its clips is taken where the settings ask for it
            taken = {g: {k: v for k, v in keys.items() if k in common.get(g, {})} for g, keys in given.settings.items()}
            given = given.model_copy(update={"settings": {g: keys for g, keys in taken.items() if keys}})
        clips.append((f"line {row.line}" if row.line else f"clip {row.id}", given))
    return clips, waiting, problems


def rows_of(manifest: str, settle: float) -> tuple[list[Row], list[str], list[str]]:
    """What `list_clips` finds, and what is wrong with it: its rows are looked at all the same, for what else is."""
    try:
        return *list_clips(manifest, settle), []
    except ManifestError as error:
        path = Path(manifest).expanduser()
        few = len(error.problems) <= FEW  # validating a row takes milliseconds
        return read_rows(path)[0] if few and path.is_file() else [], [], list(error.problems)


def faults(common: Mapping[str, Any], clip: ClipEntry, edit: Entry, first: ConfigError) -> list[str]:
    """All that is wrong with the settings of a job, of which validating all of them tells the first: group by group."""
    found = []
    for group in sorted({*clip.settings, *edit.settings}):
        parts = (one.model_copy(update={"settings": {group: one.settings.get(group, {})}}) for one in (clip, edit))
        try:
            validate(overlaid(common, *parts))
        except ConfigError as error:
            found += describe_faults(error)
    return found or describe_faults(first)


def describe_faults(error: ConfigError) -> list[str]:
    """What is wrong with the settings of one group, a message for each."""
    helps, cause = error.hint.startswith(("Did you mean", "It takes a list")), error.__cause__
    hint = f" ({error.hint})" if helps else ""
    if not isinstance(cause, ValidationError):
        return [error.message + hint]
    group, messages = re.split("[.:]", error.message.removeprefix("unknown key "))[0], []
    for fault in cause.errors(include_url=False):
        place = ".".join([group, *map(str, fault["loc"])])
        messages.append(f"unknown key {place}" if fault["type"] == "extra_forbidden" else f"{place} {taken(fault)}")
    return [messages[0] + hint, *messages[1:]]


def broken_rule(clip: Clip, rules: Rules, folder_fps: float) -> str | None:
    """Why a clip is left out. Raises MediaError for one that cannot be read."""
    if not any(rules.model_dump().values()):
        return None
    info = clip.info(folder_fps)
    side = min(info.width, info.height)
    if info.frames < rules.shorter_than:
        return f"{info.frames} frames, fewer than dataset.skip.shorter_than={rules.shorter_than}"
    if rules.longer_than and info.frames > rules.longer_than:
        return f"{info.frames} frames, more than dataset.skip.longer_than={rules.longer_than}"
    if side < rules.smaller_than:
        return f"{side} pixels, fewer than dataset.skip.smaller_than={rules.smaller_than}"
    return None
