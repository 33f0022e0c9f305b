"""What an HDR10 clip says of the display it was graded on and of its light (SMPTE ST 2086, CTA-861.3).

Runs in the child.
"""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import Any

from av.error import FFmpegError
from av.sidedata.sidedata import Type

from .container import open_container, video_stream

DISPLAY, LIGHT = Type.MASTERING_DISPLAY_METADATA, Type.CONTENT_LIGHT_LEVEL
KINDS = (DISPLAY, LIGHT)
_CHROMA, _LUMINANCE = 50_000, 10_000  # x265 counts in these parts of 1, and of 1 cd/m2


def x265_params(path: str, limits: dict[str, Any]) -> str:
    """x265's parameters that say what the clip's first frame does; "" where it says nothing."""
    with open_container(path, limits) as container:
        try:
            frame = next(container.decode(video_stream(path, container)), None)
        except FFmpegError:  # damage, which whoever reads the clip tells
            frame = None
        found = {kind: bytes(frame.side_data[kind]) for kind in KINDS if kind in frame.side_data} if frame else {}
    said = ""
    if DISPLAY in found and (display := numbers(found[DISPLAY])):
        red, green, blue, white = (
            f"({round(x * _CHROMA)},{round(y * _CHROMA)})" for x, y in zip(display[:8:2], display[1:8:2], strict=True)
        )
        low, high = (round(value * _LUMINANCE) for value in display[8:])
        said += f":master-display=G{green}B{blue}R{red}WP{white}L({high},{low})"
    if LIGHT in found:
        said += ":max-cll={},{}".format(*numbers(found[LIGHT]))
    return said


def numbers(data: bytes) -> list[Fraction]:
    """Of a display: x and y of red, green, blue and white, least and most cd/m2; of light: MaxCLL and MaxFALL, cd/m2.
    Empty for a display of which not all is said. data: FFmpeg's AVMasteringDisplayMetadata or AVContentLightMetadata.
    """
    if len(data) < 88:
        return [Fraction(value) for value in struct.unpack("<2I", data[:8])]
    *parts, colours, luminance = struct.unpack("<22i", data[:88])
    if not (colours and luminance) or not all(parts[1::2]):
        return []
    return [Fraction(a, b) for a, b in zip(parts[::2], parts[1::2], strict=True)]
