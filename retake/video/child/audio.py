"""The audio of a clip, copied packet by packet into a new video. Runs in the child."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from av.error import FFmpegError

from retake.errors import MediaError

from .container import audio_stream, next_packet, open_container
from .probe import probe

_MP4_CODECS = ("aac", "mp3", "ac3", "eac3", "opus", "alac", "flac")


class Audio:
    """The first audio stream of a clip, on the clock of its first frame. Packets are never re-encoded."""

    def __init__(self, container: Any, stream: Any, zero: Fraction, start: Fraction) -> None:
        self.codec: str = stream.codec_context.name
        self._container, self._stream = container, stream
        self._begin, self._whole = zero + start, start == 0
        self._packets, self._next = container.demux(stream), None
        self.notes: list[str] = []

    def attach(self, target: Any) -> None:
        """Add the stream to the MP4 container `target`, before anything is written to it."""
        self._out = target.add_stream_from_template(self._stream)

    def copy_until(self, target: Any, end: Fraction) -> None:
        """Copy the packets that start before `end`, in seconds of the new video."""
        while (packet := self._peek()) is not None:
            unit = Fraction(packet.time_base)
            time = packet.pts * unit - self._begin
            if time >= end:
                return
            self._next = None
            if time < 0 and not self._whole:
                continue  # a whole copy keeps what lies before 0: it is the priming of the audio's encoder
            shift = round(self._begin / unit)
            packet.dts = (packet.pts if packet.dts is None else packet.dts) - shift
            packet.pts -= shift
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
    return Audio(container, stream, _first_frame_time(path, limits, keep_alive), Fraction(start)), []


def _first_frame_time(path: str, limits: dict[str, Any], keep_alive: Callable[[], None]) -> Fraction:
    try:
        probed = probe(path, limits, keep_alive)
    except MediaError as error:
        if error.code != "E409":
            raise
        return Fraction(0)
    return int(probed.pts[0]) * probed.unit
