"""The planes of one frame as arrays: luma, blue and red difference, alpha; or RGB and alpha."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .coding import Coding

Planes = Sequence[np.ndarray]


def names(coding: Coding) -> tuple[str, ...]:
    """Names of the planes, in their order."""
    colours = {"rgb": ("rgb",), "gray": ("y",), "yuv": ("y", "u", "v")}[coding.layout]
    return (*colours, "a") if coding.alpha else colours


def shapes(coding: Coding, size: tuple[int, int]) -> list[tuple[int, ...]]:
    """Shapes of the planes of a picture of `size` = (width, height)."""
    width, height = size
    across, down = coding.step
    small = (-(-height // down), -(-width // across))
    sizes = {"rgb": (height, width, 3), "y": (height, width), "a": (height, width), "u": small, "v": small}
    return [sizes[name] for name in names(coding)]


def split(flat: np.ndarray, coding: Coding, size: tuple[int, int]) -> list[np.ndarray]:
    """Planes of a picture from all its bytes, uint8 [n]; the bytes are not copied. Raises ValueError if they do not
    fit."""
    flat = flat.view(np.uint8 if coding.depth == 8 else np.uint16)
    found, at = [], 0
    for shape in shapes(coding, size):
        count = int(np.prod(shape))
        found.append(flat[at : at + count].reshape(shape))
        at += count
    if at != flat.size:
        raise ValueError(f"{flat.size} code values are not a picture of {size[0]}x{size[1]}")
    return found


def joined(planes: Sequence[np.ndarray]) -> np.ndarray:
    """All code values, one plane behind the other, [n]."""
    return np.concatenate([plane.reshape(-1) for plane in planes])


def upright(planes: Planes, rotation: int, mirrored: bool) -> list[np.ndarray]:
    """Planes turned by `rotation` degrees clockwise, after they were flipped left to right if `mirrored`."""
    flipped = [plane[:, ::-1] if mirrored else plane for plane in planes]
    return [np.ascontiguousarray(np.rot90(plane, k=-(rotation // 90))) for plane in flipped]
