"""Masters: the result at the source's own depth, for grading and compositing; what each kind of file holds."""

from __future__ import annotations

import cv2
import numpy as np

from retake.exchange import exr
from retake.imaging.colour.coding import Coding
from retake.imaging.colour.convert import DEEP, to_rgb16
from retake.imaging.colour.planes import Planes
from retake.imaging.colour.view import chromaticities, to_light

ENDINGS = {"hevc10": "mp4", "prores": "mov", "ffv1": "mkv"}
PICTURES = {"png16": "png", "exr": "exr"}


def picture(planes: Planes, coding: Coding, kind: str) -> bytes:
    """One frame as a file. png16: non-linear R'G'B' of 16 bits in the source's primaries and transfer. exr: half float
    linear light in the source's primaries, 1 is the source's white (of HDR 203 cd/m2). Both with alpha where the source
    has it, not premultiplied."""
    alpha = planes[-1].astype(np.float32) / ((1 << coding.depth) - 1) if coding.alpha else None
    if kind == "exr":
        red, green, blue = np.moveaxis(to_light(planes, coding).astype(np.float16), -1, 0)
        channels = {"R": red, "G": green, "B": blue}
        if alpha is not None:
            channels["A"] = alpha.astype(np.float16)
        return exr.content(channels, chromaticities(coding.primaries))
    rgb = to_rgb16(planes, coding)
    if alpha is not None:
        rgb = np.dstack([rgb, np.rint(alpha * DEEP).astype(np.uint16)])
    stored = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR if alpha is None else cv2.COLOR_RGBA2BGRA)
    return cv2.imencode(".png", stored, [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes()


def notes(coding: Coding, kind: str) -> list[str]:
    """What a person should know of the files of one result: what each of them does not hold of the source."""
    said = []
    if kind == "h264" and (coding.hdr or coding.alpha or coding.depth > 8):
        held = [f"{coding.transfer.upper()}"] * coding.hdr + [f"{coding.depth} bits"] * (coding.depth > 8)
        held += ["its transparency"] * coding.alpha
        fits = "prores" if coding.alpha else "hevc10"
        said.append(f"result.mp4 is a view; for a file with {' and '.join(held)}: decode.codec={fits}")
    if kind == "hevc10" and coding.alpha:
        said.append("master.mp4 has no transparency: decode.codec=prores or ffv1")
    if kind in ("hevc10", "prores") and coding.depth > 10:
        said.append(f"the master has 10 of the source's {coding.depth} bits: decode.codec=ffv1 keeps all")
    return said
