"""The dataset as a Prefect flow, for deployments and schedules."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact

from flows import dataset
from flows.console import Console
from flows.edit import ProgressArtifacts
from flows.job import open_store
from flows.runners import Prefect


@flow(name="process-dataset", persist_result=False)
def process_dataset(overrides: list[str] | None = None, commit: bool = True, retry: str = "") -> dict[str, Any]:
    """Every edit of every clip of params.yaml; overrides are composed into params.yaml first, as `dvc exp run -S`
    does. With `commit`, `dvc repro` afterwards finds nothing to do. With retry="quarantined", what was set aside is
    tried again. Returns what `retake dataset --json` prints."""
    runner = Prefect(open_store(), ProgressArtifacts())
    done = dataset.process(runner, Console(), overrides or [], commit, [retry] if retry else [])
    rows = [{key: value for key, value in job.items() if key != "metrics"} for job in done["jobs"]]
    create_table_artifact(rows, key="dataset-jobs", description=f"Jobs of the dataset {done['dataset']}")
    return done
