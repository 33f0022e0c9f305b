"""What IVEDiff learns from clips of one's own: windows of what a manifest lists, with flow and depth from the cached
graph."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import astuple
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
from retake.errors import ConfigError, MediaError
from retake.formats import DepthSeries, FlowSeries, FrameSeries, open_series
from retake.imaging.flow import resize_flow
from retake.recipe import digest
from retake.training import autoencoder, editing_clips
from retake.training.editing_clips import LIMITS, SHARD
from retake.training.workshop import Workshop
from retake.video import resize

STEP = 8  # frames from one window to the next


def render(
    manifest: str, shop: Workshop, runner: Local, console: Console, until: float = math.inf
) -> list[Path] | None:
    """Shards of the windows of every clip of a manifest; None where a moment of time.monotonic() came first. Those that
    are there are kept: a clip whose size, flow or depth has changed makes new ones.

    A clip that cannot be learnt from is told and left out. Raises ConfigError E247 where the autoencoder is not the one
    that ships, E297 and E298 as a dataset does, and MediaError E439 where no clip of it can be learnt from."""
    if not shop.as_shipped("vae"):
        raise ConfigError(
            "E247",
            "clips are coded by the autoencoder that ships, and this folder has one of its own",
            "Leave --clips out, or train in another --folder.",
        )
    rows, _ = list_clips(manifest, settle=0.0)
    encode = autoencoder.frame_by_frame(shop.vae())
    found: list[Path] = []
    refused: list[MediaError] = []

    def learnt(clip: ClipEntry) -> bool:
        here = shards(clip, runner, shop.folder / "editing")
        for path, windows in here:
            if time.monotonic() > until:
                return False
            if not path.exists():
                console.say(f"{clip.id}: windows of {LIMITS.frames} frames")
                path.parent.mkdir(parents=True, exist_ok=True)
                editing_clips.write(path, windows, encode)
            found.append(path)
        return True

    for row in rows:
        clip = entry(row)
        try:
            if time.monotonic() > until or not runner.healed(lambda clip=clip: learnt(clip)):
                return None
        except MediaError as error:
            console.say(f"{clip.id} is left out: {error}")
            refused.append(error)
    if len(refused) == len(rows):
        raise MediaError("E439", f"{manifest}: none of {len(rows)} clips can be learnt from", refused[0].hint)
    return list(dict.fromkeys(found))  # a clip that was damaged is gone through twice


def shards(clip: ClipEntry, runner: Local, folder: Path) -> list[tuple[Path, Iterator[dict[str, NDArray[np.generic]]]]]:
    """Where a clip's windows are kept, SHARD in a file, and what is written there."""
    groups = ("frames", "optical_flow", "depth")
    own = {group: values for group, values in clip.settings.items() if group in groups}
    p = for_clip(validate(overlaid(compose([]), ClipEntry(id=clip.id, clip=clip.clip, settings=own))), clip.clip)
    made = {}
    for until in groups:
        made |= graph.edit_graph(runner, open_clip(clip.clip), p, until, report=False)
        if (count := made["frames"].meta["count"]) < LIMITS.frames:
            hint = f"Take clips of {LIMITS.frames} frames and more."
            raise MediaError("E439", f"{clip.clip}: {count} frames make no window", hint)
    of = [*(made[name].digest for name in groups), list(astuple(LIMITS)), STEP, editing_clips.VERSION]
    frames: FrameSeries = open_series(runner.store, made["frames"])
    flow: FlowSeries = open_series(runner.store, made["optical_flow"])
    depth: DepthSeries = open_series(runner.store, made["depth"])
    nearest = max(float(depth[t].max()) for t in range(count)) or 1.0
    size = (LIMITS.size, LIMITS.size)

    def window(first: int) -> dict[str, NDArray[np.generic]]:
        span = range(first, first + LIMITS.frames)
        shown = np.stack([resize(frames[t], size) for t in span])
        back = np.stack([resize_flow(flow.backward(t), size) for t in span[:-1]])
        maps = [resize(np.rint(255 * np.clip(depth[t] / nearest, 0, 1)).astype(np.uint8), size) for t in span]
        return {
            "frames": shown,
            "mask": np.zeros(shown.shape[:3], np.uint8),
            "depth": np.stack(maps),
            "flow": editing_clips.on_cells(back, LIMITS.size // editing_clips.SIDE),
            "pictures": np.stack([shown[n] for n in (0, LIMITS.frames // 2, -1)]),
        }

    starts = range(0, count - LIMITS.frames + 1, STEP)
    name = f"real-{digest(of)[:16]}"
    return [
        (folder / f"{name}-{n:06d}.safetensors", map(window, starts[n : n + SHARD]))
        for n in range(0, len(starts), SHARD)
    ]
