"""What belongs to a clip: title, date, timecode, chapters and subtitles reach the result, or a note names what does
not."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
import zoo
from helpers.command import reference

from flows.editing import edit
from flows.runners import Local
from retake import video
from retake.store import Store
from retake.video.child.belongings import later, plain_text

SIZE, RATE = (128, 96), 20
LINES = [(0.2, 0.6, "Hello there"), (1.0, 0.5, "Second {line}")]
CHAPTERS = [("Intro", 0.0, 0.9), ("Rest", 0.9, 2.0)]


def clip(path: Path, subtitles: str = "subrip", frames: int = 40) -> Path:
    """Two seconds with a title, a date, a timecode, two chapters and a track of subtitles."""
    with av.open(str(path), "w") as container:
        container.metadata.update({"title": "My take", "creation_time": "2024-05-01T10:00:00.000000Z"})
        parts: list[Any] = []
        for k, (title, a, b) in enumerate(CHAPTERS):
            times = {"start": round(a * 1000), "end": round(b * 1000), "time_base": Fraction(1, 1000)}
            parts.append({"id": k, **times, "metadata": {"title": title}})
        container.set_chapters(parts)
        stream: Any = container.add_stream("libx264", rate=RATE, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.metadata["timecode"] = "01:00:00:00"
        texts: Any = container.add_stream(subtitles)
        texts.codec_context.subtitle_header = b"[Script Info]\n"
        texts.metadata["language"] = "deu"
        for k in range(frames):
            frame: Any = av.VideoFrame.from_ndarray(zoo.picture(k, SIZE), format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = k, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        for start, length, text in LINES:
            words = text.replace("there", "<i>there</i>").encode()
            packet = av.Packet(words)
            packet.stream, packet.time_base = texts, Fraction(1, 1000)
            packet.pts = packet.dts = round(start * 1000)
            packet.duration = round(length * 1000)
            container.mux(packet)
    return path


def found_in(path: Path) -> dict[str, Any]:
    with av.open(str(path)) as opened:
        container: Any = opened
        subtitles = [s for s in container.streams if s.type == "subtitle"]
        lines = [
            (round(float(p.pts * p.time_base), 2), plain_text(s.codec_context.codec.canonical_name, bytes(p)))
            for s in subtitles
            for p in container.demux(s)
            if p.size > 2
        ]
        chapters = [
            (c["metadata"]["title"], float(c["start"] * c["time_base"]), float(c["end"] * c["time_base"]))
            for c in container.chapters()
        ]
        tags = {k.lower(): v for k, v in container.metadata.items()}
        return {
            "lines": lines,
            "language": [s.metadata.get("language") for s in subtitles],
            "chapters": chapters,
            "title": tags.get("title"),
            "date": tags.get("creation_time"),
            "timecode": container.streams.video[0].metadata.get("timecode"),
        }


def result(folder: Path, source: Path, *words: str) -> Any:
    cat = reference(folder / "cat.png")
    given = [f"edit.reference={cat}", "metrics.names=[]", "report.tile=64", "masks.box=[22,10,42,60]", *words]
    return edit.edit(str(source), given, runner=Local(Store(folder / "store")), folder=folder / "edits")


def test_a_result_has_what_belongs_to_the_clip(tmp_path):
    done = result(tmp_path, clip(tmp_path / "c.mkv"))
    found = found_in(Path(done.outputs["video"]))
    assert found["lines"] == [(0.2, "Hello there"), (1.0, "Second {line}")]
    assert found["language"] == ["deu"]
    assert [title for title, *_ in found["chapters"]] == ["Intro", "Rest"]
    assert found["title"] == "My take"
    assert found["date"].startswith("2024-05-01T10:00:00")
    assert found["timecode"] == "01:00:00:00"


def test_a_part_has_its_own_part_of_it(tmp_path):
    done = result(tmp_path, clip(tmp_path / "c.mkv"), "frames.start=0.5", "frames.end=1.5", "decode.codec=ffv1")
    for path in (done.outputs["video"], done.outputs["master"]):
        found = found_in(Path(path))
        assert [text for _, text in found["lines"]] == ["Hello there", "Second {line}"]
        assert [at for at, _ in found["lines"]] == pytest.approx([0, 0.5], abs=0.01)
        assert [title for title, *_ in found["chapters"]] == ["Intro", "Rest"]
        assert [end for *_, end in found["chapters"]] == pytest.approx([0.4, 1.0], abs=0.01)
    assert found_in(Path(done.outputs["video"]))["timecode"] == "01:00:00:10"


def test_subtitles_as_pictures_are_told(tmp_path):
    path = tmp_path / "dvb.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        container.add_stream("dvbsub")
        for k in range(4):
            frame: Any = av.VideoFrame.from_ndarray(zoo.picture(k, SIZE), format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = k, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    frames = [rgb for _, rgb in video.decode(path)]
    info = video.encode(tmp_path / "out.mp4", frames, RATE, belongings_from=path)
    assert any("dvb" in note for note in info.notes)


def test_words_of_each_kind_of_text():
    assert plain_text("subrip", b"<b>Bold</b> 1 < 2") == "Bold 1 < 2"
    assert plain_text("ass", b"0,0,Default,,0,0,0,,{\\i1}One\\Ntwo, three") == "One\ntwo, three"
    assert plain_text("mov_text", b"\x00\x02Hi\x00\x00\x00\x0cstyl") == "Hi"
    assert plain_text("webvtt", b"<v Anna>Hi") == "Hi"


@pytest.mark.parametrize(
    ("timecode", "frames", "rate", "wanted"),
    [
        ("00:00:59;29", 1, Fraction(30000, 1001), "00:01:00;02"),  # SMPTE ST 12-1: 0 and 1 are dropped
        ("00:09:59;29", 1, Fraction(30000, 1001), "00:10:00;00"),  # but every tenth minute
        ("01:00:00;00", 17982, Fraction(30000, 1001), "01:10:00;00"),
        ("00:00:59;59", 1, Fraction(60000, 1001), "00:01:00;04"),
        ("23:59:59:24", 1, Fraction(25), "00:00:00:00"),
        ("01:00:00:00", 90003, Fraction(25), "02:00:00:03"),
        ("nonsense", 1, Fraction(25), ""),
    ],
)
def test_a_timecode_some_frames_later(timecode, frames, rate, wanted):
    assert later(timecode, frames, rate) == wanted
