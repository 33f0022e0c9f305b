"""What IVEDiff learns from clips of one's own: windows of what a manifest lists, with flow and depth from the cached
graph, one shard a clip."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows import graph
from flows.datasets.sources import entry, list_clips
from flows.runners import Local
from flows.settings.compose import compose, for_clip, validate
from flows.settings.dataset import ClipEntry, overlaid
from flows.terminal.console import Console
from retake.clip import open_clip
from retake.errors import MediaError
from retake.formats import DepthSeries, FlowSeries, FrameSeries, open_series
from retake.imaging.flow import resize_flow
from retake.recipe import digest
from retake.training import autoencoder, editing_clips
from retake.training.editing_clips import LIMITS
from retake.training.workshop import Workshop
from retake.video import resize

STEP = 8  # frames from one window to the next


def render(manifest: str, shop: Workshop, runner: Local, console: Console, until: float = math.inf) -> bool:
    """Windows of every clip of a manifest, coded into shards beside those of the sprite world, until a moment of
    time.monotonic(); whether all are there. Those that are there are kept: a clip whose size, flow or depth has changed
    makes a new one.

    A clip that cannot be learnt from is told and left out. Raises ConfigError E297 and E298 as a dataset does, and
    MediaError E439 where no clip of it can be learnt from."""
    rows, _ = list_clips(manifest, settle=0.0)
    folder, encode = shop.folder / "editing", autoencoder.frame_by_frame(shop.vae())
    folder.mkdir(parents=True, exist_ok=True)
    refused: list[MediaError] = []

    def learnt(clip: ClipEntry) -> None:
        path, windows = shard(clip, runner, folder)
        if not path.exists():
            console.say(f"{clip.id}: windows of {LIMITS.frames} frames")
            editing_clips.write(path, windows, encode)

    for row in rows:
        if time.monotonic() > until:
            return False
        clip = entry(row)
        try:
            runner.healed(lambda clip=clip: learnt(clip))
        except MediaError as error:
            console.say(f"{clip.id} is left out: {error}")
            refused.append(error)
    if len(refused) == len(rows):
        raise MediaError("E439", f"{manifest}: none of {len(rows)} clips can be learnt from", refused[0].hint)
    return True


def shard(clip: ClipEntry, runner: Local, folder: Path) -> tuple[Path, Iterator[dict[str, NDArray[np.generic]]]]:
    """Where a clip's windows are kept, and what is written there."""
    groups = ("frames", "optical_flow", "depth")
    own = {group: values for group, values in clip.settings.items() if group in groups}
    p = for_clip(validate(overlaid(compose([]), ClipEntry(id=clip.id, clip=clip.clip, settings=own))), clip.clip)
    made = {}
    for until in groups:
        made |= graph.edit_graph(runner, open_clip(clip.clip), p, until, report=False)
        if (count := made["frames"].meta["count"]) < LIMITS.frames:
            hint = f"Take clips of {LIMITS.frames} frames and more."
            raise MediaError("E439", f"{clip.clip}: {count} frames make no window", hint)
    path = folder / editing_clips.REAL.format(digest([made[name].digest for name in groups])[:16])
    frames: FrameSeries = open_series(runner.store, made["frames"])
    flow: FlowSeries = open_series(runner.store, made["optical_flow"])
    depth: DepthSeries = open_series(runner.store, made["depth"])
    nearest = max(float(depth[t].max()) for t in range(count)) or 1.0

    def windows() -> Iterator[dict[str, NDArray[np.generic]]]:
        size = (LIMITS.size, LIMITS.size)
        space = LIMITS.size // editing_clips.SIDE
        for first in range(0, count - LIMITS.frames + 1, STEP):
            span = range(first, first + LIMITS.frames)
            shown = np.stack([resize(frames[t], size) for t in span])
            back = np.stack([resize_flow(flow.backward(t), size) for t in span[:-1]])
            maps = [resize(np.rint(255 * np.clip(depth[t] / nearest, 0, 1)).astype(np.uint8), size) for t in span]
            yield {
                "frames": shown,
                "mask": np.zeros(shown.shape[:3], np.uint8),
                "depth": np.stack(maps),
                "flow": editing_clips.on_cells(back, space),
                "pictures": np.stack([shown[n] for n in (0, LIMITS.frames // 2, -1)]),
            }

    return path, windows()
