"""Textures: band-limited noise through colour ramps, kept as small pyramids.

A texture stores `DENSITY` texels per body unit. Its noise has no wavelength below `FINEST` body units, which
keeps bilinear sampling faithful at every scale that the scenes use.
"""

from __future__ import annotations

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


def ground(width: int, height: int, palette: str, seed: int) -> Texture:
    """A periodic terrain seen from above, 1.5 frames wide and high, lit from the upper left."""
    import cv2

    rng = np.random.default_rng([seed, 1])
    w, h = width * 3 // 2, height * 3 // 2
    size = min(w, h)
    height_map = noise(rng, h, w, size / 1.6, FINEST, 2.1)
    stones = noise(rng, h, w, size / 9, 1.5 * FINEST, 1.3)
    relief = height_map * size / 110 + stones * 0.4
    light = (np.roll(relief, 1, 1) - np.roll(relief, -1, 1)) + (np.roll(relief, 1, 0) - np.roll(relief, -1, 0))
    value = 0.5 + 0.45 * np.tanh(0.75 * height_map + 0.2 * stones)
    stops = np.array([[int(c[i : i + 2], 16) for i in (0, 2, 4)] for c in PALETTES[palette]], float)
    colour = ramp(value, stops) * np.exp(-0.2 * np.clip(light, -2.5, 2.5))[..., None]
    pad = 4
    padded = np.pad(_bytes(colour), ((pad, pad), (pad, pad), (0, 0)), mode="wrap")
    fx, fy = (w + 2 * pad) * DENSITY, (h + 2 * pad) * DENSITY
    dense = np.asarray(cv2.resize(padded, (fx, fy), interpolation=cv2.INTER_CUBIC), np.uint8)
    cut = pad * DENSITY
    # The extent is centred on the frame, so that the camera at rest looks at the middle of the terrain.
    x0, y0 = (width - w) / 2 - 0.5, (height - h) / 2 - 0.5
    return Texture(dense[cut:-cut, cut:-cut].copy(), (x0, y0, x0 + w, y0 + h), periodic=True)


def skin(shape: str, radius: float, hue: float, seed: int) -> Texture:
    """A sprite's own texture: marbled in its hue, with veins in a second hue and a darker rim."""
    rng = np.random.default_rng([seed, 2])
    extent = bounds(shape, radius)
    w, h = (max(8, round(DENSITY * (extent[i + 2] - extent[i]))) for i in (0, 1))
    size = max(w, h)
    marble = noise(rng, size, size, size / 1.8, FINEST * DENSITY, 1.7)[:h, :w]
    veins = noise(rng, size, size, size / 2.5, size / 8, 1.5)[:h, :w]
    stops = np.array([_rgb(hue - 0.03, 0.95, 0.36), _rgb(hue, 0.92, 0.78), _rgb(hue + 0.03, 0.62, 1.0)])
    colour = ramp(0.5 + 0.42 * np.tanh(1.1 * marble), stops)
    accent = np.array([_rgb(hue + 0.11, 0.35, 1.0)])
    vein = np.exp(-((veins / 0.2) ** 2))[..., None]
    colour = colour + 0.8 * vein * (accent - colour)
    y, x = ((np.arange(n) + 0.5) / n for n in (h, w))
    x, y = extent[0] + x * (extent[2] - extent[0]), extent[1] + y * (extent[3] - extent[1])
    depth = -distance(shape, radius, np.stack(np.meshgrid(x, y), axis=-1)) / radius
    rim = 0.55 + 0.45 * np.clip(depth / 0.14, 0, 1) ** 0.7
    return Texture(_bytes(colour * rim[..., None]), extent)


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
