"""The sound of a clip in its result: every track, copied where MP4 carries it, else as AAC; and the picture track."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import zoo
from av.stream import Disposition

from retake import video
from retake.errors import MediaError

SIZE, RATE = (128, 96), 20
PICTURES = [zoo.picture(k, SIZE) for k in range(20)]


def sounding(path: Path, codec: str, tones: tuple[float, ...] = (440,), later: float = 1, **tags: list[Any]) -> Path:
    """A second of pictures with a track a tone, in Hz, which is `later` times as high in its second half; tags: a
    `language` and a `default` for each track."""
    rate = 44100
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        tracks: list[Any] = [container.add_stream(codec, rate=rate, layout="mono") for _ in tones]
        for track, language in zip(tracks, tags.get("language", []), strict=False):
            track.metadata["language"] = language
        for track, default in zip(tracks, tags.get("default", []), strict=False):
            track.disposition = Disposition.default if default else Disposition(0)
        for k, rgb in enumerate(PICTURES):
            frame: Any = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = k, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        for track, tone in zip(tracks, tones, strict=True):
            for begin in range(0, rate, 1000):
                pitch = tone * (later if begin >= rate // 2 else 1)
                wave = 0.5 * np.sin(2 * np.pi * pitch * (begin + np.arange(1000)) / rate)
                sound: Any = av.AudioFrame.from_ndarray(wave.astype(np.float32)[None], format="fltp", layout="mono")
                sound.sample_rate, sound.pts, sound.time_base = rate, begin, Fraction(1, rate)
                container.mux(track.encode(sound))
            container.mux(track.encode(None))
    return path


def heard(path: Path) -> list[tuple[str, str | None, bool, float, float]]:
    """Of every sound track: codec, language, whether it is the default, its pitch in Hz, its length in seconds."""
    found = []
    with av.open(str(path)) as container:
        count = len(container.streams.audio)
    for n in range(count):
        with av.open(str(path)) as container:
            stream = container.streams.audio[n]
            frames = list(container.decode(stream))
            wave = np.concatenate([frame.to_ndarray().astype(float).mean(0) for frame in frames])
            rate = frames[0].sample_rate
            middle = wave[len(wave) // 4 : len(wave) // 4 + rate // 2]
            pitch = np.abs(np.fft.rfft(middle * np.hanning(len(middle)))).argmax() * rate / len(middle)
            name, default = stream.codec_context.codec.canonical_name, bool(stream.disposition & Disposition.default)
            found.append((name, stream.language, default, float(pitch), len(wave) / rate))
    return found


@pytest.mark.parametrize(
    ("suffix", "codec", "wanted"),
    [
        (".mp4", "libmp3lame", "mp3"),
        (".avi", "libmp3lame", "mp3"),
        (".mkv", "flac", "flac"),
        (".mkv", "pcm_s16le", "aac"),
        (".mov", "pcm_s24le", "aac"),
        (".mkv", "mp2", "aac"),
        (".avi", "adpcm_ms", "aac"),
        (".mkv", "ac3", "ac3"),
    ],
)
def test_sound_is_copied_where_mp4_carries_it_and_encoded_elsewhere(suffix, codec, wanted, tmp_path):
    source = sounding(tmp_path / f"source{suffix}", codec)
    made = video.encode(tmp_path / "made.mp4", PICTURES, RATE, audio_from=source)
    assert made.audio == wanted
    assert bool(made.notes) == (wanted == "aac")
    assert all("written as AAC" in note for note in made.notes)
    ((name, _, default, pitch, seconds),) = heard(tmp_path / "made.mp4")
    assert (name, default) == (wanted, True)
    assert pitch == pytest.approx(440, abs=4)
    assert seconds == pytest.approx(1, abs=0.07)
    assert video.probe(source).audio == {"libmp3lame": "mp3"}.get(codec, codec)


@pytest.mark.parametrize(
    ("suffix", "codec", "kind", "wanted"),
    [
        (".mov", "pcm_s24le", "prores", "pcm_s24le"),
        (".avi", "adpcm_ms", "prores", "aac"),
        (".mov", "pcm_s24be", "ffv1", "pcm_s24be"),
        (".mkv", "mp2", "ffv1", "mp2"),
    ],
)
def test_sound_of_a_master_is_copied_where_its_kind_of_file_carries_it(suffix, codec, kind, wanted, tmp_path):
    source, target = sounding(tmp_path / f"source{suffix}", codec), tmp_path / f"made.{kind}"
    made = video.encode(target, PICTURES, RATE, audio_from=source, codec=kind)
    assert bool(made.notes) == (wanted == "aac")
    ((name, _, _, pitch, seconds),) = heard(target)
    assert name == wanted
    assert pitch == pytest.approx(440, abs=4)
    assert seconds == pytest.approx(1, abs=0.07)


def test_encoded_sound_begins_where_it_is_told_and_ends_with_the_pictures(tmp_path):
    source = sounding(tmp_path / "source.mov", "pcm_s16le", later=2)
    for start, wanted in ((0.0, 440), (0.5, 880)):
        video.encode(tmp_path / "made.mp4", PICTURES[:9], RATE, audio_from=source, audio_start=start)
        ((_, _, _, pitch, seconds),) = heard(tmp_path / "made.mp4")
        assert pitch == pytest.approx(wanted, abs=6)
        assert seconds == pytest.approx(0.45, abs=0.07)


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_every_track_comes_with_its_language_and_the_default_one_first(codec, tmp_path):
    tags = {"language": ["eng", "deu"], "default": [False, True]}
    source = sounding(tmp_path / "source.mkv", codec, tones=(440, 880), **tags)
    made = video.encode(tmp_path / "made.mp4", PICTURES, RATE, audio_from=source)
    assert len(made.notes) == (1 if codec == "pcm_s16le" else 0)
    tracks = heard(tmp_path / "made.mp4")
    assert [(language, default) for _, language, default, _, _ in tracks] == [("deu", True), ("eng", False)]
    assert [pitch for *_, pitch, _ in tracks] == pytest.approx([880, 440], abs=4)


def test_the_default_picture_track_is_read_and_the_other_is_noted(tmp_path):
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        small, large = (container.add_stream("mpeg4", rate=RATE) for _ in range(2))
        for stream, size in ((small, (80, 64)), (large, SIZE)):
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        small.disposition, large.disposition = Disposition(0), Disposition.default
        for k in range(6):
            for stream, size in ((small, (80, 64)), (large, SIZE)):
                rgb = zoo.picture(k + 10 * (stream is small), size)
                frame: Any = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p")
                frame.pts, frame.time_base = k, Fraction(1, RATE)
                container.mux(stream.encode(frame))
        for stream in (small, large):
            container.mux(stream.encode(None))
    info = video.probe(path)
    assert (info.width, info.height) == SIZE
    assert "further picture tracks, left out: 1" in info.notes
    assert [zoo.read_barcode(rgb) for _, rgb in video.decode(path)] == list(range(6))


def test_the_title_of_a_track_is_kept_in_mp4_and_a_sound_file_is_called_one(tmp_path):
    source = tmp_path / "source.mkv"
    with av.open(str(sounding(tmp_path / "plain.mkv", "aac"))) as old, av.open(str(source), "w") as new:
        streams = {s.index: new.add_stream_from_template(s) for s in old.streams}
        next(s for s in streams.values() if s.type == "audio").metadata["title"] = "Kommentar"
        for packet in old.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    video.encode(tmp_path / "made.mp4", PICTURES, RATE, audio_from=source)
    with av.open(str(tmp_path / "made.mp4")) as made:
        assert made.streams.audio[0].metadata["handler_name"] == "Kommentar"
    (tmp_path / "tone.wav").write_bytes(b"RIFF\x24\0\0\0WAVEfmt " + bytes(200))
    with pytest.raises(MediaError, match=r"E402 .*tone\.wav is a sound file"):
        video.probe(tmp_path / "tone.wav")
