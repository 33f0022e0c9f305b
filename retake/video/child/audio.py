"""The sound of a clip in a new video: every track, copied packet by packet where the file carries its codec, else as
AAC. Runs in the child."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

from av.error import FFmpegError
from av.stream import Disposition

from retake.errors import MediaError

from .container import next_packet, open_container
from .packets import LEAP
from .probe import probe

_MP4_CODECS = ("aac", "mp3", "ac3", "eac3", "opus", "alac", "flac")
_PCM = ("pcm_u8", *(f"pcm_{kind}" for kind in ("s16le", "s24le", "s32le", "f32le", "f64le", "s16be", "s24be", "s32be")))
_CARRIED = {  # what is copied, by kind of file; of MP4 what players know
    "mp4": _MP4_CODECS,
    "mov": (*_MP4_CODECS, *_PCM),
    "matroska": (*_MP4_CODECS, *_PCM, "mp2", "vorbis", "truehd"),
}
_CALLED = {"mp4": "MP4 players lack", "mov": "MOV lacks", "matroska": "Matroska lacks"}
_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
_AAC_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}
_BITS_A_CHANNEL = 96_000


class Track:
    """One sound track, on the clock of the clip's first frame. Its packets are read in a container of their own, since
    tracks need not lie side by side in the file."""

    def __init__(self, container: Any, stream: Any, begin: Fraction, whole: bool, clocks: list[Fraction]) -> None:
        self.codec: str = stream.codec_context.codec.canonical_name  # the format's; `name` is the decoder's, mp3float
        self.notes: list[str] = []
        self._container, self._stream = container, stream
        self._out: Any = None
        self._begin, self._whole = begin, whole
        self._packets, self._next = container.demux(stream), None
        self._clocks, self._offset = list(clocks), Fraction(0)  # what the parts of a joined file add to their times
        self._last: Fraction | None = None  # time as the file says it
        self._written: int | None = None  # dts

    def attach(self, target: Any) -> None:
        """Add the track to the container `target`, before anything is written to it."""
        self._out = self._added(target)
        for name in ("language", "title"):
            if (value := self._stream.metadata.get(name, "und")) != "und":
                self._out.metadata[name] = value
                if name == "title" and target.format.name == "mp4":  # which has no title of a track
                    self._out.metadata["handler_name"] = value
        self._out.disposition = self._stream.disposition & Disposition.default

    def write_until(self, target: Any, end: Fraction) -> None:
        """Write what starts before `end`, in seconds of the new video."""
        while (packet := self._peek()) is not None:
            if self._time(packet) >= end:
                return
            self._next = None
            for one in self._made_of(packet):
                if self._written is None or one.dts > self._written:  # joined parts may overlap
                    self._written = one.dts
                    one.stream = self._out
                    target.mux(one)

    def finish(self, target: Any) -> None:
        """Write what an encoder still holds, and close the source."""
        self._container.close()

    def _added(self, target: Any) -> Any:
        return target.add_stream_from_template(self._stream)

    def _made_of(self, packet: Any) -> Iterator[Any]:
        """The packet, on the new clock."""
        if self._time(packet) < 0 and not self._whole:
            return  # a whole copy keeps what lies before 0: it is the priming of the audio's encoder
        shift = round((self._begin - self._offset) / Fraction(packet.time_base))
        packet.dts = (packet.pts if packet.dts is None else packet.dts) - shift
        packet.pts -= shift
        yield packet

    def _time(self, packet: Any) -> Fraction:
        return packet.pts * Fraction(packet.time_base) + self._offset - self._begin

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


class EncodedTrack(Track):
    """A track in a codec that the file does not carry, as AAC."""

    def _added(self, target: Any) -> Any:
        self.notes.append(f"{self.codec} sound, which {_CALLED[target.format.name]}, is written as AAC")
        self.codec = "aac"
        return self._encoder(target)

    def finish(self, target: Any) -> None:
        for packet in self._out.encode(None) if self._written is not None else ():
            target.mux(packet)
        super().finish(target)

    def _encoder(self, target: Any) -> Any:
        source = self._stream.codec_context
        rate = next((rate for rate in _AAC_RATES if rate <= source.sample_rate), _AAC_RATES[-1])
        layout = _AAC_LAYOUTS.get(source.channels, "stereo")
        added = target.add_stream("aac", rate=rate, layout=layout)
        added.bit_rate = _BITS_A_CHANNEL * added.codec_context.channels
        return added

    def _made_of(self, packet: Any) -> Iterator[Any]:
        offset = self._offset - self._begin
        try:
            frames = packet.decode()
        except FFmpegError:
            self.notes += ["damaged sound is left out"] * ("damaged sound is left out" not in self.notes)
            return
        for frame in frames:
            start = frame.pts * Fraction(frame.time_base) + offset if frame.pts is not None else self._time(packet)
            if start < 0:
                continue
            frame.time_base = Fraction(1, frame.sample_rate)
            frame.pts = round(start * frame.sample_rate)
            yield from self._out.encode(frame)


def clock(path: str, limits: dict[str, Any], keep_alive: Callable[[], None]) -> tuple[Fraction, list[Fraction]]:
    """When the first frame of a clip is shown, in seconds as its file says them, and what the parts of a joined file
    add to their times. Without pictures the clock starts at 0."""
    try:
        packets = probe(path, limits, keep_alive).packets
    except MediaError as error:
        if error.code != "E409":
            raise
        return Fraction(0), []
    return int(packets.pts[0]) * packets.unit, [offset for _, offset in packets.joins]


def open_audio(
    path: str | None, kind: str, start: float, limits: dict[str, Any], keep_alive: Callable[[], None]
) -> tuple[list[Track], list[str]]:
    """The sound tracks of the clip at `path` from `start` seconds after its first frame, the default one first, for a
    file of a `kind` (mp4, mov, matroska), and notes on those that are left out.

    Raises MediaError for a file that is refused; an audio-only file is accepted, its clock starts at 0.
    """
    if path is None:
        return [], []
    zero, clocks = clock(path, limits, keep_alive)
    with open_container(path, limits) as container:
        streams = sorted(container.streams.audio, key=lambda s: not s.disposition & Disposition.default)
        indices = [s.index for s in streams if s.codec_context is not None]
        notes = [f"{path} has no sound: none was copied"] * (not streams)
        notes += ["a sound track of an unknown codec is left out"] * (len(streams) - len(indices))
    tracks = []
    for index in indices:
        container = open_container(path, limits)
        stream = container.streams[index]
        copied = stream.codec_context.codec.canonical_name in _CARRIED[kind]
        tracks.append(
            (Track if copied else EncodedTrack)(container, stream, zero + Fraction(start), start == 0, clocks)
        )
    return tracks, notes
