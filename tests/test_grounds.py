"""Grounds and natural images: periodic where they promise it, muted where sprites must stand out, like photographs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from retake.errors import ConfigError
from retake.synthetic import GROUNDS, Pose, Scene, World, natural_image
from retake.synthetic.grounds import ground
from retake.synthetic.texture import DENSITY, PALETTES


@pytest.mark.parametrize("kind", GROUNDS)
def test_a_ground_is_periodic_and_repeatable(kind):
    made = ground(kind, 64, 48, "dune", 3)
    assert (made.image.shape, made.image.dtype) == ((72 * DENSITY, 96 * DENSITY, 3), np.uint8)
    assert made.extent == (-16.5, -12.5, 79.5, 59.5)
    assert ground(kind, 64, 48, "dune", 3) is made  # while it is in use
    kept = made.image
    del made
    made = ground(kind, 64, 48, "dune", 3)
    assert made.image is not kept
    np.testing.assert_array_equal(made.image, kept)
    assert (ground(kind, 64, 48, "dune", 4).image != made.image).mean() > 0.5
    assert (ground(kind, 64, 48, "moss", 3).image != made.image).mean() > 0.5
    for axis in (0, 1):  # the last row is followed by the first as any row by the next
        steps = np.abs(np.diff(made.image.astype(float), axis=axis)).mean(axis=(1 - axis, 2))
        seam = np.abs(made.image.take(0, axis).astype(float) - made.image.take(-1, axis)).mean()
        assert seam <= 1.5 * steps.max() + 1


@pytest.mark.parametrize("kind", GROUNDS)
def test_grounds_are_muted_and_moderate(kind):
    chroma, bright = [], []
    for n, palette in enumerate(PALETTES):
        image = ground(kind, 64, 64, palette, n).image.astype(float)
        chroma.append((np.ptp(image, axis=-1) > 0.3 * 255).mean())
        bright.append(image.mean())
    assert np.mean(chroma) < 0.03  # the share of pixels that a detector could take for a sprite's
    assert min(bright) > 40
    assert max(bright) < 230


@pytest.mark.parametrize("kind", GROUNDS)
def test_flow_warps_every_ground(kind):
    views = tuple(Pose(1.5 * t, -0.8 * t, 0.02 * t, 1.02**t) for t in range(3))
    world = World(Scene(64, 64, 3, 8.0, (), views, "slate", 1, ground=kind))
    here, there = world.frame(0).astype(float), world.frame(2).astype(float)
    x, y = np.meshgrid(np.arange(64.0), np.arange(64.0))
    at = np.stack([x, y], -1) + world.flow(0, 2)
    inside = ((at >= 0) & (at <= 62)).all(-1)
    x0, y0 = (np.clip(at[..., n], 0, 62).astype(int) for n in (0, 1))
    u, v = at[..., :1] - x0[..., None], at[..., 1:] - y0[..., None]
    upper = there[y0, x0] * (1 - u) + there[y0, x0 + 1] * u
    lower = there[y0 + 1, x0] * (1 - u) + there[y0 + 1, x0 + 1] * u
    warped = np.abs(upper * (1 - v) + lower * v - here)[inside].mean()
    assert warped < 0.45 * np.abs(there - here)[inside].mean()
    assert not world.occlusion(0, 2)[inside].any()


def test_a_ground_changes_the_background_alone():
    base = Scene(64, 64, 2, 8.0, (), (Pose(),) * 2, "clay", 5)
    frames = {kind: World(replace(base, ground=kind)).frame(1) for kind in GROUNDS}
    np.testing.assert_array_equal(frames["terrain"], World(base).frame(1))
    assert len({frame.tobytes() for frame in frames.values()}) == len(GROUNDS)


@pytest.mark.parametrize("size", [16, 64, 100])
def test_natural_images(size):
    made = [natural_image(np.random.default_rng([n, 1]), size) for n in range(12)]
    assert {(image.shape, image.dtype) for image in made} == {((size, size, 3), np.dtype(np.uint8))}
    np.testing.assert_array_equal(natural_image(np.random.default_rng([3, 1]), size), made[3])
    assert len({image.tobytes() for image in made}) == 12
    assert np.std([image.mean() for image in made]) > 20


def test_natural_images_are_like_photographs():
    rng = np.random.default_rng(0)
    images = np.stack([natural_image(rng, 64) for _ in range(200)]).astype(float)
    grey = images.mean(-1)
    # The amplitude spectrum falls about as 1/f (photographs: 0.9 to 1.2, van der Schaaf and van Hateren 1996).
    window = np.hanning(64)[:, None] * np.hanning(64)
    power = (np.abs(np.fft.fft2((grey - grey.mean((1, 2), keepdims=True)) * window)) ** 2).mean(0)
    f = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64)[None])
    band = (f > 2 / 64) & (f < 0.35)
    slope = np.polyfit(np.log(f[band]), np.log(power[band]) / 2, 1)[0]
    assert -1.6 < slope < -0.8
    # Steps between neighbours are mostly small and sometimes large: kurtosis far above a Gaussian's 3.
    steps = np.diff(grey, axis=2)
    assert (steps**4).mean() / (steps**2).mean() ** 2 > 6
    # All brightnesses and many tints.
    assert np.percentile(grey, 5) < 40
    assert np.percentile(grey, 95) > 200
    assert np.ptp(images, axis=-1).mean() > 15


def test_unknown_names_are_refused():
    for change, hint in (({"ground": "leafs"}, "leaves"), ({"palette": "dunes"}, "dune")):
        with pytest.raises(ConfigError, match=f"Did you mean {hint}") as refused:
            Scene(**{"width": 64, "height": 64, "frames": 1, "fps": 1.0, "sprites": (), "camera": (Pose(),), **change})
        assert refused.value.code == "E241"
    with pytest.raises(ConfigError, match="E241"):
        ground("terrian", 64, 64, "dune", 0)
    with pytest.raises(ConfigError, match="E243"):
        natural_image(np.random.default_rng(0), 4)
