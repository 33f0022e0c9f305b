"""Still images: the header first, then the pixels. Runs in the child."""

from __future__ import annotations

import numpy as np

from retake.errors import MediaError

from .colour_profile import to_srgb
from .image_header import HINT, JPEG, PNG, read_header, without_ancillary_chunks

_MAX_BYTES = 1 << 29


def read(path: str, max_pixels: int, deep: bool = False) -> np.ndarray:
    """The image as uint8 RGB [H, W, 3] or RGBA [H, W, 4]; gray is repeated, 16 bits are rounded to 8; with `deep` they
    stay uint16, but where a profile changes the colours.

    It is turned as its EXIF tag says, and colours of an ICC profile are converted to sRGB. Raises MediaError E420
    (unreadable) or E421 (too large).
    """
    import cv2

    with open(path, "rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise MediaError("E421", f"{path} is larger than {_MAX_BYTES >> 20} MiB", "Scale it down first.")
    header = read_header(path, data)
    if header.width * header.height > max_pixels:
        raise MediaError(
            "E421",
            f"{path} is {header.width}x{header.height}, more than the {max_pixels} pixels allowed",
            "Scale it down first.",
        )
    if data.startswith(PNG):
        data = without_ancillary_chunks(path, data, header)
    how = cv2.IMREAD_COLOR if data.startswith(JPEG) else cv2.IMREAD_UNCHANGED  # which turns a JPEG
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), how)
    except cv2.error:
        image = None
    if image is None or not image.size:
        raise MediaError("E420", f"{path} cannot be decoded: it is damaged or of an unusual kind", HINT)
    image = _as_rgb(path, image)
    shallow = to_srgb(_rounded(image), header.profile)
    if not deep or image.dtype == np.uint8 or not np.array_equal(shallow, _rounded(image)):
        image = shallow
    return _upright(image, header.orientation)


def _as_rgb(path: str, image: np.ndarray) -> np.ndarray:
    import cv2

    channels = image.shape[2] if image.ndim == 3 else 1
    to_rgb = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}
    if image.dtype not in (np.uint8, np.uint16) or channels not in to_rgb:
        raise MediaError("E420", f"{path} holds {channels} channels of {image.dtype}", HINT)
    return cv2.cvtColor(image, to_rgb[channels])


def _rounded(image: np.ndarray) -> np.ndarray:
    """uint8, of uint16 or uint8."""
    return image if image.dtype == np.uint8 else ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """The picture as EXIF's orientation shows it: 2 mirrored, 3 turned by half, 4 upside down; 5 to 8 on their side."""
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)
