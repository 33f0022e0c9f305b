"""Frames decoded by decord, checked against PyAV for timestamps and damage. Runs in the child."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from av.video.reformatter import VideoReformatter

from ..info import VideoInfo

_IN_STEP, _IN_STEP_PIXELS = 8, 1 << 25
# decord decodes ahead of a slow reader without bound: 8,000 frames of 320x240 took 0.6 GB and rising. So it is given
# only clips that would fit into memory whole.
_MOST_BYTES = 1 << 28
_SWS_MATRIX = {"bt709": 1, "fcc": 4, "bt601": 5, "smpte240m": 7, "bt2020": 9}

Pixels = Callable[[], np.ndarray]


def decord_frames(
    path: str, info: VideoInfo, frames: Iterator[tuple[int, Any]], notes: list[str]
) -> Iterator[tuple[int, Pixels]]:
    """The same frames as functions that give decord's pixels; PyAV decodes alongside for timestamps and damage.

    frames: (index, av.VideoFrame). The pixels are those of swscale's fast conversion, up to 2.8 levels darker than the
    code values say.

    decord hides damage and can slip a frame, so it is read in step with the strict pass, a few frames at a
    time, of which the last has to equal PyAV's: a slip lasts, so it is seen before its frames are handed
    on. Where they differ, PyAV's frames in the same conversion are used from there to the end.
    """
    frames = _converted(frames, info)
    reader, left = _decord_reader(path, info), info.frames
    few = max(1, min(_IN_STEP, _IN_STEP_PIXELS // (info.coded_width * info.coded_height)))
    with ThreadPoolExecutor(1) as pool:
        while reader is not None and left > 0:
            reading = pool.submit(_read_few, reader, min(few, left))
            ours = list(itertools.islice(frames, min(few, left)))
            theirs, left = reading.result(), left - few
            if len(theirs) < len(ours) or (ours and not np.array_equal(theirs[-1], ours[-1][1]())):
                reader = None
                yield from ours
            else:
                yield from ((index, lambda rgb=rgb: rgb) for (index, _), rgb in zip(ours, theirs, strict=False))
    if reader is None:
        notes.append("decord does not give PyAV's frames here: decoded by PyAV")
    yield from frames


def _converted(frames: Iterator[tuple[int, Any]], info: VideoInfo) -> Iterator[tuple[int, Pixels]]:
    reformat = VideoReformatter().reformat
    colours: dict[str, Any] = {"format": "rgb24"}
    if info.color_matrix in _SWS_MATRIX:
        source = {"src_colorspace": _SWS_MATRIX[info.color_matrix], "src_color_range": 1 + info.coding.full}
        colours |= {**source, "dst_color_range": 2}
    return ((index, lambda frame=frame: reformat(frame, **colours).to_ndarray()) for index, frame in frames)


def _decord_reader(path: str, info: VideoInfo) -> Any | None:
    if info.frames * info.coded_width * info.coded_height * 3 > _MOST_BYTES:
        return None
    try:
        import cv2  # noqa: F401  before decord, whose own zlib breaks the PNG reader of an OpenCV loaded after it
        import decord

        reader = decord.VideoReader(path, num_threads=1)
    except Exception:  # decord raises its own kinds; whatever it is, PyAV reads the clip
        return None
    return reader if len(reader) == info.frames else None


def _read_few(reader: Any, count: int) -> list[np.ndarray]:
    try:
        return [reader.next().asnumpy() for _ in range(count)]
    except Exception:  # its end, or an error of its own
        return []
