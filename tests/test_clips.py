"""Captioned clips of the sprite world, and the detector that reads them back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retake.errors import ConfigError
from retake.synthetic import World, clips, detector, grammar
from retake.synthetic.grammar import Subject, parse

SUBJECTS = st.builds(
    Subject,
    shape=st.sampled_from(grammar.SHAPES),
    hue=st.sampled_from(sorted(grammar.HUES)),
    texture=st.sampled_from(("", *grammar.TEXTURES)),
    direction=st.sampled_from(grammar.DIRECTIONS),
    speed=st.sampled_from(grammar.SPEEDS),
    ground=st.sampled_from(("", *grammar.GROUNDS)),
)


@given(SUBJECTS)
def test_a_caption_is_read_back(subject):
    assert parse(str(subject)) == subject


@pytest.mark.parametrize("still", [Subject("disc", "red"), Subject("star", "blue", "dotted", "resting", "", "clay")])
def test_a_caption_without_motion_is_read_back(still):
    assert parse(str(still)) == still


@pytest.mark.parametrize(
    "text", ["", "a", "a dog", "a red disc moving", "a red red disc", "moving left", "a red disc over"]
)
def test_other_texts_are_refused(text):
    with pytest.raises(ConfigError) as error:
        parse(text)
    assert error.value.code == "E244"


def test_every_caption_fits_the_words_of_the_grammar():
    words = set(grammar.vocabulary())
    for seed in range(50):
        drawn = clips.draw(seed)
        assert set(drawn.caption.split()) <= words
        said = parse(drawn.caption)
        for name in ("shape", "hue", "texture", "direction", "speed", "ground"):
            assert getattr(said, name) in (getattr(drawn.subject, name), "", None)


def test_a_clip_is_the_same_whenever_it_is_drawn():
    first, again = clips.draw(7), clips.draw(7)
    assert first == again
    assert np.array_equal(clips.render(first.scene), clips.render(again.scene))
    assert clips.draw(8) != first


@settings(deadline=None, max_examples=15)
@given(SUBJECTS, st.integers(0, 1000))
def test_a_sprite_goes_where_its_caption_says(subject, seed):
    scene = clips.scene_of(subject, seed, np.random.default_rng(seed), clips.Limits())
    world = World(scene)
    tracks, _ = world.tracks(
        np.array([[32.0, 32.0]]), query=8
    )  # the middle of the clip is near the middle of the frame
    body = world.surfaces(8)[32, 32]
    travel = tracks[-1, 0] - tracks[0, 0]
    low, high = clips.TRAVEL[subject.speed]
    angle = grammar.heading(subject.direction)
    if body == 0:
        assert np.allclose(travel / np.hypot(*travel), (np.cos(angle), np.sin(angle)), atol=1e-3)
        assert low * 64 - 0.1 <= np.hypot(*travel) <= high * 64 + 0.1


def test_the_detector_reads_what_the_world_drew():
    right = {"hue": 0, "shape": 0, "direction": 0}
    count = 80
    for seed in range(9000, 9000 + count):
        scene, subject, _ = clips.draw(seed)
        seen = detector.read(clips.render(scene))
        assert seen.present == 1.0
        for name in right:
            right[name] += getattr(seen, name) == getattr(subject, name)
    assert right["hue"] == right["direction"] == count
    assert right["shape"] >= 0.96 * count


def test_the_detector_measures_where_and_how_fast():
    for seed in range(9200, 9220):
        scene, subject, _ = clips.draw(seed)
        if subject.direction == "resting":
            continue
        world, seen = World(scene), detector.read(clips.render(scene))
        poses = np.array([world.pose(t, 0)[:, 2] for t in range(scene.frames)])
        assert np.abs(seen.centres - poses).max() < 2.5  # of a star, the middle of what is seen is not its pose
        assert np.allclose(seen.velocity, (poses[-1] - poses[0]) / (scene.frames - 1), atol=0.15)


def test_the_detector_sees_nothing_where_nothing_is():
    grey = np.full((16, 64, 64, 3), 128, np.uint8)
    noise = np.random.default_rng(0).normal(128, 12, grey.shape).clip(0, 255).astype(np.uint8)
    for frames in (grey, noise):
        seen = detector.read(frames)
        assert (seen.hue, seen.shape, seen.direction, seen.present) == (None, None, None, 0.0)


def test_the_detector_says_how_often_an_object_is_there():
    scene, subject, _ = clips.draw(9001)
    frames = clips.render(scene)
    frames[4:8] = 128
    seen = detector.read(frames)
    assert seen.present == 0.75
    assert seen.direction == subject.direction
    assert np.isnan(seen.centres[4:8]).all()


def test_a_clip_played_backwards_goes_the_other_way():
    scene, subject, _ = clips.draw(9002)
    assert subject.direction != "resting"
    there = detector.read(clips.render(scene)).direction
    back = detector.read(clips.render(scene)[::-1]).direction
    turn = grammar.DIRECTIONS.index(there) - grammar.DIRECTIONS.index(back)
    assert abs(turn) == 4


def test_a_portrait_shows_the_sprite_alone():
    for seed in range(4):
        scene, subject, _ = clips.draw(seed)
        picture = clips.portrait(scene, size=96)
        assert picture.shape == (96, 96, 3)
        assert (picture[:4] == 128).all()
        assert (picture[-4:] == 128).all()
        chroma, hue = detector.colours(picture[None])
        assert detector.main_hue(chroma, hue) == subject.hue
        assert 0.15 < (chroma > detector.COLOURED).mean() < 0.7
