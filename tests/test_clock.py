"""The clock of a clip: equal, restarting and leaping times, cuts within a group of pictures, a last frame held."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import zoo
from helpers.command import reference

from flows.editing import edit
from flows.runners import Local
from retake import video
from retake.errors import MediaError
from retake.store import Store

SIZE = (128, 96)
RATE = 20


def clip(path: Path, numbers: range, **options: str) -> Path:
    """A clip of RATE frames a second that shows these numbers."""
    container = {"fflags": "+bitexact"}
    return zoo.make_clip(path, size=SIZE, fps=RATE, numbers=numbers, options=options, container_options=container)


def copied(source: Path, target: Path, change: Callable[[int, Any], bool | None]) -> Path:
    """The packets of a video without re-encoding; `change`(n, packet) may change one, or drop it by returning False."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for n, packet in enumerate(old.demux(old.streams.video[0])):
            if packet.size and change(n, packet) is not False:
                packet.stream = stream
                new.mux(packet)
    return target


def seen(path: Path, **how: Any) -> tuple[list[int], np.ndarray]:
    """Numbers of the frames that come, and their times in seconds."""
    frames = list(video.decode(path, **how))
    return [zoo.read_barcode(rgb) for _, rgb in frames], np.array([seconds for seconds, _ in frames])


def times_of(path: Path) -> np.ndarray:
    return np.array([seconds for seconds, _ in video.decode(path)])


def even(count: int) -> Any:
    return pytest.approx(np.arange(count) / RATE, abs=0.0015)


def result_of(path: Path, folder: Path, *masks: str) -> Path:
    """The view of an edit of a clip."""
    cat = reference(folder / "cat.png")
    words = [f"edit.reference={cat}", "metrics.names=[]", "report.tile=64", *(masks or ["masks.box=[22,10,42,60]"])]
    done = edit.edit(str(path), words, runner=Local(Store(folder / "store")), folder=folder / "edits")
    (found,) = done.folder.rglob("result.mp4")
    return found


def lengths(path: Path) -> dict[str, float]:
    """Seconds that each track of a file lasts."""
    with av.open(str(path)) as container:
        return {s.type: float(s.duration * s.time_base) for s in container.streams}


# ---- equal, restarting, leaping clocks -------------------------------------------------------------------------------


def test_frames_of_one_time_share_it_and_every_stage_takes_them(tmp_path):
    def shift(n: int, packet: Any) -> None:
        if n == 10:
            packet.pts, packet.dts = packet.pts - 50, packet.dts - 50

    whole = clip(tmp_path / "whole.mkv", range(20), bf="0")
    equal = copied(whole, tmp_path / "equal.mkv", shift)
    assert seen(equal) == (list(range(20)), even(20))
    info = video.probe(equal)
    assert not info.variable
    assert any("share its length: 1" in note for note in info.notes)
    assert times_of(result_of(equal, tmp_path)) == even(20)


@pytest.mark.parametrize("counters", ["begin anew", "go on"])
@pytest.mark.parametrize("on_damage", ["fail", "conceal"])
def test_parts_whose_clocks_begin_anew_follow_one_another(counters, on_damage, tmp_path):
    first, second = (clip(tmp_path / f"{n}.ts", range(n, n + 15)) for n in (0, 15))
    joined = tmp_path / "joined.ts"
    rest = second.read_bytes() if counters == "begin anew" else going_on(first.read_bytes(), second.read_bytes())
    joined.write_bytes(first.read_bytes() + rest)
    assert seen(joined, on_damage=on_damage) == (list(range(30)), even(30))
    assert any("begins anew at 1 places" in note for note in video.probe(joined).notes)


def test_the_sound_of_joined_parts_follows_their_pictures(tmp_path):
    first, second = (
        zoo.make_clip(tmp_path / f"{n}.ts", size=SIZE, fps=RATE, numbers=range(n, n + 15), audio=True) for n in (0, 15)
    )
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + going_on(first.read_bytes(), second.read_bytes()))
    frames = (rgb for _, rgb in video.decode(joined))
    made = video.encode(tmp_path / "made.mp4", frames, RATE, audio_from=joined)
    assert made.audio == "aac"
    assert lengths(tmp_path / "made.mp4")["audio"] == pytest.approx(1.5, abs=0.06)
    with av.open(str(tmp_path / "made.mp4")) as container:
        stamps = [p.pts * p.time_base for p in container.demux(container.streams.audio[0]) if p.size]
    steps = np.diff(np.array(stamps, float))
    assert steps.max() < 0.06  # no hole: a packet of AAC lasts 0.023 s


def test_a_clock_that_leaps_where_parts_were_joined_leaves_no_gap(tmp_path):
    def later(n: int, packet: Any) -> None:
        packet.pts, packet.dts = packet.pts + 90_000 * 60, packet.dts + 90_000 * 60

    first, second = (clip(tmp_path / f"{n}.ts", range(n, n + 15)) for n in (0, 15))
    late = copied(second, tmp_path / "late.ts", later)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + going_on(first.read_bytes(), late.read_bytes()))
    assert seen(joined) == (list(range(30)), even(30))


def going_on(first: bytes, second: bytes) -> bytes:
    """An MPEG-TS with the continuity counters that it would have behind another."""
    last: dict[int, int] = {}

    def counted(data: bytearray, at: int) -> int:
        return (data[at + 1] & 31) << 8 | data[at + 2]

    data = bytearray(first)
    for at in range(0, len(data), 188):
        if data[at + 3] & 16:
            last[counted(data, at)] = data[at + 3] & 15
    data = bytearray(second)
    for at in range(0, len(data), 188):
        pid = counted(data, at)
        last[pid] = (last.get(pid, -1) + bool(data[at + 3] & 16)) & 15
        data[at + 3] = data[at + 3] & 0xF0 | last[pid]
    return bytes(data)


# ---- cuts within a group of pictures ---------------------------------------------------------------------------------


def test_a_recording_that_begins_within_a_group_of_pictures_begins_with_the_first_that_can_be_shown(tmp_path):
    whole = clip(tmp_path / "whole.ts", range(40), g="16", bf="2", sc_threshold="0").read_bytes()
    cut = tmp_path / "cut.ts"
    cut.write_bytes(whole[188 * (len(whole) // 188 // 4) :])
    numbers, times = seen(cut)
    assert numbers == list(range(16, 40))
    assert times == even(24)
    info = video.probe(cut)
    assert (info.frames, info.variable) == (24, False)
    assert any("begins within a group of pictures" in note for note in info.notes)


@pytest.mark.parametrize("suffix", [".mkv", ".ts"])
def test_pictures_that_refer_to_what_was_cut_off_are_left_out_by_rule(suffix, tmp_path):
    opened = "open-gop=1:keyint=10:min-keyint=10:bframes=3:scenecut=0"
    whole = clip(tmp_path / f"whole{suffix}", range(40), **{"x264-params": opened})
    with av.open(str(whole)) as container:
        keys = [n for n, p in enumerate(container.demux(container.streams.video[0])) if p.is_keyframe]
    cut = copied(whole, tmp_path / f"cut{suffix}", lambda n, packet: n >= keys[1])
    numbers, times = seen(cut)
    assert numbers == list(range(numbers[0], 40))
    assert numbers[0] in (9, 10)
    assert times == even(len(numbers))
    damaged = bytearray(cut.read_bytes())
    damaged[len(damaged) // 2 : len(damaged) // 2 + 400] = bytes(400)
    (tmp_path / f"damaged{suffix}").write_bytes(damaged)
    with pytest.raises(MediaError):
        seen(tmp_path / f"damaged{suffix}")


# ---- AVI repeats a frame by an empty chunk ---------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["mpeg4", "mjpeg"])
def test_empty_chunks_of_avi_are_times_and_no_frames(codec, tmp_path):
    kept = [n for n in range(20) if n not in (1, 10, 11)]
    path = tmp_path / "gaps.avi"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=RATE)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for n in kept:
            frame: Any = av.VideoFrame.from_ndarray(zoo.picture(n, SIZE), format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    numbers, times = seen(path)
    assert numbers == kept
    assert times == pytest.approx(np.array(kept) / RATE, abs=0.0015)


# ---- how long the last frame stays, and clips that are even only in part ---------------------------------------------


def held(path: Path, last: float, times: list[float] | None = None) -> Path:
    """A clip with sound whose last frame stays for so many seconds, written as a screen recorder does."""
    at = times or [k / RATE for k in range(12)]
    frames = [zoo.picture(k, SIZE) for k in range(len(at))]
    tone = zoo.make_sound(path.with_suffix(".m4a"), at[-1] + last)
    video.encode(path, frames, RATE, timestamps=at, last_length=last, audio_from=tone)
    return path


@pytest.mark.parametrize("last", [4.0, 0.02])
@pytest.mark.parametrize("times", [None, [k / RATE + 0.05 * (k > 5) for k in range(12)]], ids=["even", "uneven"])
def test_the_last_frame_stays_as_long_as_in_the_source_and_so_does_the_sound(last, times, tmp_path):
    source = held(tmp_path / "held.mp4", last, times)
    wanted = (times[-1] if times else 11 / RATE) + last
    assert video.probe(source).duration == pytest.approx(wanted, abs=0.002)
    assert video.selection_end(source, video.Selection()) == pytest.approx(wanted, abs=0.002)
    assert video.selection_end(source, video.Selection(last=5)) == pytest.approx(0.3 + 0.05 * bool(times), abs=0.002)
    result = result_of(source, tmp_path)
    assert lengths(result)["video"] == pytest.approx(wanted, abs=0.002)
    assert lengths(result)["audio"] == pytest.approx(wanted, abs=0.05)
    assert video.probe(result).duration == pytest.approx(wanted, abs=0.002)
    assert times_of(result) == pytest.approx(times_of(source), abs=0.001)


def test_a_gif_that_rests_on_its_last_picture_does_so_in_the_result(tmp_path):
    from PIL import Image

    first, *rest = [Image.fromarray(zoo.picture(k, SIZE)) for k in range(10)]
    first.save(tmp_path / "hold.gif", save_all=True, append_images=rest, duration=[100] * 9 + [3000], loop=0)
    (tmp_path / "masks").mkdir()
    square = np.zeros(SIZE[::-1], np.uint8)
    square[20:60, 30:70] = 255
    for k in range(10):
        Image.fromarray(square).save(tmp_path / "masks" / f"{k}.png")
    result = result_of(tmp_path / "hold.gif", tmp_path, "masks=given", f"masks.path={tmp_path / 'masks'}")
    assert lengths(result)["video"] == pytest.approx(3.9, abs=0.002)


def test_a_clip_whose_rate_changes_by_little_keeps_its_times(tmp_path):
    """60 frames a second, then 54: steps differ by 1.9 ms, the flash by a tenth of a second."""
    times = [k / 60 for k in range(60)] + [1 + k / 54 for k in range(55)]
    path = tmp_path / "drift.mp4"
    frames = [zoo.picture(k, SIZE) for k in range(len(times))]
    video.encode(path, frames, 57, timestamps=times, last_length=1 / 54)
    assert video.probe(path).variable
    assert times_of(result_of(path, tmp_path)) == pytest.approx(np.array(times), abs=0.001)
