"""metrics: score the result against its source. metrics.json (flat) and metrics.tsv (a row a frame)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from retake.artifact import Artifact, Frames, Metrics, Result
from retake.errors import ConfigError
from retake.formats import FlowSeries, FrameSeries, RegionSeries, TrackSeries, chunk_range, pack
from retake.lookup import lookup
from retake.metrics import fid, flicker, motion_fidelity, warp_error
from retake.metrics import region as unedited
from retake.metrics.cass import Params as CassParams
from retake.metrics.clip_score import Params as ClipScoreParams
from retake.metrics.common.guard import guarded
from retake.metrics.common.sample import NO_REGION, Sample
from retake.metrics.consistency import Params as ConsistencyParams
from retake.metrics.dynamics import Params as DynamicsParams
from retake.metrics.fid import Params as FidParams
from retake.metrics.flicker import Params as FlickerParams
from retake.metrics.lpips import Params as LpipsParams
from retake.metrics.motion_fidelity import Params as MotionFidelityParams
from retake.metrics.region import Params as RegionParams
from retake.metrics.smoothness import Params as SmoothnessParams
from retake.metrics.ssim import Params as SsimParams
from retake.metrics.summary import frame_rows, summarise, write_tsv
from retake.metrics.temporal_consistency import Params as TemporalConsistencyParams
from retake.metrics.warp_error import Params as WarpErrorParams
from retake.recipe import installed
from retake.stage import Work, stage
from retake.video import resize
from retake.weights import local

PIXELS = ("warp_error", "region", "flicker", "motion_fidelity")  # these look at pixels and tracks alone
Name = Literal[
    "warp_error",
    "region",
    "flicker",
    "motion_fidelity",
    "ssim",
    "lpips",
    "clip_score",
    "cass",
    "temporal_consistency",
    "consistency",
    "smoothness",
    "dynamics",
    "fid",
]
NO_CODE = "E261"  # weights are here, and the package that holds the network's code is not
OF_A_DATASET = "a number of a dataset, not of a clip: retake dataset metrics=all"
FEATURES = "features.safetensors"  # of fid: what a dataset's score is made of


def of_metric(model: type[BaseModel]) -> Any:
    """A field that holds the settings of one metric, by default its defaults; in keys where `names` asks for it."""
    about = f"see {model.__module__.replace('.', '/')}.py"
    return Field(default_factory=model, description=about, json_schema_extra={"listed": "names"})


class Params(BaseModel, frozen=True, extra="forbid"):
    """Which metrics, and the settings of each."""

    names: tuple[Name, ...] = Field(
        ("warp_error", "region", "flicker", "motion_fidelity"),
        description="metrics to compute, files of retake/metrics/",
    )
    warp_error: WarpErrorParams = of_metric(WarpErrorParams)
    region: RegionParams = of_metric(RegionParams)
    flicker: FlickerParams = of_metric(FlickerParams)
    motion_fidelity: MotionFidelityParams = of_metric(MotionFidelityParams)
    ssim: SsimParams = of_metric(SsimParams)
    lpips: LpipsParams = of_metric(LpipsParams)
    clip_score: ClipScoreParams = of_metric(ClipScoreParams)
    cass: CassParams = of_metric(CassParams)
    temporal_consistency: TemporalConsistencyParams = of_metric(TemporalConsistencyParams)
    consistency: ConsistencyParams = of_metric(ConsistencyParams)
    smoothness: SmoothnessParams = of_metric(SmoothnessParams)
    dynamics: DynamicsParams = of_metric(DynamicsParams)
    fid: FidParams = of_metric(FidParams)


def needs(params: Params) -> tuple[str, ...]:
    """Priors that the chosen metrics read, in a fixed order."""
    wanted = {prior for name in params.names for prior in lookup("metrics", name).NEEDS}
    return tuple(sorted(wanted))


def weights(params: Params) -> dict[str, str]:
    """References of the weights that the chosen metrics look through, by metric and role."""
    return {f"{name}.{role}": reference for name in params.names for role, reference in looks_through(params, name)}


def looks_through(params: Params, name: str) -> list[tuple[str, str]]:
    """(role, reference) of one metric's networks."""
    module = lookup("metrics", name)
    return sorted(module.weights(getattr(params, name)).items()) if hasattr(module, "weights") else []


# vbench is a backend because one metric is unavailable without that package.
@stage(
    "metrics", version=2, makes="metrics", backends=("opencv-python-headless", "numpy", "vbench"), optional_weights=True
)
def stage_metrics(
    work: Work,
    params: Params,
    frames: Frames,
    result: Result | Frames,
    optical_flow: Artifact | None = None,
    region: Artifact | None = None,
    tracks: Artifact | None = None,
) -> Metrics:
    """Everything is measured at working size: a larger result is shrunk by the same filter as the source was.

    A metric whose network's weights are not here has no value and a reason; it is made once they are.
    """
    source: FrameSeries = work.open(frames)
    flow: FlowSeries | None = work.open(optical_flow) if optical_flow else None
    mask: RegionSeries | None = work.open(region) if region else None
    size = source.width, source.height
    pixels, seeing, reasons = chosen(params, work.weights)
    before: Sample | None = None
    for t, edited in enumerate(shrunk(work.open(result), size)):
        forward = flow.forward(t - 1) if flow is not None and t else None
        here = Sample(t, source[t], edited, mask[t] if mask is not None else None, forward, source.meta["fps"])
        compare_pixels(pixels, before, here, flow)
        for metric in seeing.values():
            metric.update(here)
        before = here
        if t % 8 == 7:
            work.progress(t + 1, len(source))
    if "motion_fidelity" in pixels and tracks is not None:
        for window in track_windows(work.open(tracks), work.open(result), size):
            pixels["motion_fidelity"].update(window)

    found = {name: score.result() for name, score in (pixels | seeing).items()}
    results = [found[name] for name in params.names if name in found]
    values, withheld = guarded(summarise(results) | dict.fromkeys(reasons))
    for metric in seeing:
        reasons |= {name: why for name, why in found[metric].reasons().items() if values.get(name) is None}
    if "fid" in params.names:
        values |= dict.fromkeys(fid.DESCRIPTIONS)
        lacks = [reasons["fid"]] if "fid" in reasons else []
        reasons |= dict.fromkeys(fid.DESCRIPTIONS, "; ".join([*lacks, OF_A_DATASET]))
    if mask is None:
        reasons |= {name: NO_REGION for name, value in values.items() if value is None and name not in reasons}
    table = work.scratch / "metrics.tsv"
    rows = frame_rows(results, len(source))
    write_tsv(table, [{name: v for name, v in row.items() if name not in withheld} for row in rows])
    work.add("metrics.json", (json.dumps(values, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())
    work.add("metrics.tsv", table)
    if "fid" in found:
        work.add(FEATURES, pack({"source": found["fid"].source, "result": found["fid"].result}))
    notes = unmeasured(params, work.weights)
    if min(result.meta["width"] / size[0], result.meta["height"] / size[1]) < 1:
        notes.append(f"the result was enlarged from {result.meta['width']}x{result.meta['height']} to be compared")
    networks = {value: network for metric in seeing.values() for value, network in metric.networks().items()}
    return work.finish(
        names=list(params.names), count=len(source), networks=networks, reasons=reasons | withheld, notes=notes
    )  # type: ignore[return-value]


def chosen(params: Params, keyed: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """The metrics of pixels, those that look through networks, and, for the values of those that cannot, why.

    `keyed`: identities of weights by metric and role. What the key calls absent counts as absent, also when it has
    come meanwhile; what it names is loaded, or nothing is published. Raises MachineError E302, ConfigError E261, E262.
    """
    makers: dict[str, Any] = {
        "warp_error": warp_error.WarpError,
        "region": unedited.Region,
        "flicker": flicker.Flicker,
        "motion_fidelity": motion_fidelity.MotionFidelity,
    }
    pixels = {name: makers[name](getattr(params, name)) for name in params.names if name in PIXELS}
    seeing: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for name in params.names:
        if name in PIXELS:
            continue
        module, settings = lookup("metrics", name), getattr(params, name)
        asked = looks_through(params, name)
        absent = {role: ref for role, ref in asked if keyed.get(f"{name}.{role}", local.ABSENT) == local.ABSENT}
        for role, reference in absent.items():
            # One metric with two networks says of each value which of them it lacks; the others lack all.
            lost = [v for v in module.DESCRIPTIONS if not hasattr(module, "without") or v.startswith(role)]
            needs_it = f"needs {local.described(reference)}, get it with: {local.command(reference)}"
            reasons |= dict.fromkeys(lost, f"unavailable: {needs_it}")
        if absent and hasattr(module, "without"):
            settings = module.without(settings, absent)
        elif absent:
            continue
        try:
            seeing[name] = module.Metric(settings, **module.networks(settings))
        except ConfigError as error:
            if error.code != NO_CODE or installed("vbench")["vbench"] != "absent":
                raise  # vbench is a backend: only whether it is installed is in the key
            reasons |= dict.fromkeys(module.DESCRIPTIONS, f"unavailable: {error.message}. {error.hint}")
    return pixels, seeing, reasons


def unmeasured(params: Params, keyed: Mapping[str, str]) -> list[str]:
    """One line on everything that was not measured for want of weights."""
    lacking: dict[str, list[str]] = {}
    for name in params.names:
        for role, reference in looks_through(params, name):
            if keyed.get(f"{name}.{role}", local.ABSENT) == local.ABSENT:
                lacking.setdefault(reference, []).append(name)
    if not lacking:
        return []
    names = ", ".join(dict.fromkeys(name for several in lacking.values() for name in several))
    return [f"not measured for want of weights: {names}. Get them: retake weights {' '.join(lacking)}"]


def compare_pixels(scores: dict[str, Any], before: Sample | None, here: Sample, flow: FlowSeries | None) -> None:
    """Feed the metrics of pixels one frame, and the pair that it ends."""
    if "region" in scores and here.region is not None:
        scores["region"].update(here.source, here.result, ~here.region)
    if before is None:
        return
    pair = before.source, here.source, before.result, here.result
    if "warp_error" in scores and flow is not None and here.flow is not None:
        scores["warp_error"].update(*pair, here.flow, flow.backward(before.t), before.region)
    if "flicker" in scores:
        scores["flicker"].update(*pair, before.region, here.region)


def shrunk(result: FrameSeries, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Result frames, uint8 [H,W,3], at working size."""
    for frame in result:
        yield frame if (result.width, result.height) == size else resize(frame, size)


def track_windows(tracks: TrackSeries, result: FrameSeries, size: tuple[int, int]) -> Iterator[motion_fidelity.Window]:
    """One window a chunk: the source's tracks, and tracks followed in the result from the same first positions."""
    follower = lookup("priors.tracks", "lucas_kanade")
    params = follower.Params()
    frames = enumerate(shrunk(result, size))
    for index in range(tracks.chunks()):
        chunk, span = tracks.chunk(index), chunk_range(index, len(tracks))
        start = chunk["visible"][0]
        points = chunk["xy"][0][start]
        xy, visible = [points], [np.ones(len(points), bool)]
        previous = follower.gray(next(frames)[1])
        for _ in span[1:]:
            following = follower.gray(next(frames)[1])
            points, ok = follower.step(previous, following, points, params)
            xy.append(points)
            visible.append(visible[-1] & ok)
            previous = following
        yield motion_fidelity.Window(
            span.start, chunk["xy"][:, start], chunk["visible"][:, start], np.stack(xy), np.stack(visible)
        )
