"""What a job is made from, so that a later run of a dataset can tell whether its result is still up to date."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.datasets.jobs import Job
from flows.places import CODE
from flows.settings.choice import CHOICES
from flows.settings.compose import Settings
from flows.settings.dataset import Rules
from retake import checkout
from retake.clip import SpriteClip, open_clip
from retake.diffusion.model import weights_of
from retake.errors import RetakeError
from retake.recipe import digest, installed
from retake.stage import RECORDED, file_identity
from retake.store import Store
from retake.weights.local import locate
from tasks import metrics


@dataclass
class Marks:
    """What jobs are made from, as far as the system tells without reading it: while a job's mark stays, so does what
    it made. Files stand in it by inode, times and size, code by content, weights by where they lie."""

    store: Store

    def __post_init__(self) -> None:
        folders = (CODE / "flows", CODE / "tasks", Path(checkout.__file__).parent)  # the last is retake/
        files = sorted((path, folder) for folder in folders for path in folder.rglob("*.py"))
        code = [[str(path.relative_to(folder.parent)), self.store.source_digest(path)] for path, folder in files]
        self.code = digest([code, installed(*RECORDED), str(self.store.root)])
        self._weights: dict[str, str] = {}

    def mark_of(self, job: Job, rules: Rules) -> str:
        settings = {group: values for group, values in job.settings.as_json().items() if group != "dataset"}
        files = [file_identity(path) for path in [*paths_of(job.spec), *job.files()]]
        return digest([self.code, job.spec, files, settings, rules.model_dump(), self.weights(job.settings, settings)])

    def weights(self, p: Settings, settings: Mapping[str, Any]) -> str:
        """Where the weights of settings lie, and when they were put there."""
        known = digest([settings[group] for group in (*CHOICES, "model", "metrics")])
        if known not in self._weights:
            references = {reference for group in CHOICES for reference in p.choices[group].weights.values()}
            references |= {*weights_of(p.model).values(), *metrics.weights(p.metrics).values()}
            self._weights[known] = digest([[name, *weights_identity(name)] for name in sorted(references)])
        return self._weights[known]


def paths_of(spec: str) -> Sequence[str]:
    """Files of a clip; a text that opens as none stands for itself."""
    try:
        clip = open_clip(spec)
        return [] if isinstance(clip, SpriteClip) else clip.paths()
    except (RetakeError, OSError):
        return [spec]


def weights_identity(reference: str) -> Iterator[Any]:
    """Path and identity of weights, nothing where they are not here or named wrongly."""
    try:
        path = locate(reference)
    except RetakeError:
        return
    if path is not None:
        yield from (str(path), file_identity(str(path)))
