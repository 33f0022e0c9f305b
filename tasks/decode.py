"""decode: put the edit back into the source at the source's full size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from retake.artifact import Edited, Frames, Result
from retake.clip import Clip
from retake.errors import IntegrityError
from retake.exchange import masters
from retake.formats import CHUNK, EditedSeries, FrameSeries
from retake.imaging.colour.planes import names
from retake.imaging.composite import composite
from retake.machine.threads import single_threaded
from retake.stage import Work, stage
from retake.video import Selection, encode


class Params(BaseModel, frozen=True, extra="forbid"):
    """How the video files are written. The lossless artifact has no knobs."""

    codec: Literal["h264", "hevc10", "prores", "ffv1", "png16", "exr"] = Field(
        "h264", description="h264: the MP4 view alone; else beside it a master of the source's own depth and transfer"
    )
    crf: int = Field(
        18, ge=0, le=51, description="quality of H.264 and HEVC, the encoder's constant rate factor; less is better"
    )
    preset: Literal["veryfast", "fast", "medium", "slow"] = Field("medium", description="the encoder's speed preset")
    audio: bool = Field(True, description="copy the source's sound into the video files")
    recipe_tag: bool = Field(
        True,
        description="write the recipe into the MP4's comment tag when it is handed out; it shows prompts and names",
        json_schema_extra={"inert": "added to the copy that is handed out, not to the stored file"},
    )


@stage("decode", version=4, makes="result", backends=("av", "opencv-python-headless"))
def stage_decode(work: Work, params: Params, clip: Clip, frames: Frames, edited: Edited) -> Result:
    """Lossless chunks at full size, every code value outside the edit the source's, and result.mp4 of them; with a
    `codec` for masters also master.mp4, .mov or .mkv, or pictures master-00000.png or .exr."""
    edits: EditedSeries = work.open(edited)
    meta, coding = frames.meta, clip.coding
    series: FrameSeries = work.open(frames)
    done, seen = len(work.done), 0

    def composed() -> Iterator[list[np.ndarray]]:
        nonlocal seen
        chunk: list[list[np.ndarray]] = []
        for t, source in enumerate(codes_at_full_size(clip, series)):
            out = composite(source, coding, edits[t], (meta["width"], meta["height"]))
            seen += 1
            chunk.append(out)
            if len(chunk) == CHUNK or t == meta["count"] - 1:
                if t // CHUNK >= done:
                    planes = zip(names(coding), zip(*chunk, strict=True), strict=True)
                    work.commit(t // CHUNK, {name: np.stack(values) for name, values in planes})
                chunk.clear()
                work.progress(t + 1, meta["count"])
            yield out
        if seen != meta["count"]:
            raise IntegrityError(
                "E602", f"the clip now gives {seen} frames, it gave {meta['count']}", "Run the command again."
            )

    def committed() -> Iterator[list[np.ndarray]]:
        for index in range(-(-meta["count"] // CHUNK)):
            chunk = work.read(index)
            yield from (list(planes) for planes in zip(*(chunk[name] for name in names(coding)), strict=True))

    options: dict[str, Any] = {"crf": params.crf, "preset": params.preset, "coding": coding}
    options |= {"audio_start": series.seconds(0), "until": clip.end(Selection(**meta["selection"]))}
    options |= {"audio_from": clip.audio if params.audio else None, "belongings_from": clip.file}

    def written(name: str, codec: Any, pictures: Iterable[list[np.ndarray]]) -> Any:
        timed: dict[str, Any] = {}
        if meta["variable"] or "last_length" in meta:  # else pictures and sound would drift apart
            timed = {"timestamps": iter(series.times), "last_length": meta.get("last_length")}
        with single_threaded():
            info = encode(work.scratch / name, pictures, meta["fps"], codec=codec, **options, **timed)
        work.add(name, Path(work.scratch / name))
        return info

    info = written("result.mp4", "h264", composed())
    if params.codec in masters.ENDINGS:
        written(f"master.{masters.ENDINGS[params.codec]}", params.codec, committed())
    elif params.codec in masters.PICTURES:
        for t, planes in enumerate(committed()):
            work.add(f"master-{t:05d}.{masters.PICTURES[params.codec]}", masters.picture(planes, coding, params.codec))
    return work.finish(
        count=meta["count"],
        width=meta["source_width"],
        height=meta["source_height"],
        fps=meta["fps"],
        coding=coding.as_json(),
        audio=info.audio,
        notes=[*info.notes, *masters.notes(coding, params.codec)],
    )  # type: ignore[return-value]


def codes_at_full_size(clip: Clip, frames: FrameSeries) -> Iterator[list[np.ndarray]]:
    """Code values of the selected source frames: from the frames artifact where it holds them already, else decoded
    again with the very same selection."""
    meta = frames.meta
    if clip.coding.plain and (meta["width"], meta["height"]) == (meta["source_width"], meta["source_height"]):
        return ([rgb] for rgb in frames)
    reading = {"backend": "pyav", "on_damage": meta["on_damage"]}
    return clip.codes(Selection(**meta["selection"]), meta["folder_fps"], **reading)
