"""The jobs of a dataset: every edit of every clip, with valid settings and the mark of what it is made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows import graph
from flows.config import CHECKOUT, CHOICES, Settings, validate
from flows.listing import entry, listed, no_clip
from flows.manifest import ClipEntry, Dataset, Rules, overlaid
from flows.rows import ManifestError
from retake.clip import Clip, SpriteClip, open_clip, slug
from retake.diffusion.model import weights_of
from retake.errors import ConfigError, RetakeError, did_you_mean
from retake.metrics import fid
from retake.recipe import digest, files_of, installed
from retake.stage import RECORDED, identity
from retake.store import Store
from retake.weights.local import locate
from tasks import metrics

OF_AN_EDIT = {"model", "latents", "inversion", "edit", "decode", "metrics", "report"}


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
        groups = (getattr(self.settings, group) for group in self.settings.__dataclass_fields__ if group != "dataset")
        return [path for params in groups for path in files_of(params)]

    def open(self) -> Clip:
        """The clip. Raises what `open_clip` raises."""
        return open_clip(self.spec)


@dataclass(frozen=True)
class Work:
    """What a dataset asks for. name: of its folder; waiting: files that are still being written."""

    name: str
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
    clips, waiting = clips_of(dataset, common)
    jobs: list[Job] = []
    problems: list[str] = []
    for where, clip in clips:
        told = set()
        for edit in dataset.edits:
            try:
                job = Job(clip.id, edit.id, clip.clip, validated(common, clip, edit))
                jobs.append(job)
                told |= {f"{where}: no such file: {path}" for path in job.files() if not Path(path).exists()}
            except ConfigError as error:
                told.add(f"{where}: {error.message}" + (f" ({error.hint})" if "mean" in error.hint else ""))
        problems += sorted(told)
    if problems:
        problems = of_all(problems, len(clips))
        raise ManifestError(Path(dataset.manifest or "params/dataset"), problems)
    name = slug(Path(dataset.manifest).stem) if dataset.manifest else "clips"
    return Work(name, dataset, tuple(jobs), tuple(waiting))


def of_all(problems: list[str], clips: int) -> list[str]:
    """Problems that every clip has are those of the common settings: told once."""
    what = Counter(problem.partition(": ")[2] for problem in problems)
    common = [text for text, count in what.items() if count == clips > 1]
    rest = [problem for problem in problems if problem.partition(": ")[2] not in common]
    return [*(f"every clip: {text}" for text in common), *rest]


def clips_of(dataset: Dataset, common: Mapping[str, Any]) -> tuple[list[tuple[str, ClipEntry]], list[str]]:
    """Clips with the place where each stands, and names of files that are still being written."""
    clips = [(f"clip {clip.id}", clip) for clip in dataset.clips]
    if problems := [f"{where}: {found}" for where, clip in clips if (found := no_clip(clip.clip))]:
        raise ManifestError(Path("params/dataset"), problems)
    if dataset.manifest is None:
        return clips, []
    rows, waiting = listed(dataset.manifest, dataset.settle)
    for row in rows:
        given = entry(row)
        if not row.line:  # what a tree holds beside its clips is taken where the settings ask for it
            taken = {g: {k: v for k, v in keys.items() if k in common.get(g, {})} for g, keys in given.settings.items()}
            given = given.model_copy(update={"settings": {g: keys for g, keys in taken.items() if keys}})
        clips.append((f"line {row.line}" if row.line else f"clip {row.id}", given))
    ids = [clip.id.lower() for _, clip in clips]
    if twice := sorted({i for i in ids if ids.count(i) > 1}) if len(set(ids)) < len(ids) else []:
        raise ManifestError(Path(dataset.manifest), [f"the id {one!r} stands in dataset.clips, too" for one in twice])
    return clips, waiting


def validated(common: Mapping[str, Any], clip: ClipEntry, edit: Any) -> Settings:
    """Settings of one job. Raises ConfigError E205, E206 for what no group takes."""
    for group in clip.settings:
        if group not in common:
            raise ConfigError("E205", f"unknown group {group!r}", did_you_mean(group, list(common)))
    return validate(overlaid(common, clip, edit))


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


@dataclass
class Marks:
    """What jobs are made from, as far as the system tells without reading it: while a job's mark stays, so does what
    it made. Files stand in it by inode, times and size, code by content, weights by where they lie."""

    store: Store

    def __post_init__(self) -> None:
        folders = ("flows", "tasks", "retake")
        files = sorted(path for folder in folders for path in (CHECKOUT / folder).rglob("*.py"))
        code = [[str(path.relative_to(CHECKOUT)), self.store.source_digest(path)] for path in files]
        self.code = digest([code, installed(*RECORDED), str(self.store.root)])
        self._weights: dict[str, str] = {}

    def of(self, job: Job, rules: Rules) -> str:
        settings = {group: values for group, values in job.settings.as_json().items() if group != "dataset"}
        told = [identity(path) for path in [*paths_of(job.spec), *job.files()]]
        return digest([self.code, job.spec, told, settings, rules.model_dump(), self.weights(job.settings, settings)])

    def weights(self, p: Settings, settings: Mapping[str, Any]) -> str:
        """Where the weights of settings lie, and when they were put there."""
        known = digest([settings[group] for group in (*CHOICES, "model", "metrics")])
        if known not in self._weights:
            references = {reference for group in CHOICES for reference in graph.chosen(p, group)["weights"].values()}
            references |= {*weights_of(p.model).values(), *metrics.weights(p.metrics).values()}
            self._weights[known] = digest([[name, *lies(name)] for name in sorted(references)])
        return self._weights[known]


def paths_of(spec: str) -> Sequence[str]:
    """Files of a clip; a text that opens as none stands for itself."""
    try:
        clip = open_clip(spec)
        return [] if isinstance(clip, SpriteClip) else clip.paths()
    except (RetakeError, OSError):
        return [spec]


def lies(reference: str) -> Iterator[Any]:
    """Path and identity of weights, nothing where they are not here or named wrongly."""
    try:
        path = locate(reference)
    except RetakeError:
        return
    if path is not None:
        yield from (str(path), identity(str(path)))
