"""One edit from its settings to its folder: the work behind `retake edit`, the flows and the notebook call."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows import graph
from flows.editing import result_folder
from flows.places import edits_home, open_store
from flows.runners import Local, Plan, Planned
from flows.settings.compose import settings
from retake.artifact import Artifact
from retake.clip import Clip, open_clip
from retake.machine.disk import require_writable
from retake.stage import Outcome


@dataclass(frozen=True)
class Edit:
    """What came of one edit."""

    id: str
    folder: Path
    outcomes: tuple[Outcome, ...]
    outputs: dict[str, str]
    made: dict[str, Artifact]

    def as_json(self) -> dict[str, Any]:
        stages = [o.as_json() for o in self.outcomes]
        return {"edit": self.id, "stages": stages, "outputs": self.outputs, "health": self.health}

    @property
    def health(self) -> dict[str, Any]:
        """The verdict on every object's masks, by id (retake/health): {"1": {"verdict": "look", "frames": [[20, 31]],
        "why": ["overlap"]}}; empty where nothing was masked."""
        return self.made["report"].meta.get("health", {}) if "report" in self.made else {}


def edit(
    clip: str | Clip,
    overrides: Sequence[str] = (),
    *,
    until: str = "report",
    runner: Local | None = None,
    folder: Path | None = None,
    ready: Callable[[Path], None] | None = None,
) -> Edit:
    """Edit a clip: `edit("dog.mp4", ["masks.box=[70,40,300,460]", "edit.reference=cat.png"])`.

    `overrides` are settings as on the command line; `until` stops after a stage. Results stand in
    `edits_home()`/<clip>/<id>, with -until-<stage> behind it where it stopped. ready: is told of the video as soon as
    it plays, before metrics and report are made. Raises RetakeError.
    """
    clip = open_clip(clip) if isinstance(clip, str) else clip
    p = settings(list(overrides), clip.spec)
    runner = runner or Local(open_store())
    store = runner.store
    identity = result_folder.edit_id(store, clip, p)
    # What stops early gets a folder of its own: it must not replace the page of the whole edit.
    place = identity if until == "report" else f"{identity}-until-{until}"
    folder = folder or edits_home() / clip.name / place
    command = command_line(clip, overrides, until)
    require_writable(folder)

    def build() -> Edit:
        made = graph.edit_graph(runner, clip, p, until)
        finished = result_folder.Finished(identity, clip, p, made, tuple(runner.outcomes), command)
        outputs = result_folder.hand_out(store, finished, folder)
        return Edit(identity, folder, tuple(runner.outcomes), outputs, made)

    tell = runner.on_outcome

    def outcome(one: Outcome) -> None:
        tell(one)
        if ready is not None and one.stage == "decode" and one.status == "ran":
            store.copy_out(one.artifact["result.mp4"], folder / "result.mp4")
            ready(folder / "result.mp4")

    runner.on_outcome = outcome
    try:
        return runner.healed(build)
    finally:
        runner.on_outcome = tell


def plan(
    clip: str, overrides: Sequence[str] = (), until: str = "report", explain: bool = True
) -> tuple[str, list[Planned]]:
    """(edit id, what `edit` would do to each stage). explain: say why. Starts nothing; raises what is wrong with the
    settings, and with the clip as far as its container tells."""
    opened, p, run = open_clip(clip), settings(list(overrides), clip), Plan(open_store(), explain=explain)
    identity = result_folder.edit_id(run.store, opened, p)
    graph.edit_graph(run, opened, p, until)
    return identity, run.planned


def command_line(clip: Clip, overrides: Sequence[str], until: str) -> str:
    """What to type to get this edit again."""
    stop = [] if until == "report" else ["--until", until]
    return shlex.join(["retake", "edit", clip.spec, *overrides, *stop])
