"""What belongs to a clip beside pictures and sound, in a new video of a part of it: title, date, timecode, chapters,
subtitles. Runs in the child."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av

from retake.errors import MediaError

from .audio import Track, clock
from .container import open_container, video_stream

_TAGS = ("title", "artist", "author", "album", "genre", "copyright", "description", "synopsis")
_WHEN_AND_WHERE = ("date", "creation_time", "location")
_TEXTS = ("mov_text", "subrip", "srt", "ass", "ssa", "webvtt", "text")
_STYLE = (  # of subtitles whose texts are written without styling: white Arial of 16, at the bottom
    b"[Script Info]\nScriptType: v4.00+\nPlayResX: 384\nPlayResY: 288\n[V4+ Styles]\nFormat: Name, Fontname, Fontsize, "
    b"PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, StrikeOut, ScaleX, ScaleY, "
    b"Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding\n"
    b"Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,1\n"
    b"[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
)


class Subtitles(Track):
    """One track of texts, written as MP4's own kind, in Matroska as SubRip, without styling."""

    def _added(self, target: Any) -> Any:
        self._kind = "subrip" if target.format.name == "matroska" else "mov_text"
        added = target.add_stream(self._kind)
        added.codec_context.subtitle_header = _STYLE
        added.codec_context.open()
        return added

    def _made_of(self, packet: Any) -> Iterator[Any]:
        unit = Fraction(packet.time_base)
        start, length = self._time(packet), (packet.duration or 0) * unit
        text = plain_text(self.codec, bytes(packet)).encode()[:65535]
        if start + length <= 0 or not text:
            return
        made = av.Packet(text if self._kind == "subrip" else len(text).to_bytes(2, "big") + text)
        begin = max(start, Fraction(0))
        made.time_base = unit
        made.pts = made.dts = round(begin / unit)
        made.duration = round((start + length - begin) / unit)
        yield made


def plain_text(codec: str, data: bytes) -> str:
    """The words of one subtitle packet, without tags."""
    if codec == "mov_text":
        return data[2 : 2 + int.from_bytes(data[:2], "big")].decode("utf-8", "replace")
    text = data.decode("utf-8", "replace").strip()
    if codec in ("ass", "ssa"):
        text = re.sub(r"\{[^}]*\}", "", text.split(",", 8)[-1])
        return text.replace("\\N", "\n").replace("\\n", "\n").replace("\\h", " ")
    return re.sub(r"</?[a-zA-Z][^>]*>", "", text)


@dataclass(frozen=True)
class Belongings:
    """What was found for one new video. `timecode`: of its first frame, "" where there is none."""

    tags: dict[str, str]
    chapters: list[Any]
    timecode: str
    subtitles: list[Subtitles]
    notes: list[str]


def belongings_of(
    path: str | None, start: float, until: float | None, limits: dict[str, Any], keep_alive: Callable[[], None]
) -> Belongings:
    """What belongs to the clip at `path`, from `start` to `until` seconds after its first frame; nothing of None."""
    if path is None:
        return Belongings({}, [], "", [], [])
    zero, clocks = clock(path, limits, keep_alive)
    begin = zero + Fraction(start)
    with open_container(path, limits) as source:
        known = {name.lower(): value for name, value in source.metadata.items()}
        chapters = _chapters(source.chapters(), begin, None if until is None else zero + Fraction(until))
        found = [(s.index, s.codec_context) for s in source.streams.subtitles]
        kinds = [(index, context.codec.canonical_name if context else "") for index, context in found]
        timecode = _timecode(source, path, start)
        attached = sum(1 for s in source.streams if s.type == "attachment")
    tracks = list[Subtitles]()
    for index in (index for index, kind in kinds if kind in _TEXTS):
        container = open_container(path, limits)
        tracks.append(Subtitles(container, container.streams[index], begin, start == 0, clocks))
    pictures = sorted({kind or "an unknown kind" for _, kind in kinds if kind not in _TEXTS})
    notes = [f"subtitles as pictures are left out: {', '.join(pictures)}"] * bool(pictures)
    notes += [f"attachments are left out: {attached}"] * bool(attached)
    tags = {name: known[name] for name in (*_TAGS, *_WHEN_AND_WHERE) if name in known}
    return Belongings(tags, chapters, timecode, tracks, notes)


def _chapters(found: list[Any], begin: Fraction, end: Fraction | None) -> list[Any]:
    kept = []
    for chapter in found:
        unit = Fraction(chapter["time_base"])
        start, stop = (chapter[side] * unit for side in ("start", "end"))
        start, stop = max(start, begin), stop if end is None else min(stop, end)
        if start < stop:
            times = {"start": round((start - begin) * 1000), "end": round((stop - begin) * 1000)}
            kept.append({**chapter, **times, "id": len(kept), "time_base": Fraction(1, 1000)})
    return kept


def _timecode(source: Any, path: str, start: float) -> str:
    try:
        stream = video_stream(path, source)
    except MediaError:
        return ""
    everywhere = [stream.metadata, source.metadata, *(s.metadata for s in source.streams.data)]
    found = next((tags[k] for tags in everywhere for k in tags if k.lower() == "timecode"), "")
    rate = stream.average_rate
    return later(found, round(Fraction(start) * rate), Fraction(rate)) if found and rate else found


def later(timecode: str, frames: int, rate: Fraction) -> str:
    """A timecode HH:MM:SS:FF (; before the frames: drop-frame, SMPTE ST 12-1) some frames on; "" for one that is
    none."""
    match = re.fullmatch(r"(\d\d):(\d\d):(\d\d)([:;.])(\d\d)", timecode)
    if match is None:
        return ""
    hours, minutes, seconds, separator, count = match.groups()
    base, drop = round(rate), 0 if separator == ":" else round(rate / 15)
    whole = int(hours) * 60 + int(minutes)
    number = (whole * 60 + int(seconds)) * base + int(count) - drop * (whole - whole // 10) + frames
    if drop:  # numbers that are left out: the first of each minute but every tenth
        tens, rest = divmod(number, 600 * base - 9 * drop)
        number += drop * (9 * tens + max(0, (rest - drop) // (60 * base - drop)))
    seconds, count = divmod(number, base)
    return f"{seconds // 3600 % 24:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{separator}{count:02}"
