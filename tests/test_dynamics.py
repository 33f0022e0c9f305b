"""Dynamics, and the guard against results that do not move."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers.scored import H, W, box, pictures, run

from retake.metrics import (
    dynamics,
    summary,
)
from retake.metrics.common import guard
from retake.metrics.common.sample import Sample


def slide(frames: int, step: int, seed: int = 0) -> list[np.ndarray]:
    wide = pictures(1, H, W + frames * step, seed)[0]
    return [wide[:, step * t : step * t + W] for t in range(frames)]


def test_motion_is_measured_between_looks_an_eighth_of_a_second_apart():
    source, flow = slide(13, 1), np.full((H, W, 2), (-1, 0), np.float32)
    found = run(dynamics.Metric(dynamics.Params()), source, flow=flow, fps=24)
    assert list(found.per_frame()["motion"]) == [0, 3, 6, 9]
    values = found.summary()
    assert values["motion_source"] == pytest.approx(100 * 3 / H, rel=1e-5)  # three links of one pixel
    assert values["motion"] == pytest.approx(100 * 3 / H, rel=0.1)  # three links of DIS
    assert values["dynamic_degree"] == values["dynamic_degree_source"] == 1  # 3 px > 6 * 40 / 256
    every = run(dynamics.Metric(dynamics.Params()), source, flow=flow, fps=None)
    assert every.summary()["motion_source"] == pytest.approx(100 / H, rel=1e-5)


def test_motion_of_the_region_is_that_of_its_own_pixels():
    moving, still = slide(5, 2), pictures(1, seed=3)[0]
    clip = [np.concatenate([still[:, : W // 2], frame[:, W // 2 :]], 1) for frame in moving]
    flow = np.zeros((H, W, 2), np.float32)
    flow[:, W // 2 :, 0] = -2
    for region, expected in ((box(4, 8, 16, 32), 0), (box(40, 8, 52, 32), 100 * 2 / H)):
        values = run(dynamics.Metric(dynamics.Params()), clip, inside=region, flow=flow).summary()
        assert values["motion_edit_source"] == expected
        assert values["motion_edit"] == pytest.approx(expected, rel=0.2, abs=0.2)
        assert values["motion_source"] == 100 * 2 / H


def test_equal_clips_move_alike_when_the_prior_is_the_same_flow():
    from retake.priors.optical_flow import dis

    clip = slide(9, 2)
    metric = dynamics.Metric(dynamics.Params())
    before = None
    for t, frame in enumerate(clip):
        flow = dis.estimate(before, frame, dis.Params(preset="medium"))[0] if before is not None else None
        metric.update(Sample(t, frame, frame, None, flow, 24))
        before = frame
    values = metric.result().summary()
    assert values["motion"] == values["motion_source"] > 1


def test_chained_flows_add_along_the_path():
    first = np.zeros((H, W, 2), np.float32)
    first[..., 0] = 5
    second = np.zeros((H, W, 2), np.float32)
    second[:, 25:, 1] = 2  # only what has come to x >= 25 moves down
    both = dynamics.chained(first, second, fresh=False)
    assert both is not None
    assert (both[:, 20:] == (5, 2)).all()
    assert (both[:, :20] == (5, 0)).all()
    assert dynamics.chained(None, second, fresh=False) is None
    assert dynamics.chained(first, None, fresh=True) is None


def test_dynamic_degree_counts_pairs_as_vbench_does():
    needed = {3: 1, 9: 2, 17: 4}  # frames looked at -> round(4 n / 16), Python's rounding
    for count, pairs in needed.items():
        lengths = [10.0] * pairs + [0.0] * (count - 1 - pairs)
        assert dynamics.degree(lengths, 256) == 1
        assert dynamics.degree([*lengths[1:], 0.0], 256) == 0
    assert dynamics.degree([0.0], 256) == 0  # VBench's own code calls any two frames dynamic
    assert dynamics.degree([6.0] * 8, 256) == 0  # more than, not at least
    assert math.isnan(dynamics.degree([], 256))


def test_top_is_the_mean_of_the_largest_twentieth():
    lengths = np.zeros((20, 10))
    lengths.flat[[3, 50, 77]] = 8.0
    assert dynamics.top(lengths) == pytest.approx(8 * 3 / 10)
    assert dynamics.top(np.array([4.0])) == 4
    assert math.isnan(dynamics.top(np.array([])))


def test_the_guard_tells_a_frozen_frame_a_frozen_region_and_a_slow_edit():
    still = {"motion": 0.1, "motion_source": 2.0, "motion_edit": 0.1, "motion_edit_source": 2.0}
    moves = {"motion": 1.9, "motion_source": 2.0, "motion_edit": 1.0, "motion_edit_source": 2.0}
    scores = {"flicker": 1.0, "flicker_source": 0.9, "tc_edit": 1.0, "smoothness": None, "warp_error_full": 0.1}
    kept, reasons = guard.guarded(scores | still)
    assert set(reasons) == {"flicker", "tc_edit"}  # what is None already needs no second reason
    assert kept["flicker_source"] == 0.9
    assert kept["warp_error_full"] == 0.1
    assert "0.10 %" in reasons["flicker"]
    kept, reasons = guard.guarded(scores | moves)
    assert reasons == {}
    assert kept == scores | moves
    kept, reasons = guard.guarded(scores | moves | {"motion_edit": 0.1})
    assert set(reasons) == {"tc_edit"}
    assert "edited region" in reasons["tc_edit"]
    for resting in ({"motion": 0.0, "motion_source": 0.1}, {"motion": None, "motion_source": 2.0}, {}):
        assert guard.guarded(scores | resting)[1] == {}
    assert {*guard.WHOLE, *guard.EDIT} <= set(summary.DESCRIPTIONS)
