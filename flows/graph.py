"""The graph of one edit, as one plain function over a runner. Read this first.

    clip ─► frames ─┬─► optical_flow ─┬─► tracks
                    ├─► masks ◄───────┘
                    └──────────── priors the method NEEDS ─► edit ─► decode ─► metrics ─► report

A runner is called as `run(stage, params, clip=..., **artifacts)` and answers with an artifact, or, when it only
plans, with a `Promise` of one. Every prior, method and metric names what it NEEDS; what runs is the closure of that.
"""

from __future__ import annotations

from typing import Any, Protocol

from flows.config import CHOICES, Settings
from retake.clip import Clip
from retake.errors import ConfigError, did_you_mean
from retake.lookup import lookup
from retake.stage import Stage
from tasks import decode, edit, frames, masks, metrics, optical_flow, report, tracks

STAGES: dict[str, Stage] = {
    "frames": frames.stage_frames,
    "optical_flow": optical_flow.stage_optical_flow,
    "masks": masks.stage_masks,
    "tracks": tracks.stage_tracks,
    "edit": edit.stage_edit,
    "decode": decode.stage_decode,
    "metrics": metrics.stage_metrics,
    "report": report.stage_report,
}
PRIORS = ("optical_flow", "masks", "tracks")  # in the order in which they can be made


class Runner(Protocol):
    """Plan, Local or Prefect (runners.py)."""

    def __call__(self, stage: Stage, params: Any, *, implementation: str = "", **inputs: Any) -> Any: ...


def edit_graph(run: Runner, clip: Clip, p: Settings, until: str = "report") -> dict[str, Any]:
    """Call the stages of one edit in order; returns what each made, by stage name.

    `until` stops after that stage; its report then shows the layers that exist. Raises what stages raise.
    """
    need = closure(p, until)
    made: dict[str, Any] = {"frames": run(STAGES["frames"], p.frames, clip=clip)}
    check(p, made["frames"], need)

    for name in PRIORS:
        if name in need:
            module = implementation(p, name)
            upstream = {prior: made[prior] for prior in module.NEEDS}
            made[name] = run(
                STAGES[name], getattr(p, name), implementation=label(module), frames=made["frames"], **upstream
            )
    priors = {name: made[name] for name in PRIORS if name in made}

    if "edit" in need:
        method = implementation(p, "edit")
        wanted = {name: made[name] for name in method.NEEDS}
        made["edit"] = run(STAGES["edit"], p.edit, implementation=label(method), frames=made["frames"], **wanted)
    if "decode" in need:
        made["decode"] = run(STAGES["decode"], p.decode, clip=clip, frames=made["frames"], edited=made["edit"])
    if "metrics" in need:
        wanted = {name: made[name] for name in metrics.needs(p.metrics)}
        versions = ",".join(label(lookup("metrics", name)) for name in p.metrics.names)
        wanted |= {"frames": made["frames"], "result": made["decode"]}
        made["metrics"] = run(STAGES["metrics"], p.metrics, implementation=versions, **wanted)
    if until in ("report", "masks", "tracks", "optical_flow"):
        shown = {"result": made["decode"]} if "decode" in made else {}
        made["report"] = run(STAGES["report"], p.report, frames=made["frames"], **shown, **priors)
    return made


def closure(p: Settings, until: str = "report") -> set[str]:
    """Names of the stages that must run so that `until` can. Raises ConfigError E209 for an unknown stage."""
    if until not in STAGES:
        raise ConfigError("E209", f"there is no stage {until!r}", did_you_mean(until, list(STAGES)))
    direct: dict[str, tuple[str, ...]] = {
        "frames": (),
        "decode": ("edit",),
        "metrics": ("decode",),
        "report": ("metrics",),
    }
    need: set[str] = set()
    todo = [until]
    while todo:
        name = todo.pop()
        if name in need:
            continue
        need.add(name)
        todo += direct.get(name, ())
        if name in CHOICES:
            todo += implementation(p, name).NEEDS
        if name == "metrics":
            todo += metrics.needs(p.metrics)
    return need | {"frames"}


def check(p: Settings, made: Any, need: set[str]) -> None:
    """Refuse what cannot work as soon as the frames are known, before an expensive stage starts."""
    if (meta := getattr(made, "meta", None)) is None:
        return  # only planned: the size is not known yet
    for name in (*PRIORS, "edit"):
        if name in need and (early := getattr(implementation(p, name), "check", None)):
            early(getattr(p, name), meta)


def implementation(p: Settings, group: str) -> Any:
    """The module that the settings choose for a group."""
    return lookup(CHOICES[group], getattr(p, group).name)


def label(module: Any) -> str:
    """How a module stands in a key: its name and hand-written VERSION."""
    return f"{module.__name__.rpartition('.')[2]}@{module.VERSION}"
