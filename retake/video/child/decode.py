"""Frames of a clip, in order, upright, with square pixels: the view, or code values. Runs in the child."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter

from retake.errors import ConfigError, MediaError
from retake.imaging.colour.coding import turned
from retake.imaging.colour.convert import with_full_chroma
from retake.imaging.colour.planes import joined, upright
from retake.imaging.colour.view import to_view

from ..info import Selection, VideoInfo
from ..pixels import resize
from .container import check_memory, decoder_of, next_packet, open_container, video_stream
from .damage import captured_errors, first_error, first_error_on_open, only_second_fields
from .decord_frames import decord_frames
from .packets import numbered
from .planes import planes_of
from .probe import Probed, probe

# Measured on flipped bits: `explode` raises on nearly all that a decoder notices, checksums included. The levels above
# (`careful`, `aggressive`) found nothing more. `strict` is for dav1d: it then checks how the data of a tile end.
_STRICT = {"err_detect": "crccheck+bitstream+buffer+explode", "strict": "strict"}
_CONCEAL = "frames.on_damage=conceal keeps what decodes."


@dataclass(frozen=True)
class SelectedFrames:
    """The frames to deliver: `index` (int64, non-decreasing) into the source frames; `time`(k) in seconds, and `end`,
    when the last one is over."""

    index: np.ndarray
    time: Callable[[int], Fraction]
    end: Fraction
    resampled: bool


def decode(request: dict[str, Any], channel: Any) -> dict[str, Any]:
    """Serve one decode request: an `info` message, then one `frame` message a frame. Returns the summary."""
    path, selection = request["path"], Selection(**request["selection"])
    probed = probe(path, request["limits"], channel.keep_alive)
    wanted = select_frames(probed, selection)
    strict = request["on_damage"] == "fail"
    _check_selection(path, probed, wanted, selection, strict)
    backend = "decord" if request["backend"] == "decord" and strict and not request["codes"] else "pyav"
    channel.send({"event": "info", "info": probed.info.as_json(), "backend": backend, "frames": len(wanted.index)})

    to_the_end = bool(wanted.index[-1] == probed.info.frames - 1)
    source = FrameDecoder(path, probed, request["limits"], strict, to_the_end, channel.keep_alive)
    frames: Iterator[tuple[int, Any]] = source.frames()
    if backend == "decord":
        frames = decord_frames(path, probed.info, frames, source.notes)
    repack, coding, count = VideoReformatter().reformat, probed.info.coding, 0
    for k, frame in _selected_frames(frames, wanted):
        channel.keep_alive()
        count += 1
        if count <= request["skip"]:
            continue
        if backend == "decord":
            picture = to_display(frame(), probed.info, request["size"])
        elif request["codes"]:
            picture = joined(to_display_codes(planes_of(frame, coding, repack), probed.info)).view(np.uint8)
        else:
            picture = to_display(to_view(planes_of(frame, coding, repack), coding), probed.info, request["size"])
        channel.send({"event": "frame", "time": float(wanted.time(k)), "shape": list(picture.shape)}, picture)
    if to_the_end:  # damage behind the last frame that could be found may be why it is the last
        for _ in frames:
            channel.keep_alive()
    source.check_count(count, len(wanted.index))
    return {"frames": count, "backend": backend, "notes": source.all_notes(len(wanted.index) - count)}


def to_display(rgb: np.ndarray, info: VideoInfo, size: list[int] | None) -> np.ndarray:
    """A stored RGB frame turned upright, with square pixels, and resized to `size` = (width, height) if given."""
    if info.rotation or info.mirrored:
        (rgb,) = upright([rgb], info.rotation, info.mirrored)
    rgb = resize(rgb, (info.width, info.height))
    return resize(rgb, (size[0], size[1])) if size else rgb


def to_display_codes(planes: Sequence[np.ndarray], info: VideoInfo) -> list[np.ndarray]:
    """Stored planes turned upright, with square pixels; their coding is `info.shown`."""
    if info.rotation or info.mirrored:
        planes = upright(planes, info.rotation, info.mirrored)
    if info.pixel_aspect == "1:1":
        return list(planes)
    coding = turned(info.coding, (info.coded_width, info.coded_height), info.rotation, info.mirrored)
    return [resize(plane, (info.width, info.height)) for plane in with_full_chroma(planes, coding)]


def select_frames(probed: Probed, selection: Selection) -> SelectedFrames:
    """Which source frames a selection takes, from the packets' timestamps alone.

    Raises ConfigError E211 when nothing is left.
    """
    packets = probed.packets
    pts, unit = packets.pts - packets.pts[0], packets.unit
    stop = int(pts[-1]) + max(1, packets.last_length)
    begin = Fraction(selection.start) / unit
    end = Fraction(stop) if selection.end is None else min(Fraction(selection.end) / unit, Fraction(stop))
    if selection.first is not None:
        begin = max(begin, Fraction(int(pts[selection.first]) if selection.first < len(pts) else stop))
    if selection.last is not None and selection.last + 1 < len(pts):
        end = min(end, Fraction(int(pts[selection.last + 1])))
    # A timestamp is known to half a unit of the container's clock: a frame due at 41.67 ms is stored as 42.
    rate = selection.rate
    if rate is None:
        low, high = np.searchsorted(pts, [float(begin) - 0.5, float(end) - 0.5])
        high = len(pts) if end >= stop else high
        index = np.arange(low, high)
        ends = min(end, int(pts[high])) if high < len(pts) else end
        wanted = SelectedFrames(index, lambda k: int(pts[index[k]]) * unit, ends * unit, False)
    else:
        step = 1 / (rate * unit)
        count = max(0, math.ceil((end - begin - Fraction(1, 2)) / step))
        ticks = float(begin) + np.arange(count) * float(step)
        index = np.maximum(np.searchsorted(pts, ticks + 0.501, side="right") - 1, 0)
        wanted = SelectedFrames(index, lambda k: begin * unit + k / rate, begin * unit + count / rate, True)
    if not len(wanted.index):
        raise ConfigError(
            "E211",
            f"the selection leaves no frame: the clip has {len(pts)} frames in {float(stop * unit):.3f} s",
            "Choose frames.start and frames.end, or first and last, inside the clip.",
        )
    return wanted


def _check_selection(path: str, probed: Probed, wanted: SelectedFrames, selection: Selection, strict: bool) -> None:
    count, info = len(wanted.index), probed.info
    if selection.max_frames is not None and count > selection.max_frames:
        raise MediaError(
            "E414",
            f"{path}: {count} frames are selected, at most {selection.max_frames} are allowed",
            "Take a part with frames.start and frames.end, lower frames.fps, or raise frames.max_frames.",
        )
    if strict and probed.truncated and wanted.index[-1] == info.frames - 1:
        raise MediaError(
            "E406",
            f"{path} is truncated: {probed.truncated}",
            f"Copy it again; {_CONCEAL}",
        )


class FrameDecoder:
    """The decoded frames of a clip as (index, av.VideoFrame)."""

    def __init__(
        self,
        path: str,
        probed: Probed,
        limits: dict[str, Any],
        strict: bool,
        to_the_end: bool,
        keep_alive: Callable[[], None],
    ) -> None:
        self.path, self.limits, self.strict, self.keep_alive = path, limits, strict, keep_alive
        self.packets = probed.packets
        self.decoded, self.interlaced, self.notes = 0, False, list[str]()
        self._to_the_end = to_the_end
        self._damage: list[int] = []
        self._delivered: list[int] = []
        self._size = (probed.info.coded_width, probed.info.coded_height)

    def frames(self) -> Iterator[tuple[int, Any]]:
        """In presentation order. Raises MediaError E406, E407 (strict) and E412."""
        with captured_errors() as logged:
            container = open_container(self.path, self.limits)
        early = first_error_on_open(logged, container)
        # Capturing ends before the decoder's threads do: they could wait for each other.
        with container, captured_errors() as logged:
            stream = video_stream(self.path, container)
            stream.thread_type = "NONE"
            stream.codec_context.options = _STRICT if self.strict else {"err_detect": "crccheck"}
            if self._to_the_end:  # a part may lie before what is damaged
                self._note_error(early, None)
            index = -1
            for frame in self._decoded(container, stream, logged):
                index = self._index(frame, index)
                if (frame.width, frame.height) != self._size:
                    raise self._resolution_error(frame, index)
                self.interlaced = self.interlaced or frame.interlaced_frame
                self.decoded += 1
                self._delivered.append(index)
                yield index, frame

    def check_count(self, count: int, promised: int) -> None:
        """Raise MediaError E410 or E406 when fewer frames came than the packets promise."""
        if count == 0:
            raise MediaError("E410", f"{self.path}: no selected frame could be decoded", "Copy it again.")
        woven = self.interlaced and 2 * count >= promised  # two field packets made one frame
        if woven and self.packets.stamped and promised == len(self.packets.pts):
            woven = only_second_fields(self._delivered, self.packets.pts)
        if count < promised and self.strict and not woven:
            raise MediaError(
                "E406",
                f"{self.path}: announced {promised} frames, decoded {count}",
                f"Copy it again; {_CONCEAL}",
            )

    def all_notes(self, lost: int) -> list[str]:
        """Notes to record about the frames delivered."""
        logged = list(self.notes)
        if self._damage and not self.strict:
            logged.append(f"damage at {len(self._damage)} places concealed, the first at frame {min(self._damage)}")
        if lost > 0:
            logged.append(f"{lost} of the selected frames could not be decoded and are left out")
        return logged

    def _decoded(self, container: Any, stream: Any, logged: list[tuple[int, str, str]]) -> Iterator[Any]:
        decoder = decoder_of(stream)
        packets = numbered(container, stream, decoder)
        while True:
            packet = None
            try:
                packet = next_packet(packets)
                if packet is None:
                    self._note_error(first_error(logged, container, stream), packet)
                    return
                self.keep_alive()
                if packet.opaque in self.packets.left_out:
                    logged.clear()
                    continue
                if self.strict and packet.is_corrupt and not self.packets.at_a_join(packet.opaque):
                    raise self._damage_error(packet, "the packet is incomplete")
                frames = decoder.decode(packet)
                if not packet.is_discard:
                    self._note_error(first_error(logged, container, stream), packet)
            except MemoryError:
                raise
            except FFmpegError as error:
                check_memory(*self._size)
                if self.strict:
                    raise self._damage_error(packet, error.strerror or type(error).__name__) from None
                self._damage.append(self._frame_number(packet))
                if packet is None:
                    return
                continue
            for frame in frames:
                if frame.is_corrupt and self.strict:
                    raise self._damage_error(packet, "the frame decodes with errors")
                if frame.is_corrupt:
                    self._damage.append(self._frame_number(frame))
                yield frame

    def _note_error(self, error: str, packet: Any | None) -> None:
        if error and self.strict and packet is None:
            raise MediaError("E407", f"{self.path}: damaged: {error}", f"Copy it again; {_CONCEAL}")
        if error and self.strict:
            raise self._damage_error(packet, error)
        if error:
            self._damage.append(self._frame_number(packet))

    def _index(self, frame: Any, previous: int) -> int:
        known = self.packets.index_of(frame.opaque) if self.packets.stamped else None
        return previous + 1 if known is None else max(previous + 1, known)

    def _damage_error(self, packet: Any | None, reason: str) -> MediaError:
        pts, index = self.packets.pts, self._frame_number(packet)
        time = float(int(pts[min(index, len(pts) - 1)] - pts[0]) * self.packets.unit)
        return MediaError(
            "E407" if packet is not None else "E406",
            f"{self.path}: damaged at frame {index} of {len(pts)} ({time:.3f} s): {reason}",
            f"Copy it again; {_CONCEAL}",
        )

    def _frame_number(self, numbered: Any | None) -> int:
        """The frame of a packet, or of a frame; else how many have come."""
        known = self.packets.index_of(numbered.opaque) if numbered is not None else None
        return self.decoded if known is None else known

    def _resolution_error(self, frame: Any, index: int) -> MediaError:
        was, now = "{}x{}".format(*self._size), f"{frame.width}x{frame.height}"
        return MediaError(
            "E412",
            f"{self.path}: the resolution changes from {was} to {now} at frame {index}",
            f"Take the part before it with frames.last={max(0, index - 1)}, or re-encode to one size.",
        )


def _selected_frames(frames: Iterator[tuple[int, Any]], wanted: SelectedFrames) -> Iterator[tuple[int, Any]]:
    """(k, frame) for every wanted k. A lost frame is left out; when resampling, its predecessor stays."""
    k, count, shown = 0, len(wanted.index), None
    for index, frame in frames:
        while k < count and wanted.index[k] < index:
            if wanted.resampled and shown is not None:
                yield k, shown
            k += 1
        while k < count and wanted.index[k] == index:
            yield k, frame
            k += 1
        if k == count:
            return
        shown = frame
