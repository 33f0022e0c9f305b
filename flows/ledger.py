"""What there is: the edits that were handed out, and the state of the store."""

from __future__ import annotations

import json
import os
from typing import Any

from flows.job import edits_home, open_store
from retake.artifact import File
from retake.errors import ConfigError, DamagedError, did_you_mean


def edits(clip: str | None = None) -> list[dict[str, Any]]:
    """Edits that were handed out, newest first. Raises ConfigError E212 for a clip that has none."""
    home = edits_home()
    clips = sorted(p.name for p in home.glob("*") if p.is_dir())
    if clip is not None and clip not in clips:
        raise ConfigError("E212", f"no edit of {clip!r} was made here", did_you_mean(clip, clips))
    found = []
    for path in home.glob(f"{clip or '*'}/*/recipe.json"):
        recipe = json.loads(path.read_text())
        page, scores = path.with_name("report.html"), path.with_name("metrics.json")
        found.append(
            {
                "clip": path.parent.parent.name,
                "edit": path.parent.name,
                "method": recipe["method"],
                "command": recipe["command"],
                "report": str(page) if page.exists() else None,
                "metrics": json.loads(scores.read_text()) if scores.exists() else None,
                "time": path.stat().st_mtime,
            }
        )
    return sorted(found, key=lambda entry: -entry["time"])


def verify_store() -> dict[str, Any]:
    """Hash every object and read every record. What is damaged is set aside; the next run makes it again."""
    store = open_store()
    named: dict[str, int] = {}
    records = 0
    for record in store.records():
        records += 1
        named |= {file.sha256: file.size for file in record.artifact.files}
    stored = {p.name for p in (store.root / "objects").glob("*/*")}
    damaged, total = [], 0
    for sha in sorted(stored):
        path = store.object_path(sha)
        total += os.path.getsize(path)
        try:
            store.verify(File("", sha, "", 0))
        except DamagedError as error:
            damaged.append({"object": sha, "reason": error.reason})
    return {
        "objects": len(stored),
        "bytes": total,
        "records": records,
        "damaged": damaged,
        "missing": sorted(set(named) - stored),
    }
