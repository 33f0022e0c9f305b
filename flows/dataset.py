"""Datasets as Prefect flows, for deployments and schedules."""

from __future__ import annotations

import re
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact

from flows.datasets import run
from flows.edit import ProgressArtifacts
from flows.places import open_store
from flows.runners import Prefect
from flows.terminal.arguments import split_manifest
from flows.terminal.console import Console
from retake.errors import ConfigError, SomeFailedError


@flow(name="process-dataset", persist_result=False)
def process_dataset(overrides: list[str] | None = None, commit: bool = True, retry: str = "") -> dict[str, Any]:
    """Every edit of every clip of params.yaml; overrides are composed into params.yaml first, as `dvc exp run -S`
    does. With `commit`, `dvc repro` afterwards finds nothing to do. With retry="quarantined", what was set aside is
    tried again. Returns what `retake dataset --json` prints; raises SomeFailedError E700 where edits fail anew."""
    runner = Prefect(open_store(), ProgressArtifacts())
    return shown(run.process(runner, Console(), overrides or [], commit, [retry] if retry else []))


@flow(name="process-inbox", persist_result=False)
def process_inbox(folder: str, overrides: list[str] | None = None) -> dict[str, Any]:
    """Every edit of every clip that has arrived in a folder (or of any other manifest). What is done already costs
    next to nothing, a clip that is still being written waits for the next run, and an empty folder is no error."""
    runner = Prefect(open_store(), ProgressArtifacts())
    words = split_manifest([folder, *(overrides or [])])
    try:
        return shown(run.process(runner, Console(), words, record=False))
    except ConfigError as error:
        if error.code != "E298":
            raise
        return {"counts": {}, "waiting": []}


def shown(done: dict[str, Any]) -> dict[str, Any]:
    """Put the jobs of a run where Prefect's pages show them. Raises SomeFailedError E700 where this run set clips aside
    or failed: the flow run fails, and sends one notification."""
    rows = [{key: value for key, value in job.items() if key != "metrics"} for job in done["jobs"]]
    create_table_artifact(rows, key=f"dataset-{artifact_key(done['dataset'])}", description=str(done["counts"]))
    if done["new_bad"]:
        message = f"{done['new_bad']} edits of {done['dataset']} failed or were quarantined; all others are done"
        raise SomeFailedError("E700", message, f"The gallery has their reasons: {done['gallery']}")
    return done


def artifact_key(name: str) -> str:
    """Prefect takes small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "dataset"
