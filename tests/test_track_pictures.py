"""Tracks as blobs, and what of them is dropped in training."""

from __future__ import annotations

import numpy as np
import pytest

from retake.imaging.blobs import blobs, colours_of
from retake.training.track_dropout import KEPT, MODES, dropped, keys, runs


def test_a_blob_stands_where_its_point_is():
    xy = np.array([[[20.3, 11.7]], [[30.0, 15.0]], [[np.nan, 3.0]]])
    shown = blobs(xy, np.array([[True], [False], [True]]), np.array([[1.0, 0.5, 0.0]], np.float32), (48, 32), 2.5)
    assert shown.shape == (3, 32, 48, 3)
    assert shown[1:].max() == 0  # hidden, and nowhere
    weight = shown[0, ..., 0]
    rows, columns = np.indices(weight.shape)
    assert (columns * weight).sum() / weight.sum() == pytest.approx(20.3, abs=0.02)
    assert (rows * weight).sum() / weight.sum() == pytest.approx(11.7, abs=0.02)
    spread = (np.square(columns - 20.3) * weight).sum() / weight.sum()
    assert np.sqrt(spread) == pytest.approx(2.5, rel=0.03)
    assert np.allclose(shown[0, ..., 1], 0.5 * weight, atol=1e-6)


def test_later_points_lie_over_earlier_ones_and_frames_cut_blobs():
    colours = np.array([[1.0, 0, 0], [0, 1.0, 0]], np.float32)
    xy = np.array([[[10.0, 10.0], [10.0, 10.0]], [[0.0, 0.0], [-50.0, 9.0]]])
    shown = blobs(xy, np.ones((2, 2), bool), colours, (20, 20), 2.0)
    assert shown[0, 10, 10].tolist() == [0.0, 1.0, 0.0]
    assert shown[1, 0, 0].tolist() == [1.0, 0.0, 0.0]
    assert shown[1, ..., 1].max() == 0


@pytest.mark.parametrize("count", [0, 1, 8, 64])
def test_colours_are_told_apart(count):
    found = colours_of(count, np.random.default_rng(count))
    assert found.shape == (count, 3)
    assert (found.max(1) > 0.5).all()
    if 1 < count <= 8:
        apart = np.abs(found[:, None] - found[None]).max(-1) + np.eye(count)
        assert apart.min() >= 0.3
    assert len({tuple(colour) for colour in found.tolist()}) == count


def test_what_is_dropped_is_dropped_frame_by_frame():
    rng = np.random.default_rng(0)
    source, target = np.ones((48, 2_000), bool), np.ones((48, 2_000), bool)
    source[30:, 7] = False
    kept_source, kept_target = dropped(source, target, rng)
    assert not (kept_source & ~source).any()
    assert not (kept_target & ~target).any()
    assert (kept_source.any(0) == kept_target.any(0)).all()
    whole = kept_source.all(0) & kept_target.all(0)
    assert whole.mean() == pytest.approx(MODES["full"], abs=0.05)
    same = (kept_source == kept_target).all(0) & ~whole
    assert same.mean() == pytest.approx(MODES["both"] + MODES["points"], abs=0.06)
    some = kept_target.mean(0)[kept_target.any(0) & ~whole]
    assert 0 < np.quantile(some, 0.2) < 0.3 < np.quantile(some, 0.8) < 1


def test_one_point_is_always_told():
    for seed in range(200):
        source, target = dropped(np.ones((9, 1), bool), np.ones((9, 1), bool), np.random.default_rng(seed))
        assert source.any()
        assert target.any()
    nothing = np.zeros((9, 3), bool)
    assert not dropped(nothing, nothing, np.random.default_rng(0))[0].any()


def test_runs_are_runs_and_keys_are_few():
    rng = np.random.default_rng(3)
    shares = [runs(48, KEPT, rng) for _ in range(500)]
    assert np.mean(shares) == pytest.approx(KEPT, abs=0.05)
    changes = np.mean([np.count_nonzero(np.diff(one.astype(int))) for one in shares])
    assert changes < 6  # 23 if each frame were dropped by itself
    counts = [keys(np.ones(49, bool), rng).sum() for _ in range(500)]
    assert min(counts) >= 1
    assert np.median(counts) < 15
