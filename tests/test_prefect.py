"""Edits as Prefect flows, on a real server: every stage a task, hits shown as Cached, artifacts kept."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from flows.graph import STAGES

SETTINGS = ["frames.last=20", "masks.box=[50,44,142,136]", "edit.reference=params/dataset/ball.png", "report.tile=160"]
MADE = [
    stage for stage in STAGES if stage not in ("depth", "edited_tracks", "latents", "inversion", "motion_channels")
]  # no others are needed here


@pytest.fixture(scope="module")
def server(prefect_database, tmp_path_factory):
    """A temporary Prefect server with a database of its own."""
    from prefect.testing import utilities

    home = tmp_path_factory.mktemp("server")
    shutil.copy(prefect_database, home / "prefect-test.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utilities, "mkdtemp", lambda: str(home))  # the folder that it would make
        with utilities.prefect_test_harness(server_startup_timeout=120):
            yield


@pytest.fixture(scope="module")
def made(server, tmp_path_factory) -> tuple[Path, dict[str, Any], dict[str, str]]:
    """A store that an edit's flow has filled, what the flow said, and how its tasks ended."""
    from flows.edit import edit_clip

    home = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETAKE_STORE", str(home / "store"))
        patch.setenv("RETAKE_EDITS", str(home / "edits"))
        told = edit_clip("sprites:drift", SETTINGS)
        return home / "store", told, states_of_last_run()


@pytest.fixture
def first(made, own_store) -> dict[str, Any]:
    """What the flow said that filled the store which the test starts with, a copy."""
    shutil.copytree(made[0], own_store.parent)
    return made[1]


def states_of_last_run() -> dict[str, str]:
    """Task name -> state name of the newest flow run, once the server has written down the end of every stage.

    Prefect records tasks from events, which a busy server works through after the flow has returned.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        run = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)[0]
        end = time.monotonic() + 60
        while True:
            tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])))
            ended = sum(task.state is not None and task.state.is_final() for task in tasks)
            if ended == len(tasks) == len(MADE) or time.monotonic() > end:
                return {task.name.rpartition("-")[0]: str(task.state_name) for task in tasks}
            time.sleep(0.2)


def artifact_keys() -> set[str]:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return {a["key"] for a in client.request("POST", "/artifacts/filter", json={}).json()}


def test_stages_are_tasks_and_hits_are_cached(made, first):
    from flows.edit import edit_clip
    from flows.editing import edit

    assert [s["status"] for s in first["stages"]] == ["ran"] * len(MADE)
    assert made[2] == dict.fromkeys(MADE, "Completed")

    again = edit_clip("sprites:drift", SETTINGS)
    assert [s["status"] for s in again["stages"]] == ["cached"] * len(MADE)
    assert states_of_last_run() == dict.fromkeys(MADE, "Cached")
    assert [s["key"] for s in again["stages"]] == [s["key"] for s in first["stages"]]

    # The command line's runner finds what the flow made: one store, the same keys.
    local = edit.edit("sprites:drift", SETTINGS)
    assert {o.status for o in local.outcomes} == {"cached"}
    assert [o.key for o in local.outcomes] == [s["key"] for s in first["stages"]]

    keys = artifact_keys()
    assert f"edit-{first['edit']}" in keys
    assert f"edit-{first['edit']}-stages" in keys
    assert "retake-optical-flow" in keys


def test_a_changed_parameter_runs_only_what_depends_on_it(first):
    from flows.edit import edit_clip

    edit_clip("sprites:drift", [*SETTINGS, "edit.strength=0.5"])
    states = states_of_last_run()
    assert {name for name, state in states.items() if state == "Completed"} == {"edit", "decode", "metrics", "report"}


def test_a_refused_clip_fails_the_run_with_its_code(server, own_store, tmp_path):
    from flows.edit import edit_clip
    from retake.errors import MediaError

    empty = tmp_path / "empty.mp4"
    empty.touch()
    with pytest.raises(MediaError, match="E401"):
        edit_clip(str(empty), SETTINGS)


def test_damage_is_healed_inside_a_flow(first, own_store):
    import os

    from flows.edit import edit_clip
    from retake.store import Store

    store = Store(own_store, lambda _: None)
    frames = next(iter(store.records("frames"))).artifact
    path = store.object_path(frames.files[0].sha256)
    os.chmod(path, 0o644)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    again = edit_clip("sprites:drift", [*SETTINGS, "edit.strength=0.25"])
    assert store.read(frames.files[0])
    assert again["stages"][0]["key"] == first["stages"][0]["key"]
