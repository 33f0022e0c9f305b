"""Clips and images in, frames out, clips back: everything that touches the bytes of a video.

    probe(path)                       properties of a clip, or the error that refuses it
    decode(path, selection, size)     frames, upright, square pixels, RGB, with their true times
    decode_codes(path, selection)     the same frames as the file's own code values
    encode(target, frames, fps)       an MP4 for people: H.264, yuv420p, faststart, repeatable bytes; or a master
    read_image, write_png, resize     the same for still images

Clips and images are untrusted: all of them are parsed in a child process (`python -m retake.video.child`),
which has limits on memory, time and output and dies with its parent. Importing this package loads
none of the codecs, so it costs nothing to a command that only plans.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import decode, decode_codes, local_file, probe, read_image, selection_end
    from .info import EncodeInfo, Limits, Selection, VideoInfo
    from .pixels import png, resize, write_png
    from .process import shutdown
    from .writer import encode, set_comment

__all__ = [
    "EncodeInfo",
    "Limits",
    "Selection",
    "VideoInfo",
    "decode",
    "decode_codes",
    "encode",
    "local_file",
    "png",
    "probe",
    "read_image",
    "resize",
    "selection_end",
    "set_comment",
    "shutdown",
    "write_png",
]

_MODULES = {
    "client": ("decode", "decode_codes", "local_file", "probe", "read_image", "selection_end"),
    "info": ("EncodeInfo", "Limits", "Selection", "VideoInfo"),
    "pixels": ("png", "resize", "write_png"),
    "process": ("shutdown",),
    "writer": ("encode", "set_comment"),
}


def __getattr__(name: str) -> Any:
    # Lazy, so that the child starts without the parent's half and the parent without OpenCV.
    from importlib import import_module

    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
