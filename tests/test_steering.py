"""The metric of steered objects, against scenes whose motion is known."""

from __future__ import annotations

import numpy as np
import pytest

from retake.metrics.common.sample import Sample
from retake.metrics.steering import Metric, Params
from retake.synthetic import scenes
from retake.synthetic.world import World

H, W, COUNT = 96, 128, 9


def scored(steps: tuple[float, float], *targets: dict, scale: float = 1.0, object: int = 1):
    """Scores of a textured square that goes so many pixels a frame over a still ground."""
    rng = np.random.default_rng(0)
    ground = np.kron(rng.integers(0, 60, (H // 4, W // 4, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    square = np.kron(rng.integers(90, 255, (8, 8, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    metric = Metric(Params.model_validate({"targets": targets}))
    for t in range(COUNT):
        x, y = (round(place + t * step) for place, step in zip((48, 32), steps, strict=True))
        frame = ground.copy()
        frame[y : y + 32, x : x + 32] = square
        mask = np.zeros((H, W), bool)
        mask[32:64, 48:80] = True  # the source's object rests
        metric.update(Sample(t, ground, frame, objects={object: mask}, scale=(scale, scale)))
    return metric.result()


def test_an_object_that_goes_where_it_was_told_has_no_distance():
    told = {"object": 1, "direction": "right", "speed": 3}
    values = scored((3, 0), told).summary()
    assert values["steering_distance"] < 0.003
    assert values["steering_angle"] < 3
    assert values["steering_speed"] == pytest.approx(1, abs=0.03)
    drag = {"object": 1, "drag": [[60, 40], [84, 40]]}
    assert scored((3, 0), drag).summary()["steering_distance"] < 0.003
    assert scored((3, 0), {**told, "speed": 6}, scale=0.5).summary()["steering_distance"] < 0.003  # pixels of the clip


def test_where_it_goes_instead_is_seen():
    told = {"object": 1, "direction": "right", "speed": 3}
    up, slow, rests = (scored(steps, told).summary() for steps in ((0, -2), (1, 0), (0, 0)))
    assert up["steering_angle"] == pytest.approx(90, abs=3)
    assert slow["steering_speed"] == pytest.approx(1 / 3, abs=0.03)
    assert slow["steering_angle"] < 5
    assert rests["steering_speed"] == pytest.approx(0, abs=0.02)
    far = np.mean([3 * t for t in range(COUNT)]) / np.hypot(H, W)
    assert rests["steering_distance"] == pytest.approx(far, rel=0.02)


def test_rest_is_a_distance_alone():
    result = scored((0, 0), {"object": 1, "direction": "rest"})
    assert result.summary()["steering_distance"] < 0.002
    assert np.isnan(result.summary()["steering_angle"])
    assert "rests" in result.reasons()["steering_angle"]


def test_the_camera_is_what_no_mask_holds():
    still = scored((3, 0), {"object": 0, "direction": "rest"}).summary()
    assert still["steering_distance"] < 0.002


def test_targets_are_measured_one_by_one():
    away = {"object": 1, "direction": "left", "speed": 3}
    both = scored((3, 0), {"object": 1, "direction": "right", "speed": 3}, away).summary()
    assert both["steering_angle"] == pytest.approx(90, abs=3)  # the mean of 0 and 180


def test_what_cannot_be_told_is_said():
    for result in (scored((3, 0)), scored((3, 0), {"object": 1, "reference": "x.mp4"})):
        assert np.isnan(result.summary()["steering_distance"])
        assert "edit.targets" in result.reasons()["steering_distance"]
    lost = scored((3, 0), {"object": 2, "direction": "right"})
    assert "followed" in lost.reasons()["steering_angle"]


def test_a_rendered_scene_moves_as_it_says():
    world = World(scenes.scene("drift"))
    metric = Metric(
        Params.model_validate({"targets": [{"object": 1, "drag": [world_place(world, 0), world_place(world, 20)]}]})
    )
    for t in range(21):
        metric.update(Sample(t, world.frame(t), world.frame(t), objects={1: world.mask(t, 0)}))
    values = metric.result().summary()
    assert values["steering_angle"] < 12
    assert values["steering_speed"] == pytest.approx(1, abs=0.1)


def world_place(world: World, t: int) -> tuple[float, float]:
    rows, columns = np.nonzero(world.mask(t, 0))
    return float(columns.mean()), float(rows.mean())
