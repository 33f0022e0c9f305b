"""The gallery of a dataset: its thumbnails and its page, beside its states."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flows.datasets.states import State
from retake.artifact import Artifact
from retake.formats import open_series
from retake.machine.disk import explain_write_errors, write_atomic
from retake.report import gallery_page
from retake.store import Store


def picture_of(job: str) -> str:
    """Place of a job's thumbnail, relative to the page."""
    return f"thumbnails/{job}.jpg"


def write_thumbnail(home: Path, job: str, store: Store, made: Mapping[str, Artifact]) -> None:
    """The middle frame of the source and of the result. Raises DamagedError."""
    source, result = (open_series(store, made[stage]) for stage in ("frames", "decode"))
    path = home / picture_of(job)
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gallery_page.thumbnail(source[source.count // 2], result[result.count // 2]))


def write_page(home: Path, name: str, results: Mapping[str, State]) -> Path:
    """index.html over the jobs that have ended."""
    cards = []
    for job, state in results.items():
        clip, edit = job.split("/")
        picture = picture_of(job) if state.report and (home / picture_of(job)).exists() else ""
        reason = "" if state.report else ". ".join(filter(None, (f"{state.code} {state.reason}".strip(), state.hint)))
        cards.append(
            gallery_page.Card(clip, edit, state.state, reason, state.seconds, state.report, picture, state.scores or {})
        )
    with explain_write_errors(home):
        home.mkdir(parents=True, exist_ok=True)
    write_atomic(home / "index.html", gallery_page.page(f"dataset {name}", cards))
    return home / "index.html"
