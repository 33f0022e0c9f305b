"""A page on which boxes and points are picked (retake/report/pick_page.py)."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.places import edits_home, open_store
from flows.settings.compose import settings
from retake.clip import open_clip
from retake.machine.disk import write_atomic
from retake.report.pick_page import Pick, page, picture

MOST = 128  # frames on a page: some MB
PICKED = ("box", "points", "objects", "frame", "corrections")


@dataclass(frozen=True)
class Picked:
    """Where the page lies. It shows every `step`-th of `count` frames."""

    path: Path
    count: int
    step: int

    def as_json(self) -> dict[str, Any]:
        return {"page": str(self.path), "frames": self.count, "step": self.step}

    def lines(self) -> list[str]:
        some = f", every {self.step} of {self.count} frames" if self.step > 1 else ""
        return [
            f"page     {self.path}",
            f"open it in a browser: drag a box or click points{some}, and copy the command",
        ]


def write_page(clip: str, overrides: list[str], out: Path | None = None) -> Picked:
    """The page of a clip's selected frames. Raises what reading the clip raises, MediaError E417 for another clip than
    frames.sha256 says."""
    opened, p = open_clip(clip), settings(overrides)
    if p.frames.sha256:
        opened.expected(p.frames.sha256).digest(open_store())
    reading = {"backend": p.frames.decoder, "on_damage": p.frames.on_damage}
    kept: dict[int, bytes] = {}
    step, count, size = 1, 0, (0, 0)
    for _, rgb in opened.read(p.frames.selection(), None, p.frames.folder_fps, **reading):
        if count % step == 0:
            kept[count] = picture(rgb)
            size = rgb.shape[1], rgb.shape[0]
        if len(kept) > MOST:
            step *= 2
            kept = {number: jpeg for number, jpeg in kept.items() if number % step == 0}
        count += 1
    others = [text for text in overrides if text.partition("=")[0] not in {f"masks.{name}" for name in PICKED}]
    command = shlex.join(["retake", "edit", clip, *others])
    path = out or edits_home() / opened.name / "pick.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, page(Pick(opened.name, command, size, count), kept).encode())
    return Picked(path, count, step)
