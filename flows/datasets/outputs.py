"""What a dataset run hands out: artifacts/<stage>/<clip>[/<edit>], and the tables that only a whole dataset has.

Folders are filled one by one as jobs finish. What stands there already is left as it is.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flows import graph
from flows.editing import result_folder
from retake.artifact import Artifact
from retake.formats import unpack
from retake.machine.disk import write_atomic
from retake.metrics import fid
from retake.store import Store

ALL_CLIPS = "all clips"  # no clip's id: ids hold no space
# One result a clip; the other stages make one a clip and edit: where things move to is the edit's to say.
OF_A_CLIP = ("frames", *(name for name in graph.PRIORS if name != "edited_tracks"))
Place = tuple[str, ...]
"""(clip,) or (clip, edit)."""


def place_of(stage: str, clip: str, edit: str) -> Place:
    return (clip,) if stage in OF_A_CLIP else (clip, edit)


def hand_out(store: Store, folder: Path, artifact: Artifact, edit: result_folder.Finished | None = None) -> None:
    """Fill one folder anew: tensors by hard link, what people open by copy; with `edit`, its page, too. A folder that
    was filled whole with this very artifact stays, unless it has a page, which tells of more. Raises DamagedError."""
    record = {"kind": artifact.kind, "digest": artifact.digest, "meta": dict(artifact.meta)}
    label = json.dumps(record, indent=1, sort_keys=True) + "\n"
    if edit is None and is_up_to_date(folder, label, artifact):
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in artifact.files:
        hand = store.link_out if file.name.endswith(".safetensors") else store.copy_out
        hand(file, folder / file.name)
    if edit is not None:
        result_folder.write_page(store, edit, folder)
    write_atomic(folder / "artifact.json", label)  # the last: with it the folder is whole


def is_up_to_date(folder: Path, label: str, artifact: Artifact) -> bool:
    """Whether a folder holds exactly this artifact, byte for byte: people open and change files there."""
    try:
        if (folder / "artifact.json").read_text() != label:
            return False
        return all(digest_of(folder / file.name) == file.sha256 for file in artifact.files)
    except OSError:
        return False


def digest_of(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def tidy(folder: Path, stage: str, places: Iterable[Place]) -> None:
    """Take away folders of a stage that are no result of the dataset any more. Where it has none at all, say so."""
    kept = set(places)
    folder.mkdir(parents=True, exist_ok=True)
    for clip in [path for path in folder.iterdir() if path.is_dir()]:
        if stage in OF_A_CLIP:
            stale = [clip] if (clip.name,) not in kept else []
        else:
            stale = [path for path in clip.iterdir() if (clip.name, path.name) not in kept]
        for path in stale:
            shutil.rmtree(path)
        if clip.exists() and not any(clip.iterdir()):
            clip.rmdir()
    none = folder / "not-needed.txt"
    if kept:
        none.unlink(missing_ok=True)
    else:
        write_atomic(none, f"No edit of the dataset needs {stage}.\n")


def write_scores(folder: Path, places: Iterable[Place], params: Mapping[str, fid.Params]) -> None:
    """scores.json (clip -> edit -> metric) for `dvc metrics`, frames.tsv (all rows) for `dvc plots`, from the folders
    that were handed out. What only a whole dataset has, FID and KID, stands under "all clips"; what to know about it in
    notes.json. `params`: by edit."""
    scores: dict[str, dict[str, Any]] = {}
    rows: list[str] = []
    features: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for clip, edit in places:
        made = folder / clip / edit
        scores.setdefault(clip, {})[edit] = json.loads((made / "metrics.json").read_text())
        header, *lines = (made / "metrics.tsv").read_text().splitlines()
        rows = rows or [f"clip\tedit\t{header}"]
        rows += [f"{clip}\t{edit}\t{line}" for line in lines]
        if (made / fid.FEATURES).exists():
            found = unpack((made / fid.FEATURES).read_bytes())
            features.setdefault(edit, []).append((found["source"], found["result"]))
    notes = {}
    for edit, pairs in features.items():
        values, notes[edit] = fid_of(pairs, params[edit])
        scores.setdefault(ALL_CLIPS, {})[edit] = values
    if features:
        write_atomic(folder / "notes.json", json.dumps(notes, indent=1, sort_keys=True) + "\n")
    else:
        (folder / "notes.json").unlink(missing_ok=True)
    write_atomic(folder / "scores.json", json.dumps(scores, indent=1, sort_keys=True) + "\n")
    write_atomic(folder / "frames.tsv", "\n".join(rows) + "\n")


def fid_of(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], params: fid.Params
) -> tuple[dict[str, float | None], dict[str, str]]:
    """FID and KID of one edit over all clips, and notes on them: features of the sources and of the results by clip."""
    source, result = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return fid.score(source, result, params)
