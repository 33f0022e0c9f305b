"""What there is: the edits that were handed out, as a list and as a page."""

from __future__ import annotations

import json
import shlex
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.places import edits_home
from retake.errors import ConfigError, did_you_mean
from retake.machine.disk import write_atomic

SHOWN = ("change_edited", "warp_error_edit")  # scores in the list: how much was edited, and how steady it is


def edits(clip: str | None = None) -> list[dict[str, Any]]:
    """Edits that were handed out, newest first. "settings": the words of its command that not every edit of the clip
    was made with. Raises ConfigError E212 for a clip that has none."""
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
    words = [words_of(one) for one in found]
    made = Counter(one["clip"] for one in found)
    with_it = Counter((one["clip"], word) for one, own in zip(found, words, strict=True) for word in set(own))
    for one, own in zip(found, words, strict=True):
        alone = made[one["clip"]] == 1
        one["settings"] = [word for word in own if alone or with_it[one["clip"], word] < made[one["clip"]]]
    return sorted(found, key=lambda entry: -entry["time"])


def words_of(edit: Mapping[str, Any]) -> list[str]:
    """What was typed after the clip; an option and its value are one word."""
    try:
        words = shlex.split(edit["command"])[3:]
    except ValueError:
        return []
    joined: list[str] = []
    for word in words:
        if joined and joined[-1].startswith("--") and " " not in joined[-1] and not word.startswith("--"):
            joined[-1] += f" {word}"
        else:
            joined.append(word)
    return joined


def lines(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """An edit a line: when it was made, what is different from the clip's other edits, scores, its page."""
    for one in found:
        scores = one["metrics"] or {}
        said = [f"{name} {scores[name]:.4g}" for name in SHOWN if scores.get(name) is not None]
        shown = "  ".join(filter(None, (" ".join(one["settings"]), ", ".join(said))))
        yield f"{one['clip']}/{one['edit']}  {one['method']:10}  {when(one)}  {shown}"
        yield f"    {one['report'] or 'no page: it stopped early'}"


def when(edit: Mapping[str, Any]) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(edit["time"]))


def write_page(found: Sequence[Mapping[str, Any]]) -> Path:
    """index.html over all edits, beside their folders."""
    from retake.report.gallery_page import Card, page

    home = edits_home()
    cards = []
    for one in found:
        folder = f"{one['clip']}/{one['edit']}"
        video = f"{folder}/result.mp4" if (home / folder / "result.mp4").exists() else ""
        reason = f"{' '.join(one['settings']) or 'default settings'} · {when(one)}"
        report, state = (f"{folder}/report.html", "edited") if one["report"] else ("", "no page")
        cards.append(Card(one["clip"], one["method"], state, reason, 0.0, report, "", one["metrics"] or {}, video))
    write_atomic(home / "index.html", page("all edits", cards))
    return home / "index.html"
