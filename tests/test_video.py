"""Video in and out: the right frames, the right colours, refusals with a code, no orphan, no half file."""

from __future__ import annotations

import itertools
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import zoo

from retake import video
from retake.errors import ConfigError, MachineError, MediaError
from retake.video import Limits, Selection, VideoInfo
from retake.video.process import borrow


def decoded(path: Path, *args, **kwargs) -> tuple[list[float], list[int]]:
    """Times and barcode numbers of what `decode` yields."""
    pairs = [(at, zoo.read_barcode(rgb)) for at, rgb in video.decode(path, *args, **kwargs)]
    return [at for at, _ in pairs], [number for _, number in pairs]


def refusal(code: str, action) -> MediaError:
    """The error that `action` raises; its code must be `code` and it must say what to do next."""

    def run() -> None:
        result = action()
        if hasattr(result, "__next__"):
            list(result)

    with pytest.raises(MediaError) as caught:
        run()
    assert caught.value.code == code, str(caught.value)
    assert caught.value.hint
    assert len(str(caught.value).splitlines()) <= 6
    return caught.value


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    return zoo.make_clip(tmp_path_factory.mktemp("zoo") / "plain.mp4", audio=True)


@pytest.fixture(scope="module")
def faststart(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("zoo") / "faststart.mp4"
    return zoo.make_clip(path, frames=48, container_options={"movflags": "+faststart"})


# --- what a clip is


def test_probe_says_what_a_clip_is(plain):
    info = video.probe(plain)
    assert (info.codec, info.pix_fmt, info.bit_depth, info.audio) == ("h264", "yuv420p", 8, "aac")
    assert (info.width, info.height, info.frames, info.fps, info.variable) == (128, 96, 24, 24.0, False)
    assert info.duration == pytest.approx(1.0, abs=1e-6)
    assert (info.color_matrix, info.matrix_assumed, info.color_range) == ("bt601", True, "limited")
    assert VideoInfo.from_json(info.as_json()) == info


def test_a_list_of_containers_and_codecs_is_read(tmp_path):
    kinds = [("a.mkv", "libx264"), ("b.webm", "libvpx-vp9"), ("c.webm", "libvpx"), ("d.avi", "libx264")]
    kinds += [("e.ts", "libx264"), ("f.mov", "libx265"), ("g.mp4", "libsvtav1"), ("h.mpg", "mpeg2video")]
    for name, codec in kinds:
        quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
        path = zoo.make_clip(tmp_path / name, frames=12, codec=codec, options=quiet)
        assert decoded(path)[1] == list(range(12)), name
        assert video.probe(path).fps == pytest.approx(24, abs=0.01), name


# --- the right frames


@pytest.mark.parametrize("backend", ["auto", "pyav", "decord"])
def test_every_frame_once_in_order(plain, backend):
    times, numbers = decoded(plain, backend=backend)
    assert numbers == list(range(24))
    assert times == pytest.approx([k / 24 for k in range(24)])


def test_both_decoders_give_the_same_frames(plain, tmp_path):
    tagged = zoo.make_clip(tmp_path / "t.mp4", matrix="bt709")
    opened = zoo.make_clip(tmp_path / "o.mp4", options={"x264-params": "open-gop=1:keyint=6:bframes=3"})
    for path in (plain, tagged, opened):
        notes = list[str]()
        pairs = zip(video.decode(path), video.decode(path, backend="decord", on_note=notes.append), strict=True)
        assert all(s == t and np.abs(a.astype(int) - b).mean() < 3 for (s, a), (t, b) in pairs)
        assert notes == []  # decord's own to the end


def test_trims_by_index_and_by_time(plain):
    assert decoded(plain, Selection(first=5, last=9))[1] == [5, 6, 7, 8, 9]
    assert decoded(plain, Selection(start=0.25, end=0.5))[1] == [6, 7, 8, 9, 10, 11]
    assert decoded(plain, Selection(start=0.25, end=0.5), backend="pyav")[0][0] == pytest.approx(0.25)
    assert decoded(plain, Selection(start=0.9))[1] == [22, 23]


def test_resampling_takes_what_is_on_screen(plain, tmp_path):
    assert decoded(plain, Selection(fps=12))[1] == list(range(0, 24, 2))
    assert decoded(plain, Selection(fps=48))[1] == [k // 2 for k in range(48)]
    uneven = zoo.make_clip(tmp_path / "vfr.mp4", vfr=True)
    times = zoo.vfr_times(24, 24)
    info = video.probe(uneven)
    assert info.variable
    assert info.fps == pytest.approx(23 / times[-1], rel=1e-4)
    got_times, numbers = decoded(uneven, Selection(fps=10))
    assert got_times == pytest.approx([k / 10 for k in range(len(numbers))])
    assert numbers == [sum(t <= k / 10 + 1e-6 for t in times) - 1 for k in range(len(numbers))]
    assert decoded(uneven)[0] == pytest.approx(times, abs=1e-4)


def test_millisecond_clocks_do_not_slip_a_frame(tmp_path):
    path = zoo.make_clip(tmp_path / "ms.mkv", fps=Fraction(30000, 1001), frames=30)
    assert video.probe(path).fps == pytest.approx(29.97, abs=0.001)
    assert decoded(path, Selection(fps=30000 / 1001))[1] == list(range(30))


def test_selections_that_leave_nothing_are_refused(plain):
    with pytest.raises(ConfigError, match="E211"):
        list(video.decode(plain, Selection(start=5)))
    with pytest.raises(ConfigError, match="E210"):
        Selection(start=2, end=1)
    refusal("E414", lambda: video.decode(plain, Selection(max_frames=10)))


def test_rotation_is_applied_once(tmp_path):
    script = "import decord, numpy, sys; numpy.save(sys.argv[2], decord.VideoReader(sys.argv[1])[0].asnumpy())"
    for rotation in (90, 180, 270):
        path = zoo.make_clip(tmp_path / f"r{rotation}.mp4", frames=4, rotation=rotation)
        info = video.probe(path)
        assert (info.width, info.height, info.rotation) == (128, 96, rotation)
        assert decoded(path)[1] == [0, 1, 2, 3]
        # decord turns by its own reading of the matrix; it must not be loaded where PyAV is loaded later
        subprocess.run([sys.executable, "-c", script, str(path), str(tmp_path / "theirs.npy")], check=True)
        theirs = np.load(tmp_path / "theirs.npy")
        ours = next(iter(video.decode(path)))[1]
        assert np.abs(theirs.astype(int) - ours).mean() < 4  # their colours are darker


def test_mirrored_clips_are_unmirrored(tmp_path):
    for rotation, horizontal in ((0, True), (90, True), (0, False), (270, True)):
        path = zoo.make_clip(tmp_path / "m.mp4", 2, rotation=rotation, mirror="h" if horizontal else "v")
        assert video.probe(path).mirrored
        assert decoded(path)[1] == [0, 1]


def test_pixels_become_square(tmp_path):
    path = zoo.make_clip(tmp_path / "wide.mp4", frames=3, pixel_aspect=Fraction(3, 2))
    info = video.probe(path)
    assert (info.width, info.height, info.pixel_aspect) == (192, 96, "3:2")
    frames = [rgb for _, rgb in video.decode(path)]
    assert frames[0].shape == (96, 192, 3)
    assert [zoo.read_barcode(rgb) for rgb in frames] == [0, 1, 2]


def test_resizing_is_the_public_function(plain):
    full = [rgb for _, rgb in video.decode(plain)]
    for size in ((64, 48), (200, 150), (64, 150)):
        small = [rgb for _, rgb in video.decode(plain, size=size)]
        assert small[3].shape == (size[1], size[0], 3)
        assert all(np.array_equal(video.resize(a, size), b) for a, b in zip(full, small, strict=True))


# --- the right colours


@pytest.mark.parametrize("matrix", ["bt601", "bt709", None])
@pytest.mark.parametrize("full_range", [False, True])
def test_colours_come_back(tmp_path, matrix, full_range):
    path = zoo.make_clip(tmp_path / "c.mp4", 2, matrix=matrix, full_range=full_range, options={"crf": "4"})
    info = video.probe(path)
    assert (info.color_matrix, info.matrix_assumed) == (matrix or "bt601", matrix is None)
    assert info.color_range == ("full" if full_range else "limited")
    for _, rgb in video.decode(path):
        assert zoo.patch_error(rgb) <= 3


def test_ten_bits_become_eight_with_a_note(tmp_path):
    path = zoo.make_clip(tmp_path / "ten.mp4", 3, pix_fmt="yuv420p10le", matrix="bt709", options={"crf": "4"})
    info = video.probe(path)
    assert info.bit_depth == 10
    assert any("8 bits" in note for note in info.notes)
    assert max(zoo.patch_error(rgb) for _, rgb in video.decode(path)) <= 3


# --- refusals


def test_names_that_are_no_local_file(tmp_path, plain):
    for url in ("http://127.0.0.1:9/a.mp4", "concat:a.mp4|b.mp4", "data:video/mp4;base64,AAAA", "pipe:0"):
        refusal("E404", lambda url=url: video.probe(url))
    assert "plain.mp4" in refusal("E400", lambda: video.probe(plain.with_name("plian.mp4"))).hint
    refusal("E400", lambda: video.probe(tmp_path))
    refusal("E400", lambda: video.probe("a\0b"))
    colon = tmp_path / "http:clip.mp4"  # a file may be called so
    colon.write_bytes(plain.read_bytes())
    assert video.probe(colon).frames == 24


@pytest.mark.parametrize(
    ("code", "content"),
    [
        ("E401", b""),
        ("E402", b"<html><body>404 not found</body></html>\n" * 20),
        ("E402", bytes(range(256)) * 40),
        ("E403", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"),
        ("E403", b"\xef\xbb\xbfffconcat version 1.0\nfile plain.mp4\n"),
        ("E403", b'<?xml version="1.0"?>\n<MPD><BaseURL>a.mp4</BaseURL></MPD>'),
        ("E402", b"\x1aE\xdf\xa3" + b"\0" * 500),
    ],
)
def test_files_that_are_no_clip(tmp_path, code, content):
    path = tmp_path / "x.mp4"
    path.write_bytes(content)
    error = refusal(code, lambda: video.probe(path))
    assert str(path) in error.message


def test_cut_files(tmp_path, plain, faststart):
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(plain.read_bytes()[: plain.stat().st_size // 2])
    refusal("E405", lambda: video.probe(cut))
    cut.write_bytes(faststart.read_bytes()[: int(faststart.stat().st_size * 0.6)])
    assert any("truncated" in note for note in video.probe(cut).notes)
    assert "48" in refusal("E406", lambda: video.decode(cut)).message
    numbers = decoded(cut, on_damage="conceal")[1]
    assert 5 < len(numbers) < 48
    assert numbers[:5] == [0, 1, 2, 3, 4]
    assert decoded(cut, Selection(last=3))[1] == [0, 1, 2, 3]


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".avi", ".ts"])
def test_cut_files_without_an_index(tmp_path, suffix):
    codec = "libvpx-vp9" if suffix == ".webm" else "libx264"
    path = zoo.make_clip(tmp_path / f"whole{suffix}", 48, codec=codec)
    assert decoded(path)[1] == list(range(48))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 4 // 5])
    refusal("E406", lambda: video.decode(path))
    assert 5 < sum(1 for _ in video.decode(path, on_damage="conceal")) < 48


def test_flipped_bytes_are_found(tmp_path, faststart):
    found = 0
    for seed in range(6):
        path = zoo.flip_bytes(faststart, tmp_path / f"{seed}.mp4", seed=seed)
        for backend in ("auto", "pyav"):
            error = refusal("E407", lambda path=path, backend=backend: video.decode(path, backend=backend))
            found += "frame" in error.message
        notes: list[str] = []
        assert sum(1 for _ in video.decode(path, on_damage="conceal", on_note=notes.append)) > 30
        assert "damage" in notes[0]
    assert found == 12


def test_clips_without_usable_pictures(tmp_path):
    message = refusal("E409", lambda: video.probe(zoo.make_sound(tmp_path / "a.mp4"))).message
    assert "aac" in message
    refusal("E411", lambda: video.probe(zoo.make_clip(tmp_path / "b.mp4", 2, size=(64, 8))))
    refusal("E411", lambda: video.probe(zoo.make_clip(tmp_path / "c.mp4", 2, size=(640, 16))))
    plain = zoo.make_clip(tmp_path / "d.mp4", 2)
    refusal("E414", lambda: video.probe(plain, Limits(max_pixels=64 * 64)))
    refusal("E414", lambda: video.probe(plain, Limits(max_frames=1)))


def test_nothing_that_decodes(tmp_path, faststart):
    data = bytearray(faststart.read_bytes())
    start = data.index(b"mdat") + 4
    data[start:] = bytes(len(data) - start)
    path = tmp_path / "void.mp4"
    path.write_bytes(data)
    refusal("E410", lambda: video.probe(path))


def test_a_change_of_resolution_names_the_frame(tmp_path):
    first = zoo.make_clip(tmp_path / "1.ts", 8, size=(128, 96))
    second = zoo.make_clip(tmp_path / "2.ts", 8, size=(160, 96))
    both = tmp_path / "both.ts"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    error = refusal("E412", lambda: video.decode(both, on_damage="conceal"))
    assert "128x96 to 160x96" in error.message


def test_memory_is_limited(tmp_path):
    # The largest there may be: what a smaller one takes of the memory depends on how allocations fall.
    path = zoo.make_clip(tmp_path / "big.mp4", 1, size=(8192, 4096), options={"preset": "ultrafast"})
    assert path.stat().st_size < 1 << 20
    refusal("E414", lambda: video.decode(path, limits=Limits(data_bytes=300 << 20, stall=60)))
    assert video.probe(path).width == 8192  # the limit was that request's alone


# --- the child


def test_a_child_that_stalls_is_killed(plain):
    with borrow() as worker:
        os.kill(worker.pid, signal.SIGSTOP)
        worker.begin(str(plain), stall=0.3, wall=10)
        worker.send({"op": "probe", "path": str(plain), "limits": Limits().as_json()})
        error = refusal("E408", lambda: worker.receive()[0].get("nothing"))
        pid = worker.pid
    assert "0.3 s" in error.message
    assert not Path(f"/proc/{pid}").exists()
    assert video.probe(plain).frames == 24


def test_a_child_that_crashes_is_named(plain):
    frames = video.decode(plain, backend="pyav", size=(1280, 960))
    next(frames)
    child = _children(os.getpid())[-1]
    os.kill(child, signal.SIGSEGV)
    assert "SIGSEGV" in refusal("E416", lambda: frames).message
    assert video.probe(plain).frames == 24


def test_a_crash_of_decord_goes_on_with_pyav(plain):
    frames = video.decode(plain, backend="decord", size=(1280, 960))
    numbers = [zoo.read_barcode(next(frames)[1])]
    os.kill(_children(os.getpid())[-1], signal.SIGSEGV)
    numbers += [zoo.read_barcode(rgb) for _, rgb in frames]
    assert numbers == list(range(24))


def test_no_orphan_outlives_its_parent(plain):
    script = (
        "import sys, time\nfrom retake import video\n"
        f"frames = video.decode({str(plain)!r}, size=(1280, 960))\nnext(frames)\n"
        "print('ready', flush=True)\ntime.sleep(60)\n"
    )
    root = str(Path(video.__file__).parents[2])
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": root}
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"ready\n"
    orphans = _children(parent.pid)
    assert orphans
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 5
    while any(_runs(pid) for pid in orphans) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(_runs(pid) for pid in orphans)


def test_stopping_early_leaves_the_child_usable(plain):
    for _ in range(3):
        frames = video.decode(plain, size=(640, 480))
        assert zoo.read_barcode(next(frames)[1]) == 0
        frames.close()
    before = _children(os.getpid())
    assert decoded(plain)[1] == list(range(24))
    assert _children(os.getpid()) == before


def test_two_clips_at_once(plain, faststart):
    pairs = itertools.islice(zip(video.decode(plain), video.decode(faststart), strict=False), 24)
    assert [(zoo.read_barcode(a), zoo.read_barcode(b)) for (_, a), (_, b) in pairs] == [(k, k) for k in range(24)]


def test_importing_loads_no_codec():
    code = "import sys, retake.video.client, retake.video.writer; "
    code += "print([m for m in ('av', 'cv2', 'decord', 'torch') if m in sys.modules])"
    root = str(Path(video.__file__).parents[2])
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": root}
    )
    assert said.stdout.strip() == "[]"


# --- encoding


def test_a_round_trip_keeps_frames_rate_sound_and_comment(tmp_path, plain):
    import av

    frames = [zoo.picture(k, (128, 96)) for k in range(24)]
    said = '{"seed": 7, "note": "Grüße"}'
    out = tmp_path / "deep" / "out.mp4"
    made = video.encode(out, frames, Fraction(24), audio_from=plain, comment=said, crf=4)
    assert (made.frames, made.width, made.height, made.audio, made.padded) == (24, 128, 96, "aac", (0, 0))
    assert made.bytes == out.stat().st_size
    info = video.probe(out)
    assert (info.frames, info.fps, info.pix_fmt, info.color_matrix) == (24, 24.0, "yuv420p", "bt709")
    assert not info.matrix_assumed
    assert decoded(out)[1] == list(range(24))
    assert max(zoo.patch_error(rgb) for _, rgb in video.decode(out)) <= 3
    names = zoo.boxes(out)
    assert names.index("moov") < names.index("mdat")
    with av.open(str(out)) as container:
        assert container.metadata["comment"] == said
    source, copied = zoo.packets(plain, "audio"), zoo.packets(out, "audio")
    assert copied == source[: len(copied)]
    assert len(copied) >= len(source) - 2
    assert [p.name for p in out.parent.iterdir()] == ["out.mp4"]


def test_sound_starts_where_it_is_told(tmp_path, plain):
    frames = [zoo.picture(k, (128, 96)) for k in range(6)]
    video.encode(tmp_path / "o.mp4", frames, 24, audio_from=plain, audio_start=0.5)
    source, copied = zoo.packets(plain, "audio"), zoo.packets(tmp_path / "o.mp4", "audio")
    at = source.index(copied[0])
    assert copied == source[at : at + len(copied)]
    assert (at - 1) * 1024 / 44100 == pytest.approx(0.5, abs=1024 / 44100)
    assert len(copied) * 1024 / 44100 == pytest.approx(0.25, abs=1024 / 44100)


def test_a_clip_without_sound_leaves_a_note(tmp_path):
    silent = zoo.make_clip(tmp_path / "silent.mp4", 3)
    made = video.encode(tmp_path / "a.mp4", [zoo.picture(0, (64, 48))] * 3, 24, audio_from=silent)
    assert made.audio is None
    assert "no sound" in made.notes[0]


def test_equal_frames_give_equal_bytes(tmp_path, plain):
    frames = [zoo.picture(k, (128, 96)) for k in range(24)]
    for name in ("a", "b"):
        video.encode(tmp_path / f"{name}.mp4", frames, 24, audio_from=plain, comment="x", keyint=8)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_odd_sizes_are_padded_by_their_edge(tmp_path):
    frames = [zoo.picture(k, (97, 65)) for k in range(4)]
    made = video.encode(tmp_path / "odd.mp4", frames, 24, crf=1)
    assert (made.width, made.height, made.padded) == (98, 66, (1, 1))
    last = [rgb for _, rgb in video.decode(tmp_path / "odd.mp4")][-1]
    assert last.shape == (66, 98, 3)
    assert np.abs(last[:65, :97].astype(int) - frames[-1]).mean() < 6
    assert np.abs(last[5, 97].astype(int) - frames[-1][5, 96]).max() <= 6


def test_uneven_times_survive(tmp_path):
    times = zoo.vfr_times(12, 24)
    frames = (zoo.picture(k, (128, 96)) for k in range(12))
    made = video.encode(tmp_path / "v.mp4", frames, 24, timestamps=[t + 3 for t in times])
    assert made.frames == 12
    got, numbers = decoded(tmp_path / "v.mp4")
    assert numbers == list(range(12))
    assert got == pytest.approx(times, abs=1e-4)
    with pytest.raises(ValueError, match="rise"):
        video.encode(tmp_path / "w.mp4", [zoo.picture(0, (64, 48))] * 2, 24, timestamps=[0, 0])


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    rng = np.random.default_rng(0)
    noise = (rng.integers(0, 255, (96, 128, 3), np.uint8) for _ in range(60))
    with pytest.raises(MachineError, match="E503 disk full") as caught:
        video.encode(tmp_path / "x.mp4", noise, 24, crf=0, limits=Limits(output_bytes=200_000))
    assert "bytes" in caught.value.message
    assert list(tmp_path.iterdir()) == []
    assert video.encode(tmp_path / "y.mp4", [zoo.picture(0, (64, 48))], 24).frames == 1


def test_frames_that_fail_leave_nothing_behind(tmp_path):
    def failing():
        yield zoo.picture(0, (128, 96))
        raise RuntimeError("a stage failed")

    with pytest.raises(RuntimeError, match="a stage failed"):
        video.encode(tmp_path / "x.mp4", failing(), 24)
    with pytest.raises(ValueError, match="preset"):
        video.encode(tmp_path / "x.mp4", [zoo.picture(0, (64, 48))], 24, preset="brisk")
    for bad in ([], [np.zeros((8, 8), np.uint8)], [zoo.picture(0, (64, 48)), zoo.picture(0, (32, 48))]):
        with pytest.raises(ValueError):
            video.encode(tmp_path / "x.mp4", bad, 24)
    assert list(tmp_path.iterdir()) == []
    frames = [zoo.picture(k, (64, 48)) for k in range(3)]
    assert video.encode(tmp_path / "x.mp4", frames, 24).frames == 3


# --- still images


def test_images_are_read_as_rgb(tmp_path):
    import cv2

    rgb = zoo.picture(5, (96, 64))
    video.write_png(tmp_path / "a.png", rgb)
    assert np.array_equal(video.read_image(tmp_path / "a.png"), rgb)
    rgba = np.dstack([rgb, np.full((64, 96), 77, np.uint8)])
    video.write_png(tmp_path / "b.png", rgba)
    assert np.array_equal(video.read_image(tmp_path / "b.png"), rgba)
    video.write_png(tmp_path / "c.png", rgb[:, :, 0])
    assert np.array_equal(video.read_image(tmp_path / "c.png"), np.repeat(rgb[:, :, :1], 3, axis=2))
    for suffix in (".jpg", ".webp", ".bmp", ".tiff"):
        cv2.imwrite(str(tmp_path / f"d{suffix}"), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
        read = video.read_image(tmp_path / f"d{suffix}")
        assert read.shape == rgb.shape
        assert np.abs(read.astype(int) - rgb).mean() < 8, suffix
    deep = np.array([[0, 128, 129, 65535, 32768]], np.uint16).repeat(4, 0)
    cv2.imwrite(str(tmp_path / "e.png"), deep)
    assert video.read_image(tmp_path / "e.png")[0, :, 0].tolist() == [0, 0, 1, 255, 128]


def test_image_bombs_and_ruins_are_refused(tmp_path):
    def png(width: int, height: int) -> bytes:
        body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))

    path = tmp_path / "x.png"
    path.write_bytes(png(60000, 60000))
    assert "60000x60000" in refusal("E421", lambda: video.read_image(path)).message
    path.write_bytes(png(32, 32))
    refusal("E420", lambda: video.read_image(path))
    path.write_bytes(b"P6 99999 99999 255\n")
    refusal("E420", lambda: video.read_image(path))
    path.write_bytes(b"")
    refusal("E401", lambda: video.read_image(path))
    refusal("E400", lambda: video.read_image(tmp_path / "none.png"))
    video.write_png(path, zoo.picture(0, (64, 48)))
    refusal("E421", lambda: video.read_image(path, max_pixels=64 * 47))
    path.write_bytes(path.read_bytes()[:200])
    refusal("E420", lambda: video.read_image(path))


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_images_are_read_by_a_child_that_decoded_with_decord_before(tmp_path: Path) -> None:
    """decord brings a zlib of its own; loaded before OpenCV it broke OpenCV's PNG reader in the same process."""
    clip = tmp_path / "clip.mp4"
    zoo.make_clip(clip)
    video.write_png(tmp_path / "picture.png", np.full((40, 50, 3), 77, np.uint8))
    video.shutdown()  # a fresh child, in which decord comes first
    assert len(list(video.decode(clip, backend="decord"))) == 24
    assert video.read_image(tmp_path / "picture.png").shape == (40, 50, 3)
