"""The dataset: every edit of every clip of params/dataset, one node of the graph at a time.

`run_stage` is the command of a dvc.yaml stage; `process_dataset` is the Prefect flow over all of them, and commits
what it made to dvc.lock, so that the two fronts never repeat each other's work.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from flows import graph, handout
from flows.config import CHECKOUT, Settings, compose, read_params, validate
from flows.console import Console
from flows.job import open_store
from flows.manifest import overlaid
from flows.runners import Local
from retake import dvc
from retake.artifact import Artifact
from retake.clip import Clip, open_clip
from retake.errors import ConfigError, did_you_mean
from retake.formats import unpack
from retake.metrics import fid
from retake.stage import Outcome
from retake.store import Store
from tasks.metrics import FEATURES

ALL_CLIPS = "all clips"  # no clip's id: ids hold no space
OF_A_CLIP = ("frames", *graph.PRIORS)  # one result a clip; the other stages make one a clip and edit
OF_AN_EDIT = {"model", "latents", "inversion", "edit", "decode", "metrics", "report"}


def run_stage(name: str, console: Console) -> dict[str, Any]:
    """Make one stage of the whole dataset and hand it out to artifacts/<name>. Reads root params.yaml; never composes.
    Raises ConfigError E209 for an unknown stage."""
    if name not in graph.STAGES:
        raise ConfigError("E209", f"there is no stage {name!r}", did_you_mean(name, list(graph.STAGES)))

    def tell(outcome: Outcome) -> None:
        if outcome.stage == name or outcome.status == "ran":  # the stages before it are there already
            console.outcome(outcome)

    runner = Local(open_store(), console, tell)
    with contextlib.chdir(CHECKOUT):  # paths in the dataset are relative to the checkout, wherever this was called
        return runner.healed(lambda: made_of_stage(name, runner))


def made_of_stage(name: str, runner: Local) -> dict[str, Any]:
    """The stage's artifacts by clip (and edit), handed out. A stage that no edit needs says so in its folder."""
    common = read_params()
    made: dict[tuple[str, ...], Artifact] = {}
    edits: dict[tuple[str, ...], handout.Finished] = {}
    for clip, edit, opened, p in jobs(common, with_edits=name not in OF_A_CLIP):
        if name in graph.closure(p):
            place = (clip,) if edit is None else (clip, edit)
            edits[place] = finished(runner, edit or "", opened, p, until=name)
            made[place] = edits[place].made[name]
    hand_out_stage(runner.store, name, made, edits)
    dvc.seed(CHECKOUT, runner.store, [file for artifact in made.values() for file in artifact.files])
    return {"stage": name, "artifacts": {"/".join(place): artifact.digest for place, artifact in made.items()}}


def finished(runner: Local, name: str, clip: Clip, p: Settings, until: str = "report") -> handout.Finished:
    """Run one edit. Its page says of every stage that it stands in the store: the same page whichever front made it."""
    before = len(runner.outcomes)
    made = graph.edit_graph(runner, clip, p, until)
    outcomes = [replace(outcome, status="cached") for outcome in runner.outcomes[before:]]
    return handout.Finished(name, clip, p, made, outcomes)


def jobs(common: Mapping[str, Any], with_edits: bool = True) -> Iterator[tuple[str, str | None, Clip, Settings]]:
    """(clip id, edit id, clip, settings) of the dataset. Without edits: the clip's own settings, for its priors.

    Raises ConfigError E213 when an edit sets what belongs to a clip.
    """
    dataset = validate(common).dataset
    for edit in dataset.edits:
        if strange := sorted(set(edit.settings) - OF_AN_EDIT):
            raise ConfigError(
                "E213",
                f"the edit {edit.id!r} sets {strange[0]}, which belongs to clips",
                "Priors are shared by all edits of a clip: put it under the clip's settings.",
            )
    for clip in dataset.clips:
        opened = open_clip(clip.clip)
        for edit in dataset.edits if with_edits else dataset.edits[:1]:
            yield clip.id, edit.id if with_edits else None, opened, validate(overlaid(common, clip, edit))


def hand_out_stage(
    store: Store, name: str, made: Mapping[tuple[str, ...], Artifact], edits: Mapping[tuple[str, ...], handout.Finished]
) -> None:
    """Fill artifacts/<name> anew: tensors by hard link, what people open by copy."""
    folder = CHECKOUT / "artifacts" / name
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    if not made:
        handout.write_text(folder / "not-needed.txt", f"No edit of the dataset needs {name}.\n")
    for place, artifact in made.items():
        target = folder.joinpath(*place)
        for file in artifact.files:
            hand = store.link_out if file.name.endswith(".safetensors") else store.copy_out
            hand(file, target / file.name)
        meta = {"kind": artifact.kind, "digest": artifact.digest, "meta": dict(artifact.meta)}
        handout.write_text(target / "artifact.json", json.dumps(meta, indent=1, sort_keys=True) + "\n")
        if name == "report":
            handout.write_page(store, edits[place], target)
    if name == "metrics" and made:
        write_scores(store, made, folder, {place[1]: edits[place].settings.metrics.fid for place in made})


def write_scores(
    store: Store, made: Mapping[tuple[str, ...], Artifact], folder: Path, params: Mapping[str, fid.Params]
) -> None:
    """scores.json (clip -> edit -> metric) for `dvc metrics`, frames.tsv (all rows) for `dvc plots`. What only a whole
    dataset has, FID and KID, stands under "all clips"; what to know about it in notes.json. `params`: by edit."""
    scores: dict[str, dict[str, Any]] = {}
    rows: list[str] = []
    features: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for (clip, edit), artifact in made.items():
        scores.setdefault(clip, {})[edit] = json.loads(store.read(artifact["metrics.json"]))
        header, *lines = store.read(artifact["metrics.tsv"]).decode().splitlines()
        rows = rows or [f"clip\tedit\t{header}"]
        rows += [f"{clip}\t{edit}\t{line}" for line in lines]
        if FEATURES in artifact:
            found = unpack(store.read(artifact[FEATURES]))
            features.setdefault(edit, []).append((found["source"], found["result"]))
    notes = {}
    for edit, pairs in features.items():
        values, notes[edit] = fid_of(pairs, params[edit])
        scores.setdefault(ALL_CLIPS, {})[edit] = values
    if features:
        handout.write_text(folder / "notes.json", json.dumps(notes, indent=1, sort_keys=True) + "\n")
    handout.write_text(folder / "scores.json", json.dumps(scores, indent=1, sort_keys=True) + "\n")
    handout.write_text(folder / "frames.tsv", "\n".join(rows) + "\n")


def fid_of(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], params: fid.Params
) -> tuple[dict[str, float | None], dict[str, str]]:
    """FID and KID of one edit over all clips, and notes on them: features of the sources and of the results by clip."""
    source, result = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return fid.score(source, result, params)


def commit(console: Console, made: Mapping[str, Mapping[tuple[str, ...], Artifact]], store: Store) -> None:
    """Tell DVC what stands under artifacts/: its cache gets the objects by hard link, dvc.lock the stages."""
    files = [file for artifacts in made.values() for artifact in artifacts.values() for file in artifact.files]
    links = dvc.seed(CHECKOUT, store, files)
    dvc.commit_stages(CHECKOUT, list(graph.STAGES))
    console.say(f"dvc.lock is current; {links} objects linked into DVC's cache")


def process(runner: Local, console: Console, overrides: list[str], record: bool) -> dict[str, Any]:
    """Make every edit of every clip with a runner, hand everything out, and record it for DVC."""
    if overrides:
        validate(compose(overrides))
        dvc.compose(CHECKOUT, overrides)
    common = read_params()
    if not overrides and common != compose([]):
        console.say("note: params.yaml is not what params/ composes to (retake params writes it anew)")

    def build() -> dict[str, dict[tuple[str, ...], Artifact]]:
        made: dict[str, dict[tuple[str, ...], Artifact]] = {name: {} for name in graph.STAGES}
        edits: dict[tuple[str, ...], handout.Finished] = {}
        for clip, edit, opened, p in jobs(common):
            assert edit is not None
            console.say(f"\n{clip} × {edit}")
            edits[clip, edit] = finished(runner, edit, opened, p)
            for name, artifact in edits[clip, edit].made.items():
                made[name][(clip,) if name in OF_A_CLIP else (clip, edit)] = artifact
        for name, artifacts in made.items():
            hand_out_stage(runner.store, name, artifacts, edits)
        return made

    with contextlib.chdir(CHECKOUT):
        made = runner.healed(build)
    if record:
        commit(console, made, runner.store)
    for clip, edit in made["report"]:
        console.say(f"report  artifacts/report/{clip}/{edit}/report.html")
    return {
        "stages": [o.as_json() for o in runner.outcomes],
        "artifacts": {
            name: {"/".join(place): artifact.digest for place, artifact in artifacts.items()}
            for name, artifacts in made.items()
        },
    }
