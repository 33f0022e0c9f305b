"""masks: where the object is, frame by frame."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from retake.artifact import Artifact, Frames, Masks
from retake.formats import CHUNK, FlowSeries, FrameSeries, Tensors, chunk_range, pack_bits
from retake.lookup import lookup
from retake.stage import Work, stage


@stage("masks", version=1, makes="masks", backends=("opencv-python-headless",), group="priors.masks")
def stage_masks(work: Work, params: Any, frames: Frames, optical_flow: Artifact | None = None) -> Masks:
    """Implementations that carry a mask from a prompt frame (`start`, `step`) go both ways from it; those that read
    masks (`masks`) run from the first frame to the last."""
    series: FrameSeries = work.open(frames)
    module = lookup("priors.masks", params.name)
    if optical_flow is not None:
        carry_both_ways(work, params, module, series, work.open(optical_flow))
    else:
        read_through(work, params, module, series)
    return work.finish(
        count=len(series),
        width=series.width,
        height=series.height,
        frame=getattr(params, "frame", 0),
        name=params.name,
        notes=notes_on(work, len(series), prompted=hasattr(params, "points")),
    )  # type: ignore[return-value]


def notes_on(work: Work, count: int, prompted: bool) -> list[str]:
    """What a person should know before trusting the masks: on which frames there is none."""
    empty = [t for index in sorted(work.done) for t in empty_frames(work.read(index), index)]
    if not empty:
        return []
    if empty == list(range(empty[0], count)) and empty[0] > 0:
        where = f"from frame {empty[0]} on: the object was lost or left the picture"
    else:
        where = f"on {len(empty)} of {count} frames, the first of them {empty[0]}"
    help_it = "help it with masks.points, or masks.frame=N and its box" if prompted else "check the given masks"
    return [f"the mask is empty {where}. See the mask layer; {help_it}"]


def empty_frames(chunk: Tensors, index: int) -> list[int]:
    return [index * CHUNK + k for k, bits in enumerate(chunk["mask"]) if not bits.any()]


def read_through(work: Work, params: Any, module: Any, series: FrameSeries) -> None:
    """Masks that are there already."""
    found = module.masks(params.path, params, len(series), (series.width, series.height))
    pending: list[np.ndarray] = []
    for t, mask in enumerate(found):
        pending.append(mask)
        if t + 1 in (len(series), (t // CHUNK + 1) * CHUNK):
            if t // CHUNK not in work.done:
                work.commit(t // CHUNK, tensors(pending, [1.0] * len(pending)))
            pending = []
            work.progress(t + 1, len(series))


def carry_both_ways(work: Work, params: Any, module: Any, series: FrameSeries, flow: FlowSeries) -> None:
    """From the prompt's chunk onwards to the end, then backwards to the start. Every chunk commits what the next one
    in either direction goes on from, so that a killed run resumes bit for bit."""
    home = params.frame // CHUNK
    order = [*range(home, series.chunks()), *range(home - 1, -1, -1)]
    state = work.state()
    for index in order:
        if index in work.done:
            continue
        span = chunk_range(index, len(series))
        masks: dict[int, np.ndarray] = {}
        overlap: dict[int, float] = {}
        if state is None:
            box, points = to_working(params, series.meta)
            begun = module.start(series[params.frame], box, points, params)
            masks[params.frame], overlap[params.frame] = begun.mask, 1.0
            state = {f"model.{name}": array for name, array in begun.state.items()}
            forwards, backwards = range(params.frame + 1, span.stop), range(params.frame - 1, span.start - 1, -1)
        else:
            forwards = span if index > home else range(0)
            backwards = range(span.stop - 1, span.start - 1, -1) if index < home else range(0)
        model = {name[6:]: array for name, array in state.items() if name.startswith("model.")}
        for way, times in ((1, forwards), (-1, backwards)):
            for t in times:
                before = masks.get(t - way)
                if before is None:
                    before = state["last" if way == 1 else "first"]
                towards, hidden = flow_between(flow, t, way)
                step = module.step(series[t], before, towards, model, params, hidden)
                masks[t], overlap[t] = step.mask, step.iou
        state = dict(state)
        if home <= index:
            state["last"] = masks[span.stop - 1]
        if index <= home:
            state["first"] = masks[span.start]
        work.commit(index, tensors([masks[t] for t in span], [overlap[t] for t in span]), state)
        work.progress(min(len(work.done) * CHUNK, len(series)), len(series))


def flow_between(flow: FlowSeries, t: int, way: int) -> tuple[np.ndarray, np.ndarray]:
    """Flow on the grid of t into the neighbour that the mask comes from, and what is hidden there."""
    if way == 1:
        return flow.backward(t - 1), flow.occluded_backward(t - 1)
    return flow.forward(t), flow.occluded_forward(t)


class Prompt(Protocol):
    """Params of an implementation that starts from a box or points, in source pixels."""

    box: tuple[float, float, float, float] | None
    points: tuple[tuple[float, float, int], ...]


def to_working(params: Prompt, meta: Any) -> tuple[Any, Any]:
    """Box edges and point centres from source pixels to working pixels."""
    sx, sy = meta["width"] / meta["source_width"], meta["height"] / meta["source_height"]
    box = None if params.box is None else tuple(v * s for v, s in zip(params.box, (sx, sy, sx, sy), strict=True))
    points = tuple(((x + 0.5) * sx - 0.5, (y + 0.5) * sy - 0.5, label) for x, y, label in params.points)
    return box, points


def tensors(masks: list[np.ndarray], overlap: list[float]) -> Tensors:
    """One chunk."""
    return {"mask": pack_bits(np.stack(masks)), "overlap": np.array(overlap, np.float32)}
