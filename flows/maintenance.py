"""Keeping the store in order, as a Prefect flow for a weekly schedule."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.upkeep import housekeeping
from flows.upkeep.verify import verify_store
from retake.errors import IntegrityError


@flow(name="store-maintenance", persist_result=False)
def maintain_store(max_size: str | None = None) -> dict[str, Any]:
    """Hash every object of the store, set damage aside, and make room where `max_size` (20GB) says so. The run fails
    where damage was found, so that somebody hears of it: the next edits make what was damaged again."""
    found = verify_store()
    report = [f"{found['objects']} objects, {len(found['damaged'])} damaged, {len(found['missing'])} missing"]
    if found["records_damaged"]:
        report[0] += f"; {len(found['records_damaged'])} of {found['records']} records damaged"
    swept = housekeeping.make_room(max_size, dry=False) if max_size else None
    report += housekeeping.lines(swept) if swept else []
    create_markdown_artifact("\n\n".join(report), key="store-maintenance", description="The store of Retake")
    if found["damaged"] or found["affected"]:
        raise IntegrityError("E604", report[0], "Set aside in the store's quarantine; the next run makes it again.")
    return {"verify": found, "gc": swept}
