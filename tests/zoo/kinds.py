"""The media zoo: kinds of clips and of files that are none, each with what must come out of it.

    kind = BY_NAME["webm-vp9"]
    kind.build(folder)       write the file, return its path
    kind.frames              barcode numbers of the frames that must come, in order, or None where it is refused
    kind.code                the code that refuses it, or ""

Everything is made in code. `rows` are the rows of the list of bad inputs (0: a plain clip) that a kind stands for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from . import flip_bytes, make_clip, make_sound, patches, picture

os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder prints its settings otherwise

FRAMES = 12
# One thread: what most encoders write depends on how many they have.
_ONE = {"threads": "1"}
_X265 = {"x265-params": "log-level=none:pools=none:frame-threads=1"}
_SVT = {"preset": "10", "svtav1-params": "lp=1"}
_HASHED = {"x265-params": _X265["x265-params"] + ":hash=1"}
_OPEN = {"x264-params": "open-gop=1:keyint=6:bframes=3"}
_FRONT = {"movflags": "+faststart"}
_FAST = {"preset": "ultrafast"}


@dataclass(frozen=True)
class Kind:
    """One kind of file, and what Retake must do with it."""

    name: str
    suffix: str
    make: Callable[[Path], Path]
    rows: tuple[int, ...] = ()
    frames: tuple[int, ...] | None = tuple(range(FRAMES))
    code: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    """Fields of VideoInfo and their values."""
    note: str = ""
    """Words of one of the probe's notes."""
    limits: dict[str, Any] = field(default_factory=dict)
    decord: bool = False
    """decord reads it as well."""

    def build(self, folder: Path) -> Path:
        """Write the file into `folder`."""
        return self.make(folder / f"{self.name}{self.suffix}")


def _the_same(settings: dict[str, Any]) -> dict[str, Any]:
    """Options with which a kind has the same bytes wherever and whenever it is built."""
    return {
        "options": _ONE | settings.get("options", {}),
        "container_options": patches.BIT_EXACT | settings.get("container_options", {}),
    }


def _clip(name: str, suffix: str, codec: str = "libx264", rows: tuple[int, ...] = (), **settings: Any) -> Kind:
    """A kind that `make_clip` makes; what is no field of Kind goes to it."""
    known = {k: settings.pop(k) for k in ("frames", "code", "facts", "note", "limits", "decord") if k in settings}
    count = settings.pop("count", FRAMES)
    settings |= _the_same(settings)
    if "frames" not in known:
        known["frames"] = None if known.get("code") else tuple(range(count))
    return Kind(name, suffix, lambda path: make_clip(path, count, codec=codec, **settings), rows, **known)


def _bytes(name: str, suffix: str, content: bytes, code: str, *rows: int) -> Kind:
    def make(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return Kind(name, suffix, make, rows, None, code)


def _from(build: Callable[..., Path], change: Callable[[Path, Path], Path], **settings: Any) -> Callable[[Path], Path]:
    """Make a clip beside the target, change it into the target, remove it."""
    settings |= _the_same(settings)

    def make(path: Path) -> Path:
        source = build(path.with_name("source-" + path.name), **settings)
        made = change(source, path)
        source.unlink()
        return made

    return make


def _patch(change: Callable[[bytearray], Any], **settings: Any) -> Callable[[Path], Path]:
    return _from(make_clip, lambda source, target: patches.patched(source, target, change), **settings)


def _cut(share: float, **settings: Any) -> Callable[[Path], Path]:
    return _from(make_clip, lambda source, target: patches.cut(source, target, share), **settings)


def _x264(params: str) -> dict[str, str]:
    return {"x264-params": params}


def _still(path: Path) -> Path:
    import cv2

    _, data = cv2.imencode(".png", picture(3, (128, 96))[:, :, ::-1])
    path.write_bytes(data.tobytes())
    return path


def _two_sizes(path: Path) -> Path:
    parts = [path.with_name(f"{k}-{path.name}") for k in range(2)]
    for part, size in zip(parts, ((128, 96), (160, 96)), strict=True):
        make_clip(part, 8, size=size, options={"bf": "0"})
    patches.in_one_stream(parts, path)
    for part in parts:
        part.unlink()
    return path


_PLAIN = [
    _clip("mp4-h264", ".mp4", decord=True, facts={"codec": "h264", "fps": 24.0, "variable": False, "frames": FRAMES}),
    _clip("mp4-h264-aac", ".mp4", audio=True, decord=True, facts={"audio": "aac"}),
    _clip("mp4-faststart", ".mp4", container_options=_FRONT, decord=True),
    _clip("mp4-fragments", ".mp4", container_options={"movflags": "+frag_keyframe+empty_moov"}, decord=True),
    _clip("mov-hevc", ".mov", "libx265", options=_X265, decord=True, facts={"codec": "hevc"}),
    _clip("mkv-h264", ".mkv", decord=True),
    _clip("mkv-hevc-hash", ".mkv", "libx265", options=_HASHED, decord=True),
    _clip("mkv-ffv1", ".mkv", "ffv1", facts={"codec": "ffv1"}),
    _clip("mkv-mpeg4", ".mkv", "mpeg4", options={"g": "6", "bf": "2"}),
    _clip("webm-vp8", ".webm", "libvpx", facts={"codec": "vp8"}),
    _clip("webm-vp9", ".webm", "libvpx-vp9", decord=True, facts={"codec": "vp9"}),
    _clip("webm-av1", ".webm", "libsvtav1", (21,), options=_SVT, facts={"codec": "av1"}),
    _clip("mp4-av1", ".mp4", "libsvtav1", (21,), options=_SVT, facts={"codec": "av1"}),
    _clip("avi-h264", ".avi", facts={"container": "avi"}),
    _clip("avi-mpeg4", ".avi", "mpeg4"),
    _clip("avi-mjpeg", ".avi", "mjpeg", pix_fmt="yuvj420p", full_range=True, facts={"color_range": "full"}),
    _clip("ts-h264", ".ts", facts={"container": "mpegts"}),
    _clip("ts-mpeg2", ".ts", "mpeg2video", fps=25, facts={"codec": "mpeg2video"}),
    _clip("mpg-mpeg1", ".mpg", "mpeg1video", fps=25, facts={"container": "mpeg"}),
    _clip("mpg-mpeg2", ".mpg", "mpeg2video", fps=25),
    _clip("ogg-vp8", ".ogv", "libvpx", facts={"container": "ogg"}),
    _clip("gif", ".gif", "gif", pix_fmt="rgb8", facts={"container": "gif", "color_matrix": "rgb"}),
    _clip("mov-prores", ".mov", "prores_ks", pix_fmt="yuv422p10le", note="8 bits", facts={"bit_depth": 10}),
    _clip("mov-dnxhr", ".mov", "dnxhd", size=(256, 128), pix_fmt="yuv422p", options={"profile": "dnxhr_lb"}),
    _clip("mov-png", ".mov", "png", pix_fmt="rgb24", facts={"color_matrix": "rgb"}),
    _clip("mp4-all-intra", ".mp4", options={"g": "1"}, decord=True),
    _clip("mp4-open-gop", ".mp4", options=_OPEN, decord=True),
    _clip("mp4-closed-gop", ".mp4", options=_x264("open-gop=0:keyint=6:bframes=0"), decord=True),
    _clip("mkv-b-frames", ".mkv", options=_x264("bframes=3:b-pyramid=normal"), decord=True),
    _clip("mp4-cavlc-slices", ".mp4", options=_x264("cabac=0:slices=3:keyint=6"), decord=True),
]

_PHONE: dict[str, Any] = {"rotation": 90, "matrix": "bt2020", "transfer": 18}
# As programs that people use write them by default.
_PROGRAMS = [
    _clip("flv-obs-h264", ".flv", audio=True, facts={"container": "flv", "codec": "h264", "audio": "aac"}),
    _clip("flv-sorenson", ".flv", "flv", facts={"codec": "flv1"}),
    _clip("mkv-obs", ".mkv", audio=True, matrix="bt709", options=_x264("keyint=48:bframes=2"), decord=True),
    _clip("wmv-msmpeg4", ".wmv", "msmpeg4", facts={"container": "asf"}),
    _clip("wmv-wmv2", ".wmv", "wmv2", facts={"codec": "wmv2"}),
    _clip("mxf-mpeg2", ".mxf", "mpeg2video", fps=25, options={"g": "1"}, facts={"container": "mxf"}),
    _clip("mxf-dnxhd", ".mxf", "dnxhd", size=(256, 128), pix_fmt="yuv422p", options={"profile": "dnxhr_lb"}, fps=25),
    _clip("apng", ".apng", "apng", pix_fmt="rgb24", facts={"container": "apng", "color_matrix": "rgb"}),
    _clip("apng-alpha", ".apng", "apng", pix_fmt="rgba", note="transparency"),
    _clip("3gp-h263", ".3gp", "h263", size=(128, 96), facts={"codec": "h263"}),
    _clip("m4v-mpeg4", ".m4v", "mpeg4", facts={"codec": "mpeg4"}),
    _clip("avi-opencv-mjpg", ".avi", "mjpeg", pix_fmt="yuvj420p", container_options={"fflags": "+bitexact"}),
    _clip("avi-huffyuv", ".avi", "huffyuv", pix_fmt="yuv422p", facts={"codec": "huffyuv"}),
    _clip("avi-raw", ".avi", "rawvideo", facts={"codec": "rawvideo"}),
    _clip("avi-ut-video", ".avi", "utvideo", pix_fmt="gbrp", facts={"color_matrix": "rgb"}),
    _clip("mov-mjpeg-camera", ".mov", "mjpeg", pix_fmt="yuvj422p", full_range=True, facts={"color_range": "full"}),
    _clip("mov-phone-hlg", ".mov", "libx265", pix_fmt="yuv420p10le", **_PHONE, options=_X265, note="HDR (HLG)"),
    _clip("mov-blender-qtrle", ".mov", "qtrle", pix_fmt="rgb24", facts={"codec": "qtrle"}),
    _clip("mov-v210", ".mov", "v210", pix_fmt="yuv422p10le", facts={"bit_depth": 10}),
    _clip("mkv-ffv1-16", ".mkv", "ffv1", pix_fmt="yuv444p16le", facts={"bit_depth": 16}),
    _clip("mkv-grey", ".mkv", "ffv1", pix_fmt="gray", facts={"codec": "ffv1"}),
    _clip("mp4-hevc-hvc1-12", ".mp4", "libx265", pix_fmt="yuv444p12le", options=_X265, facts={"bit_depth": 12}),
    _clip("mp4-screen-444", ".mp4", pix_fmt="yuv444p", full_range=True, vfr=True, note="not evenly"),
    _clip("vob-dvd", ".vob", "mpeg2video", fps=25, facts={"container": "mpeg"}),
    _clip("webm-browser", ".webm", "libvpx", vfr=True, options={"deadline": "realtime"}, note="not evenly"),
]

_FORMS = [
    _clip("vfr", ".mp4", rows=(15,), vfr=True, decord=True, note="not evenly", facts={"variable": True}),
    _clip("turned-90", ".mp4", rows=(16,), rotation=90, note="turned 90", facts={"rotation": 90, "width": 128}),
    _clip("turned-180", ".mp4", rows=(16,), rotation=180, facts={"rotation": 180}),
    _clip("turned-270", ".mp4", rows=(16,), rotation=270, facts={"rotation": 270, "height": 96}),
    _clip("mirrored", ".mp4", rows=(16,), mirror="h", note="mirrored", facts={"mirrored": True}),
    _clip("10-bit", ".mp4", rows=(17,), pix_fmt="yuv420p10le", matrix="bt709", note="8 bits", facts={"bit_depth": 10}),
    _clip("hdr-pq", ".mp4", rows=(17,), pix_fmt="yuv420p10le", matrix="bt2020", transfer=16, note="HDR (PQ)"),
    _clip("hdr-hlg", ".mp4", rows=(17,), pix_fmt="yuv420p10le", matrix="bt2020", transfer=18, note="HDR (HLG)"),
    _clip("bt601", ".mp4", rows=(18,), matrix="bt601", decord=True, facts={"color_matrix": "bt601"}),
    _clip("bt709", ".mp4", rows=(18,), matrix="bt709", decord=True, facts={"matrix_assumed": False}),
    _clip("bt2020", ".mp4", rows=(18,), matrix="bt2020", note="2020", facts={"color_matrix": "bt2020"}),
    _clip("full-range", ".mp4", rows=(18,), full_range=True, matrix="bt709", facts={"color_range": "full"}),
    _clip("untagged-720", ".mp4", rows=(18,), count=3, size=(720, 720), options=_FAST, note="bt709 assumed"),
    _clip("alpha", ".mov", "qtrle", (19,), pix_fmt="argb", note="transparency"),
    _clip("alpha-prores", ".mov", "prores_ks", (19,), pix_fmt="yuva444p10le", note="transparency"),
    _clip("alpha-vp9", ".webm", "libvpx-vp9", (19,), pix_fmt="yuva420p", note="transparency", facts={"codec": "vp9"}),
    _clip("odd-size", ".webm", "libvpx-vp9", (11,), size=(129, 97), decord=True, facts={"width": 129, "height": 97}),
    _clip("odd-size-444", ".mp4", rows=(11,), size=(131, 97), pix_fmt="yuv444p", facts={"width": 131}),
    _clip("tiny", ".mp4", rows=(12,), count=2, size=(64, 8), code="E411"),
    _clip("extreme-aspect", ".mp4", rows=(12,), count=2, size=(640, 16), code="E411"),
    _clip("giant-frame", ".mp4", rows=(13,), count=1, size=(8208, 4112), options=_FAST, code="E414"),
    _clip("too-many-frames", ".mp4", rows=(14,), limits={"max_frames": 5}, code="E414"),
    _clip("interlaced", ".ts", rows=(20,), options=_x264("interlaced=1"), note="woven", facts={"interlaced": True}),
    _clip("wide-pixels", ".mp4", rows=(20,), pixel_aspect=Fraction(3, 2), facts={"width": 192, "pixel_aspect": "3:2"}),
    _clip("single-frame", ".mp4", rows=(10,), count=1, decord=True, facts={"frames": 1}),
    Kind("two-sizes", ".ts", _two_sizes, (20,), None, "E412"),
    Kind(
        "edit-list",
        ".mp4",
        _patch(lambda data: patches.skip_by_edit_list(data, 4 * 512), options={"g": "1", "bf": "0"}, frames=FRAMES),
        (20,),
        tuple(range(4, FRAMES)),
        decord=True,
    ),
    Kind(
        "trimmed-open-gop",
        ".mp4",
        _patch(lambda data: patches.skip_by_edit_list(data, 1024 + 8 * 512), options=_OPEN, frames=FRAMES),
        (20,),
        tuple(range(8, FRAMES)),
        decord=True,
    ),
    Kind(
        "trimmed-end",
        ".mp4",
        _patch(lambda data: patches.end_by_edit_list(data, 250), options=_OPEN, frames=FRAMES),
        (20,),
        tuple(range(6)),
        decord=True,
    ),
    Kind(
        "negative-times",
        ".mkv",
        _from(
            make_clip,
            lambda a, b: patches.retimed(a, b, lambda k: 42 * (k - 3)),
            frames=FRAMES,
            options={"bf": "0"},
        ),
        (20,),
        decord=True,
    ),
    Kind(
        "hours-apart",
        ".mkv",
        _from(make_clip, lambda a, b: patches.retimed(a, b, lambda k: 9_000_000 * k), frames=3, options={"bf": "0"}),
        (15,),
        tuple(range(3)),
        decord=True,
    ),
    Kind(
        "twin-times",
        ".mkv",
        _from(
            make_clip,
            lambda a, b: patches.retimed(a, b, lambda k: 40 * (k - k % 2)),
            frames=FRAMES,
            options={"bf": "0"},
        ),
        (20,),
        decord=True,
    ),
]

_MPD = b'<?xml version="1.0"?>\n<MPD><BaseURL>mp4-h264.mp4</BaseURL></MPD>'
_RUINS = [
    Kind("sound-only", ".mp4", make_sound, (9,), None, "E409"),
    _bytes("empty", ".mp4", b"", "E401", 1),
    _bytes("text", ".mp4", b"The clip could not be exported.\n" * 20, "E402", 2),
    _bytes("html", ".mp4", b"<!doctype html><html><body>404 not found</body></html>\n" * 20, "E402", 2),
    _bytes("noise", ".mp4", bytes(k * k * 7 % 251 for k in range(6000)), "E402", 2),
    _bytes("playlist-m3u8", ".mp4", b"#EXTM3U\n#EXTINF:1,\nmp4-h264.mp4\n#EXT-X-ENDLIST\n", "E403", 3),
    _bytes("playlist-ffconcat", ".mp4", b"ffconcat version 1.0\nfile mp4-h264.mp4\n", "E403", 3),
    _bytes("playlist-mpd", ".mp4", _MPD, "E403", 3),
    Kind("cut-mp4", ".mp4", _cut(0.5, frames=FRAMES), (5,), None, "E405"),
    Kind("cut-faststart", ".mp4", _cut(0.6, frames=48, container_options=_FRONT), (6,), None, "E406"),
    Kind("cut-mkv", ".mkv", _cut(0.7, frames=48), (6,), None, "E406"),
    Kind("cut-ts", ".ts", _cut(0.7, frames=48), (6,), None, "E406"),
    Kind("cut-avi", ".avi", _cut(0.7, frames=48), (6,), None, "E406"),
    Kind("flipped-payload", ".mp4", _from(make_clip, flip_bytes, container_options=_FRONT), (7,), None, "E407"),
    Kind("flipped-ffv1", ".mkv", _patch(patches.invert, codec="ffv1"), (7,), None, "E407"),
    Kind("flipped-ogg", ".ogv", _patch(patches.invert, codec="libvpx"), (7,), None, "E407"),
    Kind("flipped-gif", ".gif", _patch(patches.invert, codec="gif", pix_fmt="rgb8"), (7,), None, "E407"),
    Kind("flipped-hevc", ".mkv", _patch(patches.invert, codec="libx265", options=_HASHED), (7,), None, "E407"),
    Kind("lost-cluster", ".webm", _patch(patches.zero, codec="libvpx"), (7,), None, "E407"),
    Kind("cut-gif", ".gif", _cut(0.7, frames=FRAMES, codec="gif", pix_fmt="rgb8"), (6,), None, "E406"),
    Kind("cut-ogg", ".ogv", _cut(0.7, frames=FRAMES, codec="libvpx"), (6,), None, "E406"),
    Kind("over-reported", ".mp4", _patch(patches.over_report, frames=FRAMES), (8,), None, "E406"),
    Kind("extra-times", ".mp4", _patch(patches.extra_samples, frames=FRAMES), (8,), None, "E406"),
    Kind("no-pictures", ".mp4", _patch(patches.empty_samples, container_options=_FRONT), (10,), None, "E410"),
    Kind("picture", ".mp4", _still, (2,), None, "E402"),
    Kind("unknown-codec", ".mp4", _patch(patches.unknown_codec), (21,), None, "E413"),
    Kind(
        "huge-moov",
        ".mp4",
        _patch(lambda data: patches.claim_size(data, b"moov", 0x7FFFFFFF), frames=FRAMES),
        (5,),
        decord=True,
    ),
    Kind(
        "huge-mdat",
        ".mp4",
        _patch(lambda data: patches.claim_size(data, b"mdat", 0x7FFFFFFF), frames=FRAMES, container_options=_FRONT),
        (6,),
        decord=True,
    ),
]

KINDS = (*_PLAIN, *_PROGRAMS, *_FORMS, *_RUINS)
BY_NAME = {kind.name: kind for kind in KINDS}
