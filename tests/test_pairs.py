"""Counterfactual pairs: one cast, two programs, the same points in both."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retake.errors import ConfigError
from retake.synthetic import FAMILIES, Scene, World, pair
from retake.synthetic.pairs import counterfactual, stage

SEEDS = st.integers(0, 10**6)


def digest(seed: int) -> str:
    """sha256 of everything a pair is."""
    made = pair(seed)
    hashed = hashlib.sha256(repr((made.family, made.target, made.source, made.alike, made.edited)).encode())
    for array in (made.surfaces, made.body, *made.tracks()[0], *made.tracks()[1], frame(made.target, 9)):
        hashed.update(np.ascontiguousarray(array).tobytes())
    return hashed.hexdigest()


def frame(scene: Scene, t: int) -> np.ndarray:
    return World(scene).frame(t)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.sampled_from(list(FAMILIES)))
def test_a_pair_shares_all_but_its_motion(seed, family):
    made = pair(seed, family)
    target, source = made.target, made.source
    assert (target.width, target.height, target.frames, target.noise) == (64, 64, 16, 0.0)
    assert 1 <= len(target.sprites) <= 3
    cast = [tuple(replace(s, poses=()) for s in scene.sprites) for scene in (target, source)]
    assert cast[0] == cast[1]
    assert replace(target, sprites=(), camera=source.camera) == replace(source, sprites=())
    for k in range(len(target.sprites)):
        assert (k in made.edited) == (target.sprites[k].poses != source.sprites[k].poses)
    assert (-1 in made.edited) == (target.camera != source.camera)
    hues = sorted(s.hue for s in target.sprites)
    assert min(np.diff([*hues, hues[0] + 1])) > 0.15  # a hue names a sprite


@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_that_are_alike_begin_and_end_alike(family):
    for seed in range(8):
        one = pair(seed, family)
        same = [bool((frame(one.target, t) == frame(one.source, t)).all()) for t in (0, 15)]
        assert all(same) == one.alike
        if family == "identical":
            assert one.target == one.source
        else:
            assert one.edited
            assert any((frame(one.target, t) != frame(one.source, t)).any() for t in (4, 8, 12))


def test_identical_pairs_are_equal_to_the_bit():
    made = pair(5, "identical")
    for t in range(16):
        np.testing.assert_array_equal(frame(made.target, t), frame(made.source, t))
    (here, seen), (there, shown) = made.tracks()
    np.testing.assert_array_equal(here, there)
    np.testing.assert_array_equal(seen, shown)
    assert made.edited == ()


def test_families_come_in_their_shares():
    made = [pair(seed, points=0) for seed in range(200)]
    count = Counter(one.family for one in made)
    for family, share in FAMILIES.items():
        assert count[family] / 200 == pytest.approx(share, abs=0.09)
    assert np.mean([one.alike for one in made if one.family != "identical"]) == pytest.approx(0.5, abs=0.12)


@settings(max_examples=12, deadline=None)
@given(SEEDS)
def test_the_same_point_has_the_same_colour_in_both(seed):
    made = pair(seed, points=48)
    worlds, colours = (World(made.target), World(made.source)), []
    for world, (xy, visible) in zip(worlds, made.tracks(), strict=True):
        shown = np.full((len(made.body), 16, 3), np.nan)
        for t in range(16):
            image, top = world.frame(t).astype(float), world.surfaces(t)
            x, y = np.clip(np.rint(xy[t]), 1, 62).astype(int).T
            # Where its surface is all around, so that no edge mixes in.
            solid = visible[t] & (np.abs(xy[t] - 31.5) < 30).all(-1)
            for dx, dy in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)):
                solid &= top[y + dy, x + dx] == made.surfaces
            shown[solid, t] = image[y, x][solid]
        colours.append(shown)
    both = np.all([~np.isnan(c).all((1, 2)) for c in colours], axis=0)
    mean = [np.nanmean(c[both], axis=1) for c in colours]
    assert both.sum() >= 8
    right = np.abs(mean[0] - mean[1]).mean()
    wrong = np.abs(mean[0] - mean[1][np.random.default_rng(0).permutation(len(mean[1]))]).mean()
    assert right < 16
    assert right < 0.5 * wrong


@settings(max_examples=12, deadline=None)
@given(SEEDS, st.sampled_from(list(FAMILIES)))
def test_points_lie_on_what_is_seen_and_follow_the_flow(seed, family):
    made = pair(seed, family, points=40)
    (here, seen), (there, shown) = made.tracks()
    assert (here.shape, here.dtype, seen.shape) == ((16, 40, 2), np.float32, (16, 40))
    assert (seen.any(0) | shown.any(0)).all()
    world = World(made.source)
    surfaces, body = world.anchors(3, there[3])
    on = shown[3] & (surfaces == made.surfaces)
    np.testing.assert_allclose(body[on], made.body[on], atol=1e-4)
    # Unedited bodies are at the same places, where the camera is.
    if -1 not in made.edited:
        still = ~np.isin(made.surfaces, made.edited)
        np.testing.assert_array_equal(here[:, still], there[:, still])


def test_points_are_spread_over_the_surfaces():
    made = pair(2, "path", points=64)
    count = Counter(made.surfaces.tolist())
    assert set(count) == {-1, *range(len(made.target.sprites))}
    assert min(count.values()) >= 64 / len(count) / 2
    assert made.body.shape == (64, 2)
    assert pair(2, "path", points=0).body.shape == (0, 2)
    assert pair(2, "path", points=0).tracks()[0][0].shape == (16, 0, 2)


def test_a_late_sprite_is_absent_from_frame_0():
    came = 0
    for seed in range(8):
        made = pair(seed, "late")
        assert 0 in made.edited
        for scene in (made.target, made.source):
            alone = replace(scene, sprites=scene.sprites[1:])
            np.testing.assert_array_equal(frame(scene, 0), frame(alone, 0))
            came += any(World(scene).mask(t, 0).sum() > 20 for t in range(4, 16))
    assert came >= 14  # of 16 clips


def test_pairs_are_the_same_in_other_processes():
    code = "from test_pairs import digest; print(digest(17))"
    env = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.path.dirname(__file__)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120, env=env)
    assert run.stdout.strip() == digest(17)
    assert digest(18) != digest(17)


def test_other_sizes_and_scenes():
    wide = pair(3, "camera", width=96, height=48, frames=9, fps=12.0, points=5)
    assert (wide.source.width, wide.source.height, wide.source.frames, wide.source.fps) == (96, 48, 9, 12.0)
    for family in FAMILIES:
        for seed in range(4):
            assert pair(seed, family, width=16, height=16, frames=4, points=3).target.frames == 4
    rng = np.random.default_rng(0)
    whole = stage(rng, 64, 64, 15, 8.0, sprites=2)
    made = counterfactual(rng, replace(whole, noise=1.0), "time")
    assert (made.target.frames, len(made.target.sprites), made.target.noise) == (8, 2, 1.0)


def test_what_cannot_be_is_said():
    rng = np.random.default_rng(0)
    whole = stage(rng, 64, 64, 15, 8.0)
    for code, call in {
        "E240": lambda: pair(0, "paths"),
        "E241": lambda: pair(-1),
        "E241 ": lambda: pair(0, frames=3),
        "E241  ": lambda: pair(0, width=8),
        "E241   ": lambda: pair(0, points=-1),
        "E241    ": lambda: counterfactual(rng, replace(whole, sprites=()), "path"),
        "E240 ": lambda: counterfactual(rng, whole, "other"),
    }.items():
        with pytest.raises(ConfigError) as refused:
            call()
        assert refused.value.code == code.strip()
        assert refused.value.hint
