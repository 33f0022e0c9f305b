"""The default edit as a plain script would do it: the same library functions, one after another, everything in memory.

No store, no keys, no chunks on disk, no runner; nothing is kept but the videos and the metrics. The loops of the first
six stages are written out; metrics and report, which keep no state, are the stages' own functions on lists.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.series import KeptFlow, KeptFrames, KeptMasks, KeptTracks
from flows.settings.compose import Settings
from retake.clip import open_clip
from retake.formats import CHUNK, Tensors
from retake.imaging.colour.view import to_view
from retake.imaging.composite import composite
from retake.imaging.flow import in_bounds, occlusion
from retake.machine.threads import single_threaded
from retake.methods import Inputs, propagate
from retake.priors.masks import grabcut
from retake.priors.masks.prompt import Moment
from retake.priors.optical_flow import dis
from retake.priors.tracks import lucas_kanade
from retake.stage import Work
from retake.video import encode
from tasks.frames import working_size
from tasks.metrics import stage_metrics
from tasks.report import stage_report
from tasks.tracks import Following, follow_chunk

Edits = list[tuple[np.ndarray, np.ndarray, np.ndarray]]


class Unstored(Work):
    """The stages' own `Work` without a store: files stay in the scratch folder, inputs are readers already."""

    def __post_init__(self) -> None: ...

    def open(self, reader: Any) -> Any:
        return reader

    def add(self, name: str, content: bytes | Path) -> None:
        if isinstance(content, bytes):
            (self.scratch / name).write_bytes(content)

    def finish(self, **meta: Any) -> None: ...


@dataclass
class Watch:
    """Seconds and CPU seconds by stage."""

    seconds: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        begun, used = time.perf_counter(), cpu()
        yield
        self.seconds[name], self.cpu[name] = time.perf_counter() - begun, cpu() - used


def cpu() -> float:
    """CPU seconds of this process and of the children that live on (the decoder)."""
    own = psutil.Process()
    taken = [p.cpu_times() for p in (own, *own.children())]
    return sum(t.user + t.system for t in taken)


def edit(clip: str, p: Settings, folder: Path) -> Watch:
    """Edit a clip into `folder` (result.mp4, metrics, layers.mp4, contact sheet); returns what each stage took.

    The clip must not be larger than the working size.
    """
    folder.mkdir(parents=True, exist_ok=True)
    watch = Watch()
    with watch.timed("frames"):
        frames, fps = decoded(clip, p)
    with watch.timed("optical_flow"):
        flow = flows(frames, p)
    with watch.timed("masks"):
        masks = followed(frames, flow, p)
    with watch.timed("tracks"):
        tracks = tracked(frames, masks, p)
    priors: dict[str, Any] = {"optical_flow": flow, "region": masks, "tracks": tracks}
    with watch.timed("edit"):
        patches = propagate.edit(None, None, priors, Inputs(frames, folder), p.edit, np.random.default_rng(0))
        edits: Edits = [(np.array(q.box), *one) for q in patches for one in zip(q.rgb, q.alpha, strict=True)]
    with watch.timed("decode"):
        source, size = open_clip(clip), (frames.width, frames.height)
        codes = source.codes(p.frames.selection(), p.frames.folder_fps)
        made = [composite(planes, source.coding, one, size) for planes, one in zip(codes, edits, strict=True)]
        how = {"crf": p.decode.crf, "preset": p.decode.preset, "coding": source.coding}
        with single_threaded():
            encode(folder / "result.mp4", made, fps, **how)
    with watch.timed("metrics"):
        result = [to_view(planes, source.coding) for planes in made]
        shown: dict[str, Any] = {"frames": frames, "result": KeptFrames(result, frames.times, fps), **priors}
        stage_metrics.function(Unstored(None, stage_metrics, "", folder), params=p.metrics, **shown)
    with watch.timed("report"):
        stage_report.function(Unstored(None, stage_report, "", folder), params=p.report, **shown)
    return watch


def decoded(clip: str, p: Settings) -> tuple[KeptFrames, float]:
    opened = open_clip(clip)
    info = opened.info(p.frames.folder_fps)
    size = working_size(info.width, info.height, p.frames.short_side)
    assert size == (info.width, info.height), "choose a clip of working size"
    reading = {"backend": p.frames.decoder, "on_damage": p.frames.on_damage}
    pairs = list(opened.read(p.frames.selection(), size, p.frames.folder_fps, **reading))
    return KeptFrames([rgb for _, rgb in pairs], [seconds for seconds, _ in pairs], info.fps), info.fps


def flows(frames: KeptFrames, p: Settings) -> KeptFlow:
    def hidden(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return occlusion(one, other, boundaries=False) | ~in_bounds(one)

    pairs = list(dis.pairs(iter(frames), p.optical_flow))
    return KeptFlow(pairs, [(hidden(f, b), hidden(b, f)) for f, b in pairs])


def followed(frames: KeptFrames, flow: KeptFlow, p: Settings) -> KeptMasks:
    """From a prompt on frame 0 to the end."""
    tracker = grabcut.tracker(p.masks, (frames.width, frames.height), None, False)
    masks = [tracker.begin(Moment(0, frames[0]), p.masks.prompts())[1].mask]
    for t in range(1, len(frames)):
        moment = Moment(t, frames[t], flow.backward(t - 1), flow.occluded_backward(t - 1))
        masks.append(tracker.step(moment)[1].mask)
    return KeptMasks(masks)


def tracked(frames: KeptFrames, region: KeptMasks, p: Settings) -> KeptTracks:
    following = Following(lucas_kanade, p.tracks, frames, region)
    state: Tensors = {"next_id": np.array(0, np.int64)}
    chunks = []
    for index in range(-(-len(frames) // CHUNK)):
        chunk, state = follow_chunk(following, index, 0, state)
        chunks.append(chunk)
    return KeptTracks(chunks, frames)
