"""What MoAlign learns from clips of one's own: what a manifest lists, through the cached graph, clip by clip."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

from flows import graph
from flows.datasets.sources import entry, list_clips
from flows.runners import Local
from flows.settings.compose import compose, for_clip, validate
from flows.settings.dataset import ClipEntry, overlaid
from retake.clip import open_clip
from retake.errors import MediaError
from retake.formats import chunk_name
from tasks.motion_study import Params

MODEL = "model=embedded_dit"


def study(
    manifest: str, runner: Local, encoder: str, say: Callable[[str], None], until: float = math.inf
) -> list[tuple[Path, list[str]]] | None:
    """Files of the windows of every clip of a manifest, each with its caption, which is the clip's `edit.prompt`, else
    empty; None where a moment of time.monotonic() came first. What the store has is not made again: a clip whose size,
    flow or encoder has changed is. A clip that cannot be studied is told and left out.

    Raises ConfigError E297 and E298 as a dataset does, and MediaError E439 where no clip of it can be studied.
    """
    rows, _ = list_clips(manifest, settle=0.0)
    files: list[tuple[Path, list[str]]] = []
    refused: list[MediaError] = []
    for row in rows:
        if time.monotonic() > until:
            return None
        clip = entry(row)
        try:
            files += studied(clip, runner, encoder)
        except MediaError as error:
            say(f"{clip.id} is left out: {error}")
            refused.append(error)
    if not files:
        hint = refused[0].hint if refused else "A manifest names clips, or is a folder of them."
        raise MediaError("E439", f"{manifest}: none of {len(rows)} clips can be studied", hint)
    return files


def studied(clip: ClipEntry, runner: Local, encoder: str) -> list[tuple[Path, list[str]]]:
    """Files of the windows of one clip in the store, verified."""
    own = {group: values for group, values in clip.settings.items() if group in ("frames", "optical_flow")}
    p = for_clip(validate(overlaid(compose([MODEL]), ClipEntry(id=clip.id, clip=clip.clip, settings=own))), clip.clip)
    caption = str(clip.settings.get("edit", {}).get("prompt") or "")

    def made() -> list[tuple[Path, list[str]]]:
        found = graph.study_graph(runner, open_clip(clip.clip), p, Params(encoder=encoder))["motion_study"]
        files = [found[chunk_name(n)] for n in range(found.meta["count"])]
        for file in files:
            runner.store.verify(file)
        return [(runner.store.object_path(file.sha256), [caption]) for file in files]

    return runner.healed(made)
