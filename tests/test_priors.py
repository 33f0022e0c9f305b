"""Optical flow, masks and tracks against the sprite world, whose motion is known exactly."""

from __future__ import annotations

import functools
import os
import threading
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
import pytest

from retake.errors import ConfigError, MediaError
from retake.imaging import flow
from retake.priors.masks import given, grabcut
from retake.priors.masks.grabcut.first_mask import first_mask, learned
from retake.priors.masks.prompt import Box, Prompt
from retake.priors.optical_flow import dis
from retake.priors.tracks import lucas_kanade
from retake.synthetic.scenes import scene
from retake.synthetic.world import World

NONE = np.zeros((0, 2), np.float32)


@functools.cache
def clip(name: str, count: int = 10, seed: int = 0):
    """A world of that many frames, its frames, and the estimated flow between them."""
    world = World(scene(name, seed, 320, 180, count))
    frames = [world.frame(t) for t in range(count)]
    return world, frames, list(dis.pairs(frames, dis.Params()))


def textured(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = sum(
        k * cv2.resize(rng.random((height // s + 2, width // s + 2, 3)).astype(np.float32), (width, height))
        for s, k in ((2, 1), (5, 2), (16, 4), (50, 8))
    )
    return (image / 15 * 255).astype(np.uint8)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


# Flow as numbers


def test_warp_pulls_the_second_frame_onto_the_first():
    image = np.arange(20, dtype=np.float32).reshape(4, 5)
    right = np.zeros((4, 5, 2), np.float32)
    right[..., 0] = 1
    assert np.array_equal(flow.warp(image, right)[:, :-1], image[:, 1:])
    assert np.array_equal(flow.warp(image, right)[:, -1], image[:, -1])
    assert np.array_equal(flow.warp(image, right, "constant")[:, -1], np.zeros(4))
    down = np.zeros((4, 5, 2), np.float32)
    down[..., 1] = 1
    assert np.array_equal(flow.warp(image, down)[:-1], image[1:])


@pytest.mark.parametrize("channels", [(), (1,), (2,), (3,), (6,)])
@pytest.mark.parametrize("border", ["clamp", "constant"])
def test_fast_and_exact_warp_agree_for_any_number_of_channels(channels, border):
    rng = np.random.default_rng(1)
    image = rng.random((30, 40, *channels), dtype=np.float32)
    motion = rng.normal(0, 6, (30, 40, 2)).astype(np.float32)
    fast, exact = flow.warp(image, motion, border), flow.warp(image, motion, border, exact=True)
    assert fast.shape == exact.shape == image.shape
    assert fast.dtype == exact.dtype == np.float32
    assert np.abs(fast - exact).max() < 0.03  # 1/32 px on white noise, were OpenCV to round
    ramp = np.broadcast_to(np.arange(40.0), (30, 40))
    inside = flow.in_bounds(motion)
    assert np.allclose(flow.warp(ramp, motion)[inside], (ramp + motion[..., 0])[inside], atol=1e-9)


def test_warp_keeps_masks_boolean_and_takes_a_grid_of_another_size():
    mask = np.zeros((20, 20), bool)
    mask[5:10, 5:10] = True
    warped = flow.warp(mask, np.full((12, 14, 2), 3.0, np.float32))
    assert warped.dtype == bool
    assert warped.shape == (12, 14)
    assert np.array_equal(np.argwhere(warped)[[0, -1]], [[2, 2], [6, 6]])


def test_in_bounds_ends_at_the_outermost_centres():
    motion = np.zeros((3, 4, 2), np.float32)
    motion[..., 0] = 1
    assert np.array_equal(flow.in_bounds(motion), np.broadcast_to([True, True, True, False], (3, 4)))


def test_occlusion_finds_what_the_front_sprite_covers():
    world, _, _ = clip("cross")
    forward, backward = world.flow(4, 5), world.flow(5, 4)
    found = flow.occlusion(forward, backward, boundaries=False) | ~flow.in_bounds(forward)
    truth = world.occlusion(4, 5)
    assert truth.sum() > 100
    assert (found & truth).sum() > 0.85 * truth.sum()
    assert (found & ~truth).sum() < 0.01 * truth.size
    assert (flow.occlusion(forward, backward) >= flow.occlusion(forward, backward, boundaries=False)).all()
    assert not flow.occlusion(np.full((9, 9, 2), 2.0), np.full((9, 9, 2), -2.0)).any()


def test_resized_flow_keeps_its_motion():
    motion = np.full((48, 64, 2), (8.0, -6.0), np.float32)
    assert np.allclose(flow.resize_flow(motion, (32, 12)), (4.0, -1.5))
    assert flow.resize_flow(motion, (32, 12)).shape == (12, 32, 2)
    assert np.allclose(flow.resize_flow(motion, (128, 48)), (16.0, -6.0))
    assert np.array_equal(flow.resize_flow(motion, (64, 48)), motion)


# Dense inverse search


@pytest.mark.parametrize(("name", "mean", "median"), [("still", 0.1, 0.01), ("drift", 0.2, 0.1), ("zoom", 0.2, 0.1)])
def test_dis_recovers_the_motion_both_ways(name, mean, median):
    world, _, found = clip(name)
    for t in (0, 5):
        for motion, truth, hidden in (
            (found[t][0], world.flow(t, t + 1), world.occlusion(t, t + 1)),
            (found[t][1], world.flow(t + 1, t), world.occlusion(t + 1, t)),
        ):
            error = np.hypot(*np.moveaxis(motion - truth, -1, 0))[~hidden]
            assert motion.dtype == np.float32
            assert error.mean() < mean
            assert np.median(error) < median


@pytest.mark.parametrize("shift", [4, 16, 40])
def test_dis_finds_small_and_large_shifts_with_the_right_sign(shift):
    wide = textured(180, 320 + shift)
    first, second = wide[:, shift:], wide[:, :320]
    forward, backward = dis.estimate(first, second, dis.Params())
    assert np.median(np.abs(forward[:, : 320 - shift] - (shift, 0))) < 0.05
    assert np.median(np.abs(backward[:, shift:] - (-shift, 0))) < 0.05


def test_dis_does_not_depend_on_threads_or_workers():
    _, frames, found = clip("drift")
    before = cv2.getNumThreads()
    try:
        for threads in (1, 4):
            cv2.setNumThreads(threads)
            again = list(dis.pairs(iter(frames), dis.Params(), workers=1 + threads))
            assert cv2.getNumThreads() == threads
            assert len(again) == len(frames) - 1
            assert all(
                np.array_equal(a, b) for x, y in zip(again, found, strict=True) for a, b in zip(x, y, strict=True)
            )
    finally:
        cv2.setNumThreads(before)
    alone = dis.estimate(frames[3], frames[4], dis.Params())
    assert np.array_equal(alone[0], found[3][0])


def test_dis_reads_only_a_few_frames_ahead():
    _, frames, _ = clip("still")
    taken = 0

    def counted():
        nonlocal taken
        for frame in frames:
            taken += 1
            yield frame

    stream = dis.pairs(counted(), dis.Params(preset="ultrafast"), workers=2)
    next(stream)
    assert taken <= 4
    stream.close()
    assert list(dis.pairs(frames[:1], dis.Params())) == []


@pytest.mark.parametrize("size", [(1, 1), (9, 40), (16, 16), (31, 200)])
def test_dis_takes_frames_of_any_size(size):
    image = textured(*size)
    forward, backward = dis.estimate(image, image, dis.Params())
    assert forward.shape == backward.shape == (*size, 2)
    assert np.abs(forward).max() < 0.1
    with pytest.raises(ValueError, match="one size"):
        dis.estimate(image, textured(size[0] + 1, size[1]), dis.Params())


# GrabCut


class Begun(NamedTuple):
    """The first mask, and the colours that every step compares with."""

    mask: np.ndarray
    state: dict[str, np.ndarray]


def start(frame: np.ndarray, box, points, params: grabcut.Params) -> Begun:
    mask = first_mask(frame, Prompt(box=box, points=points), params)
    return Begun(mask, learned(frame, mask, params))


def loose_box(world: World, t: int, factor: float = 1.3) -> Box:
    x0, y0, x1, y1 = world.box(t, 0)
    dx, dy = (x1 - x0) * (factor - 1) / 2, (y1 - y0) * (factor - 1) / 2
    return x0 - dx, y0 - dy, x1 + dx, y1 + dy


def follow(name: str, count: int, query: int = 0, params: grabcut.Params | None = None):
    """Masks of all frames from a loose box at `query`, carried both ways."""
    world, frames, found = clip(name, count)
    params = params or grabcut.Params()
    begun = start(frames[query], loose_box(world, query), (), params)
    masks = {query: begun.mask}
    for t in range(query + 1, count):
        forward, backward = found[t - 1]
        hidden = flow.occlusion(backward, forward, boundaries=False)
        masks[t] = grabcut.step(frames[t], masks[t - 1], backward, begun.state, params, hidden).mask
    for t in range(query - 1, -1, -1):
        forward, backward = found[t]
        hidden = flow.occlusion(forward, backward, boundaries=False)
        masks[t] = grabcut.step(frames[t], masks[t + 1], forward, begun.state, params, hidden).mask
    return world, masks


@pytest.mark.parametrize(("name", "query"), [("still", 0), ("drift", 0), ("drift", 9), ("zoom", 5)])
def test_grabcut_follows_the_sprite_from_a_loose_box(name, query):
    world, masks = follow(name, 10, query)
    assert min(iou(masks[t], world.mask(t, 0)) for t in masks) > 0.96


def test_grabcut_lets_go_of_an_object_that_is_hidden():
    world, masks = follow("cross", 24)
    hidden = [t for t in masks if world.mask(t, 0).sum() < 16]
    assert hidden, "the scene hides its sprite"
    assert iou(masks[3], world.mask(3, 0)) > 0.96
    assert not any(masks[t].any() for t in range(hidden[-1], 24))


def test_grabcut_lets_go_of_an_object_that_leaves_the_frame():
    ground, ball = textured(120, 160, 1) // 3, np.uint8([230, 60, 40])
    centres = range(110, 200, 8)
    params, frames, yy, xx = grabcut.Params(), [], *np.mgrid[:120, :160]
    for x in centres:
        inside = np.hypot(xx - x, yy - 60) < 20
        frames.append(np.where(inside[..., None], ball + textured(120, 160, 3) // 12, ground))
    begun = start(frames[0], (84, 34, 136, 86), (), params)
    mask = begun.mask
    for before, frame, x in zip(frames, frames[1:], list(centres)[1:], strict=False):
        forward, backward = dis.estimate(before, frame, dis.Params())
        hidden = flow.occlusion(backward, forward, boundaries=False)
        mask = grabcut.step(frame, mask, backward, begun.state, params, hidden).mask
        truth = np.hypot(xx - x, yy - 60) < 20
        assert (mask & ~truth).sum() < 60
    assert not mask.any()


def test_grabcut_keeps_the_warped_mask_where_a_fit_is_not_credible():
    world, frames, found = clip("drift")
    begun = start(frames[0], loose_box(world, 0), (), grabcut.Params())
    strict = grabcut.Params(iou_gate=1.0)
    step = grabcut.step(frames[1], begun.mask, found[0][1], begun.state, strict)
    assert not step.refitted
    assert np.array_equal(step.mask, flow.warp(begun.mask, found[0][1]))
    empty = grabcut.step(frames[1], np.zeros_like(begun.mask), found[0][1], begun.state, strict)
    assert not empty.mask.any()


def test_grabcut_repeats_bit_for_bit_on_any_number_of_threads():
    world, frames, found = clip("zoom")
    results = []
    before = cv2.getNumThreads()
    try:
        for threads in (1, 3):
            cv2.setNumThreads(threads)
            cv2.setRNGSeed(threads)
            begun = start(frames[0], loose_box(world, 0), (), grabcut.Params())
            step = grabcut.step(frames[1], begun.mask, found[0][1], begun.state, grabcut.Params())
            results.append((begun.mask, step.mask, *begun.state.values()))
    finally:
        cv2.setNumThreads(before)
    assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True))
    assert all(isinstance(array, np.ndarray) for array in begun.state.values())


def test_grabcut_starts_from_points_and_obeys_them():
    world, frames, _ = clip("still")
    x0, y0, x1, y1 = world.box(0, 0)
    middle = ((x0 + x1) / 2, (y0 + y1) / 2, 1)
    alone = start(frames[0], None, (middle,), grabcut.Params()).mask
    assert iou(alone, world.mask(0, 0)) > 0.9
    beside = (round((x0 + x1) / 2), round(y0 + 0.3 * (y1 - y0)), 0)
    both = start(frames[0], loose_box(world, 0), (middle, beside), grabcut.Params()).mask
    assert both[round(middle[1]), round(middle[0])]
    assert not both[beside[1], beside[0]]


@pytest.mark.parametrize(
    ("box", "points", "code"),
    [
        ((400, 10, 500, 60), (), "E221"),
        ((20, 20, 20, 60), (), "E221"),
        ((20, 20, float("nan"), 60), (), "E221"),
        ((318, 100, 400, 140), (), "E221"),
        (None, ((-3, 5, 1),), "E221"),
        (None, (), "E222"),
        (None, ((5, 5, 0),), "E222"),
    ],
)
def test_grabcut_explains_a_wrong_prompt(box, points, code):
    _, frames, _ = clip("still")
    with pytest.raises(ConfigError) as caught:
        start(frames[0], box, points, grabcut.Params())
    assert caught.value.code == code
    assert caught.value.hint
    assert code != "E221" or "320x180" in caught.value.message


def test_grabcut_says_when_there_is_nothing_to_separate():
    with pytest.raises(ConfigError) as caught:
        start(np.full((90, 120, 3), 128, np.uint8), (30, 20, 90, 70), (), grabcut.Params())
    assert caught.value.code == "E220"


def test_grabcut_takes_the_whole_frame_as_a_box():
    _, frames, _ = clip("still")
    mask = start(frames[0], (0, 0, 320, 180), (), grabcut.Params()).mask
    assert mask.any()
    assert not mask.all()


# Given masks


def write_index(path, mask: np.ndarray, value: int, palette: bool = True) -> None:
    from PIL import Image

    image = Image.fromarray((mask * value).astype(np.uint8))
    if palette:
        image = image.convert("P")
        image.putpalette([c for i in range(256) for c in (0, (37 * i) % 256, (91 * i) % 256)])
        image = Image.frombytes("P", image.size, (mask * value).astype(np.uint8).tobytes())
        image.putpalette([c for i in range(256) for c in (0, (37 * i) % 256, (91 * i) % 256)])
    image.save(path)


def discs(count: int = 3) -> list[np.ndarray]:
    yy, xx = np.mgrid[:60, :80]
    return [np.hypot(xx - 20 - 10 * t, yy - 30) < 14 for t in range(count)]


@pytest.mark.parametrize("palette", [True, False])
def test_given_reads_index_images_as_davis_writes_them(tmp_path, palette):
    truth = discs()
    for t, mask in enumerate(truth):
        write_index(tmp_path / f"{t:05d}.png", mask, 2, palette)
    for wanted, id, expected in ((None, 2, truth), (2, 2, truth), (1, 1, [m & False for m in truth])):
        params = given.Params(object=wanted)
        found = list(given.masks(tmp_path, params, 3, (80, 60)))
        assert given.ids(tmp_path, params) == (id,)
        assert all(list(f) == [id] and f[id].dtype == bool for f in found)
        assert all(np.array_equal(f[id], e) for f, e in zip(found, expected, strict=True))


def test_given_finds_every_object_of_a_folder_on_every_frame(tmp_path):
    truth = discs()
    for t, mask in enumerate(truth):
        index = mask * 7
        index[:5] = 200 if t == 2 else 0  # comes late
        write_index(tmp_path / f"{t}.png", index, 1)
    assert given.ids(tmp_path, given.Params()) == (7, 200)
    found = list(given.masks(tmp_path, given.Params(), 3, (80, 60)))
    assert [sorted(f) for f in found] == [[7, 200]] * 3
    assert [f[200].any() for f in found] == [False, False, True]
    assert all(np.array_equal(f[7][5:], mask[5:]) for f, mask in zip(found, truth, strict=True))
    assert found[2][200][:5].all()
    assert given.ids(tmp_path, given.Params(object=200)) == (200,)


def test_given_takes_black_and_white_as_one_object_and_refuses_what_holds_no_ids(tmp_path):
    from PIL import Image

    black, white, wide, soft = (tmp_path / name for name in ("black", "white", "wide", "soft"))
    for folder in (black, white, wide, soft):
        folder.mkdir()
    disc = discs(1)[0]
    write_index(black / "0.png", disc & False, 1)
    write_index(white / "0.png", disc, 255, palette=False)
    Image.fromarray(disc.astype(np.uint16) * 65535).save(white / "1.png")
    Image.fromarray(disc.astype(np.uint16) * 300).save(wide / "0.png")
    Image.fromarray(np.tile(np.arange(80, dtype=np.uint8), (60, 1))).save(soft / "0.png")
    assert given.ids(black, given.Params()) == given.ids(white, given.Params()) == (1,)
    assert not next(given.masks(black, given.Params(), 1, (80, 60)))[1].any()
    assert all(np.array_equal(f[1], disc) for f in given.masks(white, given.Params(), 2, (80, 60)))
    for folder in (wide, soft):
        with pytest.raises(MediaError) as caught:
            given.ids(folder, given.Params())
        assert caught.value.code == "E438"
    assert next(given.masks(soft, given.Params(object=9), 1, (80, 60)))[9].sum() == 60


def test_given_orders_by_number_and_reads_colour_and_alpha(tmp_path):
    from PIL import Image

    truth = discs(11)
    for t, mask in enumerate(truth):
        if t % 2:
            Image.fromarray(np.dstack([mask * 255] * 3).astype(np.uint8)).save(tmp_path / f"m{t}.png")
        else:
            alpha = np.dstack([np.full((60, 80, 3), 90), mask * 255]).astype(np.uint8)
            Image.fromarray(alpha).save(tmp_path / f"m{t}.png")
    found = list(given.masks(tmp_path, given.Params(), 11, (80, 60)))
    assert all(np.array_equal(f[1], e) for f, e in zip(found, truth, strict=True))
    with pytest.raises(ConfigError) as caught:
        list(given.masks(tmp_path, given.Params(object=1), 11, (80, 60)))
    assert caught.value.code == "E223"


def test_given_sees_no_hidden_files_and_any_name(tmp_path):
    truth = discs(3)
    for name, mask in zip(("a\u00b2.png", "1.png", "\u00b21.png"), (truth[1], truth[0], truth[2]), strict=True):
        write_index(tmp_path / name, mask, 1)  # a digit that is no number: 1, a², ²1 is their order
    write_index(tmp_path / ".00000.png", truth[0], 7)
    (tmp_path / "._1.png").write_bytes(b"what macOS leaves on foreign disks")
    assert given.ids(tmp_path, given.Params()) == (1,)
    given.check(given.Params(path=str(tmp_path)), {"count": 3})
    found = list(given.masks(tmp_path, given.Params(), 3, (80, 60)))
    assert all(np.array_equal(f[1], mask) for f, mask in zip(found, truth, strict=True))


def test_given_does_not_wait_for_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "0.png")
    held = os.open(tmp_path / "0.png", os.O_RDWR)
    ending = threading.Timer(0.5, os.close, [held])  # so that one who waits is not kept for ever
    ending.start()
    with pytest.raises(MediaError) as caught:
        given.ids(tmp_path, given.Params())
    ending.join()
    assert caught.value.code == "E400"


def test_given_fits_masks_to_the_working_size(tmp_path):
    for t, mask in enumerate(discs(1)):
        write_index(tmp_path / f"{t}.png", mask, 1)
    small = next(given.masks(tmp_path, given.Params(), 1, (40, 30)))[1]
    large = next(given.masks(tmp_path, given.Params(), 1, (160, 120)))[1]
    assert small.shape == (30, 40)
    assert abs(small.sum() * 16 - large.sum()) < 0.05 * large.sum()


def test_given_refuses_what_does_not_match(tmp_path):
    for t, mask in enumerate(discs()):
        write_index(tmp_path / f"{t}.png", mask, 1)

    def fails(path, count, size, code):
        with pytest.raises((ConfigError, MediaError)) as caught:
            list(given.masks(path, given.Params(), count, size))
        assert caught.value.code == code
        return caught.value.message

    assert "3 masks" in fails(tmp_path, 5, (80, 60), "E430")
    assert "80x60" in fails(tmp_path, 3, (80, 80), "E430")
    fails(tmp_path / "nowhere", 3, (80, 60), "E400")
    fails("", 3, (80, 60), "E223")
    (tmp_path / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    fails(tmp_path, 3, (80, 60), "E420")


def test_given_reads_a_mask_video(tmp_path):
    from retake import video

    truth = discs(6)
    frames = (np.repeat((mask * 255).astype(np.uint8)[..., None], 3, axis=2) for mask in truth)
    video.encode(tmp_path / "mask.mp4", frames, 10.0)
    found = list(given.masks(tmp_path / "mask.mp4", given.Params(), 6, (80, 60)))
    assert min(iou(f[1], e) for f, e in zip(found, truth, strict=True)) > 0.93
    with pytest.raises(MediaError) as caught:
        list(given.masks(tmp_path / "mask.mp4", given.Params(), 4, (80, 60)))
    assert caught.value.code == "E430"


# Lucas-Kanade


def track(name: str, count: int, times: range):
    """Error [P, N] in px, what the tracker calls visible and what is, from queries on the first of `times`."""
    world, frames, _ = clip(name, count)
    params = lucas_kanade.Params()
    points = lucas_kanade.seed(world.mask(times[0], 0), frames[times[0]], params, NONE)
    truth, visible = world.tracks(points, times[0], list(times))
    alive = np.ones(len(points), bool)
    found, living = [points], [alive]
    for before, after in pairwise(times):
        grays = lucas_kanade.gray(frames[before]), lucas_kanade.gray(frames[after])
        points, ok = lucas_kanade.step(*grays, points, params)
        alive = alive & ok
        found.append(points)
        living.append(alive)
    return np.linalg.norm(np.array(found) - truth, axis=-1), np.array(living), visible


@pytest.mark.parametrize("name", ["still", "drift", "zoom"])
@pytest.mark.parametrize("times", [range(10), range(9, -1, -1)])
def test_tracks_stay_on_the_body_in_both_directions(name, times):
    error, living, visible = track(name, 10, times)
    both = living & visible
    assert living.shape[1] > 20
    assert error[both].mean() < 0.5
    assert np.median(error[both]) < (0.6 if name == "zoom" else 0.2)
    assert both.sum() > 0.95 * living.sum()
    assert both.sum() > 0.9 * visible.sum()


def test_tracks_of_a_hidden_body_are_lost():
    _, living, visible = track("cross", 24, range(24))
    covered = ~visible.all(0)
    assert covered.sum() > 20
    assert (living & ~visible).sum() <= 0.03 * living.sum()
    assert living[-1, covered].sum() <= 0.05 * covered.sum()
    assert (living[1:] <= living[:-1]).all()


def test_tracks_do_not_depend_on_threads_or_company():
    world, frames, _ = clip("drift")
    params = lucas_kanade.Params()
    points = lucas_kanade.seed(world.mask(0, 0), frames[0], params, NONE)
    grays = lucas_kanade.gray(frames[0]), lucas_kanade.gray(frames[1])
    whole = lucas_kanade.step(*grays, points, params)
    part = lucas_kanade.step(*grays, points[3:9], params)
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(4)
        again = lucas_kanade.step(*grays, points, params)
    finally:
        cv2.setNumThreads(before)
    assert np.array_equal(whole[0], again[0])
    assert np.array_equal(whole[1], again[1])
    assert np.array_equal(whole[0][3:9], part[0])


def test_a_point_that_leaves_the_frame_or_the_mask_is_lost():
    wide = textured(90, 140)
    first, second = lucas_kanade.gray(wide[:, :120]), lucas_kanade.gray(wide[:, 20:])
    points = np.float32([[10, 45], [60, 45], [90, 20]])
    moved, ok = lucas_kanade.step(first, second, points, lucas_kanade.Params())
    assert ok.tolist() == [False, True, True]
    assert np.allclose(moved[1:], points[1:] - (20, 0), atol=0.1)
    upper = np.zeros((90, 120), bool)
    upper[:30] = True
    assert lucas_kanade.step(first, second, points, lucas_kanade.Params(), upper)[1].tolist() == [
        False,
        False,
        True,
    ]
    none = lucas_kanade.step(first, second, NONE, lucas_kanade.Params())
    assert none[0].shape == (0, 2)


def test_seeds_lie_in_the_mask_and_away_from_living_points():
    world, frames, _ = clip("drift")
    mask, params = world.mask(0, 0), lucas_kanade.Params(spacing=6, margin=0)
    points = lucas_kanade.seed(mask, frames[0], params, NONE)
    x, y = points.astype(int).T
    assert mask[y, x].all()
    assert 0.6 < len(points) / (mask.sum() / 36) < 1.6
    half = points[::2]
    more = lucas_kanade.seed(mask, frames[0], params, half)
    assert 0 < len(more) <= len(points) - len(half)
    assert np.linalg.norm(more[:, None] - half[None], axis=-1).min() >= 3
    assert len(lucas_kanade.seed(mask, frames[0], lucas_kanade.Params(max_points=7), NONE)) == 7
    assert len(lucas_kanade.seed(mask & False, frames[0], params, NONE)) == 0
    thin = np.zeros_like(mask)
    thin[:, 100:104] = True
    assert len(lucas_kanade.seed(thin, frames[0], lucas_kanade.Params(), NONE)) > 5
