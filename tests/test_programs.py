"""Motion programs against the frames they re-index, and the world's truth under them against the poses."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retake.errors import ConfigError
from retake.synthetic import Pose, Scene, Sprite, World, scene
from retake.synthetic import programs as p

FRAMES = 9
ANGLES = st.floats(-10, 10)
POSES = st.builds(Pose, st.floats(-50, 50), st.floats(-50, 50), ANGLES, st.floats(0.2, 5), st.floats(-0.5, 0.5))


def stage(camera: bool = True, **changes) -> Scene:
    """A disc (0) that goes past a large box (1, nearer) under a camera that pans, rolls and zooms; no noise."""
    seconds = [t / (FRAMES - 1) for t in range(FRAMES)]
    disc = tuple(Pose(12 + 12 * u, 46 - 30 * u, 1.5 * u, 1 + 0.3 * u) for u in seconds)
    box = tuple(Pose(44 - 6 * u, 24 + 6 * u, -u, 1.0, 0.1 * u) for u in seconds)
    view = tuple(Pose(5 * u, -3 * u, 0.3 * u, 1 + 0.2 * u) for u in seconds) if camera else (Pose(),) * FRAMES
    cast = (Sprite("disc", 6.0, 0.0, 1, 1, disc), Sprite("box", 13.0, 0.5, 2, 2, box))
    return replace(Scene(64, 60, FRAMES, 8.0, cast, view), **changes)


def frames(scene: Scene) -> np.ndarray:
    world = World(scene)
    return np.stack([world.frame(t) for t in range(scene.frames)])


def without(scene: Scene, sprite: int) -> Scene:
    return replace(scene, sprites=tuple(s for k, s in enumerate(scene.sprites) if k != sprite))


def placed(scene: Scene, t: int, sprite: int, body: np.ndarray) -> np.ndarray:
    """Where points [..., 2] of a body are in frame t: complex numbers, no matrices of the code under test."""
    pose, view = scene.sprites[sprite].poses[t] if sprite >= 0 else Pose(), scene.camera[t]
    z = body[..., 0] + pose.shear * body[..., 1] + 1j * body[..., 1]
    z = z * pose.scale * np.exp(1j * pose.angle) + pose.x + 1j * pose.y
    middle = (scene.width - 1) / 2 + 1j * (scene.height - 1) / 2
    z = (z - middle) * view.scale * np.exp(1j * view.angle) + middle + view.x + 1j * view.y
    return np.stack([z.real, z.imag], -1)


PROGRAMMED = {
    "detour": lambda s: p.move(s, 0, p.detour(s.sprites[0].poses, Pose(12, -9, 1.0, 1.3, 0.2))),
    "paced": lambda s: p.retime(s, p.paced(s.frames, (3, 1))),
    "one sprite backward": lambda s: p.retime(s, p.backward(s.frames), sprite=1),
    "film": lambda s: p.film(s, p.tween(Pose(-8, 3, -0.2, 0.9), Pose(6, 6, 0.5, 1.4), s.frames)),
    "crop": lambda s: p.crop(s, p.tween(Pose(-9, 4, 0.3, 0.6), Pose(8, -5, -0.2, 0.7), s.frames)),
    "enter": lambda s: p.enter(s, 0, 2, 6, 0.7),
    "emerge": lambda s: p.emerge(s, 0, 1, 3, 7),
}


@pytest.mark.parametrize("name", PROGRAMMED)
def test_the_truth_stays_exact_under_every_program(name):
    scene = PROGRAMMED[name](stage())
    world = World(scene)
    x, y = np.meshgrid(np.arange(scene.width), np.arange(scene.height))
    pixels = np.stack([x, y], -1).astype(float)
    for t, s in ((2, 3), (7, 1)):
        top = world.surfaces(t)
        surfaces, body = world.anchors(t, pixels)
        np.testing.assert_array_equal(surfaces.reshape(top.shape), top)
        expected, flow = np.empty(pixels.shape), world.flow(t, s)
        for k in np.unique(top):
            on = (surfaces == k).reshape(top.shape)
            np.testing.assert_allclose(placed(scene, t, int(k), body[surfaces == k]), pixels[on], atol=1e-9)
            expected[on] = placed(scene, s, int(k), body[surfaces == k]) - pixels[on]
        np.testing.assert_allclose(flow, expected, atol=1e-3)
        xy, visible = world.follow(surfaces, body, [s])
        np.testing.assert_allclose(xy[0].reshape(pixels.shape), pixels + expected, atol=1e-3)
        np.testing.assert_array_equal(visible[0].reshape(top.shape), ~world.occlusion(t, s))


@settings(max_examples=50, deadline=None)
@given(POSES, POSES, st.floats(0, 1))
def test_between_two_poses(a, b, share):
    c = p.between(a, b, share)
    assert abs(c.angle - a.angle) <= math.pi * share + 1e-9  # never more than half a turn
    assert np.exp(1j * p.between(a, b, 1.0).angle) == pytest.approx(np.exp(1j * b.angle), abs=1e-6)
    assert math.log(c.scale) == pytest.approx((1 - share) * math.log(a.scale) + share * math.log(b.scale), abs=1e-6)
    assert p.between(a, b, 0.0) == a
    back = p.between(b, a, 1 - share)
    assert (c.x, c.y, c.shear) == pytest.approx((back.x, back.y, back.shear), abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.lists(POSES, min_size=1, max_size=9), st.floats(-20, 20))
def test_poses_at_any_time(poses, time):
    assert p.retimed(poses, range(len(poses))) == tuple(poses)
    assert p.retimed(p.retimed(poses, p.backward(len(poses))), p.backward(len(poses))) == tuple(poses)
    here = p.at(poses, time)
    assert min(q.scale for q in poses) * 0.999 <= here.scale <= max(q.scale for q in poses) * 1.001
    if time <= 0 or time >= len(poses) - 1:
        assert here == poses[0 if time <= 0 else -1]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 9), min_size=1, max_size=5).filter(lambda v: sum(v) > 0.1), st.integers(1, 30))
def test_pace(speeds, count):
    times = p.paced(count, speeds, 3.0, 11.0)
    assert len(times) == count
    assert all(b >= a - 1e-9 for a, b in pairwise(times))
    assert times[0] == 3.0
    assert count == 1 or times[-1] == pytest.approx(11.0)
    even = p.paced(count, (2, 2))
    assert even == pytest.approx([float(t) for t in range(count)])


def test_twice_as_fast_in_the_first_half():
    times = p.paced(25, (2, 1))
    assert times[12] == pytest.approx(16)
    assert np.diff(times).tolist() == pytest.approx([4 / 3] * 12 + [2 / 3] * 12)


@settings(max_examples=50, deadline=None)
@given(POSES, st.integers(2, 12), st.sampled_from(list(p.RAMPS)))
def test_a_detour_keeps_the_ends_it_is_told_to(by, count, keep):
    path = p.tween(Pose(1, 2, 3, 0.5), Pose(9, 8, 2, 2), count)
    other = p.detour(path, by, keep)
    assert (other[0] == path[0]) == (keep in ("both", "first") or by == Pose())
    assert (other[-1] == path[-1]) == (keep in ("both", "last") or by == Pose())
    if keep == "none":
        assert other[count // 2].x == pytest.approx(path[count // 2].x + by.x)


def test_retimed_scenes_show_the_frames_they_name():
    dim = tuple(1 - 0.05 * t for t in range(FRAMES))
    base = stage(light=dim)
    base = replace(base, sprites=(replace(base.sprites[0], light=dim[::-1]), base.sprites[1]))
    shown = frames(base)
    np.testing.assert_array_equal(frames(p.retime(base, p.backward(FRAMES))), shown[::-1])
    later = frames(p.retime(base, p.shifted(FRAMES, 3)))
    np.testing.assert_array_equal(later, shown[[3, 4, 5, 6, 7, 8, 8, 8, 8]])
    back, forth = (p.retime(base, times) for times in p.halves(FRAMES))
    np.testing.assert_array_equal(frames(back), shown[4::-1])
    np.testing.assert_array_equal(frames(forth), shown[4:])
    assert [len(times) for times in p.halves(8)] == [4, 4]
    assert p.halves(8)[0][0] == p.halves(8)[1][0] == 4
    between = frames(p.retime(base, (2.5,)))[0].astype(float)
    assert np.abs(between - shown[2]).mean() < np.abs(shown[3].astype(float) - shown[2]).mean()


def test_motion_runs_backward_with_the_clip():
    base, turned = World(stage()), World(p.retime(stage(), p.backward(FRAMES)))
    np.testing.assert_array_equal(turned.flow(1, 2), base.flow(7, 6))
    np.testing.assert_array_equal(turned.occlusion(0, 5), base.occlusion(8, 3))


def test_sensor_noise_keeps_the_clock():
    noisy = scene("still", width=64, height=48, frames=4)
    noisy = replace(noisy, noise=2.0)
    shown, turned = frames(noisy), frames(p.retime(noisy, p.backward(4)))
    assert (turned[0] != shown[3]).any()
    assert np.abs(turned[0].astype(float) - shown[3]).mean() < 4


def test_a_program_for_one_sprite_leaves_the_others():
    base = stage()
    for other in (PROGRAMMED["detour"](base), p.retime(base, p.paced(FRAMES, (1, 3)), sprite=0)):
        np.testing.assert_array_equal(frames(without(other, 0)), frames(without(base, 0)))
        before, after = World(base), World(other)
        np.testing.assert_array_equal(after.frame(0), before.frame(0))
        np.testing.assert_array_equal(after.frame(8), before.frame(8))
        assert np.abs(after.pose(4, 0) - before.pose(4, 0)).max() > 2


def test_a_window_shows_what_is_in_it():
    base = stage()
    np.testing.assert_array_equal(frames(p.crop(base, [Pose()] * FRAMES)), frames(base))
    # Half the frame, 8 to the right and 5 up of its middle: pixels of the window are quarters of the frame's.
    window = World(p.crop(base, [Pose(8, -5, 0, 0.5)] * FRAMES)).frame(3).astype(float)
    fine = window.reshape(30, 2, 32, 2, 3).mean((1, 3))
    np.testing.assert_allclose(fine, World(base).frame(3)[10:40, 24:56], atol=40)
    assert np.abs(fine - World(base).frame(3)[10:40, 24:56]).mean() < 2.5
    # A turned, sliding one, by its own formula.
    slide = p.tween(Pose(-9, 4, 0.3, 0.6), Pose(8, -5, -0.2, 0.7), FRAMES)
    points = np.array([[0.0, 0.0], [3.0, -2.0]])
    xy, _ = World(p.crop(base, slide)).follow([0, 0], points)
    for t, w in enumerate(slide):
        off = (placed(base, t, 0, points) - (31.5 + w.x, 29.5 + w.y)) @ (1, 1j) * np.exp(-1j * w.angle) / w.scale
        np.testing.assert_allclose(xy[t], np.stack([off.real + 31.5, off.imag + 29.5], -1), atol=1e-4)


@settings(max_examples=15, deadline=None)
@given(st.floats(0, 2 * math.pi), st.integers(1, 4), st.integers(0, 4))
def test_who_comes_late_from_outside_is_absent_before(angle, first, more):
    base = stage()
    late = p.enter(base, 0, first, first + more, angle)
    settled, gone = frames(late), frames(without(base, 0))
    np.testing.assert_array_equal(settled[:first], gone[:first])
    assert late.sprites[0].poses[first + more :] == base.sprites[0].poses[first + more :]
    # It comes from the side it was told.
    world = World(late)
    off = world.pose(0, 0)[:, 2] - World(base).pose(0, 0)[:, 2]
    assert math.remainder(math.atan2(off[1], off[0]) - angle, 2 * math.pi) == pytest.approx(0, abs=1e-6)


def test_who_comes_late_from_behind_is_hidden_before():
    base = stage()
    late = p.emerge(base, 0, 1, 3, 6)
    shown, gone, world = frames(late), frames(without(base, 0)), World(late)
    np.testing.assert_array_equal(shown[:3], gone[:3])
    np.testing.assert_array_equal(shown[6:], frames(base)[6:])
    assert (world.box(0, 0), world.box(2, 0)) == (None, None)
    assert world.mask(5, 0).any()
    # A point of it that frame 0 does not show is followed all the same.
    xy, visible = world.follow([0], [[1.0, 2.0]])
    assert visible[:, 0].tolist()[:3] == [False] * 3
    assert visible[6:, 0].all()
    np.testing.assert_allclose(xy[:, 0], [placed(late, t, 0, np.array([1.0, 2.0])) for t in range(FRAMES)], atol=1e-4)


def test_follow_agrees_with_tracks():
    world = World(stage())
    points = np.random.default_rng(0).uniform((0, 0), (63, 59), (50, 2))
    surfaces, body = world.anchors(4, points)
    assert set(surfaces.tolist()) == {-1, 0, 1}
    xy, visible = world.follow(surfaces, body)
    same, seen = world.tracks(points, query=4)
    np.testing.assert_allclose(xy, same, atol=1e-4)
    np.testing.assert_array_equal(visible, seen)
    assert (xy.dtype, visible.dtype) == (np.float32, bool)
    some, _ = world.follow(surfaces, body, frames=[5, 2])
    np.testing.assert_array_equal(some, xy[[5, 2]])
    assert world.follow([], np.empty((0, 2)))[0].shape == (FRAMES, 0, 2)


def test_what_does_not_fit_is_said():
    base = stage()
    for code, call in {
        "E242": lambda: p.move(base, 2, base.camera),
        "E242 ": lambda: p.enter(base, -1, 1, 2, 0.0),
        "E242  ": lambda: World(base).follow([2], [[0, 0]]),
        "E241": lambda: p.retime(base, (0.0, 1.0), sprite=0),
        "E241 ": lambda: p.film(base, ()),
        "E246": lambda: p.detour(base.camera, Pose(), "ends"),
        "E246 ": lambda: p.paced(5, (1, -1)),
        "E246  ": lambda: p.crop(base, [Pose()]),
        "E246   ": lambda: p.enter(base, 0, 3, 2, 0.0),
        "E246    ": lambda: p.emerge(base, 1, 0, 2, 4),
        "E246     ": lambda: p.emerge(p.move(base, 1, p.detour(base.camera, Pose(0, 0, 0, 0.4), "none")), 0, 1, 2, 4),
    }.items():
        with pytest.raises(ConfigError) as refused:
            call()
        assert refused.value.code == code.strip()
        assert refused.value.hint
