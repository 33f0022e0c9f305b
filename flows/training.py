"""Training as a Prefect flow, for deployments: the stages of every clip are tasks, and what was stopped goes on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from prefect import flow

from flows.edit import ProgressArtifacts
from flows.places import open_store
from flows.runners import Prefect
from flows.upkeep import train


@flow(name="train-moalign", persist_result=False)
def train_moalign(
    clips: str | None = None,
    stage: str | None = None,
    size: str = "cpu",
    folder: str = "artifacts/training",
    minutes: float | None = None,
    encoder: str | None = None,
) -> dict[str, Any]:
    """`retake train moalign`: one of its stages, or all, on the sprite world and on the clips of a manifest. minutes:
    at most so long; the next run goes on from there, as after a kill. encoder: another one. Returns whether it is
    finished, and where."""
    runner = Prefect(open_store(), ProgressArtifacts())
    left = math.inf if minutes is None else minutes
    done = train.run("moalign", size, None, left, Path(folder), True, False, clips, stage, runner, encoder)
    return {"finished": done, "folder": str(Path(folder) / size)}
