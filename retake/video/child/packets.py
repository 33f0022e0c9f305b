"""The packets of a clip's video, and the one clock that they give its frames. Runs in the child.

Files come with equal times (a clock of milliseconds under a fast camera), with clocks that start again or leap (joined
MPEG-TS, a recorder that was restarted), and with pictures that cannot be shown by design (a cut within a group of
pictures). All of it is resolved here, once, in the order of the file; everything else sees times that rise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from av.error import FFmpegError

from retake.errors import MediaError

from .container import next_packet

_JOINABLE = ("mpegts", "mpeg")  # files that may be put behind each other byte by byte
LEAP = 10  # seconds forward that are a join and no pause; ffmpeg's dts_delta_threshold
_LOOKED_AHEAD = 3  # packets behind a join that must agree with it: one damaged time is none


@dataclass(frozen=True)
class Packets:
    """Video packets by number, in the order of the file.

    total: all, in AVI with empty ones. shown: int64 [F], the packets whose frames are shown, in the order of showing.
    pts: int64 [F], their times in `unit` seconds, which rise. last_length: of the last frame, in units. cut: reading
    ends before the file does. stamped: decoded frames carry the packets' times. key: the first key frame, -1 in a file
    that should begin with one and does not. left_out: packets whose pictures cannot be shown and are not decoded.
    joins: the packets with which another clock begins, and what was added to its times, in seconds. notes: what was
    resolved.
    """

    total: int
    shown: np.ndarray
    pts: np.ndarray
    unit: Fraction
    last_length: int
    cut: bool
    stamped: bool
    key: int
    left_out: frozenset[int] = frozenset()
    joins: tuple[tuple[int, Fraction], ...] = ()
    notes: tuple[str, ...] = ()

    def beginning_with(self, first: int | None) -> Packets:
        """The same, where packet `first` gives the first frame that a decoder shows: a clip that was cut within a group
        of pictures begins with packets that refer to what was cut off, before its first key frame or to be shown before
        it. What else is missing is damage, and stays in the table."""
        at = np.flatnonzero(self.shown == first)
        leads = np.flatnonzero(self.shown == self.key)
        if not (self.stamped and at.size and leads.size and 0 < at[0] <= leads[0]):
            return self
        early = self.shown[: at[0]]
        note = f"begins within a group of pictures: frames before the first that can be shown, left out: {len(early)}"
        rest = {"shown": self.shown[at[0] :], "pts": self.pts[at[0] :], "left_out": frozenset(early.tolist())}
        return replace(self, **rest, notes=(note, *self.notes))

    def index_of(self, number: int | None) -> int | None:
        """The place among the frames shown of a packet's frame, None where it is not shown."""
        if number is None or number >= len(self._places) or self._places[number] < 0:
            return None
        return int(self._places[number])

    def at_a_join(self, number: int) -> bool:
        """Whether a packet is the last ones' or the first one's of parts that were joined: the counters of MPEG-TS
        break there, which flags whole packets as incomplete."""
        return any(-3 <= number - join <= 0 for join, _ in self.joins)

    @cached_property
    def _places(self) -> np.ndarray:
        places = np.full(int(self.shown.max(initial=-1)) + 1, -1, np.int64)
        places[self.shown] = np.arange(len(self.shown))
        return places


def numbered(container: Any, stream: Any, decoder: Any = None) -> Iterator[Any]:
    """The packets of a stream; each, and every frame that comes of it, has its number as `opaque`. decoder: the codec
    context that makes frames of them, by default the stream's."""
    (decoder or stream.codec_context).copy_opaque = True
    number = -1
    for packet in container.demux(stream):
        if packet.dts is not None or packet.pts is not None or packet.size:  # the last one flushes the decoder
            number += 1
            packet.opaque = number
        yield packet


def read_packets(
    path: str, container: Any, stream: Any, limits: dict[str, Any], keep_alive: Callable[[], None]
) -> Packets:
    """All of them. Raises MediaError E414 for more frames than `limits` allow."""
    stamps: list[tuple[int, int, int]] = []  # packet, time, duration
    keys: list[int] = []
    total, cut, corrupt = 0, False, list[int]()
    stamped = container.format.name != "avi"  # there a frame's pts is a guess, in the order of decoding
    hides = stream.codec_context.name == "vp8"
    packets = numbered(container, stream)
    while True:
        try:
            packet = next_packet(packets)
        except FFmpegError:  # the end of what can be read; decoding says what that means
            cut = True
            break
        if packet is None:
            break
        keep_alive()
        if packet.opaque is None:
            continue
        number, total = packet.opaque, total + 1
        corrupt += [number] * packet.is_corrupt
        hidden = hides and packet.size and not bytes(memoryview(packet)[:1])[0] & 16  # VP8: show_frame bit
        if packet.is_discard or hidden or not packet.size:
            continue
        if packet.is_keyframe:
            keys.append(number)
        stamped = stamped and packet.pts is not None
        stamp = packet.pts if packet.pts is not None else packet.dts
        stamps.append((number, stamp if stamp is not None else len(stamps), packet.duration or 0))
        if len(stamps) > limits["max_frames"]:
            raise MediaError(
                "E414",
                f"{path} has more than {limits['max_frames']} frames",
                "Cut it into parts, or raise max_frames.",
            )
    table = np.array(stamps, np.int64).reshape(-1, 3)
    unit, joins, notes = Fraction(stream.time_base), [], []
    if stamped and container.format.name in _JOINABLE:
        joins = _joined(table, set(keys), unit)
        notes += [f"its clock begins anew at {len(joins)} places: the parts follow one another"] * bool(joins)
    table = table[np.argsort(table[:, 1], kind="stable")]
    usual = int(np.median(np.diff(table[:, 1]))) if len(table) > 1 else 0
    length = int(table[-1, 2]) or usual if len(table) else 0
    if container.format.name.startswith("mov") and len(table) and table[-1, 0] != max(table[:, 0]):
        length = _to_the_end(stream, int(table[-1, 1])) or length
    pts, finer, equal = _apart(table[:, 1], length)
    notes += [f"frames that have the time of the one before, and share its length: {equal}"] * bool(equal)
    if container.format.name == "avi" and len(table):  # an empty chunk is counted there, and repeats the frame before
        total = max(total, int(table[-1, 1] + length))
    found = Packets(
        total=total,
        shown=table[:, 0],
        pts=pts,
        unit=unit / finer,
        last_length=length * finer,
        cut=cut,
        stamped=stamped,
        key=keys[0] if keys and (container.format.name in _JOINABLE or keys[0] == int(table[:, 0].min())) else -1,
        joins=tuple((n, offset * unit) for n, offset in joins),
        notes=tuple(notes),
    )
    return replace(found, cut=cut or not all(map(found.at_a_join, corrupt)))


def _to_the_end(stream: Any, last: int) -> int:
    """From a time to the end of an MP4's track, 0 if that is not known. The length of the packet shown last says little
    where another was written last."""
    return max(0, (stream.start_time or 0) + (stream.duration or 0) - last)


def _joined(table: np.ndarray, keys: set[int], unit: Fraction) -> list[tuple[int, int]]:
    """Where another clock begins, and what was added to the times from there on, in place. A key frame is shown behind
    all that stands before it in the file, so one that is earlier, or much later, is of another clock."""
    joins: list[tuple[int, int]] = []
    raw, leap = table[:, 1].copy(), LEAP / unit
    offset, begun, last = 0, 0, None
    for row, (number, time, length) in enumerate(zip(table[:, 0].tolist(), raw.tolist(), table[:, 2], strict=True)):
        ahead = raw[row : row + 1 + _LOOKED_AHEAD]
        if number in keys and last is not None and ((ahead < last).all() or (ahead > last + leap).all()):
            so_far = table[begun:row, 1]
            usual = int(np.median(np.diff(np.sort(so_far)))) if len(so_far) > 1 else int(length)
            offset = int(so_far.max()) + usual - time
            joins.append((number, offset))
            begun, last = row, time
        last = time if last is None else max(last, time)
        table[row, 1] = time + offset
    return joins


def _apart(pts: np.ndarray, length: int) -> tuple[np.ndarray, int, int]:
    """Times that rise, of sorted ones of which some are equal: these share the time to the next one. Returns them, by
    how much their unit is finer, and how many were moved."""
    steps = np.diff(pts)
    equal = int((steps == 0).sum())
    if not equal:
        return pts, 1, 0
    starts = np.flatnonzero(np.concatenate([[True], steps > 0]))
    counts = np.diff(np.append(starts, len(pts)))
    room = np.diff(np.append(pts[starts], pts[-1] + max(1, length)))
    finer = int(counts.max()) if (room < counts).any() else 1
    within = np.arange(len(pts)) - np.repeat(starts, counts)
    moved = np.repeat(pts[starts] * finer, counts) + within * np.repeat(room * finer, counts) // np.repeat(
        counts, counts
    )
    return moved, finer, equal
