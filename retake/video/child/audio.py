"""The audio of a clip, copied packet by packet into a new video. Runs in the child."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from av.error import FFmpegError

from retake.errors import MediaError

from .container import audio_stream, next_packet, open_container
from .packets import LEAP
from .probe import probe

_MP4_CODECS = ("aac", "mp3", "ac3", "eac3", "opus", "alac", "flac")


class Audio:
    """The first audio stream of a clip, on the clock of its first frame. Packets are never re-encoded."""

    def __init__(self, container: Any, stream: Any, zero: Fraction, start: Fraction, clocks: list[Fraction]) -> None:
        self.codec: str = stream.codec_context.name
        self._container, self._stream = container, stream
        self._begin, self._whole = zero + start, start == 0
        self._packets, self._next = container.demux(stream), None
        self._clocks, self._offset = clocks, Fraction(0)  # what the parts of a joined file add to their times
        self._last: Fraction | None = None  # time as the file says it
        self._written: int | None = None  # dts
        self.notes: list[str] = []

    def attach(self, target: Any) -> None:
        """Add the stream to the MP4 container `target`, before anything is written to it."""
        self._out = target.add_stream_from_template(self._stream)

    def copy_until(self, target: Any, end: Fraction) -> None:
        """Copy the packets that start before `end`, in seconds of the new video."""
        while (packet := self._peek()) is not None:
            unit = Fraction(packet.time_base)
            time = packet.pts * unit + self._offset - self._begin
            if time >= end:
                return
            self._next = None
            if time < 0 and not self._whole:
                continue  # a whole copy keeps what lies before 0: it is the priming of the audio's encoder
            shift = round((self._begin - self._offset) / unit)
            packet.dts = (packet.pts if packet.dts is None else packet.dts) - shift
            packet.pts -= shift
            if self._written is not None and packet.dts <= self._written:
                continue  # the end of one part and the beginning of the next may overlap
            self._written = packet.dts
            packet.stream = self._out
            target.mux(packet)

    def close(self) -> None:
        """Close the source clip."""
        self._container.close()

    def _peek(self) -> Any | None:
        while self._next is None:
            try:
                packet = next_packet(self._packets)
            except FFmpegError as error:
                self.notes.append(f"the sound ends early: {error.strerror}")
                packet = None
            if packet is None:
                self._packets = iter(())
                return None
            if packet.size and packet.pts is not None:
                self._next = packet
                time = packet.pts * Fraction(packet.time_base)
                if self._clocks and self._last is not None and not -0.1 < time - self._last < LEAP:
                    self._offset = self._clocks.pop(0)
                self._last = time
        return self._next


def open_audio(
    path: str | None, start: float, limits: dict[str, Any], keep_alive: Callable[[], None]
) -> tuple[Audio | None, list[str]]:
    """The sound of the clip at `path` from `start` seconds after its first frame, or None and the reason.

    Raises MediaError for a file that is refused; an audio-only file is accepted, its clock starts at 0.
    """
    if path is None:
        return None, []
    container = open_container(path, limits)
    stream = audio_stream(container)
    codec = stream.codec_context.name if stream is not None and stream.codec_context else None
    if stream is None or codec not in _MP4_CODECS:
        container.close()
        reason = "has no sound" if stream is None else f"has {codec or 'unknown'} sound, which MP4 players lack"
        return None, [f"{path} {reason}: none was copied"]
    try:
        packets = probe(path, limits, keep_alive).packets
    except MediaError as error:
        if error.code != "E409":
            raise
        return Audio(container, stream, Fraction(0), Fraction(start), []), []
    clocks = [offset for _, offset in packets.joins]
    return Audio(container, stream, int(packets.pts[0]) * packets.unit, Fraction(start), clocks), []
