"""Which decoder reads a clip: a rule on what `probe` found, so that a plan knows it beforehand."""

from __future__ import annotations

from .info import Selection, VideoInfo

_DECORD_CONTAINERS = ("mov,", "matroska,")  # it rewinds in AVI and MPEG-TS and substitutes frames
_DECORD_CODECS = ("h264", "hevc", "vp9")
_DECORD_FORMATS = ("yuv420p",)  # decord 0.6 turns deeper formats into 8 bits by a different rule

# decord decodes ahead of a slow reader without bound: 8,000 frames of 320x240 took 0.6 GB and rising. So it is
# given only clips that would fit into memory whole.
_DECORD_BYTES = 1 << 28


def choose_backend(info: VideoInfo, selection: Selection) -> tuple[str, str]:
    """(`decord` or `pyav`, the reason in words) for `backend="auto"`.

    decord reads sequentially from frame 0, never seeks (it seeks wrong in open-GOP video), and only
    what both decoders were measured to turn into the same RGB, bit for bit. PyAV runs beside it in any
    case, strict and without colour conversion, to find the damage that decord would hide and to give
    the true timestamps; a clip on which decord's pixels or frame count differ is decoded by PyAV alone.
    So the pixels are PyAV's, whatever is chosen.
    """
    for true, reason in _reasons(info, selection):
        if true:
            return "pyav", reason
    return "decord", "8-bit 4:2:0, limited range, upright, square pixels, read from frame 0"


def fits_decord(info: VideoInfo) -> bool:
    """True when all frames of the clip together, as RGB, stay under 256 MiB."""
    return info.frames * info.coded_width * info.coded_height * 3 <= _DECORD_BYTES


def _reasons(info: VideoInfo, selection: Selection) -> list[tuple[bool, str]]:
    return [
        (not info.container.startswith(_DECORD_CONTAINERS), f"decord loses frames of {info.container}"),
        (info.codec not in _DECORD_CODECS, f"decord does not read {info.codec} reliably"),
        (info.pix_fmt not in _DECORD_FORMATS, f"decord converts {info.pix_fmt} differently"),
        (info.color_range != "limited", "full colour range"),
        (info.rotation != 0 or info.mirrored, f"rotated by {info.rotation} degrees"),
        (info.interlaced, "interlaced: decord converts the chroma of fields differently"),
        (info.pixel_aspect != "1:1", f"pixels are {info.pixel_aspect}, not square"),
        (info.color_matrix not in ("bt601", "bt709"), f"colour matrix {info.color_matrix}"),
        (
            info.matrix_assumed and info.color_matrix == "bt709",
            "untagged from 720 lines: decord takes BT.601",
        ),
        (0 < info.promised < info.frames, "the index names fewer frames than there are"),
        (not fits_decord(info), "too long for decord, which decodes ahead of its reader without bound"),
        (selection.fps is not None, "resampled on true timestamps"),
    ]


def backend_version(name: str) -> str:
    """`pyav 18.1.0` or `decord 0.6.0`, for cache keys. Imports neither.

    Raises ValueError for another name, MachineError E303 when the package is not installed.
    """
    from importlib.metadata import PackageNotFoundError, version

    from retake.errors import MachineError

    packages = {"pyav": "av", "decord": "decord"}
    if name not in packages:
        raise ValueError(f"no decoder {name!r}: there are {', '.join(sorted(packages))}")
    try:
        return f"{name} {version(packages[name])}"
    except PackageNotFoundError:
        raise MachineError("E303", f"the decoder {name} is not installed", f"pip install {packages[name]}") from None
