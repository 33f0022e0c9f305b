"""The sprite world against itself: what it draws must move exactly as it says."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest

from retake.errors import ConfigError
from retake.synthetic import PICTURES, SCENES, VERSION, Pose, Scene, Sprite, World, reference_image, scene

SMALL = {"width": 160, "height": 90, "frames": 12, "fps": 6.0}


def small(name: str, seed: int = 0, noise: float = 0.0, **changes) -> World:
    return World(replace(scene(name, seed, **{**SMALL, **changes}), noise=noise))


def grid(world: World) -> np.ndarray:
    x, y = np.meshgrid(np.arange(world.width), np.arange(world.height))
    return np.stack([x, y], axis=-1).astype(np.float64)


def sample(image: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Bilinear samples of image [H, W, C] at xy [..., 2], borders continued."""
    h, w = image.shape[:2]
    x, y = np.clip(xy[..., 0], 0, w - 1), np.clip(xy[..., 1], 0, h - 1)
    x0, y0 = np.minimum(x.astype(int), w - 2), np.minimum(y.astype(int), h - 2)
    u, v = (x - x0)[..., None], (y - y0)[..., None]
    upper = image[y0, x0] * (1 - u) + image[y0, x0 + 1] * u
    lower = image[y0 + 1, x0] * (1 - u) + image[y0 + 1, x0 + 1] * u
    return upper * (1 - v) + lower * v


def interior(surfaces: np.ndarray, margin: int = 3) -> np.ndarray:
    """True where the same surface fills the neighbourhood: away from edges and from the frame's border."""
    inside = np.zeros(surfaces.shape, bool)
    m, same = margin, True
    h, w = surfaces.shape
    for dy in range(-m, m + 1):
        for dx in range(-m, m + 1):
            same = same & (surfaces[m + dy : h - m + dy, m + dx : w - m + dx] == surfaces[m:-m, m:-m])
    inside[m:-m, m:-m] = same
    return inside


@pytest.mark.parametrize("name", SCENES)
def test_flow_warps_the_next_frame_onto_this_one(name):
    world = small(name, width=320, height=180, fps=24.0)
    for t, s in ((2, 3), (3, 2), (0, 7)):
        here, there = world.frame(t).astype(float), world.frame(s).astype(float)
        at = grid(world) + world.flow(t, s)
        landing = sample(interior(world.surfaces(s))[..., None].astype(float), at)[..., 0] == 1
        sure = interior(world.surfaces(t)) & ~world.occlusion(t, s) & landing
        assert sure.mean() > 0.4
        warped, wrong = np.abs(sample(there, at) - here)[sure].mean(), np.abs(there - here)[sure].mean()
        assert warped < 3.0
        on = sure & (world.surfaces(t) == 0)
        if on.any() and np.abs(world.flow(t, s)[on]).mean() > 0.5:
            assert np.abs(sample(there, at) - here)[on].mean() < 0.35 * np.abs(there - here)[on].mean()
        assert warped <= wrong


@pytest.mark.parametrize("name", SCENES)
def test_forward_then_backward_returns(name):
    world = small(name)
    for t, s in ((1, 2), (5, 4), (0, 11)):
        xy, visible = world.tracks(grid(world), t, [s])
        home, _ = world.tracks(xy[0], s, [t])
        seen = visible[0].reshape(world.height, world.width)
        np.testing.assert_array_equal(seen, ~world.occlusion(t, s))
        gap = np.abs(home[0].reshape(grid(world).shape) - grid(world)).max(-1)
        # Tracks are handed over as float32: a point within that rounding of an outline may change sides.
        assert (gap[seen] < 1e-3).mean() > 0.9999


def test_flow_fields_undo_each_other_where_both_see_one_surface():
    world = small("zoom", width=200, height=120)
    there, back = world.flow(3, 4).astype(float), world.flow(4, 3).astype(float)
    at = grid(world) + there
    same = sample((world.surfaces(4) == 0)[..., None].astype(float), at)[..., 0] == 1
    sure = same & (world.surfaces(3) == 0)
    assert sure.sum() > 300
    # Both fields are affine on one surface, so even bilinear interpolation keeps them exact.
    np.testing.assert_allclose((there + sample(back, at))[sure], 0, atol=1e-3)


@pytest.mark.parametrize("name", SCENES)
def test_tracks_agree_with_flow(name):
    world = small(name)
    rng = np.random.default_rng(1)
    points = rng.integers((0, 0), (world.width, world.height), (60, 2))
    xy, visible = world.tracks(points, query=4)
    assert (xy.shape, xy.dtype, visible.shape) == ((12, 60, 2), np.float32, (12, 60))
    assert visible[4].all()
    np.testing.assert_allclose(xy[4], points, atol=1e-4)
    x, y = points.T
    for s in range(world.frames):
        np.testing.assert_allclose(xy[s], points + world.flow(4, s)[y, x], atol=1e-3)
        np.testing.assert_array_equal(visible[s], ~world.occlusion(4, s)[y, x])
    some, _ = world.tracks(points, query=4, frames=[7, 0])
    np.testing.assert_array_equal(some, xy[[7, 0]])


def test_tracked_points_keep_their_colour():
    world = small("drift", width=320, height=180, frames=24)
    points = grid(world)[interior(world.surfaces(0), 5) & world.mask(0, 0)][::37]
    xy, visible = world.tracks(points, frames=[0, 23])
    assert visible.all()
    assert np.abs(xy[1] - xy[0]).mean() > 20
    first, last = (sample(world.frame(t).astype(float), xy[n]) for n, t in enumerate((0, 23)))
    assert np.abs(first - last).mean() < 6


def test_masks_partition_the_frame_in_z_order():
    world = small("cross")
    for t in (0, 4, 6):
        masks, depth, surfaces = [world.mask(t, k) for k in (0, 1)], world.depth(t), world.surfaces(t)
        background = surfaces == -1
        np.testing.assert_array_equal(masks[0].astype(int) + masks[1] + background, 1)
        assert depth.dtype == np.float32
        assert [float(depth[m].max()) for m in (background, masks[1])] == pytest.approx([1 / 3, 1])
        assert (depth > 0).all()
    # At the middle the nearer box hides the disc; at the start both are seen, the disc whole.
    assert world.mask(0, 0).sum() == pytest.approx(np.pi * 18**2, rel=0.02)
    assert world.box(6, 0) is None
    # Turned about, the disc lies above.
    swapped = tuple(replace(s, order=-s.order) for s in world.scene.sprites)
    above = World(replace(world.scene, sprites=swapped))
    assert above.mask(6, 0).sum() == pytest.approx(np.pi * 18**2, rel=0.02)


def test_mask_is_coverage_of_one_half():
    sprite = Sprite("star", 20.0, 0.0, 0, 0, (Pose(40.2, 33.7, 0.4, 1.1, 0.1),))
    world = World(Scene(80, 64, 1, 1.0, (sprite,), (Pose(),)))
    white, black = np.full((4, 4, 3), 255, np.uint8), np.zeros((4, 4, 3), np.uint8)
    shown = world.with_sprite_texture(0, white).frame(0).astype(float) - world.with_sprite_texture(0, black).frame(0)
    cover = shown[..., 0] / 255
    np.testing.assert_array_equal(
        world.mask(0, 0)[np.abs(cover - 0.5) > 0.01], (cover > 0.5)[np.abs(cover - 0.5) > 0.01]
    )
    edge = (cover > 0.02) & (cover < 0.98)
    assert 40 < edge.sum() < 400
    assert cover.sum() == pytest.approx(world.mask(0, 0).sum(), rel=0.02)


def test_occlusion_is_where_the_front_sprite_covers():
    world = small("cross", noise=0.0, width=240, height=136)
    for t, s in ((0, 4), (3, 5)):
        at = grid(world) + world.flow(t, s)
        # Independent account: draw the front sprite alone at `s` and look under every landing point.
        alone = World(replace(world.scene, sprites=world.scene.sprites[1:]))
        near, far = world.surfaces(t) == 1, world.surfaces(t) != 1
        solid = alone.mask(s, 0)[..., None].astype(float)
        cover = sample(solid, at)[..., 0]
        inside = ((at >= 0) & (at <= (world.width - 1, world.height - 1))).all(-1)
        occluded = world.occlusion(t, s)
        # The background under the disc counts as covered, too, so look at the disc and the box only.
        disc = world.surfaces(t) == 0
        assert occluded[disc & inside & (cover == 1)].all()
        assert not occluded[disc & inside & (cover == 0)].any()
        assert not occluded[near & inside].any()
        assert occluded[far & ((at < -0.5) | (at > (world.width - 0.5, world.height - 0.5))).any(-1)].all()
        assert (disc & (cover == 1)).sum() > 100
    assert not world.occlusion(5, 5).any()


def test_still_moves_by_whole_pixels():
    world = small("still", width=200, height=120, frames=40)
    for t in range(39):
        flow, mask = world.flow(t, t + 1), world.mask(t, 0)
        step = flow[mask][0]
        assert np.abs(step).tolist() == [2, 1]
        np.testing.assert_array_equal(flow[mask], np.broadcast_to(step, (mask.sum(), 2)))
        np.testing.assert_array_equal(flow[~mask], 0)
        moved = np.roll(mask, (int(step[1]), int(step[0])), (0, 1))
        np.testing.assert_array_equal(moved, world.mask(t + 1, 0))
    here, there = world.frame(0), world.frame(1)
    both = [interior(world.surfaces(t), 2) for t in (0, 1)]
    for surface, (dx, dy) in ((0, (2, 1)), (-1, (0, 0))):
        before, after = (both[t] & (world.surfaces(t) == surface) for t in (0, 1))
        same = np.roll(before, (dy, dx), (0, 1)) & after
        assert same.sum() > 1000
        np.testing.assert_array_equal(np.roll(here, (dy, dx), (0, 1))[same], there[same])


def test_fast_moves_more_than_twenty_pixels_a_frame():
    world = World(scene("fast", frames=48))
    centres = np.array([world.pose(t, 0)[:, 2] for t in range(48)])
    assert np.hypot(*np.diff(centres, axis=0).T).min() > 20
    assert np.median(np.hypot(*world.flow(1, 2)[world.mask(1, 0)].T)) > 20


def test_zoom_covers_its_scales():
    world = World(scene("zoom"))
    scales = [p.scale for p in world.scene.sprites[0].poses]
    assert (min(scales), max(scales)) == pytest.approx((0.7, 1.4), abs=0.03)
    assert max(p.scale for p in world.scene.camera) > 1.1


@pytest.mark.parametrize("size", [(320, 180), (64, 64), (90, 160)])
@pytest.mark.parametrize("name", SCENES)
def test_main_sprite_starts_whole_and_stays_in_the_frame(name, size):
    width, height = size
    for seed in (0, 3):
        world = World(scene(name, seed, width, height, frames=60))
        x0, y0, x1, y1 = world.box(0, 0) or (0, 0, 0, 0)
        radius = world.scene.sprites[0].radius
        assert 0.1 * height <= radius <= 0.3 * height
        assert x0 > 0
        assert y0 > 0
        assert x1 < width
        assert y1 < height
        if world.scene.sprites[0].shape == "disc":
            assert (x1 - x0, y1 - y0) == (2 * radius, 2 * radius)
        if name != "cross":
            area = world.mask(0, 0).sum()
            assert all(world.mask(t, 0).sum() > 0.4 * area for t in range(0, 60, 4))


def test_random_access_gives_the_same_bytes():
    world = World(scene("cross", seed=4, **SMALL))
    sequence = [world.frame(t).tobytes() for t in range(12)]
    again = World(scene("cross", seed=4, **SMALL))
    for t in (11, 0, 7, 7, 3):
        assert again.frame(t).tobytes() == sequence[t]
    assert len(set(sequence)) == 12
    assert World(scene("cross", seed=5, **SMALL)).frame(0).tobytes() != sequence[0]
    clean = replace(world.scene, noise=0.0)
    spread = world.frame(2).astype(float) - World(clean).frame(2)
    assert spread.std() == pytest.approx(1.0, abs=0.15)


def test_a_swapped_texture_changes_the_picture_and_nothing_else():
    world = small("drift")
    edited = world.with_sprite_texture(0, reference_image("ball", 128))
    for t in (0, 5):
        mask = world.mask(t, 0)
        np.testing.assert_array_equal(edited.mask(t, 0), mask)
        np.testing.assert_array_equal(edited.flow(t, 9), world.flow(t, 9))
        np.testing.assert_array_equal(edited.occlusion(t, 9), world.occlusion(t, 9))
        changed = (edited.frame(t) != world.frame(t)).any(-1)
        assert changed[mask].mean() > 0.9
        away = np.linalg.norm(grid(world) - world.pose(t, 0)[:, 2], axis=-1)
        assert not changed[away > world.scene.sprites[0].radius + 1].any()
    assert world.with_sprite_texture(0, reference_image("face")).pictures.keys() == {0}
    assert not world.pictures


def test_a_swapped_texture_covers_the_box_exactly():
    world = small("still", width=200, height=120)
    x0, y0, x1, y1 = world.box(0, 0) or (0, 0, 0, 0)
    h, w = y1 - y0, x1 - x0
    # Ramps: red counts columns, green counts rows of the box.
    picture = np.zeros((h, w, 3), np.uint8)
    picture[..., 0], picture[..., 1] = np.arange(w)[None] * 4, np.arange(h)[:, None] * 4
    shown = world.with_sprite_texture(0, picture).frame(0)[y0:y1, x0:x1]
    solid = (interior(world.surfaces(0)) & world.mask(0, 0))[y0:y1, x0:x1]
    assert solid.sum() > 1000
    np.testing.assert_allclose(shown[solid].astype(int), picture[solid].astype(int), atol=1)


def test_transparent_parts_show_the_sprite_beneath():
    world = small("drift")
    clear = np.zeros((32, 32, 4), np.uint8)
    np.testing.assert_array_equal(world.with_sprite_texture(0, clear).frame(3), world.frame(3))
    opaque = np.full((32, 32, 4), 255, np.uint8)
    np.testing.assert_array_equal(
        world.with_sprite_texture(0, opaque).frame(3), world.with_sprite_texture(0, opaque[..., :3]).frame(3)
    )


def test_light_scales_the_surface():
    world = small("still")
    sprite = replace(world.scene.sprites[0], light=(1.0, 0.5) * 6)
    lit = World(replace(world.scene, sprites=(sprite,)))
    np.testing.assert_array_equal(lit.frame(2), world.frame(2))
    solid = interior(world.surfaces(1)) & world.mask(1, 0)
    np.testing.assert_allclose(lit.frame(1)[solid], world.frame(1)[solid] * 0.5, atol=1)


def test_sprites_have_their_own_hues():
    world = small("cross")
    colours = [np.median(world.frame(0)[world.mask(0, k)].astype(float), axis=0) for k in (0, 1)]
    assert np.abs(colours[0] - colours[1]).max() > 60


@pytest.mark.parametrize("kind", PICTURES)
def test_reference_pictures(kind):
    picture = reference_image(kind, 96, seed=2)
    assert (picture.shape, picture.dtype) == ((96, 96, 4), np.uint8)
    assert picture[48, 48, 3] == 255
    assert len(np.unique(picture[..., :3].reshape(-1, 3), axis=0)) > 50
    np.testing.assert_array_equal(picture, reference_image(kind, 96, seed=2))
    assert (picture != reference_image(kind, 96, seed=3)).any()


def test_a_scene_is_plain_data():
    text = json.dumps(asdict(scene("cross", **SMALL)))
    assert text == json.dumps(asdict(scene("cross", **SMALL)))
    assert isinstance(VERSION, int)


def test_pixels_move_only_with_the_version():
    """Red means of eight blocks of frame 5. When these change, raise scenes.VERSION and write the new ones."""
    golden = {
        "drift": [110.7, 75.2, 109.8, 83.6, 80.2, 152.8, 96.2, 113.7],
        "cross": [110.1, 50.8, 89.8, 83.4, 78.1, 99.2, 84.8, 113.2],
        "zoom": [107.3, 68.4, 124.5, 104.2, 78.0, 134.1, 100.5, 126.2],
        "still": [117.2, 111.7, 111.0, 91.0, 81.7, 137.8, 88.0, 118.7],
        "fast": [127.0, 79.1, 144.1, 99.0, 94.2, 122.4, 84.5, 127.7],
    }
    assert VERSION == 1
    assert golden.keys() == SCENES.keys()
    for name, means in golden.items():
        red = small(name).frame(5)[5:85, :, 0].astype(float)
        np.testing.assert_allclose(red.reshape(2, 40, 4, 40).mean((1, 3)).ravel(), means, atol=0.3)


def test_a_world_travels_to_other_processes():
    world = small("drift").with_sprite_texture(0, reference_image("ball", 64))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(world)).frame(2), world.frame(2))


def test_scenes_need_numpy_alone():
    code = (
        "import sys; sys.modules['cv2'] = None; sys.modules['torch'] = None; sys.modules['pydantic'] = None\n"
        "from retake.synthetic.scenes import SCENES, scene\n"
        "assert all(scene(name).frames == 48 for name in SCENES)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_what_cannot_be_is_said():
    world = small("drift")
    with pytest.raises(ConfigError, match="Did you mean drift") as unknown:
        scene("drfit")
    assert unknown.value.code == "E240"
    for code, call in {
        "E240 ": lambda: reference_image("bal"),
        "E241 ": lambda: scene("drift", frames=0),
        "E241": lambda: replace(world.scene, camera=()),
        "E242 ": lambda: world.frame(12),
        "E242": lambda: world.mask(0, 1),
        "E243 ": lambda: world.with_sprite_texture(0, np.zeros((8, 8), np.uint8)),
        "E243": lambda: reference_image("ball", 2),
    }.items():
        with pytest.raises(ConfigError) as refused:
            call()
        assert refused.value.code == code.strip()
        assert refused.value.hint
    broken = replace(world.scene.sprites[0], shape="dsic")
    with pytest.raises(ConfigError, match="Did you mean disc"):
        replace(world.scene, sprites=(broken,))
