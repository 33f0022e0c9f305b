"""masks: where the objects are, frame by frame; and correction: the same, put right from one frame on.

Implementations either follow prompts (`tracker`, see retake/priors/masks/prompt.py) or read masks that exist (`masks`).
Beside every chunk of followed masks stands the tracker's state at its far end: a correction takes over all chunks
before its frame as they are, and goes on from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from retake.artifact import Artifact, Frames, Masks
from retake.clip import Clip
from retake.formats import (
    CHUNK,
    FlowSeries,
    FrameSeries,
    MaskSeries,
    Tensors,
    chunk_name,
    chunk_range,
    pack,
    pack_bits,
    state_name,
    unpack,
)
from retake.lookup import lookup
from retake.priors.masks.prompt import Correction, Followed, Moment, Prompted, Tracker, scaled
from retake.stage import Work, stage
from retake.video import Selection

BACKENDS = ("opencv-python-headless",)
Found = dict[int, dict[int, Followed]]  # frame -> object id -> mask


@stage("masks", version=2, makes="masks", backends=BACKENDS, group="priors.masks")
def stage_masks(
    work: Work, params: Any, frames: Frames, optical_flow: Artifact | None = None, clip: Clip | None = None
) -> Masks:
    """From the prompt frame to the clip's end, then back to its start; masks that exist from first to last. `clip`:
    one whose own masks are taken."""
    series: FrameSeries = work.open(frames)
    module = lookup("priors.masks", params.name)
    size = series.width, series.height
    if clip is not None:
        own = clip.masks(Selection(**series.meta["selection"]), size)
        taken = ({i: m for i, m in one.items() if params.object in (None, i)} for one in own)
        return finished(work, params, series, read_through(work, taken, len(series)))
    if not hasattr(module, "tracker"):
        found = module.masks(params.path, params, len(series), size)
        return finished(work, params, series, read_through(work, found, len(series)))
    follow(Following(work, params, module, series, work.open(optical_flow) if optical_flow else None))
    return finished(work, params, series)


@stage("correction", version=1, makes="masks", backends=BACKENDS, group="priors.masks")
def stage_correction(
    work: Work, params: Any, frames: Frames, masks: Artifact, optical_flow: Artifact | None = None
) -> Masks:
    """Put masks right by the last of `params.corrections`; the others were put into `masks` before.

    Frames nearer to the prompt than the corrected one keep their masks bit for bit.
    """
    series: FrameSeries = work.open(frames)
    module = lookup("priors.masks", params.name)
    following = Following(work, params, module, series, work.open(optical_flow) if optical_flow else None)
    follow_corrected(following, masks, work.open(masks))
    return finished(work, params, series)


def finished(work: Work, params: Any, series: FrameSeries, notes: Sequence[str] = ()) -> Masks:
    """The artifact of the committed chunks."""
    return work.finish(
        count=len(series),
        width=series.width,
        height=series.height,
        frame=getattr(params, "frame", 0),
        name=params.name,
        notes=[*notes, *notes_on(work, len(series), prompted=isinstance(params, Prompted))],
    )  # type: ignore[return-value]


# ---- following prompts -------------------------------------------------------------------------------------------


@dataclass
class Following:
    """What a pass over the clip works with, in either direction of time."""

    work: Work
    params: Prompted
    module: Any
    series: FrameSeries
    flow: FlowSeries | None
    corrections: tuple[Correction, ...] = ()
    _trackers: dict[bool, Tracker] = field(default_factory=dict)  # by direction, kept from chunk to chunk

    @property
    def home(self) -> int:
        """The chunk in which the prompt lies."""
        return self.params.frame // CHUNK

    def chunk(self, index: int, reverse: bool, before: Tensors | None) -> tuple[Found, Tensors]:
        """Masks of a chunk in one direction, and the state after it. `before` is the state to go on from; None begins
        on the prompt frame, whose chunk this then is."""
        span = chunk_range(index, len(self.series))
        size = self.series.width, self.series.height
        found: Found = {}
        if before is None:
            tracker = self.module.tracker(self.params, size, None, reverse)
            prompts = {i: scaled(p, self.series.meta) for i, p in self.params.prompts().items()}
            begun = Moment(self.params.frame, self.series[self.params.frame])
            found[self.params.frame] = tracker.begin(begun, prompts)
            start = self.params.frame
            times = range(start - 1, span.start - 1, -1) if reverse else range(start + 1, span.stop)
        else:
            tracker = self._trackers.get(reverse) or self.module.tracker(self.params, size, before, reverse)
            times = span[::-1] if reverse else span
        self._trackers[reverse] = tracker
        for t in times:
            moment = self.moment(t, reverse)
            found[t] = tracker.step(moment)
            for correction in self.corrections:
                if correction.frame == t:
                    prompt, object = scaled(correction, self.series.meta), self.params.corrected(correction)
                    found[t][object] = tracker.correct(moment, object, prompt)
        return found, {f"{'behind' if reverse else 'ahead'}.{name}": a for name, a in tracker.state().items()}

    def moment(self, t: int, reverse: bool) -> Moment:
        """Frame t, with the flow into the neighbour that its mask comes from."""
        if self.flow is None:
            return Moment(t, self.series[t])
        if reverse:
            return Moment(t, self.series[t], self.flow.forward(t), self.flow.occluded_forward(t))
        return Moment(t, self.series[t], self.flow.backward(t - 1), self.flow.occluded_backward(t - 1))

    def stored_state(self, index: int, reverse: bool) -> Tensors:
        """The state that this stage committed with a chunk."""
        return of_direction(unpack(self.work.store.read(self.work.file(state_name(index)))), reverse)

    def commit(self, index: int, found: Found, state: Tensors) -> None:
        """Make a chunk and its state durable, together."""
        self.work.add(state_name(index), pack(state))
        self.work.commit(index, tensors([found[t] for t in chunk_range(index, len(self.series))]))
        self.work.progress(min(len(self.work.done) * CHUNK, len(self.series)), len(self.series))


def follow(f: Following) -> None:
    """From the prompt's chunk onwards to the end, then backwards to the start. A killed run goes on bit for bit."""
    for index in [*range(f.home, f.series.chunks()), *range(f.home - 1, -1, -1)]:
        if index in f.work.done:
            continue
        found: Found = {}
        state: Tensors = {}
        for reverse in (False, True):
            if (index > f.home and reverse) or (index < f.home and not reverse):
                continue
            neighbour = index + 1 if reverse else index - 1
            before = None if index == f.home else f.stored_state(neighbour, reverse)
            part, after = f.chunk(index, reverse, before)
            found |= part
            state |= after
        f.commit(index, found, state)


def follow_corrected(f: Following, masks: Artifact, old: MaskSeries) -> None:
    """Take over the chunks that lie on the prompt's side of the correction, and make the others anew."""
    last = f.params.corrections[-1]
    reverse = last.frame < f.params.frame
    first = last.frame // CHUNK
    again = range(first, -1, -1) if reverse else range(first, f.series.chunks())
    kept = [i for i in range(f.series.chunks()) if i not in again]
    f.work.take_over(*(masks[name] for i in kept for name in (chunk_name(i), state_name(i))))
    # Corrections nearer to the prompt are in the state already, but for those within the chunk that is walked again.
    f.corrections = tuple(c for c in f.params.corrections if c.frame // CHUNK == first)
    for index in again:
        if index in f.work.done:
            continue
        if index != first:
            before = f.stored_state(index + 1 if reverse else index - 1, reverse)
        elif index == f.home:
            before = None
        else:
            name = state_name(index + 1 if reverse else index - 1)
            before = of_direction(unpack(f.work.store.read(masks[name])), reverse)
        found, state = f.chunk(index, reverse, before)
        for t in chunk_range(index, len(f.series)):
            if t not in found or (t > last.frame if reverse else t < last.frame):
                found[t] = as_followed(old, t)
        if index == f.home:
            both = unpack(f.work.store.read(masks[state_name(index)]))
            state = {name: a for name, a in both.items() if name not in state} | state
        f.commit(index, found, state)


def of_direction(state: Tensors, reverse: bool) -> Tensors:
    """The arrays of one direction, under the tracker's own names."""
    prefix = "behind." if reverse else "ahead."
    return {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}


def as_followed(masks: MaskSeries, t: int) -> dict[int, Followed]:
    """A frame's masks as they are stored."""
    overlap = masks.at(t, "overlap")
    return {i: Followed(masks.object(t, i), float(overlap[k])) for k, i in enumerate(masks.ids)}


# ---- masks that exist --------------------------------------------------------------------------------------------


def read_through(work: Work, masks: Iterable[dict[int, np.ndarray]], count: int) -> list[str]:
    """Masks that are there already, chunk by chunk. Returns the notes on them."""
    pending: list[dict[int, np.ndarray]] = []
    for t, found in enumerate(masks):
        pending.append(found)
        if t + 1 in (count, (t // CHUNK + 1) * CHUNK):
            if t // CHUNK not in work.done:
                work.commit(t // CHUNK, given_tensors(pending))
            pending = []
            work.progress(t + 1, count)
    return list(getattr(masks, "notes", []))


def given_tensors(found: list[dict[int, np.ndarray]]) -> Tensors:
    """One chunk. An opacity, uint8, is kept beside the mask that it makes."""
    made = tensors([{i: Followed(m if m.dtype == bool else m > 127) for i, m in one.items()} for one in found])
    soft = [mask for one in found for mask in one.values() if mask.dtype != bool]
    return made | {"opacity": np.stack(soft)} if soft else made


# ---- files and notes ---------------------------------------------------------------------------------------------


def tensors(found: list[dict[int, Followed]]) -> Tensors:
    """One chunk."""
    ids = sorted(found[0])
    return {
        "ids": np.array(ids, np.int64),
        "objects": np.stack([np.stack([pack_bits(frame[i].mask) for i in ids]) for frame in found]),
        "overlap": np.array([[frame[i].overlap for i in ids] for frame in found], np.float32),
    }


def notes_on(work: Work, count: int, prompted: bool) -> list[str]:
    """What a person should know before trusting the masks: on which frames an object has none."""
    empty: dict[int, list[int]] = {}
    for index in sorted(work.done):  # one chunk at a time: a clip's masks need not fit into memory
        chunk = work.read(index)
        for k, i in enumerate(chunk["ids"].tolist()):
            missing = (index * CHUNK + n for n, bits in enumerate(chunk["objects"][:, k]) if not bits.any())
            empty.setdefault(i, []).extend(missing)
    help_it = "help it with masks.corrections or another prompt" if prompted else "check the given masks"
    return [
        f"{'the mask' if list(empty) == [1] else f'the mask of object {i}'} is empty {where(frames, count)}. "
        f"See the mask layer; {help_it}"
        for i, frames in empty.items()
        if frames
    ]


def where(frames: list[int], count: int) -> str:
    """Frames without a mask, in words."""
    if frames == list(range(frames[0], count)) and frames[0] > 0:
        return f"from frame {frames[0]} on: the object was lost or left the picture"
    return f"on {len(frames)} of {count} frames, the first of them {frames[0]}"
