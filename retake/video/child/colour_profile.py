"""Colours of an ICC profile, as sRGB. Profiles are untrusted: they are read in the child alone."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

_MODES = {b"RGB ": "RGB", b"GRAY": "L"}
_NEAR = 2  # levels: a profile that changes no colour by more is sRGB, written by another hand


def to_srgb(image: np.ndarray, profile: bytes) -> np.ndarray:
    """uint8 [H, W, 3 or 4] in sRGB; alpha stays. Profiles that cannot be read, that are not of RGB or grey, or are sRGB
    change nothing: the values are taken as they are."""
    mode = _MODES.get(profile[16:20]) if profile[36:40] == b"acsp" else None
    grey = image[..., :1] if mode == "L" else image[..., :3]
    if mode is None or (mode == "L" and (image[..., :3] != grey).any()):
        return image
    convert = _conversion(profile, mode)
    if convert is None:
        return image
    return np.concatenate([convert(grey), image[..., 3:]], axis=2)


def _conversion(profile: bytes, mode: str) -> Any:
    """A function of uint8 [h, w, 1 or 3] -> [h, w, 3]; None where colours are to stay."""
    from PIL import Image, ImageCms

    intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    try:
        srgb = ImageCms.createProfile("sRGB")
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, srgb, mode, "RGB", intent, flags)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None

    def convert(values: np.ndarray) -> np.ndarray:
        picture = Image.fromarray(np.ascontiguousarray(values.squeeze(2) if mode == "L" else values))
        return np.asarray(transform.apply(picture))

    steps = np.linspace(0, 255, 18).astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(1, -1, 3) if mode == "RGB" else steps[None, :, None]
    return None if np.abs(convert(grid).astype(int) - grid).max() <= _NEAR else convert
