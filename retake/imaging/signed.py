"""Conversion between uint8 pixels and the -1..1 floats that networks take."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def to_signed(pixels: Tensor) -> Tensor:
    """float32 in -1..1 of uint8 in 0..255 (or float in that range), of any shape."""
    return pixels.float() / 127.5 - 1


def to_uint8(pixels: Tensor) -> Tensor:
    """uint8 of float in -1..1, rounded and clamped: the inverse of `to_signed`."""
    return ((pixels + 1) * 127.5).round().clamp(0, 255).byte()
