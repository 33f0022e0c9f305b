"""`retake metrics SOURCE RESULT`: score any two videos, whoever made the result."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows import graph
from flows.editing import result_folder
from flows.places import edits_home, open_store
from flows.runners import Local
from flows.settings.compose import Settings, compose, has_region, settings, validate
from retake.clip import Clip, open_clip
from retake.errors import ConfigError
from retake.machine.disk import require_writable
from retake.params import keyed_params
from retake.recipe import digest
from retake.report.metric_rows import companion
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
    runner: Local | None = None,
    folder: Path | None = None,
) -> Score:
    """Compare `result` with `source`, frame by frame at working size: `score("dog.mp4", "edited.mp4")`.

    `mask` names masks of the edited region (a DAVIS annotation folder, a folder of PNGs, a mask video); with
    masks.box=[...] among the overrides they are found; without either only whole-frame values come. Raises RetakeError.
    """
    clip, other = open_clip(source), open_clip(result)
    check(overrides, mask)
    p = chosen(overrides, mask)
    masked = has_region(p)
    if not masked and p.region != type(p.region)():
        raise ConfigError(
            "E229", "region.* needs a mask of the edited object", "Give --mask MASKS or --box x0,y0,x1,y1."
        )
    if not masked and not any(o.startswith("tracks") for o in overrides):
        # Points of the whole picture stand in for points of the object.
        p = chosen([*overrides, "tracks.queries=grid"], mask)
    runner = runner or Local(open_store())
    store = runner.store
    keyed = {g: keyed_params(getattr(p, g), store.source_digest) for g in GROUPS}
    identity = digest([clip.digest(store), other.digest(store), keyed])[:12]
    folder = folder or edits_home() / clip.name / f"vs-{other.name[:60]}-{identity}"
    require_writable(folder)
    said = ["--mask", mask] if mask is not None else []
    command = shlex.join(["retake", "metrics", clip.spec, other.spec, *overrides, *said])

    def build() -> Score:
        made = graph.score_graph(runner, clip, other, p, masked)
        outputs = hand_out(runner, clip, other, p, made, folder, command)
        values = json.loads(store.read(made["metrics"]["metrics.json"]))
        meta = made["metrics"].meta
        return Score(values, dict(meta["networks"]), dict(meta["reasons"]), outputs, tuple(runner.outcomes))

    return runner.healed(build)


def check(overrides: Sequence[str], mask: str | None) -> None:
    """Raises ConfigError E229 for a place of the object that is said twice, E205 for settings that have no say."""
    if mask is not None and any(override.startswith("masks.box=") for override in overrides):
        raise ConfigError("E229", "--mask and --box both say where the edited object is", "Give one of them.")
    for override in overrides:
        group = override.lstrip("+~").partition("=")[0].partition(".")[0]
        if group in ("edit", "decode", "dataset"):
            raise ConfigError(
                "E205",
                f"{override} does not apply: the result already exists",
                "Drop it; see retake metrics --help.",
            )


def chosen(overrides: Sequence[str], mask: str | None) -> Settings:
    """The settings with the place of the edited object. A path is set as it is: it never passes Hydra's grammar."""
    if mask is None:
        return settings(overrides)
    data = compose([*overrides, "masks=given"])
    data["masks"]["path"] = mask
    return validate(data)


def hand_out(
    runner: Local, clip: Clip, other: Clip, p: Settings, made: dict[str, Any], folder: Path, command: str
) -> dict[str, str]:
    """The page, the values and what made them."""
    name = f"{other.name} against {clip.name}"
    return result_folder.hand_out(
        runner.store, result_folder.Finished(name, clip, p, made, tuple(runner.outcomes), command), folder
    )
