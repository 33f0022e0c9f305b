"""What there is: the edits that were handed out."""

from __future__ import annotations

import json
from typing import Any

from flows.places import edits_home
from retake.errors import ConfigError, did_you_mean


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
