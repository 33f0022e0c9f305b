"""Depth: parallax against worlds whose depth is known, Depth Anything in its own classes, depth from files."""

from __future__ import annotations

from functools import cache
from itertools import pairwise, product

import cv2
import numpy as np
import pytest
from helpers.stages import StopAfter
from scipy.stats import spearmanr

from flows import graph
from flows.runners import Local
from flows.settings.compose import settings
from retake.clip import open_clip
from retake.errors import ConfigError, MachineError, MediaError
from retake.exchange import depth as files
from retake.formats import open_series
from retake.imaging.flow import in_bounds, occlusion
from retake.priors.depth import depth_anything, given
from retake.priors.depth import parallax as prior
from retake.priors.depth.camera_motion import Travel, estimate, in_front, likelier, parallax
from retake.priors.optical_flow import dis
from retake.store import Store
from retake.synthetic import TRAVELS, World, scene, scenes


class Flow:
    """Pairs as the optical flow stage keeps them."""

    def __init__(self, pairs) -> None:
        self.pairs = list(pairs)
        self.read: list[int] = []

    def forward(self, t: int) -> np.ndarray:
        self.read.append(t)
        return self.pairs[t][0]

    def backward(self, t: int) -> np.ndarray:
        return self.pairs[t][1]

    def occluded_forward(self, t: int) -> np.ndarray:
        return self._hidden(*self.pairs[t])

    def occluded_backward(self, t: int) -> np.ndarray:
        return self._hidden(*self.pairs[t][::-1])

    def _hidden(self, one, other) -> np.ndarray:
        return occlusion(one, other, boundaries=False) | ~in_bounds(one, 0.5)


@cache
def clip(name: str, count: int = 24, seed: int = 0):
    world = World(scene(name, seed, frames=48))
    frames = [world.frame(t) for t in range(count)]
    return world, frames, Flow(dis.pairs(frames, dis.Params(), workers=1))


def rank(truth: np.ndarray, depth: np.ndarray) -> float:
    """Spearman's correlation over as many pixels of every layer that shows 200."""
    rng = np.random.default_rng(0)
    layers = [np.flatnonzero(truth == value) for value in np.unique(truth)]
    chosen = np.concatenate([rng.choice(at, 400) for at in layers if len(at) >= 200])
    return float(spearmanr(truth.ravel()[chosen], depth.ravel()[chosen]).statistic)


# Parallax


@pytest.mark.parametrize(("name", "least"), [("sideways", 0.9), ("dolly", 0.9), ("orbit", 0.9)])
def test_parallax_orders_layers_and_knows_which_end_is_near(name, least):
    world, frames, flow = clip(name)
    maps = list(prior.maps(frames, flow, prior.Params()))
    assert len(maps) == 24
    for t, depth in enumerate(maps):
        assert depth.shape == (180, 320)
        assert depth.dtype == np.float32
        assert 0 <= depth.min() < 10 < 90 < depth.max() <= 200
        assert rank(world.depth(t), depth) > least
    # "orbit" holds a middle layer: what moves most is the background, and only what hides what tells the sign.
    moving = np.linalg.norm(flow.pairs[4][0], axis=-1)
    assert (rank(world.depth(4), moving) > 0.5) == (name != "orbit")


@pytest.mark.parametrize("name", ["turn", "crowd", "still"])
def test_without_travel_the_map_is_one_constant(name):
    _, frames, flow = clip(name, 12)
    assert all(np.array_equal(d, np.full((180, 320), prior.MIDDLE)) for d in prior.maps(frames, flow, prior.Params()))


def test_a_body_that_moves_by_itself_deceives_parallax():
    """What the notes warn of: a sprite that grows is taken for one that comes nearer or goes away."""
    world, frames, flow = clip("zoom", 24)
    found = [rank(world.depth(t), d) for t, d in enumerate(prior.maps(frames, flow, prior.Params()))]
    assert min(found) < 0
    assert "move by themselves" in prior.notes(prior.Params())[0]


TRAVELLED: dict[tuple[bytes, bytes], Travel | None] = {}


@cache
def exact(count: int):
    """Small frames, out and back again every 46, with the world's own flow."""
    world = World(scene("sideways", width=96, height=64, frames=24, fps=8))
    order = [t % 46 if t % 46 < 24 else 46 - t % 46 for t in range(count)]
    frames, moves = [world.frame(t) for t in range(24)], {pair: world.flow(*pair) for pair in set(pairwise(order))}
    moves |= {pair[::-1]: world.flow(*pair[::-1]) for pair in moves}
    return [frames[t] for t in order], Flow((moves[a, b], moves[b, a]) for a, b in pairwise(order))


@pytest.fixture
def remembered(monkeypatch):
    """Travel is estimated once for the same motion: these clips show the same again and again."""

    def once(flow, hidden):
        seen = flow.tobytes(), hidden.tobytes()
        if seen not in TRAVELLED:
            TRAVELLED[seen] = estimate(flow, hidden)
        return TRAVELLED[seen]

    monkeypatch.setattr(prior, "estimate", once)


def test_a_map_depends_on_its_neighbourhood_and_not_on_where_it_began(monkeypatch):
    monkeypatch.setattr(prior, "_AROUND", 5)
    frames, flow = exact(60)
    params = prior.Params(reach=2)
    whole = list(prior.maps(frames, flow, params))
    assert np.ptp(whole[30]) > 90
    again = prior.maps(frames, flow, params, first=51)
    assert all(np.array_equal(a, b) for a, b in zip(whole[51:], again, strict=True))
    far = Flow([(f * 0, b * 0) if t >= 8 * 5 + 4 + 2 else (f, b) for t, (f, b) in enumerate(flow.pairs)])
    assert np.array_equal(next(prior.maps(frames, far, params)), whole[0])


def test_a_long_clip_is_read_once_and_kept_in_bounds(remembered):
    frames, flow = exact(170)
    flow.read.clear()
    state = prior._Clip(frames, flow, prior.Params(reach=4))
    kept = []
    for t in range(len(frames)):
        state.depth(t)
        kept.append(len(state._kept))
    assert max(kept) == kept[-1] == prior._KEPT
    assert sorted(flow.read) == list(range(169))


def ground(step, turn: float = 0.0, focal: float = 175.0, count: int = 12):
    """Frames, exact flow and inverse depth of a textured ground that fills the picture, 160x90, seen from above by a
    camera that looks 34 degrees down, moves `step` (right, down, ahead; its height is 1) and pans `turn` a frame."""
    width, height = 160, 90
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    rays = np.stack([(columns - middle[0]) / focal, (rows - middle[1]) / focal, np.ones((height, width))], axis=-1)
    down = cv2.Rodrigues(np.array([-0.6, 0, 0]))[0]
    axes = [down @ cv2.Rodrigues(np.array([0, turn * t, 0.0]))[0] for t in range(count)]
    places = [np.array(step) * t for t in range(count)]
    looks = [rays @ a.T for a in axes]
    far = [(1 - p[1]) / look[..., 1] for p, look in zip(places, looks, strict=True)]
    points = [p + z[..., None] * look for p, z, look in zip(places, far, looks, strict=True)]

    def flow(here: int, there: int) -> np.ndarray:
        seen = (points[here] - places[there]) @ axes[there]
        after = seen[..., :2] / seen[..., 2:] * focal + middle
        return (after - np.stack([columns, rows], axis=-1)).astype(np.float32)

    rng = np.random.default_rng(1)
    waves, phase = rng.normal(size=(9, 2)) * 6, rng.uniform(0, 6, 9)
    colours = [np.sin(p[..., [0, 2]] @ waves.T + phase).reshape(height, width, 3, 3).mean(axis=-1) for p in points]
    frames = [(128 + 100 * c).astype(np.uint8) for c in colours]
    return frames, Flow((flow(a, b), flow(b, a)) for a, b in pairwise(range(count))), [1 / z for z in far]


@pytest.mark.parametrize(
    ("step", "turn", "focal"),
    [
        ((0.04, 0, 0), 0, 175),
        ((-0.04, 0, 0), 0.01, 175),
        ((0.04, 0, 0), -0.02, 150),
        ((0, 0, 0.04), 0, 175),
        ((0, 0, 0.04), 0.01, 200),
        ((0, 0, -0.04), 0, 130),
        ((0, 0.028, 0.04), 0, 175),
        ((0.03, 0, 0.03), 0.01, 175),
    ],
)
def test_a_ground_that_fills_the_picture_is_nearer_below(step, turn, focal):
    """Its slope and the direction of travel could change places; it could be a ceiling, too."""
    frames, flow, inverse = ground(step, turn, focal)
    for truth, depth in zip(inverse, prior.maps(frames, flow, prior.Params()), strict=True):
        assert spearmanr(truth.ravel()[::7], depth.ravel()[::7]).statistic > 0.95
        assert depth[-5:].mean() > 70 > 30 > depth[:5].mean()


def test_a_plane_alone_is_no_slope_where_the_camera_only_turns():
    frames, flow, _ = ground((0, 0, 0), 0.02)
    assert all(np.ptp(d) == 0 for d in prior.maps(frames, flow, prior.Params()))


@pytest.mark.parametrize(("step", "turn", "focal"), [((0.03, 0, 0.03), 0, 175), ((-0.04, 0, 0), 0.02, 230)])
def test_places_that_the_chained_flow_leaves_show_no_rim(step, turn, focal):
    """First: hidden in both views, so filled. Second: a focal length far from the guess, whose two views disagree."""
    frames, flow, _ = ground(step, turn, focal, 17)
    depth = prior._Clip(frames, flow, prior.Params()).depth(8)
    assert max(np.abs(np.diff(depth, 2, axis=axis)).max() for axis in (0, 1)) < 0.015 * np.ptp(depth)


def test_signs_decide_together_as_over_all_rows_of_signs():
    rng = np.random.default_rng(0)
    for count in (1, 2, 3, 6):
        own, next_, second = rng.normal(size=(3, count))
        energy = {
            row: sum(own[k] * row[k] for k in range(count))
            + sum(next_[k] * row[k] * row[k + 1] for k in range(count - 1))
            + sum(second[k] * row[k] * row[k + 2] for k in range(count - 2))
            for row in product((1, -1), repeat=count)
        }
        for at in range(count):
            odds = [sum(np.exp(e) for row, e in energy.items() if row[at] == sign) for sign in (1, -1)]
            assert likelier(at, own, next_[:-1], second[:-1]) == pytest.approx(np.log(odds[0] / odds[1]) / 2)


def test_one_anchor_that_contradicts_follows_and_all_that_know_nothing_fade(remembered):
    frames, flow = exact(40)
    params = prior.Params(reach=2)
    whole = list(prior.maps(frames, flow, params))

    def estimated(change) -> list[np.ndarray]:
        state = prior._Clip(frames, flow, params)
        for t in range(0, 40, 4):
            state._kept["anchor", t] = change(t, state._anchor(t))
        return [state.depth(t) for t in range(40)]

    state = prior._Clip(frames, flow, params)
    sure = np.median([abs(state._anchor(t).verdict) for t in range(0, 40, 4)])
    wrong = estimated(lambda t, a: a._replace(verdict=-np.sign(a.verdict) * sure) if t == 20 else a)
    assert all(np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.9 for a, b in zip(wrong, whole, strict=True) if np.ptp(a))
    weak = estimated(lambda t, a: a._replace(verdict=a.verdict * 1e-3))
    assert all(np.ptp(a) < 0.5 * np.ptp(b) + 1e-6 for a, b in zip(weak, whole, strict=True))


def test_parallax_that_flickers_stays_faint(remembered):
    frames, flow = exact(40)
    state = prior._Clip(frames, flow, prior.Params(reach=2))
    for t in range(0, 40, 4):
        state._kept["anchor", t] = state._anchor(t)._replace(weight=0.3 if t in (16, 28) else 0.0)
    assert all(np.ptp(state.depth(t)) == 0 for t in range(40))
    for t in range(12, 40, 4):
        state._kept["anchor", t] = state._kept["anchor", t]._replace(weight=1.0)
    assert [round(state._weight(t), 2) for t in range(4, 28, 4)] == [0, 0, 0.33, 0.67, 1, 1]


def test_maps_are_steady_in_time():
    from retake.imaging.flow import warp

    world, frames, flow = clip("sideways")
    maps = list(prior.maps(frames, flow, prior.Params()))
    change = [
        np.abs(warp(maps[t + 1], world.flow(t, t + 1)) - maps[t])[~world.occlusion(t, t + 1)].mean() for t in range(22)
    ]
    assert max(change) < 1  # of 100


def test_one_frame_and_two_frames_are_clips_too():
    _, frames, flow = clip("sideways")
    assert np.ptp(next(prior.maps(frames[:1], Flow([]), prior.Params()))) == 0
    assert [d.shape for d in prior.maps(frames[:2], Flow(flow.pairs[:1]), prior.Params())] == [(180, 320)] * 2


def room(travel, turn) -> tuple[np.ndarray, np.ndarray]:
    """Exact flow of a pinhole camera (300 px) over a ground with four boards, and its inverse depth."""
    height, width, focal = 180, 320, 300.0
    rows, columns = np.mgrid[:height, :width]
    x, y = (columns - (width - 1) / 2) / focal, (rows - (height - 1) / 2) / focal
    distance = np.where(y > 0.04, 1.2 / np.maximum(y, 0.04), 30.0)
    for x0, x1, y0, y1, z in (
        (40, 90, 60, 130, 6),
        (200, 230, 40, 150, 4),
        (130, 170, 70, 105, 12),
        (260, 300, 80, 120, 9),
    ):
        distance[y0:y1, x0:x1] = np.minimum(distance[y0:y1, x0:x1], z)
    turned = cv2.Rodrigues(np.array(turn, float))[0]
    after = (np.stack([x * distance, y * distance, distance], axis=-1) - np.array(travel)) @ turned.T
    moved = after[..., :2] / after[..., 2:] - np.stack([x, y], axis=-1)
    return (focal * moved).astype(np.float32), 1 / distance


@pytest.mark.parametrize(
    ("travel", "turn"),
    [
        ((0.3, 0, 0), (0, 0, 0)),
        ((0.3, 0, 0), (0, -0.04, 0)),
        ((0, 0, 0.6), (0.02, 0, 0)),
        ((0.2, 0.05, 0.3), (0.01, 0.02, 0.03)),
        ((0, 0.2, 0), (0.03, 0, 0)),
    ],
)
def test_travel_is_told_from_turning_in_perspective(travel, turn):
    flow, inverse = room(travel, turn)
    found = estimate(flow, np.zeros(flow.shape[:2], bool))
    assert found is not None
    assert abs(found.direction @ (np.array(travel) / np.linalg.norm(travel))) > 0.95
    nearness, turned, along = parallax(flow, found)
    assert abs(spearmanr(inverse.ravel()[::7], nearness.ravel()[::7]).statistic) > 0.9
    assert found.beyond > 5
    left = np.linalg.norm(turned + nearness[..., None] * along - flow, axis=-1)
    assert np.median(left) < 1


def test_turning_alone_leaves_nothing():
    flow, _ = room((0, 0, 0), (0.02, 0.03, 0.02))
    found = estimate(flow, np.zeros(flow.shape[:2], bool))
    assert found is not None
    assert found.beyond < 0.2 < 5 < np.linalg.norm(flow, axis=-1).mean()
    assert estimate(flow, np.ones(flow.shape[:2], bool)) is None


def test_what_hides_what_is_seen_in_the_other_frame():
    rng = np.random.default_rng(3)
    ground, board = (cv2.resize(rng.integers(0, 255, (15, 20, 3), np.uint8), (80, 60)) for _ in range(2))

    def shot(x: int) -> np.ndarray:
        frame = ground.copy()
        frame[20:40, x : x + 20] = board[20:40, 10:30]
        return frame

    nearness = np.zeros((60, 80), np.float32)
    nearness[20:40, 10:30] = 1
    flow = np.zeros((60, 80, 2), np.float32)
    flow[20:40, 10:30, 0] = 9
    every = np.ones((60, 80), bool)
    verdict, count = in_front(nearness, flow, shot(10), shot(19), every, 0.5)
    assert count == 9 * 20
    assert verdict > 0.9
    behind = shot(10)
    behind[20:40, 10:19] = ground[20:40, 10:19]  # the board went behind the ground right of it
    behind[20:40, 19:30] = board[20:40, 10:21]
    behind[20:40, 30:39] = ground[20:40, 30:39]
    assert in_front(nearness, flow, shot(10), behind, every, 0.5)[0] < -0.9
    assert in_front(nearness, flow * 0, shot(10), shot(10), every, 0.5) == (0.0, 0)


def test_travels_are_what_they_say():
    for name in TRAVELS:
        world = World(scene(name, 1, 160, 90, 24))
        flow, layers = world.flow(5, 6), world.surfaces(5)
        moved = [float(np.linalg.norm(flow[layers == k], axis=-1).mean()) for k in range(-1, 5)]
        order = np.argsort([-1, *[s.order for s in world.scene.sprites]])
        if name in ("sideways", "dolly"):
            assert (np.diff(np.array(moved)[order]) > 0).all() or name == "dolly"
        if name == "orbit":
            assert moved[1] < 0.01 < moved[0]
        if name == "crowd":
            assert moved[0] == 0
            assert moved[5] < moved[2]
        if name == "turn":
            body = np.linalg.solve(world.pose(5)[:, :2], np.eye(2))
            assert np.allclose(body @ world.pose(5, 2)[:, :2], np.eye(2))
    scales = [World(scene("dolly")).pose(24, k)[0, 0] / World(scene("dolly")).pose(0, k)[0, 0] for k in range(-1, 5)]
    order = np.argsort([-1, *[s.order for s in scene("dolly").sprites]])
    assert (np.diff(np.array(scales)[order]) > 0.01).all()


# Depth Anything


FRAMES = [World(scene("drift", width=80, height=48, frames=7)).frame(t) for t in range(7)]


def test_depth_anything_gives_maps_of_the_frames_size(small_depth):
    import torch
    from transformers import DepthAnythingForDepthEstimation

    params = depth_anything.Params(weights=str(small_depth), batch=1, device="cpu")
    maps = list(depth_anything.maps(FRAMES, None, params))
    assert len(maps) == 7
    assert all(d.shape == (48, 80) and d.dtype == np.float32 and d.min() >= 0 for d in maps)
    assert np.ptp(maps[0]) > 0.1
    # The same by hand: 48x80 becomes 56x98 (short side 56, multiples of 14), bicubic, ImageNet's mean and deviation.
    resized = torch.from_numpy(FRAMES[0]).permute(2, 0, 1)[None].float()
    resized = torch.nn.functional.interpolate(resized, (56, 98), mode="bicubic", antialias=True).round().clamp(0, 255)
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.inference_mode():
        network = DepthAnythingForDepthEstimation.from_pretrained(small_depth).eval()
        by_hand = network((resized / 255 - mean) / deviation).predicted_depth
        by_hand = torch.nn.functional.interpolate(by_hand[None], (48, 80), mode="bicubic", align_corners=False)[0, 0]
    assert np.abs(by_hand.numpy() - maps[0]).max() < 0.02 * np.ptp(maps[0])


def test_depth_anything_batches_agree_and_resume_is_exact(small_depth):
    one, four = (depth_anything.Params(weights=str(small_depth), batch=n, device="cpu") for n in (1, 4))
    single, batched = (list(depth_anything.maps(FRAMES, None, p)) for p in (one, four))
    assert max(np.abs(a - b).max() for a, b in zip(single, batched, strict=True)) < 1e-4 * single[0].max()
    resumed = list(depth_anything.maps(FRAMES, None, four, first=2))
    assert all(np.array_equal(a, b) for a, b in zip(resumed, batched[2:], strict=True))
    half = depth_anything.Params(weights=str(small_depth), dtype="bfloat16", device="cpu")
    assert np.abs(next(depth_anything.maps(FRAMES, None, half)) - single[0]).max() < 0.1 * single[0].max()


def test_depth_anything_turns_metres_round(small_depth, tmp_path):
    from transformers import DepthAnythingForDepthEstimation

    network = DepthAnythingForDepthEstimation.from_pretrained(small_depth)
    network.config.depth_estimation_type, network.config.max_depth = "metric", 20
    network.save_pretrained(tmp_path)  # and without preprocessor_config.json: the shared one
    loaded, processor = depth_anything.load(tmp_path)
    assert dict(processor.size) == {"height": 518, "width": 518}
    assert processor.ensure_multiple_of == 14
    depth = next(depth_anything.maps(FRAMES, None, depth_anything.Params(weights=str(tmp_path), device="cpu")))
    assert depth.min() >= 1 / 20 - 1e-6
    assert loaded.config.max_depth == 20


def test_depth_anything_small_is_as_large_as_the_catalogue_says():
    import torch
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    from retake.weights.catalogue import CATALOGUE

    backbone = Dinov2Config(
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        image_size=518,
        patch_size=14,
        out_indices=[3, 6, 9, 12],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=384,
        neck_hidden_sizes=[48, 96, 192, 384],
        fusion_hidden_size=64,
    )
    with torch.device("meta"):
        network = DepthAnythingForDepthEstimation(config)
    bytes_ = 4 * sum(p.numel() for p in network.parameters())
    assert bytes_ / 1e6 == pytest.approx(CATALOGUE["depth_anything_v2_small"].megabytes, rel=0.02)


def test_depth_anything_refuses_other_weights_and_missing_ones(small_depth, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert depth_anything.weights(depth_anything.Params()) == {"depth": "depth_anything_v2_small"}
    with pytest.raises(MachineError) as missing:
        next(depth_anything.maps(FRAMES, None, depth_anything.Params()))
    assert missing.value.code == "E302"
    assert "retake weights depth_anything_v2_small" in missing.value.hint
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ConfigError) as other:
        depth_anything.load(tmp_path)
    assert other.value.code == "E262"
    (tmp_path / "config.json").write_text((small_depth / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ConfigError) as damaged:
        depth_anything.load(tmp_path)
    assert damaged.value.code == "E262"


def test_the_licence_of_larger_models_is_said():
    def said(name: str) -> bool:
        return any("CC-BY-NC" in note for note in depth_anything.notes(depth_anything.Params(weights=name)))

    assert not said("depth_anything_v2_small")
    assert said("depth-anything/Depth-Anything-V2-Large-hf")
    assert said("depth-anything/Depth-Anything-V2-Base-hf")


# Given


def test_given_depth_is_read_in_order_and_metres_become_inverse(tmp_path):
    metres = [np.full((24, 40), 2.0 + t, np.float32) for t in range(11)]
    metres[0][0, 0], metres[0][0, 1], metres[0][0, 2] = 0, np.inf, 1e-9
    for t, one in enumerate(metres):
        files.write_exr(tmp_path / f"d{t}.exr", one)
    frames = [np.zeros((24, 40, 3), np.uint8)] * 11
    params = given.Params(path=str(tmp_path), meaning="metric")
    given.check(params, {"count": 11})
    maps = list(given.maps(frames, None, params))
    assert [float(d[5, 5]) for d in maps] == pytest.approx([1 / (2 + t) for t in range(11)])
    assert maps[0][0, :3].tolist() == [0, 0, 1000]
    assert np.array_equal(next(given.maps(frames, None, params, first=9)), maps[9])
    plain = next(given.maps(frames, None, given.Params(path=str(tmp_path))))
    assert plain[5, 5] == 2


def test_given_depth_units_and_sizes(tmp_path):
    values = np.zeros((24, 40), np.uint16)
    values[:, :21] = 2000
    assert cv2.imwrite(str(tmp_path / "0.png"), values)
    small, same = [np.zeros((12, 20, 3), np.uint8)], [np.zeros((24, 40, 3), np.uint8)]

    def first(frames, **settings) -> np.ndarray:
        return next(given.maps(frames, None, given.Params(path=str(tmp_path), **settings)))

    assert first(same, meaning="metric")[0, 0] == pytest.approx(0.5)  # millimetres
    assert first(same, meaning="metric", unit=1 / 256)[0, 0] == pytest.approx(256 / 2000)
    assert first(same)[0, 0] == 2000 / 64
    shrunk = first(small, meaning="metric")
    assert shrunk.shape == (12, 20)
    assert np.allclose(shrunk[:, :11], 0.5)  # unknown pixels beside them do not dilute known ones
    assert (shrunk[:, 11:] == 0).all()


def test_given_depth_refuses_what_does_not_match(tmp_path):
    frames = [np.zeros((24, 40, 3), np.uint8)] * 2

    def fails(code, path, frames=frames):
        with pytest.raises((ConfigError, MediaError)) as caught:
            list(given.maps(frames, None, given.Params(path=path)))
        assert caught.value.code == code

    files.write_npy(tmp_path / "0.npy", np.ones((24, 40)))
    fails("E245", None)
    fails("E400", str(tmp_path / "none"))
    fails("E433", str(tmp_path))
    files.write_npy(tmp_path / "1.npy", np.ones((24, 24)))
    fails("E433", str(tmp_path))
    (tmp_path / "1.npy").write_bytes(b"nothing")
    fails("E432", str(tmp_path))


OWN = ["depth=given", "depth.own=true", "frames.first=3", "frames.last=22"]


def test_a_scene_knows_its_depth_and_a_killed_reading_goes_on(tmp_path):
    store, clip, p = Store(tmp_path / "store"), open_clip("sprites:cross"), settings(OWN)
    with pytest.raises(KeyboardInterrupt):
        graph.edit_graph(Local(store, StopAfter(3)), clip, p, "depth")  # two chunks of frames, one of depth
    found = open_series(store, graph.edit_graph(Local(store), clip, p, "depth")["depth"])
    world = World(scenes.scene("cross"))
    assert len(found) == 20
    for t in range(20):
        np.testing.assert_array_equal(found[t], world.depth(3 + t).astype(np.float16))


def test_only_a_scene_knows_its_depth(tmp_path):
    (tmp_path / "clip").mkdir()
    cv2.imwrite(str(tmp_path / "clip" / "0.png"), np.zeros((48, 64, 3), np.uint8))
    for words, clip in ((OWN[:2], str(tmp_path / "clip")), ([*OWN, "depth.path=maps"], "sprites:cross")):
        with pytest.raises(ConfigError, match="E245"):
            graph.edit_graph(Local(Store(tmp_path / "store")), open_clip(clip), settings(words), "depth")
