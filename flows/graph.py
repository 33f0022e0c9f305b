"""The graph of one edit, as one plain function over a runner. Read this first.

    clip ─► frames ─┬─► optical_flow ─┬─► depth
                    ├─► masks ◄───────┘
                    │     └─► correction ... ─► region ─► tracks ─► edited_tracks
                    ├─► latents ─► inversion ┐                (these with the group `model`;
                    │   motion_channels ─────┤                 motion_channels reads no clip)
                    └─── what the method NEEDS of these ─► edit ─► decode ─► metrics ─► report

A runner is called as `run(stage, params, clip=..., **artifacts)` and answers with an artifact, or, when it only
plans, with a `Promise` of one. Every prior, method and metric names what it NEEDS; what runs is the closure of that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from flows.settings.choice import CHOICES, Choice, choose, label
from flows.settings.compose import Settings
from retake.clip import Clip
from retake.cropped import without_padding
from retake.diffusion.model import Model, Modelled, family_of, weights_of
from retake.errors import ConfigError, MediaError, did_you_mean
from retake.lookup import lookup
from retake.stage import Stage
from retake.weights.local import locate
from tasks import (
    decode,
    depth,
    edit,
    edited_tracks,
    frames,
    interpretation,
    inversion,
    latents,
    masks,
    metrics,
    motion_channels,
    motion_study,
    optical_flow,
    region,
    report,
    tracks,
)

STAGES: dict[str, Stage] = {
    "frames": frames.stage_frames,
    "optical_flow": optical_flow.stage_optical_flow,
    "depth": depth.stage_depth,
    "masks": masks.stage_masks,
    "region": region.stage_region,
    "tracks": tracks.stage_tracks,
    "edited_tracks": edited_tracks.stage_edited_tracks,
    "latents": latents.stage_latents,
    "inversion": inversion.stage_inversion,
    "motion_channels": motion_channels.stage_motion_channels,
    "edit": edit.stage_edit,
    "decode": decode.stage_decode,
    "metrics": metrics.stage_metrics,
    "report": report.stage_report,
}
# In the order in which they can be made.
PRIORS = ("optical_flow", "depth", "masks", "region", "tracks", "edited_tracks")


class Runner(Protocol):
    """Plan, Local or Prefect (runners.py)."""

    def __call__(
        self, stage: Stage, params: Any, *, implementation: str = "", weights: Mapping[str, str] = {}, **inputs: Any
    ) -> Any: ...

    def require(self, references: Sequence[str]) -> None: ...


def edit_graph(run: Runner, clip: Clip, p: Settings, until: str = "report", report: bool = True) -> dict[str, Any]:
    """Call the stages of one edit in order; returns what each made, by stage name.

    `until` stops after that stage; its report then shows the layers that exist, unless `report` is false.

    Raises what stages raise, and MachineError E302 before any work when weights of chosen networks are not here: it
    names all of them.
    """
    need = closure(p, until)
    for error in config_errors(p, need):
        raise error
    check_own(p, clip, need)
    run.require(weights_needed([(p, need)]))
    clip = clip.expected(p.frames.sha256)
    made: dict[str, Any] = {"frames": run(STAGES["frames"], p.frames, clip=clip)}
    check(p, made["frames"], need)
    make_priors(run, p, made, need, clip)
    priors = {name: made[name] for name in PRIORS if name in made}

    if "latents" in need:
        model = latents.of_latents(p.model)
        made["latents"] = run(STAGES["latents"], **modelled(p.latents, model), frames=made["frames"])
    if "inversion" in need:
        made["inversion"] = run(STAGES["inversion"], **modelled(p.inversion, p.model), latents=made["latents"])
    if "motion_channels" in need:
        made["motion_channels"] = run(STAGES["motion_channels"], **modelled(p.motion_channels, p.model))
    if "edit" in need:
        for step in one_by_one(p):
            wanted = {name: made[name] for name in step.needs}
            wanted |= {"before": made["edit"]} if "edit" in made else {}
            made["edit"] = run(STAGES["edit"], **method(p, step), frames=made["frames"], **wanted)
    if "decode" in need:
        made["decode"] = run(STAGES["decode"], p.decode, clip=clip, frames=made["frames"], edited=made["edit"])
    if "metrics" in need:
        made["metrics"] = scored(run, metric_settings(p), made, made["decode"])
    if report and until in ("report", *PRIORS):
        shown = {"result": made["decode"]} if "decode" in made else {}
        made["report"] = run(STAGES["report"], p.report, frames=made["frames"], **shown, **priors)
    return made


def interpretation_graph(run: Runner, clip: Clip, p: Settings, asked: interpretation.Params) -> dict[str, Any]:
    """What moves as a point of the clip does, by the features of the group `model`; returns what each stage made.

    Raises what stages raise, and MachineError E302 before any work when the model's weights are not here.
    """
    p.frames.selection()
    run.require(list(weights_of(p.model).values()))
    made: dict[str, Any] = {"frames": run(STAGES["frames"], p.frames, clip=clip.expected(p.frames.sha256))}
    check(p, made["frames"], {"latents"})
    if hasattr(made["frames"], "meta"):  # not only planned
        interpretation.place(asked, made["frames"])
    made["latents"] = run(STAGES["latents"], **modelled(p.latents, latents.of_latents(p.model)), frames=made["frames"])
    made["motion_channels"] = run(STAGES["motion_channels"], **modelled(p.motion_channels, p.model))
    made["interpretation"] = run(interpretation.stage_interpretation, **modelled(asked, p.model), **made)
    return made


def study_graph(run: Runner, clip: Clip, p: Settings, asked: motion_study.Params) -> dict[str, Any]:
    """What a training learns from a clip: windows of latents, of a video encoder's features and of flow.

    Raises what stages raise, and MachineError E302 before any work when weights are not here.
    """
    need = closure(p, "optical_flow")
    for error in config_errors(p, need):
        raise error
    called = modelled(asked, latents.of_latents(p.model).model_copy(update={"frames": p.model.frames}))
    called["weights"] = {**called["weights"], "encoder": asked.encoder}
    run.require([*weights_needed([(p, need)]), *called["weights"].values()])
    made: dict[str, Any] = {"frames": run(STAGES["frames"], p.frames, clip=clip.expected(p.frames.sha256))}
    check(p, made["frames"], need)
    if hasattr(made["frames"], "meta"):
        motion_study.check(p.model, made["frames"].meta)
    make_priors(run, p, made, need, clip)
    made["motion_study"] = run(motion_study.stage_motion_study, **called, **made)
    return made


def modelled(settings: Any, model: Model) -> dict[str, Any]:
    """How a stage that runs a diffusion model is called: its own settings beside the model's, and the weights."""
    return {"params": Modelled(settings=settings, model=model), "weights": weights_of(model)}


def method(p: Settings, step: Choice | None = None) -> dict[str, Any]:
    """How the edit is called, or a step of it: with the model, for methods that NEED latents."""
    step = step or p.choices["edit"]
    own = step.call
    if "latents" not in step.needs:
        return {"params": step.params, **own}
    called = modelled(step.params, p.model)
    return {**own, **called, "weights": {**own["weights"], **called["weights"]}}


def one_by_one(p: Settings) -> list[Choice]:
    """The stages of an edit: one, or of a method that edits several targets one after another, one a target; each holds
    those before it, and is given what they made as "before"."""
    whole = p.choices["edit"]
    if not hasattr(whole.module, "one_by_one"):
        return [whole]
    return [choose("edit", params) for params in whole.module.one_by_one(p.edit)]


def own(p: Settings, name: str, clip: Clip) -> dict[str, Clip]:
    """The clip as an input of a prior, where its own is asked for."""
    return {"clip": clip} if getattr(getattr(p, name), "own", False) else {}


def check_own(p: Settings, clip: Clip, need: set[str]) -> None:
    """Raises ConfigError E223 for a clip that has no masks of its own where they are asked for, E245 for one that has
    no depth, E251 for one that has no tracks, and for edited tracks of its own beside others' tracks."""
    if "masks" in need and own(p, "masks", clip):
        clip.masks(p.frames.selection(), (2, 2))
    if "depth" in need and own(p, "depth", clip):
        clip.depth(p.frames.selection(), (2, 2))
    edited = "edited_tracks" in need and bool(own(p, "edited_tracks", clip))
    if edited and not own(p, "tracks", clip):
        raise ConfigError(
            "E251", "edited_tracks.own=true says where the clip's own points go", "Add tracks=given tracks.own=true."
        )
    if edited or ("tracks" in need and own(p, "tracks", clip)):
        clip.tracks(p.frames.selection(), (2, 2), edited)


def make_priors(run: Runner, p: Settings, made: dict[str, Any], need: set[str], clip: Clip) -> None:
    """Add the priors that are needed to `made`, each from those before it."""
    for name in PRIORS:
        if name not in need:
            continue
        if name == "region":
            made[name] = run(STAGES[name], p.region, masks=made["masks"])
            continue
        upstream = {prior: made[prior] for prior in p.choices[name].needs}
        upstream |= own(p, name, clip)
        params = uncorrected(p.masks) if name == "masks" else getattr(p, name)
        made[name] = run(STAGES[name], params, **p.choices[name].call, frames=made["frames"], **upstream)
        if name == "masks":
            for params in corrections(p.masks):
                inputs = {"frames": made["frames"], "masks": made["masks"], **upstream}
                made["masks"] = run(masks.stage_correction, params, **p.choices["masks"].call, **inputs)


def score_graph(run: Runner, source: Clip, result: Clip, p: Settings, masked: bool) -> dict[str, Any]:
    """Score any result against its source, whoever made it; returns what each stage made, the result's frames as
    "result". Without masks (`masked` false) nothing is said of an edited region.

    Raises what stages raise, MachineError E302 for missing weights of a prior, MediaError E441 for clips that cannot
    be compared.
    """
    wanted = [name for name in metrics.needs(p.metrics) if masked or name != "region"]
    need = {name for prior in wanted for name in closure(p, prior)}
    if not masked and need & {"masks", "region"}:
        raise ConfigError(
            "E229",
            "these settings need a mask of the edited object",
            "Give --mask MASKS or --box x0,y0,x1,y1; or tracks.queries=grid.",
        )
    for error in config_errors(p, need):
        raise error
    check_own(p, source, need)
    run.require(weights_needed([(p, need | {"metrics"})]))
    source = source.expected(p.frames.sha256)
    made: dict[str, Any] = {"frames": run(STAGES["frames"], p.frames, clip=source)}
    if hasattr(made["frames"], "meta"):
        meta = made["frames"].meta
        result = without_padding(result, meta["source_width"], meta["source_height"], p.frames.folder_fps)
    made["result"] = run(STAGES["frames"], p.frames, clip=result)
    comparable(made["frames"], made["result"])
    check(p, made["frames"], need)
    make_priors(run, p, made, need, source)
    made["metrics"] = scored(run, p.metrics, made, made["result"])
    shown = {name: made[name] for name in ("result", *PRIORS) if name in made}
    made["report"] = run(STAGES["report"], p.report, frames=made["frames"], **shown)
    return made


def comparable(source: Any, result: Any) -> None:
    """Raises MediaError E441 unless two clips have as many frames and one shape, within 2 %."""
    if not hasattr(source, "meta") or not hasattr(result, "meta"):
        return
    a, b = source.meta, result.meta
    if a["count"] != b["count"]:
        few = min(a["count"], b["count"])
        raise MediaError(
            "E441",
            f"the source has {a['count']} frames here, the result {b['count']}",
            f"Compare the first {few}: frames.last={few - 1}. Or resample both: frames.fps=N.",
        )
    if abs(a["width"] * b["height"] - b["width"] * a["height"]) > 0.02 * a["width"] * b["height"]:
        raise MediaError(
            "E441",
            f"the source is {a['source_width']}x{a['source_height']}, "
            f"the result {b['source_width']}x{b['source_height']}: not the same shape",
            "Crop or scale one of them first: metrics compare pixel by pixel.",
        )


def scored(run: Runner, params: metrics.Params, made: Mapping[str, Any], result: Any) -> Any:
    """The metrics of a result against its source, from whichever priors there are."""
    wanted = {name: made[name] for name in metrics.needs(params) if name in made}
    versions = ",".join(label(lookup("metrics", name)) for name in params.names)
    if "edited_tracks" in made and "edit" in made:  # what was moved is compared with where it shall be
        wanted |= {"edited": made["edit"]} | ({"tracks": made["edited_tracks"]} if "tracks" in wanted else {})
    elif "motion_channels" in made and "edit" in made:
        wanted |= {"edited": made["edit"]}
    inputs = {"frames": made["frames"], "result": result, **wanted}
    return run(STAGES["metrics"], params, implementation=versions, weights=metrics.weights(params), **inputs)


def closure(p: Settings, until: str = "report") -> set[str]:
    """Names of the stages that must run so that `until` can. Raises ConfigError E209 for an unknown stage."""
    if until not in STAGES:
        raise ConfigError("E209", f"there is no stage {until!r}", did_you_mean(until, list(STAGES)))
    direct: dict[str, tuple[str, ...]] = {
        "frames": (),
        "region": ("masks",),
        "latents": (),
        "inversion": ("latents",),
        "motion_channels": (),
        "decode": ("edit",),
        "metrics": ("decode", *metrics.needs(p.metrics)),
        "report": ("metrics",),
    }
    need: set[str] = set()
    todo = [until]
    while todo:
        name = todo.pop()
        if name not in need:
            need.add(name)
            todo += direct[name] if name in direct else p.choices[name].needs
    return need | {"frames"}


def corrections(params: Any) -> list[Any]:
    """Settings of the correction stages that follow masks, one a correction: each holds those before it, away from
    the prompt's frame, and its own as the last."""
    given = getattr(params, "corrections", ())
    later = sorted((c for c in given if c.frame > params.frame), key=lambda c: c.frame)
    earlier = sorted((c for c in given if c.frame < params.frame), key=lambda c: -c.frame)
    ways = [way[: k + 1] for way in (later, earlier) for k in range(len(way))]
    return [params.model_copy(update={"corrections": tuple(way)}) for way in ways]


def uncorrected(params: Any) -> Any:
    """Settings of masks without their corrections, which are stages of their own."""
    return params.model_copy(update={"corrections": ()}) if getattr(params, "corrections", ()) else params


def metric_settings(p: Settings) -> metrics.Params:
    """The metrics' settings; CLIP compares with the edit's own reference and prompts, and steering with its targets."""
    overrides: dict[str, Any] = {}
    if (targets := getattr(p.edit, "targets", ())) and not p.metrics.steering.targets:
        overrides["steering"] = p.metrics.steering.model_copy(update={"targets": targets})
    for name in ("clip_score", "cass"):
        score = getattr(p.metrics, name)
        unset = [what for what in ("reference", "prompt", "source_prompt") if getattr(score, what, "") is None]
        own = {what: value for what in unset if (value := getattr(p.edit, what, None))}
        overrides |= {name: score.model_copy(update=own)} if own else {}
    return p.metrics.model_copy(update=overrides) if overrides else p.metrics


def config_errors(p: Settings, need: set[str]) -> Iterator[ConfigError]:
    """What these settings contradict or leave open, whatever the clip: the first reason of each chosen module."""
    checks: list[Callable[[], Any]] = [p.frames.selection]
    for name in CHOICES:
        if name in need and (early := getattr(p.choices[name].module, "check_settings", None)):
            beside = ({"model": p.model, "inversion": p.inversion, "masks": p.masks},) if name == "edit" else ()
            checks.append(partial(early, getattr(p, name), *beside))
    if "edit" in need and "edited_tracks" not in need and moves_something(p):
        yield ConfigError(
            "E237",
            f"edited_tracks says how things move, and edit={p.edit.name} moves nothing",
            "Add edit=move, edit=timetomove or edit=motionv2v; or leave edited_tracks out.",
        )
    if {"latents", "edit"} <= need and p.edit.name not in getattr(family_of(p.model.family), "METHODS", (p.edit.name,)):
        serves = ", ".join(f"edit={name}" for name in family_of(p.model.family).METHODS)
        yield ConfigError(
            "E273",
            f"model={p.model.name} serves {serves}, not edit={p.edit.name}",
            "Take another model: model=embedded.",
        )
    for check_settings in checks:
        try:
            check_settings()
        except ConfigError as error:
            yield error


def moves_something(p: Settings) -> bool:
    """Whether the settings say how tracks shall move."""
    return bool(getattr(p.edited_tracks, "edits", ()) or p.edited_tracks.path or getattr(p.edited_tracks, "own", False))


def check(p: Settings, made: Any, need: set[str]) -> None:
    """Refuse what cannot work as soon as the frames are known, before an expensive stage starts."""
    if (meta := getattr(made, "meta", None)) is None:
        return  # only planned: the size is not known yet
    for name in CHOICES:
        if name in need and (early := getattr(p.choices[name].module, "check", None)):
            early(getattr(p, name), meta)
    if "latents" in need:
        latents.check(p.latents, (meta["width"], meta["height"]))


def weights_needed(planned: Iterable[tuple[Settings, set[str]]]) -> list[str]:
    """References of the weights without which some stages, by their settings, cannot run: those of priors, the method
    and the diffusion model, each once. Metrics without weights say so in their place; but for a name of theirs that
    does not exist ConfigError E250 is raised."""
    found: dict[str, None] = {}
    for p, need in planned:
        for group in CHOICES:
            if group in need:
                found |= dict.fromkeys(p.choices[group].weights.values())
        if "latents" in need:
            found |= dict.fromkeys(weights_of(p.model).values())
        if "metrics" in need:
            for reference in metrics.weights(p.metrics).values():
                locate(reference)
    return list(found)
