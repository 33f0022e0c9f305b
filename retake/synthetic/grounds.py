"""Grounds: the periodic pictures behind the sprites, and still pictures in their manner.

    terrain   land seen from above, lit from the side: the ground of the named scenes
    leaves    dead leaves: discs and polygons that cover each other, as things do in photographs
    noise     coloured noise whose amplitude falls with frequency to some power
    sky       broad bands from one colour to another, with clouds
    stripes   straight stripes, sharp or soft
    checks    a tilted board of two colours

Dead leaves with radii of density r**-3 have the edges, the occlusions and the 1/f spectrum of natural images (Lee,
Mumford and Huang 2001). Grounds keep to a palette of muted colours, so that sprites stand out; `natural_image` is free.
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from retake.errors import ConfigError, did_you_mean
from retake.synthetic.texture import DENSITY, FINEST, PALETTES, Texture, noise, ramp

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]


def ground(kind: str, width: int, height: int, palette: str, seed: int) -> Texture:
    """The ground of a frame of that size: periodic, 1.5 frames wide and high, the frame in its middle.

    kind: a name of `GROUNDS`; palette: one of `texture.PALETTES`. The same arguments give the same bytes.
    Raises ConfigError E241 for other names. What is in use is not made twice: the clips of a pair share their ground.
    """
    key = kind, width, height, palette, seed
    if (made := _IN_USE.get(key)) is not None:
        return made
    for what, name, known in (("ground", kind, GROUNDS), ("palette", palette, PALETTES)):
        if name not in known:
            raise ConfigError("E241", f"There is no {what} '{name}'.", did_you_mean(name, list(known)))
    w, h = width * 3 // 2, height * 3 // 2
    stops = np.array([[int(c[i : i + 2], 16) for i in (0, 2, 4)] for c in PALETTES[palette]], float)
    # The extent is centred on the frame, so that the camera at rest looks at the middle of the ground.
    x0, y0 = (width - w) / 2 - 0.5, (height - h) / 2 - 0.5
    # The terrain's stream is older than the others; its pixels are part of cache keys.
    rng = np.random.default_rng([seed, 1] if kind == "terrain" else [seed, 6])
    image = GROUNDS[kind](rng, w, h, stops)
    image.flags.writeable = False
    return _IN_USE.setdefault(key, Texture(image, (x0, y0, x0 + w, y0 + h), periodic=True))


def natural_image(rng: np.random.Generator, size: int) -> Image:
    """A still picture uint8 [size, size, 3] with the statistics of photographs rather than of sprites.

    Seven in ten are dead leaves, the others noise, skies, stripes and checks; colours are free, contrast and focus
    vary. Takes from `rng` what it needs: the same state gives the same bytes. Raises ConfigError E243 for a size
    outside 8..4096.
    """
    if not 8 <= size <= 4096:
        raise ConfigError("E243", f"A picture of {size} pixels cannot be drawn.", "Give a size from 8 to 4096.")
    import cv2

    kind = rng.choice(("leaves", "noise", "sky", "stripes", "checks"), p=(0.7, 0.14, 0.08, 0.04, 0.04))
    # Grounds are kept smooth for a camera that moves; a still picture is drawn larger and shrunk, and so is sharper.
    drawn = round(size * float(rng.uniform(1, 1.3)))
    fine = GROUNDS[kind](rng, drawn, drawn, _photo_colours(rng, 8))
    image = cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32)
    if rng.random() < 0.2:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.5, 3)))  # out of focus
    else:
        image += float(rng.uniform(0, 1)) * (image - cv2.GaussianBlur(image, (5, 5), 0.8))  # sharpened, as cameras do
    image += float(rng.uniform(0, 3)) * rng.standard_normal(image.shape, np.float32)
    return _bytes(image)


def _terrain(rng: np.random.Generator, w: int, h: int, stops: NDArray) -> Image:
    """Height as colour along the palette, slopes as light from the upper left."""
    size = min(w, h)
    height_map = noise(rng, h, w, size / 1.6, FINEST, 2.1)
    stones = noise(rng, h, w, size / 9, 1.5 * FINEST, 1.3)
    relief = height_map * size / 110 + stones * 0.4
    light = (np.roll(relief, 1, 1) - np.roll(relief, -1, 1)) + (np.roll(relief, 1, 0) - np.roll(relief, -1, 0))
    value = 0.5 + 0.45 * np.tanh(0.75 * height_map + 0.2 * stones)
    colour = ramp(value, stops) * np.exp(-0.2 * np.clip(light, -2.5, 2.5))[..., None]
    return _dense(np.clip(np.rint(colour), 0, 255).astype(np.uint8))


def _leaves(rng: np.random.Generator, w: int, h: int, stops: NDArray) -> Image:
    """Leaves drawn from the farthest to the nearest, each with its own shading and grain, and shadows between them."""
    import cv2

    width, height = w * DENSITY, h * DENSITY
    size, count = min(width, height), int(rng.integers(40, 220))  # a byte counts them
    # Radii of density r**-3 between two bounds; the first leaves are large, so that little of the base shows.
    low, high = max(DENSITY, size / float(rng.uniform(30, 90))), size * float(rng.uniform(0.15, 0.4))
    radii = (low**-2 + rng.random(count) * (high**-2 - low**-2)) ** -0.5
    radii[:12] = rng.uniform(0.6, 1.0, 12) * high
    centres = rng.uniform((0, 0), (width, height), (count, 2))
    pile = _pile(rng, width, height, centres, radii)
    label = pile.astype(np.intp)
    colours = _jittered(rng, stops, count + 1)
    # A leaf's shade: its own brightness, an incline from its centre, and its own grain. Worked out in place, since
    # fresh arrays of this size cost more than the sums.
    bright = np.take(rng.uniform(-0.2, 0.2, count + 1).astype(np.float32), label)
    incline = (rng.normal(0, 0.25, (2, count + 1)) / np.append(size, radii)).astype(np.float32)
    for axis, period in enumerate((width, height)):
        centre = np.append(period / 2, centres[:, axis]).astype(np.float32)
        place = np.arange(period, dtype=np.float32)
        way = (place if axis == 0 else place[:, None]) - np.take(centre, label)
        way -= period * np.rint(way / period)  # a leaf that goes on at the other border keeps its centre
        way *= np.take(incline[axis], label)
        bright += way
    grain = np.take(rng.exponential(0.09, count + 1).astype(np.float32), label)
    grain *= _dense(_noise(rng, w, h, float(rng.uniform(0.6, 1.4))))
    bright += grain
    # The nearer of two leaves has the larger label and throws its shadow down and to the right.
    reach = int(rng.integers(1, 4))
    shadow = (np.roll(pile, (reach, reach), (0, 1)) > pile).astype(np.float32)
    bright -= float(rng.uniform(0, 0.7)) * cv2.blur(shadow, (2 * reach + 1, 2 * reach + 1), dst=shadow)
    colour = np.take(colours, label, axis=0)
    colour *= np.exp(bright, out=bright)[..., None]
    return _bytes(cv2.GaussianBlur(colour, (3, 3), 0.6, dst=colour))


def _pile(rng: np.random.Generator, width: int, height: int, centres: NDArray, radii: NDArray) -> Image:
    """Which leaf is on top, uint8 [height, width], counted from 1; 0 where none is. Goes on at the other border."""
    import cv2

    count = len(radii)
    label = np.zeros((height, width), np.uint8)
    corners, aspect = rng.integers(3, 8, count), rng.uniform(0.3, 1.0, count)
    first, turn = rng.uniform(0, 2 * np.pi, (2, count, 1))
    # Corners lie on an ellipse in order of their angle, so that every polygon is convex.
    angle = first + 2 * np.pi * (np.arange(7) + rng.uniform(-0.3, 0.3, (count, 7))) / corners[:, None]
    u, v = np.cos(angle) * radii[:, None], np.sin(angle) * (radii * aspect)[:, None]
    x, y = np.cos(turn) * u - np.sin(turn) * v, np.sin(turn) * u + np.cos(turn) * v
    outlines = np.rint(np.stack([x, y], -1) + centres[:, None]).astype(np.int32)
    discs = (rng.random(count) < rng.uniform(0.1, 0.9)).tolist()
    places = zip(np.rint(centres).astype(int).tolist(), np.rint(radii).astype(int).tolist(), strict=True)
    for n, ((cx, cy), r) in enumerate(places):
        for ox in _copies(cx, r, width):
            for oy in _copies(cy, r, height):
                if discs[n]:
                    cv2.circle(label, (cx + ox, cy + oy), r, n + 1, -1)
                else:
                    cv2.fillConvexPoly(label, outlines[n, : corners[n]] + np.array((ox, oy), np.int32), n + 1)
    return label


def _copies(centre: int, reach: int, period: int) -> tuple[int, ...]:
    """Shifts by which a thing is drawn, so that it goes on at the other border."""
    if centre <= reach:
        return 0, period
    return (0, -period) if centre >= period - reach else (0,)


def _coloured_noise(rng: np.random.Generator, w: int, h: int, stops: NDArray) -> Image:
    """One field along the palette, two weaker ones for the tint."""
    slope = float(rng.uniform(0.8, 2.0))
    value, warm, green = (_noise(rng, w, h, slope) for _ in range(3))
    colour = _along(stops, 0.5 + float(rng.uniform(0.15, 0.3)) * value)
    tint = np.stack([warm - green / 2, green / 2, -warm - green / 2], axis=-1)
    return _dense(_bytes(colour + float(rng.uniform(0, 7)) * tint))


def _sky(rng: np.random.Generator, w: int, h: int, stops: NDArray) -> Image:
    """A swing between two ends of the palette across the frame, and clouds."""
    x, y = _grid(w, h, 1)
    # Once over the period, so that the frame sees a bit more than half a swing.
    m, n = [(0, 1), (0, 1), (1, 1), (1, -1), (1, 0)][int(rng.integers(5))]
    swing = np.cos(2 * np.pi * (m * x / w + n * y / h + rng.random()))
    clouds = np.maximum(_noise(rng, w, h, 1.8) - float(rng.uniform(0, 1.5)), 0) * float(rng.uniform(0, 0.4))
    return _dense(_bytes(_along(stops, 0.5 + float(rng.uniform(0.2, 0.45)) * swing + clouds)))


def _stripes(rng: np.random.Generator, w: int, h: int, stops: NDArray) -> Image:
    wave = _grating(rng, w, h, float(rng.uniform(0, np.pi)), min(w, h) / float(rng.uniform(3, 12)))
    return _lit(rng, w, h, stops, np.tanh(float(rng.uniform(0.7, 5)) * wave))


def _checks(rng: np.random.Generator, w: int, h: int, stops: NDArray) -> Image:
    angle, period = float(rng.uniform(0, np.pi)), min(w, h) / float(rng.uniform(2, 8))
    wave = _grating(rng, w, h, angle, period) * _grating(rng, w, h, angle + np.pi / 2, period)
    return _lit(rng, w, h, stops, np.tanh(float(rng.uniform(2, 8)) * wave))


def _grating(rng: np.random.Generator, w: int, h: int, angle: float, period: float) -> Floats:
    """A sine wave float32 of about that direction and period, with whole numbers of waves across and down."""
    x, y = _grid(w, h, DENSITY)
    m, n = round(w * np.cos(angle) / period), round(h * np.sin(angle) / period)
    return np.sin(2 * np.pi * (m * x / w + n * y / h + rng.random())).astype(np.float32)


def _lit(rng: np.random.Generator, w: int, h: int, stops: NDArray, wave: NDArray) -> Image:
    """A pattern -1..1 between two colours of the palette, under uneven light: a point can be told from the next."""
    middle, swing = float(rng.uniform(0.3, 0.7)), float(rng.uniform(0.1, 0.5))
    colour = _along(stops, middle + swing * wave)
    return _bytes(colour * np.exp(0.16 * _dense(_noise(rng, w, h, 1.2)))[..., None])


def _noise(rng: np.random.Generator, w: int, h: int, slope: float) -> Floats:
    """Periodic noise float32 [h, w], mean 0, deviation 1, amplitude falling as 1/f**slope down to FINEST."""
    fy, fx = np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None]
    f = np.hypot(fx, fy)
    gain = np.maximum(f, 1 / max(w, h)) ** -slope * np.exp(-((f * FINEST / 1.25) ** 8))
    gain[0, 0] = 0
    spectrum = (rng.standard_normal((2, *f.shape), np.float32) * gain.astype(np.float32)).astype(np.float32)
    field = np.fft.irfft2(spectrum[0] + 1j * spectrum[1], s=(h, w)).astype(np.float32)
    return field / max(float(field.std()), 1e-12)


def _dense(picture: NDArray) -> NDArray:
    """A periodic picture [h, w, ...], one texel a pixel, at DENSITY texels a pixel."""
    import cv2

    pad, cut = 4, 4 * DENSITY
    padded = cv2.copyMakeBorder(picture, pad, pad, pad, pad, cv2.BORDER_WRAP)
    size = padded.shape[1] * DENSITY, padded.shape[0] * DENSITY
    return np.asarray(cv2.resize(padded, size, interpolation=cv2.INTER_CUBIC))[cut:-cut, cut:-cut].copy()


def _grid(w: int, h: int, density: int) -> tuple[Floats, Floats]:
    """Places of texels in pixels, x float32 [1, w * density] and y [h * density, 1]."""
    x, y = ((np.arange(n * density) + 0.5).astype(np.float32) / np.float32(density) for n in (w, h))
    return x[None], y[:, None]


def _along(stops: NDArray, values: NDArray) -> Floats:
    """Colours float32 [..., 3] of values, 0..1 and held beyond, along evenly spaced stops."""
    table = ramp(np.linspace(0, 1, 256), stops).astype(np.float32)
    return np.take(table, np.clip(values * 255, 0, 255).astype(np.intp), axis=0)


def _jittered(rng: np.random.Generator, stops: NDArray, count: int) -> Floats:
    """Colours float32 [count, 3] along the palette, lighter, darker or of another tint; no more saturated than it."""
    tint = rng.normal(0, 9, (count, 3))
    colours = _along(stops, rng.random(count)) * np.exp(rng.normal(0, 0.12, (count, 1))) + tint
    grey, most = colours.mean(1, keepdims=True), 0.8 * np.ptp(stops, axis=1).max()
    keep = np.minimum(1, most / np.maximum(np.ptp(colours, axis=1, keepdims=True), 1))
    return (grey + keep * (colours - grey)).astype(np.float32)


def _photo_colours(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Colours float64 [count, 3] as in a photograph, dark to light; tints mostly between blue and orange."""
    warm, green = np.array([1.0, 0.1, -1.1]), np.array([-0.6, 0.8, -0.4])
    strength = 70 * rng.beta(1.2, 2.0)
    cast = rng.normal(0, 0.5, 2)
    tint = cast + rng.normal(0, 0.8, (count, 2))
    low, high = rng.uniform(0.8, 2.5, 2)
    bright = 255 * rng.beta(low, high, (count, 1))
    colours = np.clip(bright + strength * (tint[:, :1] * warm + 0.6 * tint[:, 1:] * green), 0, 255)
    return colours[np.argsort(colours.sum(1))]


def _bytes(colour: NDArray) -> Image:
    import cv2

    return np.asarray(cv2.convertScaleAbs(np.maximum(colour, 0)), np.uint8)


GROUNDS: dict[str, Callable[[np.random.Generator, int, int, NDArray], Image]] = {
    "terrain": _terrain,
    "leaves": _leaves,
    "noise": _coloured_noise,
    "sky": _sky,
    "stripes": _stripes,
    "checks": _checks,
}

_IN_USE: WeakValueDictionary[tuple[str, int, int, str, int], Texture] = WeakValueDictionary()
