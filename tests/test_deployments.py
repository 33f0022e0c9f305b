"""The deployments of prefect.yaml on a server and a worker of their own: triggered, scheduled, killed, gone on with."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from helpers.command import Shell, reference, sprite_clip
from helpers.stages import STAGES as MADE

from flows.editing import edit
from flows.runners import Local
from retake.store import Store

CHECKOUT = Path(__file__).resolve().parent.parent
SMALL = ["frames.last=4", "report.tile=64", "masks.box=[20,20,80,80]"]
PATIENCE = 240  # seconds: a machine may be busy


class Hook:
    """What is told by a webhook: a server that keeps the texts."""

    def __init__(self) -> None:
        heard: list[str] = []

        class Listener(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.heard, self.server = heard, ThreadingHTTPServer(("127.0.0.1", 0), Listener)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Site:
    """A server on a free port of this machine, its home, and the environment of everything that talks to it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "RETAKE_"))}
        self.environment = kept | {
            "PREFECT_HOME": str(home / "prefect"),
            "PREFECT_API_URL": f"http://127.0.0.1:{self.port}/api",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_UI_ENABLED": "false",
            "PREFECT_LOGGING_TO_API_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_WORKER_PREFETCH_SECONDS": "1",
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
            "PYTHONPATH": str(CHECKOUT),
            "RETAKE_STORE": str(home / "store"),
            "RETAKE_EDITS": str(home / "edits"),
            "RETAKE_DATASETS": str(home / "datasets"),
        }
        self.children: list[subprocess.Popen[bytes]] = []
        # One for all questions: each client of its own would read the machine's certificates anew.
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}/api/", timeout=PATIENCE)
        self.hook, self.made = Hook(), list[str]()

    def fix(self, *words: str) -> list[str]:
        """What `retake doctor --fix` says that it made."""
        from prefect.settings import PREFECT_API_URL, temporary_settings

        url = self.environment["PREFECT_API_URL"]
        with temporary_settings({PREFECT_API_URL: url}):  # it has read the environment when it was imported
            told = Shell(self.home)("doctor", "--fix", *words, PREFECT_API_URL=url)
        assert told.code == 0, told.err[-2000:]
        return [line for line in told.err.splitlines() if line.startswith("made ")]

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        log = (self.home / f"{words[0]}-{len(self.children)}.log").open("wb")
        child = subprocess.Popen(
            [sys.executable, "-m", "prefect", *words],
            cwd=CHECKOUT,
            env=self.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.children.append(child)
        return child

    def run(self, *words: str) -> str:
        command = [sys.executable, "-m", "prefect", *words]
        done = subprocess.run(
            command, cwd=CHECKOUT, env=self.environment, capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 0, f"{words}: {done.stdout[-2000:]} {done.stderr[-2000:]}"
        return done.stdout

    def ask(self, path: str, body: Any = None) -> Any:
        """What the server answers: to a GET, or to a POST where there is a body. On a busy machine its database is
        sometimes locked, and it says so with 503: asked again, it answers."""
        for _ in range(20):
            answer = self.client.get(path) if body is None else self.client.post(path, json=body)
            if answer.status_code != 503:
                break
            time.sleep(1)
        answer.raise_for_status()
        return answer.json()

    def trigger(self, name: str, **parameters: Any) -> str:
        deployment = self.ask(f"deployments/name/{name}")
        return self.ask(f"deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})["id"]

    def ended(self, run: str) -> str:
        """The name of the state in which a run ends."""
        state: dict[str, Any] = {}

        def over() -> bool:
            state.update(self.ask(f"flow_runs/{run}"))
            return state["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")

        until(over)
        return state["state_name"]

    def tasks(self, run: str) -> dict[str, str]:
        """State name by stage of an edit that was completed, once the server has written down the end of all: it works
        through what tasks tell of themselves after the run has ended."""
        found: dict[str, dict[str, Any]] = {}

        def written() -> bool:
            tasks = self.ask("task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
            found.update({task["name"].rpartition("-")[0]: task for task in tasks})
            return found.keys() == set(MADE) and {task["state_type"] for task in found.values()} == {"COMPLETED"}

        until(written)
        return {stage: task["state_name"] for stage, task in found.items()}

    def close(self) -> None:
        for child in self.children:
            kill(child)
        self.client.close()
        self.hook.server.shutdown()


def kill(child: subprocess.Popen[bytes]) -> None:
    """A process and all that it started, at once."""
    try:
        group = [*psutil.Process(child.pid).children(recursive=True), psutil.Process(child.pid)]
    except psutil.NoSuchProcess:
        return
    for one in group:
        try:
            one.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    child.wait()


def identities(store: Store) -> set[tuple[str, str]]:
    """Key and digest of everything that was made."""
    return {(record.key, record.artifact.digest) for record in store.records()}


def until(true: Callable[[], Any], pause: float = 1) -> None:
    """Wait for what is true in the end; asked at longer intervals, a server has less to do."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(pause)


@pytest.fixture(scope="module")
def site(prefect_database, tmp_path_factory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("site"))
    (site.home / "prefect").mkdir()
    shutil.copy(prefect_database, site.home / "prefect")
    try:
        site.start("server", "start", "--host", "127.0.0.1", "--port", str(site.port))

        def answers() -> bool:
            try:
                return bool(site.ask("health"))
            except Exception:
                return False

        until(answers)
        site.made = site.fix("--notify", site.hook.url)
        site.run("--no-prompt", "deploy", "--all")
        yield site
    finally:
        site.close()


def test_doctor_makes_what_the_server_needs_once(site):
    assert [line.partition(":")[0] for line in site.made] == [
        "made work pool retake",
        "made automation",
        "made automation",
    ]
    assert site.fix() == []  # all is there
    pool = site.ask("work_pools/retake")
    assert (pool["type"], pool["concurrency_limit"] >= 1) == ("process", True)
    site.client.patch("work_pools/retake", json={"concurrency_limit": 4}).raise_for_status()
    assert len(site.fix("--notify", site.hook.url)) == 1  # an address that is given counts
    assert site.ask("work_pools/retake")["concurrency_limit"] == 4
    assert len(site.ask("automations/filter", {})) == 2


def test_all_deployments_are_there_with_their_parameters(site):
    found = {deployment["name"]: deployment for deployment in site.ask("deployments/filter", {})}
    assert set(found) == {"edit-clip", "process-inbox", "nightly-dataset", "store-maintenance", "train-moalign"}
    schema = found["edit-clip"]["parameter_openapi_schema"]["properties"]
    assert schema["clip"]["type"] == "string"
    assert schema["overrides"]["anyOf"][0]["items"] == {"type": "string"}
    assert {name: d["schedules"][0]["active"] for name, d in found.items() if d["schedules"]} == {
        "process-inbox": False,
        "nightly-dataset": True,
        "store-maintenance": True,
    }
    assert all("retake" in d["tags"] and d["work_pool_name"] == "retake" for d in found.values())


def test_a_run_is_triggered_a_schedule_fires_and_a_killed_worker_loses_a_chunk_at_most(site):
    clip, cat = sprite_clip(site.home / "clip.mp4", frames=64), reference(site.home / "cat.png")
    own = [f"edit.reference={cat}", "report.tile=64", "masks.box=[20,20,80,80]"]
    worker = site.start("worker", "start", "--pool", "retake", "--name", "first")

    # Killed in the middle: chunks are committed, the run is not over.
    partial = site.home / "store" / "retake" / "partial"
    lost = site.trigger("edit-clip/edit-clip", clip=str(clip), overrides=own)
    made = site.home / "store" / "retake" / "records"
    until(lambda: any(made.glob("*/*")) and partial.exists() and any(partial.iterdir()), 0.1)
    kill(worker)
    records = {path.name for path in made.glob("*/*")}
    assert records
    assert any(partial.iterdir())

    # Another worker, the same edit: what was recorded is found, the rest goes on.
    site.start("worker", "start", "--pool", "retake", "--name", "second")
    run = site.trigger("edit-clip/edit-clip", clip=str(clip), overrides=own)
    assert site.ended(run) == "Completed"
    states = site.tasks(run)
    assert sum(state == "Cached" for state in states.values()) >= len(records)
    assert "report" in states
    again = site.trigger("edit-clip/edit-clip", clip=str(clip), overrides=own)
    assert site.ended(again) == "Completed"
    assert set(site.tasks(again).values()) == {"Cached"}

    # From the command line, in a store of its own, it comes out the same.
    alone = Store(site.home / "alone" / "retake")
    done = edit.edit(str(clip), own, runner=Local(alone), folder=site.home / "alone" / "out")
    assert {outcome.status for outcome in done.outcomes} == {"ran"}
    assert identities(alone) == identities(Store(site.home / "store" / "retake"))

    # A schedule fires by itself; a bad clip fails the run once, and the good ones are done.
    inbox = site.home / "inbox"
    inbox.mkdir()
    for name, content in (("good.mp4", clip.read_bytes()), ("bad.mp4", b"")):
        (inbox / name).write_bytes(content)
        os.utime(inbox / name, (1, 1))
    deployment = site.ask("deployments/name/process-inbox/process-inbox")
    words = {"folder": str(inbox), "overrides": [*SMALL, f"edit.reference={cat}"]}
    schedule = {"active": True, "schedule": {"interval": 15}, "parameters": words}
    site.ask(f"deployments/{deployment['id']}/schedules", [schedule])

    def fired() -> list[dict[str, Any]]:
        chosen = {"deployments": {"id": {"any_": [deployment["id"]]}}, "sort": "START_TIME_ASC"}
        runs = site.ask("flow_runs/filter", chosen)
        return [one for one in runs if one["auto_scheduled"] and one["state_type"] in ("COMPLETED", "FAILED")]

    until(lambda: len(fired()) >= 2)
    site.ask(f"deployments/{deployment['id']}/pause_deployment", {})  # two will do
    first, second = fired()[:2]
    assert (first["state_type"], second["state_type"]) == ("FAILED", "COMPLETED")
    log = (site.home / "datasets" / "inbox" / "states.jsonl").read_text().splitlines()
    states = {line["job"]: line["state"] for line in map(json.loads, log)}
    assert states["good/edit"] in ("ok", "cached")
    assert states["bad/edit"] == "quarantined"

    # A run that fails is told. (One that a schedule began would be told a quarter of an hour later: docs/scaling.md.)
    failed = site.trigger("edit-clip/edit-clip", clip=str(inbox / "bad.mp4"), overrides=own)
    assert site.ended(failed) == "Failed"
    until(lambda: any("edit-clip" in text and "E401" in text for text in site.hook.heard))

    # The run whose worker was killed does not hold its place for ever.
    assert site.ended(lost) == "Crashed"
    until(lambda: any("no sign of life" in text for text in site.hook.heard))
