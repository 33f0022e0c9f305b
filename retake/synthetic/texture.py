"""Textures: band-limited noise through colour ramps, kept as small pyramids.

A texture stores `DENSITY` texels per body unit. Its noise has no wavelength below `FINEST` body units, which
keeps bilinear sampling faithful at every scale that the scenes use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from retake.synthetic.shapes import Box, bounds, distance

Image = NDArray[np.uint8]
Floats = NDArray[np.float64]

DENSITY = 2
FINEST = 4.0

# Background ramps from low to high ground: muted, so that the sprites' saturated colours stand out.
PALETTES: dict[str, tuple[str, ...]] = {
    "dune": ("3b3a45", "5d5661", "8a7a72", "b59f85", "d6c3a1", "efe3c8"),
    "moss": ("1e2d2b", "33483f", "52664f", "7d8a66", "aeb18a", "d9d7b9"),
    "slate": ("20252e", "363f4c", "55626f", "7f8b93", "adb3b3", "dcdcd4"),
    "clay": ("33252b", "553b3d", "7c584f", "a37f6c", "c8a98f", "e8d5bd"),
    "lagoon": ("16303a", "24505a", "3f7478", "739a94", "aebfae", "e2e0cb"),
}


@dataclass(frozen=True, eq=False)
class Texture:
    """A picture uint8 [h, w, 3] that covers the box `extent` (x0, y0, x1, y1, body units) exactly.

    The first texel's outer corner lies on (x0, y0). `periodic`: the picture repeats beyond its extent, else
    its border is continued.
    """

    image: Image
    extent: Box
    periodic: bool = False

    @cached_property
    def levels(self) -> tuple[Image, ...]:
        """The image and its halvings (area mean) down to 8 texels."""
        import cv2

        levels = [self.image]
        while min(levels[-1].shape[:2]) >= 16:
            h, w = levels[-1].shape[:2]
            half = cv2.resize(levels[-1], (w // 2, h // 2), interpolation=cv2.INTER_AREA)
            levels.append(np.asarray(half, np.uint8))
        return tuple(levels)

    def sample(self, pixel_to_body: NDArray[np.float64], width: int, height: int) -> Image:
        """Bilinear samples uint8 [height, width, 3] where `pixel_to_body` [2, 3] puts each pixel's centre."""
        import cv2

        x0, y0, x1, y1 = self.extent
        step = np.sqrt(abs(np.linalg.det(pixel_to_body[:, :2])))  # body units between samples
        texels = self.image.shape[1] / (x1 - x0) * step
        # Halve once the samples lie two texels apart: bilinear sampling would skip texels from there on.
        level = self.levels[int(np.clip(np.floor(np.log2(max(texels, 1e-6))), 0, len(self.levels) - 1))]
        h, w = level.shape[:2]
        per_body = np.array([[w / (x1 - x0)], [h / (y1 - y0)]])
        to_texel = pixel_to_body * per_body
        to_texel[:, 2] -= per_body[:, 0] * (x0, y0) + 0.5
        if self.periodic:
            to_texel[:, 2] %= (w, h)
        border = cv2.BORDER_WRAP if self.periodic else cv2.BORDER_REPLICATE
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        shown = cv2.warpAffine(level, to_texel, (width, height), flags=flags, borderMode=border)
        return np.asarray(shown, np.uint8)


def noise(rng: np.random.Generator, height: int, width: int, coarse: float, fine: float, slope: float) -> Floats:
    """Periodic noise float64 [height, width], mean 0, deviation 1.

    Amplitude falls with frequency to the power `slope`, between the wavelengths `coarse` and `fine` (samples).
    """
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    coarse, f = max(coarse, 3 * fine), np.hypot(fx, fy)
    gain = np.maximum(f, 1 / coarse) ** -slope * np.exp(-((f * fine / 1.25) ** 8))
    gain *= 1 - np.exp(-((f * coarse) ** 4))
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((height, width))) * gain, s=(height, width))
    return (field - field.mean()) / max(field.std(), 1e-12)


def ramp(values: Floats, colours: Floats) -> Floats:
    """Colours float64 [..., 3] for values 0..1 along evenly spaced stops [N, 3]."""
    stops = np.linspace(0, 1, len(colours))
    return np.stack([np.interp(values, stops, colours[:, c]) for c in range(3)], axis=-1)


def skin(shape: str, radius: float, hue: float, seed: int, texture: str = "marbled", nose: float = 0.0) -> Texture:
    """A sprite's own texture: a name of `SKINS` in its hue with a second, lighter one, and a darker rim.

    nose: 0..1, how strongly the front (+x) is told from the back: by a light spot, and a back in the shade.
    """
    rng = np.random.default_rng([seed, 2])
    extent = bounds(shape, radius)
    w, h = (max(8, round(DENSITY * (extent[i + 2] - extent[i]))) for i in (0, 1))
    size = max(w, h)
    y, x = ((np.arange(n) + 0.5) / n for n in (h, w))
    x, y = extent[0] + x * (extent[2] - extent[0]), extent[1] + y * (extent[3] - extent[1])
    grid = np.stack(np.meshgrid(x, y), axis=-1)
    stops = np.array([_rgb(hue - 0.03, 0.95, 0.36), _rgb(hue, 0.92, 0.78), _rgb(hue + 0.03, 0.62, 1.0)])
    accent = np.array([_rgb(hue + 0.11, 0.35, 1.0)])
    value, pattern = SKINS[texture](rng, size, grid / radius)
    colour = ramp(value, stops)
    colour = colour + 0.8 * pattern * (accent - colour)
    rim = 0.55 + 0.45 * np.clip(-distance(shape, radius, grid) / radius / 0.14, 0, 1) ** 0.7
    colour = colour * rim[..., None]
    if nose:
        front = grid[..., 0] / radius
        spot = np.exp(-((((front - 0.45) / 0.3) ** 2 + (grid[..., 1] / radius / 0.36) ** 2) ** 2))[..., None]
        shade = 1 - 0.45 * nose * np.clip((0.35 - front) / 1.1, 0, 1)[..., None]
        colour = colour * shade
        colour = colour + nose * spot * (_rgb(hue, 0.1, 1.0) - colour)
    return Texture(_bytes(colour), extent)


def _marbled(rng: np.random.Generator, size: int, at: Floats) -> tuple[Floats, Floats]:
    h, w = at.shape[:2]
    marble = noise(rng, size, size, size / 1.8, FINEST * DENSITY, 1.7)[:h, :w]
    veins = noise(rng, size, size, size / 2.5, size / 8, 1.5)[:h, :w]
    return 0.5 + 0.42 * np.tanh(1.1 * marble), np.exp(-((veins / 0.2) ** 2))[..., None]


def _plain(rng: np.random.Generator, size: int, at: Floats) -> tuple[Floats, Floats]:
    return 0.55 - 0.12 * at[..., 1], np.zeros((*at.shape[:2], 1))


def _striped(rng: np.random.Generator, size: int, at: Floats) -> tuple[Floats, Floats]:
    wave = np.sin(2 * np.pi * (at[..., 1] / 0.66 + rng.uniform()))
    return np.full(at.shape[:2], 0.5), (0.5 + 0.5 * np.tanh(3 * wave))[..., None]


def _dotted(rng: np.random.Generator, size: int, at: Floats) -> tuple[Floats, Floats]:
    u, v = (at[..., k] / 0.62 + rng.uniform() for k in (0, 1))
    u = u + 0.5 * (np.floor(v) % 2)  # every second row is moved by half a step
    apart = np.hypot(u % 1 - 0.5, v % 1 - 0.5)
    return np.full(at.shape[:2], 0.45), (0.5 - 0.5 * np.tanh(12 * (apart - 0.3)))[..., None]


# Each gives, for body coordinates [h, w, 2] in radii, the place on the hue's ramp [h, w] and the share of the second
# colour [h, w, 1].
SKINS: dict[str, Callable[[np.random.Generator, int, Floats], tuple[Floats, Floats]]] = {
    "marbled": _marbled,
    "plain": _plain,
    "striped": _striped,
    "dotted": _dotted,
}


def paint(base: Texture, picture: Image) -> Texture:
    """`base` covered by a picture uint8 [h, w, 3 or 4] stretched over its extent; alpha lets `base` through."""
    import cv2

    h, w = base.image.shape[:2]
    alpha = picture[..., 3:].astype(np.float32) / 255 if picture.shape[2] == 4 else None
    # Premultiplied, so that the colour of transparent texels does not bleed into the edge of the picture.
    layers = picture[..., :3].astype(np.float32) * (1 if alpha is None else alpha)
    if alpha is not None:
        layers = np.concatenate([layers, alpha], axis=-1)
    shrinks = picture.shape[0] > h or picture.shape[1] > w
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    fitted = np.asarray(cv2.resize(layers, (w, h), interpolation=how))
    under = 0.0 if alpha is None else base.image * (1 - fitted[..., 3:])
    return Texture(_bytes(fitted[..., :3] + under), base.extent)


def _rgb(hue: float, saturation: float, value: float) -> Floats:
    """A colour float64 [3], 0..255, from hue, saturation and value in 0..1."""
    sector = (np.array([5.0, 3.0, 1.0]) + hue * 6) % 6
    return 255 * value * (1 - saturation * np.clip(np.minimum(sector, 4 - sector), 0, 1))


def _bytes(colour: NDArray) -> Image:
    return np.clip(np.rint(colour), 0, 255).astype(np.uint8)
