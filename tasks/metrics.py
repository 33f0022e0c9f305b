"""metrics: score the result against its source. metrics.json (flat) and metrics.tsv (a row a frame)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, Field, create_model

from retake.artifact import Artifact, Frames, Metrics, Result
from retake.errors import ConfigError
from retake.formats import CHUNK, EditedSeries, FlowSeries, FrameSeries, MaskSeries, RegionSeries, TrackSeries
from retake.lookup import lookup, names
from retake.metrics.common.guard import guarded
from retake.metrics.common.sample import NO_REGION, Sample, Tracks
from retake.metrics.summary import frame_rows, summarise, write_tsv
from retake.recipe import installed
from retake.stage import Work, stage
from retake.video import resize
from retake.weights import local

NO_CODE = "E261"  # weights are here, and the package that holds the network's code is not


class Params(BaseModel, frozen=True, extra="forbid"):
    """Which metrics, and the settings of each."""

    names: tuple[str, ...] = Field(
        ("warp_error", "region", "flicker", "motion_fidelity"),
        description="metrics to compute, files of retake/metrics/",
    )


def settings_field(name: str) -> tuple[type[BaseModel], Any]:
    """A field that holds the settings of one metric, by default its defaults; in keys where `names` asks for it."""
    model, about = lookup("metrics", name).Params, f"see retake/metrics/{name}.py"
    return model, Field(default_factory=model, description=about, json_schema_extra={"listed": "names"})


if not TYPE_CHECKING:  # every metric has a field of its name, which only running the code tells
    Params = create_model(
        "Params",
        __base__=Params,
        __doc__=Params.__doc__,
        __module__=__name__,
        names=(tuple[Literal[tuple(names("metrics"))], ...], Params.model_fields["names"]),
        **{name: settings_field(name) for name in names("metrics")},
    )


def needs(params: Params) -> tuple[str, ...]:
    """Priors that the chosen metrics read, in a fixed order."""
    wanted = {prior for name in params.names for prior in lookup("metrics", name).NEEDS}
    return tuple(sorted(wanted))


def weights(params: Params) -> dict[str, str]:
    """References of the weights of the chosen metrics, by metric and role."""
    return {f"{name}.{role}": reference for name in params.names for role, reference in weights_of(params, name)}


def weights_of(params: Params, name: str) -> list[tuple[str, str]]:
    """(role, reference) of one metric's weights."""
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
    masks: Artifact | None = None,
    region: Artifact | None = None,
    tracks: Artifact | None = None,
    edited: Artifact | None = None,
) -> Metrics:
    """Everything is measured at working size: a larger result is shrunk by the same filter as the source was. `edited`
    is given where things were moved: where they are now is edited, too.

    A metric whose network's weights are not here has no value and a reason; it is made once they are.
    """
    source: FrameSeries = work.open(frames)
    flow: FlowSeries | None = work.open(optical_flow) if optical_flow else None
    mask: RegionSeries | None = work.open(region) if region else None
    size = source.width, source.height
    points: TrackSeries | None = work.open(tracks) if tracks else None
    named: MaskSeries | None = work.open(masks) if masks else None
    moved: EditedSeries | None = work.open(edited) if edited else None
    metrics, reasons = load_metrics(params, work.weights)
    for t, shown in enumerate(at_size(work.open(result), size)):
        forward, backward = (flow.forward(t - 1), flow.backward(t - 1)) if flow is not None and t else (None, None)
        sample = Sample(
            t,
            source[t],
            shown,
            region=(mask[t] if moved is None else mask[t] | laid(moved, t, mask[t].shape))
            if mask is not None
            else None,
            flow=forward,
            fps=source.meta["fps"],
            backward=backward,
            tracks=window(points, t) if points is not None and t % CHUNK == 0 else None,
            objects={one: named.object(t, one) for one in named.ids} if named is not None else None,
            scale=(size[0] / frames.meta["source_width"], size[1] / frames.meta["source_height"]),
        )
        for metric in metrics.values():
            metric.update(sample)
        if t % 8 == 7 or t + 1 == len(source):
            work.progress(t + 1, len(source))

    found = {name: metric.result() for name, metric in metrics.items()}
    results = [found[name] for name in params.names if name in found]
    values, withheld = guarded(summarise(results) | dict.fromkeys(reasons))
    for made in found.values():
        reasons |= {name: why for name, why in made.reasons().items() if values.get(name) is None}
    if mask is None:
        reasons |= {name: NO_REGION for name, value in values.items() if value is None and name not in reasons}
    table = work.scratch / "metrics.tsv"
    rows = frame_rows(results, len(source))
    write_tsv(table, [{name: v for name, v in row.items() if name not in withheld} for row in rows])
    work.add("metrics.json", (json.dumps(values, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())
    work.add("metrics.tsv", table)
    for made in found.values():
        for name, content in made.files().items():
            work.add(name, content)
    notes = unmeasured(params, work.weights)
    if min(result.meta["width"] / size[0], result.meta["height"] / size[1]) < 1:
        notes.append(f"the result was enlarged from {result.meta['width']}x{result.meta['height']} to be compared")
    telling = [metric for metric in metrics.values() if hasattr(metric, "networks")]
    networks = {value: network for metric in telling for value, network in metric.networks().items()}
    return work.finish(
        names=list(params.names), count=len(source), networks=networks, reasons=reasons | withheld, notes=notes
    )  # type: ignore[return-value]


def load_metrics(params: Params, keyed: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The metrics that can be computed, by name, and, for the values of those that cannot, why.

    `keyed`: identities of weights by metric and role. What the key calls absent counts as absent, also when it has
    come meanwhile; what it names is loaded, or nothing is published. Raises MachineError E302, ConfigError E261, E262.
    """
    metrics: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for name in params.names:
        module, settings = lookup("metrics", name), getattr(params, name)
        references = weights_of(params, name)
        absent = {role: ref for role, ref in references if keyed.get(f"{name}.{role}", local.ABSENT) == local.ABSENT}
        for role, reference in absent.items():
            # One metric with two networks says of each value which of them it lacks; the others lack all.
            lost = [v for v in module.DESCRIPTIONS if not hasattr(module, "without") or v.startswith(role)]
            weights, how = local.size_and_licence(reference), local.fetch_command([reference])
            needs_it = f"unavailable: needs {weights}, get it with: {how}"
            also = [module.OF_A_DATASET] if hasattr(module, "OF_A_DATASET") else []
            reasons |= dict.fromkeys(lost, "; ".join([needs_it, *also]))
        if absent and hasattr(module, "without"):
            settings = module.without(settings, absent)
        elif absent:
            continue
        try:
            networks = module.networks(settings) if hasattr(module, "networks") else {}
            metrics[name] = module.Metric(settings, **networks)
        except ConfigError as error:
            if error.code != NO_CODE or installed("vbench")["vbench"] != "absent":
                raise  # vbench is a backend: only whether it is installed is in the key
            reasons |= dict.fromkeys(module.DESCRIPTIONS, f"unavailable: {error.message}. {error.hint}")
    return metrics, reasons


def unmeasured(params: Params, keyed: Mapping[str, str]) -> list[str]:
    """One line on everything that was not measured for want of weights."""
    lacking: dict[str, list[str]] = {}
    for name in params.names:
        for role, reference in weights_of(params, name):
            if keyed.get(f"{name}.{role}", local.ABSENT) == local.ABSENT:
                lacking.setdefault(reference, []).append(name)
    if not lacking:
        return []
    names = ", ".join(dict.fromkeys(name for several in lacking.values() for name in several))
    return [f"not measured for want of weights: {names}. Get them: retake weights {' '.join(lacking)}"]


def window(tracks: TrackSeries, t: int) -> Tracks:
    """The source's points, or where they shall be, over the frames of the chunk that begins at frame t."""
    chunk = tracks.chunk(t // CHUNK)
    return Tracks(chunk["xy"], chunk["visible"])


def laid(edited: EditedSeries, t: int, shape: tuple[int, ...]) -> np.ndarray:
    """Where the edit of frame t is, bool [H, W]."""
    (x0, y0, x1, y1), _, alpha = edited[t]
    where = np.zeros(shape, bool)
    where[y0:y1, x0:x1] = alpha > 0
    return where


def at_size(result: FrameSeries, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Result frames, uint8 [H,W,3], at working size."""
    for frame in result:
        yield frame if (result.width, result.height) == size else resize(frame, size)
