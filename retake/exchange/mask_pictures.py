"""Pictures that hold masks: the values of one file, as they are, and what may stand beside them.

PNG is read by Pillow, because OpenCV makes colours of a palette's indices; other kinds by the child process that reads
every picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from retake.errors import MediaError
from retake.exchange.files import MAX_PIXELS, checked_size, sorted_files

PNG = (".png",)
OTHERS = (".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
COLOURED = 32  # of 255: channels that differ by more show a colour, not the noise of a codec


@dataclass(frozen=True)
class MaskPicture:
    """One file. `values` uint8 or uint16 [h, w]: indices of a palette, grey, or of a coloured picture 255 where any
    channel is not 0. `alpha` uint8 [h, w], if the file has it."""

    values: np.ndarray
    alpha: np.ndarray | None = None
    palette: bool = False
    rgb: bool = False
    coloured: bool = False

    @property
    def grey(self) -> np.ndarray:
        """`values` as uint8; 16 bits are rounded."""
        if self.values.dtype == np.uint8:
            return self.values
        return ((self.values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def mask_files(folder: str | Path) -> list[Path]:
    """The masks of a folder, in the order of their numbers: PNG files, or where there are none those of other kinds."""
    return sorted_files(folder, PNG) or sorted_files(folder, OTHERS)


def read(file: Path) -> MaskPicture:
    """Raises MediaError E400 (not a plain file), E420 (unreadable) or E421 (too large)."""
    if file.suffix.lower() in PNG:
        return _read_png(file)
    from retake.video import read_image

    image = read_image(file, MAX_PIXELS)
    return _of_channels(image[..., :3], image[..., 3] if image.shape[2] == 4 else None)


def _read_png(file: Path) -> MaskPicture:
    from PIL import Image

    checked_size(file)
    try:
        with Image.open(file, formats=["PNG"]) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise MediaError("E421", f"{file} has {width}x{height} px", f"Give at most {MAX_PIXELS} px.")
            values, mode = np.asarray(image), image.mode
            palette = image.getpalette("RGB") or []
    except Image.DecompressionBombError as error:
        raise MediaError("E421", f"{file} is too large: {error}", f"Give at most {MAX_PIXELS} px.") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise MediaError("E420", f"{file} is not a readable PNG: {error}", "Write it again as PNG.") from error
    if mode == "P":
        return _of_palette(values, palette)
    if values.ndim == 2:
        return MaskPicture(values * np.uint8(255) if values.dtype == bool else values)
    alpha = values[..., -1] if mode in ("LA", "RGBA") else None
    return MaskPicture(values[..., 0], alpha) if mode == "LA" else _of_channels(values[..., :3], alpha)


def _of_palette(values: np.ndarray, palette: Sequence[int]) -> MaskPicture:
    """Indices are ids, but of a picture in black and white, whose palette may hold them in either order."""
    colours = np.zeros((256, 3), np.uint8)
    colours.flat[: len(palette)] = palette[: colours.size]
    used = colours[np.flatnonzero(np.bincount(values.ravel(), minlength=256))]
    if np.isin(used, (0, 255)).all() and (np.ptp(used, axis=1) == 0).all():
        return MaskPicture(colours[values, 0])
    return MaskPicture(values, palette=True)


def _of_channels(rgb: np.ndarray, alpha: np.ndarray | None) -> MaskPicture:
    low, high = rgb.min(axis=2), rgb.max(axis=2)
    if (high - low).max() > COLOURED:
        return MaskPicture(np.where(high > 0, np.uint8(255), np.uint8(0)), alpha, rgb=True, coloured=True)
    return MaskPicture(cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY), alpha, rgb=True)
