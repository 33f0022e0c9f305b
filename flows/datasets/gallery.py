"""The gallery of a dataset: its thumbnails and its page, beside its states."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from flows.datasets.states import State
from retake.artifact import Artifact
from retake.formats import open_series
from retake.machine.disk import atomic_path, explain_write_errors, write_atomic
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


def video_of(to: Path, job: str) -> Path:
    """A job's MP4. to: where stages' folders stand."""
    return to / "decode" / job / "result.mp4"


def write_results(home: Path, to: Path, results: Mapping[str, State]) -> None:
    """results/CLIP/EDIT.mp4 of every job that has one, as hard links where that works; others are taken away."""
    folder, kept = home / "results", set()
    with explain_write_errors(folder):
        for job, state in results.items():
            clip, edit = job.split("/")
            made, plain = video_of(to, job), folder / clip / f"{edit}.mp4"
            if not (state.report and made.exists()):
                continue
            kept.add(plain)
            if plain.exists() and plain.samefile(made):
                continue
            plain.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(plain) as part:
                try:
                    part.hardlink_to(made)
                except OSError:  # another file system, or one without links
                    shutil.copyfile(made, part)
        for stale in set(folder.glob("*/*.mp4")) - kept:
            stale.unlink()
        for clip_folder in folder.glob("*"):
            if clip_folder.is_dir() and not any(clip_folder.iterdir()):
                clip_folder.rmdir()


def write_page(home: Path, to: Path, name: str, results: Mapping[str, State]) -> Path:
    """index.html over the jobs that have ended."""
    cards = []
    for job, state in results.items():
        clip, edit = job.split("/")
        picture = picture_of(job) if state.report and (home / picture_of(job)).exists() else ""
        reason = "" if state.report else ". ".join(filter(None, (f"{state.code} {state.reason}".strip(), state.hint)))
        video = video_of(to, job)
        cards.append(
            gallery_page.Card(
                clip,
                edit,
                state.state,
                reason or state.doubt,
                state.seconds,
                state.report,
                picture,
                state.scores or {},
                os.path.relpath(video, home) if state.report and video.exists() else "",
                state.health,
            )
        )
    with explain_write_errors(home):
        home.mkdir(parents=True, exist_ok=True)
    write_atomic(home / "index.html", gallery_page.page(f"dataset {name}", cards))
    return home / "index.html"
