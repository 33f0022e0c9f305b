"""What came of a damaged clip, judged against the undamaged one.

    refused      a RetakeError, whose code is told
    right        the frames of the undamaged clip, all of them, bit for bit, at their times
    other tags   the same pictures, all of them and in order, shown as other tags say: a turn, a flip, a shape of
                 pixels, a colour matrix, a range or times that the damage made. Every frame equals, bit for bit,
                 what the undamaged file gives under the damaged file's tags: another clip, but a true one
    fewer        the same, but pictures are left out, and nothing was said
    wrong        anything else: a picture that is not the undamaged one, or is out of its place
    crashed      an exception that is no RetakeError

A barcode tells apart pictures, not pixels: so `wrong` also says whether the numbers were wrong.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from retake import video
from retake.errors import RetakeError
from retake.video import Limits, VideoInfo, resize

from . import read_barcode
from .kinds import Kind

_SHOWN = ("rotation", "mirrored", "pixel_aspect", "width", "height", "color_matrix", "color_range")


@dataclass
class Original:
    """An undamaged clip: its frames, and what they become under other tags."""

    kind: Kind
    path: Path
    info: VideoInfo
    times: list[float]
    frames: list[np.ndarray]
    _other: dict[tuple[Any, ...], list[np.ndarray]] = field(default_factory=dict)

    def under(self, info: VideoInfo) -> list[np.ndarray]:
        """The frames as the tags of `info` would have them shown."""
        tags = tuple(getattr(info, name) for name in _SHOWN)
        if tags == tuple(getattr(self.info, name) for name in _SHOWN):
            return self.frames
        if tags not in self._other:
            self._other[tags] = plainly_decoded(self.path, info)
        return self._other[tags]


@dataclass(frozen=True)
class Outcome:
    """The verdict on one damaged file; `seconds` are those of the slower of probing and decoding."""

    verdict: str
    code: str = ""
    numbers_wrong: bool = False
    seconds: float = 0.0
    error: Exception | None = None
    info: VideoInfo | None = None


def original(kind: Kind, folder: Path) -> Original:
    """The clip of a kind, built in `folder` and decoded."""
    path = kind.build(folder)
    limits = Limits(**kind.limits)
    pairs = list(video.decode(path, limits=limits))
    return Original(kind, path, video.probe(path, limits), [at for at, _ in pairs], [rgb for _, rgb in pairs])


def judge(clean: Original, damaged: Path, limits: Limits | None = None, backend: Any = "auto") -> Outcome:
    """Probe and decode `damaged`, strictly, and compare."""
    info, pairs, begun, probed = None, [], time.monotonic(), 0.0
    try:
        info = video.probe(damaged, limits)
        probed, begun = time.monotonic() - begun, time.monotonic()
        pairs = list(video.decode(damaged, backend=backend, limits=limits))
        outcome = compared(clean, info, pairs)
    except RetakeError as error:
        outcome = Outcome("refused", error.code, error=error)
    except Exception as error:
        outcome = Outcome("crashed", type(error).__name__, error=error)
    return replace(outcome, seconds=max(probed, time.monotonic() - begun), info=info)


def compared(clean: Original, info: VideoInfo, pairs: list[tuple[float, np.ndarray]]) -> Outcome:
    """The verdict on frames with their times that came from a damaged file, whose tags are those of `info`."""
    times, frames = [at for at, _ in pairs], [rgb for _, rgb in pairs]
    if times == clean.times and _equal(frames, clean.frames):
        return Outcome("right")
    expected = clean.under(info)
    if _equal(frames, expected):
        return Outcome("other tags")
    left = iter(expected)
    if all(any(np.array_equal(rgb, other) for other in left) for rgb in frames):
        return Outcome("fewer")
    return Outcome("wrong", numbers_wrong=_numbers(frames) != _numbers(expected))


def _equal(frames: list[np.ndarray], others: list[np.ndarray]) -> bool:
    return len(frames) == len(others) and all(map(np.array_equal, frames, others))


def _numbers(frames: list[np.ndarray]) -> list[int | None]:
    numbers: list[int | None] = []
    for rgb in frames:
        try:
            numbers.append(read_barcode(rgb))
        except ValueError:
            numbers.append(None)
    return numbers


def plainly_decoded(path: Path, info: VideoInfo) -> list[np.ndarray]:
    """All frames by PyAV alone, `shown` under the tags of `info`."""
    import av

    with av.open(str(path)) as container:
        return [shown(frame, info) for frame in container.decode(video=0)]


def shown(frame: Any, info: VideoInfo) -> np.ndarray:
    """A stored frame (av.VideoFrame) as the tags of `info` say: its colours, its turn, square pixels."""
    from av.video.reformatter import VideoReformatter

    from retake.imaging.colour.view import to_view
    from retake.video.child.planes import planes_of

    rgb = to_view(planes_of(frame, info.coding, VideoReformatter().reformat), info.coding)
    rgb = np.rot90(rgb[:, ::-1] if info.mirrored else rgb, -(info.rotation // 90))
    return resize(np.ascontiguousarray(rgb), (info.width, info.height))
