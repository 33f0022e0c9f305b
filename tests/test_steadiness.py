"""What a clip keeps from frame to frame, against clips whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from retake.synthetic import clips, detector
from retake.synthetic.steadiness import flicker, sameness, sharpness


@pytest.fixture(scope="module")
def clip():
    subject = clips.Subject("star", "blue", "dotted", "right")
    return clips.render(clips.scene_of(subject, 3, np.random.default_rng(1), clips.Limits()))


def test_an_object_that_only_moves_stays_the_same(clip):
    centres = detector.read(clip).centres
    assert sameness(clip, centres) > 0.98
    # The same object redrawn in every frame, of another shape and texture, is another one.
    shapes = ["star", "box", "cross", "disc"] * 4
    others = [
        clips.render(
            clips.scene_of(
                clips.Subject(shape, "blue", "striped", "right"), n, np.random.default_rng(1), clips.Limits()
            )
        )
        for n, shape in enumerate(shapes)
    ]
    mixed = np.stack([one[t] for t, one in enumerate(others)])
    assert sameness(mixed, detector.read(mixed).centres) < 0.85


def test_frames_without_the_object_are_left_out(clip):
    centres = detector.read(clip).centres.copy()
    centres[5] = np.nan
    assert sameness(clip, centres) > 0.98
    assert math.isnan(sameness(clip, np.full_like(centres, np.nan)))
    assert math.isnan(flicker(clip, np.full_like(centres, np.nan)))


def test_noise_of_the_background_is_its_flicker(clip):
    centres = detector.read(clip).centres
    still = flicker(clip, centres)
    assert still < 1
    noise = np.random.default_rng(0).normal(0, 6, clip.shape)
    noisy = np.clip(clip + noise, 0, 255).astype(np.uint8)
    # |n0 - (n1 + n2) / 2| of normal noise: sigma sqrt(3 / 2) sqrt(2 / pi)
    assert flicker(noisy, centres) == pytest.approx(6 * math.sqrt(1.5) * math.sqrt(2 / math.pi), rel=0.1)


def test_a_blurred_clip_is_less_sharp(clip):
    import cv2

    blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), 1.5) for frame in clip])
    assert sharpness(blurred) < 0.2 * sharpness(clip)
