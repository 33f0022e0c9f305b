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
def process_dataset(overrides: list[str] | None = None, commit: bool = True) -> dict[str, Any]:
    """Every edit of every clip of params.yaml; overrides are composed into params.yaml first, as `dvc exp run -S`
    does. With `commit`, `dvc repro` afterwards finds nothing to do."""
    console = Console()
    runner = Prefect(open_store(), ProgressArtifacts(), console.outcome)
    done = dataset.process(runner, console, overrides or [], commit)
    create_table_artifact(done["stages"], key="dataset-stages", description="Stages of the dataset run")
    return done
