"""decode: put the edit back into the source at the source's full size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from retake.artifact import Edited, Frames, Result
from retake.clip import Clip
from retake.errors import IntegrityError
from retake.formats import CHUNK, EditedSeries, FrameSeries
from retake.imaging.composite import composite
from retake.machine.threads import single_threaded
from retake.stage import Work, stage
from retake.video import Selection, encode


class Params(BaseModel, frozen=True, extra="forbid"):
    """How the MP4 view is written. The lossless artifact has no knobs."""

    crf: int = Field(
        18, ge=0, le=51, description="quality of the MP4 view, x264's constant rate factor; less is better"
    )
    preset: Literal["veryfast", "fast", "medium", "slow"] = Field("medium", description="x264's speed preset")
    audio: bool = Field(True, description="copy the source's sound into the MP4 view")
    recipe_tag: bool = Field(
        True,
        description="write the recipe into the MP4's comment tag when it is handed out; it shows prompts and names",
        json_schema_extra={"inert": "added to the copy that is handed out, not to the stored file"},
    )


@stage("decode", version=2, makes="result", backends=("av", "decord", "opencv-python-headless"))
def stage_decode(work: Work, params: Params, clip: Clip, frames: Frames, edited: Edited) -> Result:
    """Lossless chunks at full size, every pixel outside the edit the source's bit for bit, and result.mp4 of them."""
    edits: EditedSeries = work.open(edited)
    meta = frames.meta
    series: FrameSeries = work.open(frames)
    selected = frames_at_full_size(clip, series)
    done, seen = len(work.done), 0

    def composed() -> Iterator[np.ndarray]:
        nonlocal seen
        rgb: list[np.ndarray] = []
        for t, source in enumerate(selected):
            out = composite(source, edits[t], (meta["width"], meta["height"]))
            seen += 1
            rgb.append(out)
            if len(rgb) == CHUNK or t == meta["count"] - 1:
                if t // CHUNK >= done:
                    work.commit(t // CHUNK, {"rgb": np.stack(rgb)})
                rgb.clear()
                work.progress(t + 1, meta["count"])
            yield out
        if seen != meta["count"]:
            raise IntegrityError(
                "E602", f"the clip now gives {seen} frames, it gave {meta['count']}", "Run the command again."
            )

    view = work.scratch / "result.mp4"
    options: dict[str, Any] = {"crf": params.crf, "preset": params.preset}
    if params.audio and (sound := clip.audio) is not None:
        options |= {"audio_from": sound, "audio_start": series.seconds(0)}
    if meta["variable"] or "last_length" in meta:  # else pictures and sound would drift apart
        options |= {"timestamps": iter(series.times), "last_length": meta.get("last_length")}
    with single_threaded():
        info = encode(view, composed(), meta["fps"], **options)
    work.add("result.mp4", Path(view))
    return work.finish(
        count=meta["count"],
        width=meta["source_width"],
        height=meta["source_height"],
        fps=meta["fps"],
        audio=info.audio,
        notes=list(info.notes),
    )  # type: ignore[return-value]


def frames_at_full_size(clip: Clip, frames: FrameSeries) -> Iterator[np.ndarray]:
    """The selected source frames, uint8 [H,W,3]: from the frames artifact where it holds them at full size already,
    else decoded again with the very same selection."""
    meta = frames.meta
    if (meta["width"], meta["height"]) == (meta["source_width"], meta["source_height"]):
        return iter(frames)
    reading = {"backend": meta["decoder"], "on_damage": meta["on_damage"]}
    selection = Selection(**meta["selection"])
    return (rgb for _, rgb in clip.read(selection, None, meta["folder_fps"], **reading))
