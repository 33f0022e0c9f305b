"""Code values of decoded frames, and frames to be encoded from code values. Runs in the child."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import av
import numpy as np

from retake.errors import MediaError
from retake.imaging.colour.coding import MATRICES, PRIMARIES, TRANSFERS, UNREAD_MATRICES, UNTAGGED, Coding, number

_SUBSAMPLING = {(1, 1): "444", (2, 1): "422", (2, 2): "420", (1, 2): "440", (4, 1): "411", (4, 4): "410"}
_DEPTHS = (8, 9, 10, 12, 14, 16)
_CENTRED = ("mjpeg", "mpeg1video", "theora", "vp8")  # the others' default is the left, as in MPEG-2


def coding_of(path: str, frame: Any, codec: str) -> tuple[Coding, bool]:
    """How the code values of a frame stand for colours, and whether its matrix is a guess for want of a tag.

    Without a tag the matrix is BT.709 from 720 stored lines upwards, else BT.601; a grey picture without one has the
    full range. Raises MediaError E415 for a matrix that is not converted.
    """
    kind, tag = frame.format, int(frame.colorspace)
    parts = kind.components
    depth = max((part.bits for part in parts), default=8)
    alpha = any(part.is_alpha for part in parts)
    tags: dict[str, Any] = {
        "primaries": PRIMARIES.get(int(frame.color_primaries), UNTAGGED),
        "transfer": TRANSFERS.get(int(frame.color_trc), UNTAGGED),
    }
    matrix = MATRICES.get(tag, "bt709" if frame.height >= 720 else "bt601")
    full = int(frame.color_range) == 2 or kind.name.startswith("yuvj")
    if kind.is_rgb or kind.has_palette or kind.name.startswith("xyz") or depth not in _DEPTHS or len(parts) == 2:
        planar = kind.name.startswith(("gbrp", "gbrap")) and depth in _DEPTHS
        return Coding("rgb", depth if planar or depth == 8 else 8 if depth < 8 else 16, alpha=alpha, **tags), False
    if len(parts) == 1:
        return Coding("gray", depth, matrix=matrix, full=full or int(frame.color_range) != 1, **tags), False
    if tag in UNREAD_MATRICES:
        raise MediaError(
            "E415",
            f"{path}: its colours are coded as {UNREAD_MATRICES[tag]}, which is not converted",
            "Convert it first: ffmpeg -i IN -vf zscale=matrix=709,format=yuv444p10 -c:v ffv1 OUT.mkv",
        )
    step = (64 // kind.chroma_width(64), 64 // kind.chroma_height(64))
    siting = (0.5 * (step[0] > 1) if codec in _CENTRED else 0.0, 0.5 * (step[1] > 1))
    return Coding("yuv", depth, step, siting, alpha, matrix, full, **tags), tag not in MATRICES


def format_of(coding: Coding) -> str:
    """FFmpeg's name of the format in which planes lie in memory."""
    deep, alpha = "" if coding.depth == 8 else f"{coding.depth}le", "a" * coding.alpha
    if coding.layout == "gray":
        return f"gray{deep}"
    if coding.layout == "rgb":
        return f"rgb{alpha}{24 if not alpha else ''}" if not deep else f"gbr{alpha}p{deep}"
    return f"yuv{alpha}{_SUBSAMPLING[coding.step]}p{deep}"


def planes_of(frame: Any, coding: Coding, repack: Any) -> list[np.ndarray]:
    """The planes of a frame, as in retake/imaging/colour/planes.py, in stored orientation. `repack`: a reformatter's
    `reformat`, for frames that lie in memory otherwise (nv12, yuyv422, a palette)."""
    wanted = format_of(coding)
    if frame.format.name not in (wanted, wanted.replace("yuv", "yuvj")):
        keep = {} if coding.layout == "rgb" else dict.fromkeys(("src_color_range", "dst_color_range"), 1 + coding.full)
        frame = repack(frame, format=wanted, **keep)
    sample = np.dtype(np.uint8 if coding.depth == 8 else np.uint16)
    if coding.layout == "rgb" and coding.depth == 8:
        pixels = _rows(frame.planes[0], sample, 3 + coding.alpha).reshape(frame.height, frame.width, -1)
        return [np.ascontiguousarray(pixels[..., :3]), *([pixels[..., 3]] if coding.alpha else [])]
    found = [_rows(plane, sample, 1) for plane in frame.planes]
    if coding.layout != "rgb":
        return found
    green, blue, red, *alpha = found
    return [np.stack([red, green, blue], axis=-1), *alpha]


def tags(coding: Coding) -> dict[str, int]:
    """A frame's and an encoder's colour attributes by name."""
    matrix = number(MATRICES, coding.matrix)
    if coding.matrix == "bt601":  # two numbers of one matrix: that of 625 lines, and that of 525
        matrix = 5 if coding.primaries == "bt470bg" else 6
    return {
        "colorspace": 0 if coding.layout == "rgb" else matrix,
        "color_range": 1 + coding.full,
        "color_primaries": number(PRIMARIES, coding.primaries),
        "color_trc": number(TRANSFERS, coding.transfer),
    }


def frame_of(planes: Sequence[np.ndarray], coding: Coding) -> Any:
    """A frame of a coding's planes, tagged. Its size is the first plane's."""
    height, width = planes[0].shape[:2]
    frame = av.VideoFrame(width, height, format_of(coding))
    for name, value in tags(coding).items():
        setattr(frame, name, value)
    sample = np.dtype(np.uint8 if coding.depth == 8 else np.uint16)
    if coding.layout == "rgb" and coding.depth == 8:
        pixels = np.dstack(planes) if coding.alpha else planes[0]
        _rows(frame.planes[0], sample, 3 + coding.alpha)[...] = pixels.reshape(height, -1)
        return frame
    if coding.layout == "rgb":
        red, green, blue = (planes[0][..., k] for k in range(3))
        planes = [green, blue, red, *planes[1:]]
    for plane, values in zip(frame.planes, planes, strict=True):
        _rows(plane, sample, 1)[...] = values
    return frame


def _rows(plane: Any, sample: np.dtype[Any], samples: int) -> np.ndarray:
    """A plane's code values [H, W * samples], without the padding of its rows."""
    rows = np.frombuffer(plane, sample).reshape(-1, plane.line_size // sample.itemsize)
    return rows[: plane.height, : plane.width * samples]
