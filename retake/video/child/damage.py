"""Damage that FFmpeg logs but does not raise. Runs in the child.

FFmpeg logs many errors and goes on: a wrong checksum, an element longer than its parent, a picture that ends early.
None of these was ever seen with an intact file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import av.logging
import numpy as np


@contextmanager
def captured_errors() -> Iterator[list[tuple[int, str, str]]]:
    """Yields the list of errors that FFmpeg logs meanwhile, (level, component, message). Readers empty it."""
    av.logging.set_skip_repeated(False)
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture(local=False) as logged:  # a decoder may speak from a thread of its own
            yield logged
    finally:
        av.logging.set_level(None)


def first_error(logged: list[tuple[int, str, str]], container: Any, stream: Any) -> str:
    """The first error logged by the demuxer or the video decoder, "" if none. Empties `logged`."""
    return _first(logged, container.format.name, stream.codec_context.name)


def first_error_on_open(logged: list[tuple[int, str, str]], container: Any) -> str:
    """The first error logged while the file was opened, "" if none. Empties `logged`.

    For an MP4 that is its index, where oddities are seldom damage; for Matroska and Ogg the first pages.
    """
    return _first(logged, *(name for name in ("matroska,webm", "ogg") if name == container.format.name))


def _first(logged: list[tuple[int, str, str]], *ours: str) -> str:
    found = next((what.strip() for _, who, what in logged if who in ours), "")
    logged.clear()
    return "".join(c for c in found if c.isprintable())[:120]


def only_second_fields(delivered: Sequence[int], pts: np.ndarray) -> bool:
    """True when every packet that gave no frame follows another within half a frame: two fields in two packets are
    one frame. A frame that was lost leaves a larger gap, or two packets in a row."""
    came = np.zeros(len(pts), bool)
    came[list(delivered)] = True
    missing = np.flatnonzero(~came)
    usual = np.median(np.diff(pts[came])) if came.sum() > 1 else 0
    alone = missing.size < 2 or int(np.diff(missing).min()) > 1
    return alone and all(m > 0 and pts[m] - pts[m - 1] < 0.75 * usual for m in missing)
