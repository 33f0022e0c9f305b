"""`retake interpret CLIP --point x,y`: what moves as a point does, by a diffusion model's features, as a page."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows import graph
from flows.places import edits_home, open_store
from flows.runners import Local, Plan, Planned
from flows.settings.compose import Settings, settings
from retake.clip import Clip, open_clip
from retake.formats import FrameSeries, MotionChannelsFile, unpack
from retake.machine.disk import explain_write_errors, require_writable, write_atomic
from retake.params import keyed_params
from retake.recipe import digest
from retake.stage import Outcome
from tasks.interpretation import Params

GROUPS = ("frames", "model", "latents", "motion_channels")  # what an interpretation depends on


@dataclass(frozen=True)
class Interpreted:
    """Where the page is, and what it shows in numbers."""

    outputs: dict[str, str]
    about: dict[str, Any]
    outcomes: tuple[Outcome, ...]

    def as_json(self) -> dict[str, Any]:
        return {**self.about, "outputs": self.outputs, "stages": [o.as_json() for o in self.outcomes]}


def interpret(
    clip: str | Clip,
    overrides: Sequence[str] = (),
    *,
    point: tuple[float, float] | None = None,
    frame: int = 0,
    runner: Local | None = None,
    folder: Path | None = None,
) -> Interpreted:
    """Which cells of a clip move as its `point`, (x, y) in pixels of the clip, on frame number `frame` does. The page
    stands in `edits_home()`/<clip>/motion-<id>. Raises RetakeError."""
    clip = open_clip(clip) if isinstance(clip, str) else clip
    p, asked = settled(clip, overrides, point, frame)
    runner = runner or Local(open_store())
    store = runner.store
    keyed = {group: keyed_params(getattr(p, group), store.source_digest) for group in GROUPS}
    identity = digest([clip.digest(store), keyed, asked.model_dump(mode="json")])[:12]
    folder = folder or edits_home() / clip.name / f"motion-{identity}"
    require_writable(folder)
    said = [] if point is None else ["--point", f"{point[0]:g},{point[1]:g}"]
    said += ["--frame", str(frame)] if frame else []
    command = shlex.join(["retake", "interpret", clip.spec, *overrides, *said])

    def build() -> Interpreted:
        made = graph.interpretation_graph(runner, clip, p, asked)
        about = {name: made["interpretation"].meta[name] for name in ("site", "point", "frame", "times", "moves")}
        outputs = {"report": str(write_page(runner, clip, p, made, folder, command))}
        return Interpreted(outputs, about, tuple(runner.outcomes))

    return runner.healed(build)


def plan(clip: str, overrides: Sequence[str], point: tuple[float, float] | None, frame: int) -> list[Planned]:
    """What `interpret` would do to each stage. Starts nothing."""
    opened, run = open_clip(clip), Plan(open_store())
    graph.interpretation_graph(run, opened, *settled(opened, overrides, point, frame))
    return run.planned


def settled(
    clip: Clip, overrides: Sequence[str], point: tuple[float, float] | None, frame: int
) -> tuple[Settings, Params]:
    """The settings, and what is asked of the clip: features are read as those of the channels' clips are."""
    p = settings(list(overrides), clip.spec)
    return p, Params.model_validate({"point": point, "frame": frame, "level": p.motion_channels.level})


def write_page(runner: Local, clip: Clip, p: Settings, made: dict[str, Any], folder: Path, command: str) -> Path:
    """report.html, and the numbers behind it in interpretation.json."""
    from retake.report import interpretation_page

    store, found = runner.store, made["interpretation"]
    series, file = FrameSeries(store, made["frames"]), MotionChannelsFile(store, made["motion_channels"])
    maps, channels, meta = unpack(store.read(found["maps.safetensors"])), file.tensors(), found.meta
    frames = meta["times"]
    scale = series.width / made["frames"].meta["source_width"], series.height / made["frames"].meta["source_height"]
    wanted = {frames[k] for k in interpretation_page.picked(frames, meta["row"])} | {meta["frame"]}
    shown = interpretation_page.Shown(
        title=f"{clip.name} · motion at {meta['point'][0]:.0f},{meta['point'][1]:.0f}, frame {meta['frame']}",
        command=command,
        site=meta["site"],
        model=p.model.name,
        point=(meta["point"][0] * scale[0], meta["point"][1] * scale[1]),
        frames=frames,
        pictures={t: series[t] for t in sorted(wanted)},
        maps=maps,
        channels=channels,
        share=meta["share"],
        moves=meta["moves"],
        pans=meta["pans"],
        row=meta["row"],
        frame=meta["frame"],
        notes=made["frames"].meta.get("notes", ()),
    )
    page = folder / "report.html"
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_atomic(page, interpretation_page.page(shown))
    write_atomic(folder / "interpretation.json", json.dumps(dict(meta), indent=1) + "\n")
    return page
