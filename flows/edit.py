"""`edit_clip` as a Prefect flow: every stage is a task, a hit shows as Cached, progress and tables as artifacts.

prefect deployment: entrypoint flows.edit.edit_clip, parameters clip: str, overrides: list[str]
"""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from flows.editing import edit
from flows.places import open_store
from flows.runners import Prefect
from retake.stage import Silent


class ProgressArtifacts(Silent):
    """An observer that keeps one Prefect progress artifact a stage, updated at most at every twentieth."""

    def __init__(self) -> None:
        self._shown: dict[str, tuple[Any, int]] = {}

    def progress(self, stage: str, done: int, total: int) -> None:
        step = 20 * done // max(1, total)
        if stage not in self._shown:
            identity = create_progress_artifact(5.0 * step, key=f"retake-{stage.replace('_', '-')}", description=stage)
            self._shown[stage] = (identity, step)
        elif step > self._shown[stage][1]:
            update_progress_artifact(self._shown[stage][0], 5.0 * step)
            self._shown[stage] = (self._shown[stage][0], step)


@flow(name="edit-clip", persist_result=False)
def edit_clip(clip: str, overrides: list[str] | None = None, until: str = "report") -> dict[str, Any]:
    """Edit one clip; returns what `retake edit --json` prints. Raises RetakeError, which fails the run."""
    runner = Prefect(open_store(), ProgressArtifacts())
    done = edit.edit(clip, overrides or [], until=until, runner=runner)
    result = done.as_json()
    create_table_artifact(result["stages"], key=f"edit-{done.id}-stages", description=f"Stages of edit {done.id}")
    create_markdown_artifact(summary(result, clip), key=f"edit-{done.id}", description=f"Edit {done.id} of {clip}")
    return result


def summary(result: dict[str, Any], clip: str) -> str:
    """Markdown: what was edited, where the results are."""
    reused = sum(stage["status"] == "cached" for stage in result["stages"])
    lines = [f"# Edit {result['edit']}", "", f"Clip `{clip}`: {len(result['stages'])} stages, {reused} cached.", ""]
    return "\n".join([*lines, *(f"- {name}: `{path}`" for name, path in result["outputs"].items())])
