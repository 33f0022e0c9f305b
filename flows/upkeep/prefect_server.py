"""What a standing Prefect server needs beside the deployments of prefect.yaml: `retake doctor --fix` makes it.

A pool of process workers that starts no more runs at once than there are GPUs to run them; an automation that calls a
run crashed once it is silent, so that a worker that died does not hold its place for ever; and, with an address, one
that says which run failed. What is there already stays as it is, but for the address.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from retake.errors import ConfigError, MachineError

POOL = "retake"
BEAT = 30  # seconds between a run's signs of life; Prefect knows no less
SILENCE = timedelta(seconds=3 * BEAT + 10)
ENDS = ("Completed", "Failed", "Cancelled", "Crashed")
CRASHED, FAILED = "retake: silent runs have crashed", "retake: say which run failed"
MESSAGE = "{{ flow.name }} {{ flow_run.name }}: {{ flow_run.state.name }}. {{ flow_run.state.message }}"


def fix(notify: str | None = None) -> list[str]:
    """Make what is missing on the server of PREFECT_API_URL; a line for each thing done.

    notify: the URL notified of a failed run, by a POST of {"text": ...}, as Slack and Mattermost take it. Raises
    ConfigError E219 where no server is set, MachineError E512 where it does not answer."""
    if not os.environ.get("PREFECT_API_URL"):
        raise ConfigError(
            "E219",
            "no Prefect server is set, and nothing else can be fixed here",
            "Set its address: export PREFECT_API_URL=http://127.0.0.1:4200/api",
        )
    import httpx
    from prefect.client.orchestration import get_client

    try:
        with get_client(sync_client=True) as client:
            done = [pool(client), automation(client, CRASHED, **crash_detection())]
            if notify:
                done.append(automation(client, FAILED, replace=True, **failure_notification(client, notify)))
    except httpx.HTTPError as error:
        raise MachineError(
            "E512",
            f"the Prefect server does not answer: {type(error).__name__}",
            "Start it (prefect server start), or set PREFECT_API_URL to where it is.",
        ) from error
    return [line for line in done if line]


def pool(client: Any) -> str:
    """The work pool, unless it is there."""
    import torch
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound
    from prefect.workers.process import ProcessWorker

    try:
        client.read_work_pool(POOL)
        return ""
    except ObjectNotFound:
        pass
    template, runs = ProcessWorker.get_default_base_job_template(), max(1, torch.cuda.device_count())
    template["variables"]["properties"]["env"]["default"] = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(BEAT)}
    client.create_work_pool(
        WorkPoolCreate(name=POOL, type="process", base_job_template=template, concurrency_limit=runs)
    )
    return f"work pool {POOL}: at most {runs} at once (prefect work-pool set-concurrency-limit {POOL} N)"


def automation(client: Any, name: str, trigger: Any, action: Any, replace: bool = False) -> str:
    """An automation, unless it is there; with `replace` in place of that one."""
    from prefect.automations import AutomationCore

    there = client.read_automations_by_name(name)
    if there and not replace:
        return ""
    for old in there:
        client.delete_automation(old.id)
    client.create_automation(AutomationCore(name=name, trigger=trigger, actions=[action]))
    return f"automation: {name}"


def crash_detection() -> dict[str, Any]:
    """Marks a run as crashed when its heartbeats stop without an end."""
    from prefect.automations import ChangeFlowRunState, EventTrigger, Posture
    from prefect.client.schemas.objects import StateType

    beat = "prefect.flow-run.heartbeat"
    trigger = EventTrigger(
        after={beat},
        expect={beat, *(f"prefect.flow-run.{end}" for end in ENDS)},
        match={"prefect.resource.id": "prefect.flow-run.*"},  # type: ignore[arg-type]
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=SILENCE,
    )
    message = f"no sign of life for {SILENCE.total_seconds():.0f} s: its worker is gone"
    return {"trigger": trigger, "action": ChangeFlowRunState(state=StateType.CRASHED, message=message)}  # type: ignore[call-arg]


def failure_notification(client: Any, url: str) -> dict[str, Any]:
    """Notifies of a failed or crashed run of a deployment with the tag `retake`."""
    from prefect.automations import EventTrigger, Posture, SendNotification
    from prefect.blocks.notifications import CustomWebhookNotificationBlock

    text = {"text": "{{subject}}: {{body}}"}
    block = CustomWebhookNotificationBlock(name="retake", url=url, json_data=text)  # type: ignore[call-arg]
    kept = block.save("retake-failures", overwrite=True, client=client)
    trigger = EventTrigger(
        expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
        match={"prefect.resource.id": "prefect.flow-run.*"},  # type: ignore[arg-type]
        match_related={"prefect.resource.id": "prefect.tag.retake", "prefect.resource.role": "tag"},  # type: ignore[arg-type]
        for_each={"prefect.resource.id"},
        posture=Posture.Reactive,
        threshold=1,
    )
    return {
        "trigger": trigger,
        "action": SendNotification(block_document_id=kept, subject="Retake", body=MESSAGE),  # type: ignore[arg-type]
    }
