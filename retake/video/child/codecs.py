"""The kinds of files that `encode` writes: encoder, container, coding and tags."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from av.error import FFmpegError

from retake.errors import MachineError
from retake.imaging.colour.coding import Coding
from retake.imaging.colour.recode import playable

from .planes import format_of, tags

THREADS = 2  # the bytes that x264 and x265 write depend on it, so it is the same on every machine


@dataclass(frozen=True)
class Codec:
    """One kind of file. `options` are the encoder's, given the request; `coding` is what it holds of a source's."""

    encoder: str
    container: str
    coding: Callable[[Coding], Coding]
    options: Callable[[dict[str, Any], Coding], dict[str, str]]
    container_options: dict[str, str]
    tag: str | None = None


def _ten_bits(source: Coding) -> Coding:
    """4:2:0 of 10 bits with the source's matrix, range, primaries and transfer; RGB becomes BT.709, or BT.2020."""
    return replace(_with_matrix(source), depth=10, step=(2, 2), siting=(0.0, 0.5), alpha=False)


def _prores(source: Coding) -> Coding:
    """4:2:2 of 10 bits, 4:4:4 where the source has more chroma or alpha; limited range, as ProRes has no other."""
    fine = source.alpha or (source.step == (1, 1) and source.layout != "gray")
    step = (1, 1) if fine else (2, 1)
    return replace(_with_matrix(source), depth=10, step=step, siting=(0.0, 0.0), full=False)


def _with_matrix(source: Coding) -> Coding:
    if source.layout == "yuv" and source.matrix != "ycgco":
        return source
    return replace(source, layout="yuv", matrix="bt2020" if source.primaries == "bt2020" else "bt709", full=False)


def _x264(request: dict[str, Any], coding: Coding) -> dict[str, str]:
    # x264's macroblock tree reads memory that nobody wrote (its AVX-512 code; seen with MALLOC_PERTURB_): without it
    # equal frames give equal bytes, whatever ran in the process before.
    return {"crf": str(request["crf"]), "preset": request["preset"], "x264-params": "mbtree=0"}


def _x265(request: dict[str, Any], coding: Coding) -> dict[str, str]:
    params = f"log-level=none:pools={THREADS}:frame-threads=1"
    if coding.transfer == "pq":
        params += ":hdr10-opt=1:repeat-headers=1" + request["hdr10"]
    return {"crf": str(request["crf"]), "preset": request["preset"], "x265-params": params}


def _ffv1(request: dict[str, Any], coding: Coding) -> dict[str, str]:
    return {"level": "3", "slicecrc": "1", "slices": "4", "g": "1"}


def _prores_ks(request: dict[str, Any], coding: Coding) -> dict[str, str]:
    return {"profile": "hq" if coding.step == (2, 1) else "4444", "vendor": "apl0"}


_X265_LEAST = 64  # pixels of a side; below it x265 4.2 writes outside its memory
_PACKED = {"rgb24": "bgr0", "rgba": "bgra"}  # what encoders of RGB take at 8 bits
_MP4 = {"movflags": "+faststart"}
CODECS = {
    "h264": Codec("libx264", "mp4", playable, _x264, _MP4),
    "hevc10": Codec("libx265", "mp4", _ten_bits, _x265, _MP4, "hvc1"),
    "prores": Codec("prores_ks", "mov", _prores, _prores_ks, {"movflags": "+write_colr"}),
    "ffv1": Codec("ffv1", "matroska", lambda source: source, _ffv1, {}),
}


def add_stream(container: Any, request: dict[str, Any], coding: Coding, size: tuple[int, int], unit: Fraction) -> Any:
    """The video stream of a new file. Raises MachineError E504 where its encoder is not built in or cannot."""
    codec = CODECS[request["codec"]]
    if codec.encoder == "libx265" and min(size) < _X265_LEAST:
        raise MachineError(
            "E504",
            f"x265 fails on pictures under {_X265_LEAST} pixels, and this clip is {size[0]}x{size[1]}",
            "Choose decode.codec=prores or ffv1.",
        )
    try:
        options = codec.options(request, coding)
        stream = container.add_stream(codec.encoder, rate=Fraction(request["fps"]), options=options)
    except (FFmpegError, ValueError) as error:
        raise MachineError(
            "E504",
            f"no encoder {codec.encoder} here ({error})",
            "pip install --force-reinstall av, whose wheel carries it.",
        ) from None
    stream.width, stream.height, stream.pix_fmt = *size, _PACKED.get(format_of(coding), format_of(coding))
    context = stream.codec_context
    context.time_base, context.thread_count = unit, THREADS
    for name, value in tags(coding).items():
        setattr(context, name, value)
    if codec.tag:
        context.codec_tag = codec.tag
    if request["keyint"]:
        context.gop_size = request["keyint"]
    return stream
