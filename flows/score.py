"""`retake metrics SOURCE RESULT`: score any two videos, whoever made the result."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows import graph, handout
from flows.config import Settings, settings
from flows.job import edits_home, open_store
from flows.runners import Local
from retake.clip import Clip, open_clip
from retake.recipe import digest, keyed_params
from retake.report.scores import companion
from retake.stage import Outcome

GROUPS = ("frames", "optical_flow", "depth", "masks", "region", "tracks", "metrics")  # what a score depends on


@dataclass(frozen=True)
class Score:
    """The values by name (None: not to be had, `reasons` says why), the networks behind them, and the page."""

    values: dict[str, float | None]
    networks: dict[str, str]
    reasons: dict[str, str]
    outputs: dict[str, str]
    outcomes: tuple[Outcome, ...]

    def as_json(self) -> dict[str, Any]:
        shown = {name: getattr(self, name) for name in ("values", "networks", "reasons", "outputs")}
        return {**shown, "stages": [o.as_json() for o in self.outcomes]}

    def lines(self) -> list[str]:
        """For a terminal: a value a line, beside it the source's own and the difference to it, where measured."""
        beside: dict[str, list[str]] = {}
        for name, value in self.values.items():
            base, word = companion(name)
            if word and base in self.values and value is not None:
                beside.setdefault(base, []).append(f"{word} {value:.5g}")
        rows = []
        for name, value in self.values.items():
            if companion(name)[0] in self.values and companion(name)[1]:
                continue
            shown = f"{value:.5g}" if value is not None else self.reasons.get(name, "no value")
            network = self.networks.get(name, "") if value is not None else ""
            rows.append("  ".join([f"{name:26} {shown:12}", *sorted(beside.get(name, []))[::-1], network]).rstrip())
        return rows


def score(
    source: str,
    result: str,
    overrides: Sequence[str] = (),
    *,
    mask: str | None = None,
    box: Sequence[float] | None = None,
    runner: Local | None = None,
    folder: Path | None = None,
) -> Score:
    """Compare `result` with `source`, frame by frame at working size: `score("dog.mp4", "edited.mp4")`.

    `mask` names masks of the edited region (a DAVIS annotation folder, a folder of PNGs, a mask video), `box` has them
    found from a box around the object; without either only whole-frame values come. Raises RetakeError.
    """
    clip, other = open_clip(source), open_clip(result)
    overrides = [*overrides, *masking(mask, box)]
    masked = any(o.lstrip("+").startswith("masks") for o in overrides)
    if not masked and not any(o.startswith("tracks") for o in overrides):
        overrides.append("tracks.queries=grid")  # points of the whole picture stand in for points of the object
    p = settings(overrides)
    runner = runner or Local(open_store())
    store = runner.store
    keyed = {g: keyed_params(getattr(p, g), store.source_digest) for g in GROUPS}
    identity = digest([clip.digest(store), other.digest(store), keyed])[:12]
    folder = folder or edits_home() / clip.name / f"vs-{other.name[:60]}-{identity}"
    command = shlex.join(["retake", "metrics", clip.spec, other.spec, *overrides])

    def build() -> Score:
        made = graph.score_graph(runner, clip, other, p, masked)
        outputs = hand_out(runner, clip, other, p, made, folder, command)
        values = json.loads(store.read(made["metrics"]["metrics.json"]))
        meta = made["metrics"].meta
        return Score(values, dict(meta["networks"]), dict(meta["reasons"]), outputs, tuple(runner.outcomes))

    return runner.healed(build)


def masking(mask: str | None, box: Sequence[float] | None) -> list[str]:
    """Settings that say where the edited object is."""
    if mask is not None:
        text = mask.replace("\\", "\\\\").replace("'", "\\'")
        return ["masks=given", f"masks.path='{text}'"]
    return [f"masks.box=[{','.join(f'{v:g}' for v in box)}]"] if box is not None else []


def hand_out(
    runner: Local, clip: Clip, other: Clip, p: Settings, made: dict[str, Any], folder: Path, command: str
) -> dict[str, str]:
    """The page, the values and what made them."""
    name = f"{other.name} against {clip.name}"
    return handout.hand_out(
        runner.store, handout.Finished(name, clip, p, made, tuple(runner.outcomes), command), folder
    )
