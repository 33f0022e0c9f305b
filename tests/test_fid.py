"""FID and KID against their closed forms and other libraries."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers.known_networks import Colours
from helpers.scored import pictures, run

from retake.formats import unpack
from retake.metrics import (
    fid,
)


def features(count: int, seed: int = 0, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (count, width)).astype(np.float32)


def test_fid_has_its_closed_forms():
    x = features(4000)
    assert fid.frechet(x, x) < 1e-6
    assert fid.frechet(x, x + np.float32(0.5)) == pytest.approx(8 * 0.25, rel=1e-5)
    # covariances S and 4 S: Tr(S + 4 S - 2 * 2 S) = Tr S, about 8; and the mean doubles
    assert fid.frechet(x, 2 * x) == pytest.approx(np.trace(np.cov(x.T)) + np.sum(x.mean(0) ** 2), rel=1e-4)
    assert fid.frechet(x, 2 * x) == pytest.approx(8, rel=0.02)
    y = features(3000, 1) * 1.3 + 0.2
    assert fid.frechet(x, y) == pytest.approx(fid.frechet(y, x), rel=1e-6)
    assert fid.frechet(x, y) == pytest.approx(fid.frechet(x[::-1], y[np.argsort(y[:, 0])]), rel=1e-6)


def test_fid_equals_pytorch_fid_and_torchmetrics():
    import torch
    from pytorch_fid.fid_score import calculate_frechet_distance
    from torchmetrics.image.fid import FrechetInceptionDistance

    x, y = features(300), features(200, 1) @ features(8, 2) * 0.3 + 0.1
    found = fid.frechet(x, y.astype(np.float32))
    moments = [part for side in (x, y) for part in (side.mean(0), np.cov(side, rowvar=False))]
    assert found == pytest.approx(calculate_frechet_distance(*moments), rel=1e-5)

    class Eight(torch.nn.Module):
        num_features = 8

        def forward(self, pixels):
            return pixels[:, :, 0, 0]

    theirs = FrechetInceptionDistance(feature=Eight()).set_dtype(torch.float64)
    for side, batches in ((x, 3), (y, 4)):
        for part in np.array_split(side, batches):
            theirs.update(torch.from_numpy(part).double()[:, :, None, None], real=side is x)
    assert found == pytest.approx(float(theirs.compute()), rel=1e-5)


def test_fid_of_a_singular_covariance_agrees_with_pytorch_fid_and_says_so():
    from pytorch_fid.fid_score import calculate_frechet_distance

    x, y = features(5), features(6, 1) + 0.5
    values, notes = fid.score(x, y)
    moments = [part for side in (x, y) for part in (side.mean(0), np.cov(side, rowvar=False))]
    assert values["fid"] == pytest.approx(calculate_frechet_distance(*moments), rel=1e-3)
    assert "5 frames for 8 features" in notes["fid"]
    assert values["fid_frames"] == 5
    assert fid.score(features(50), features(50, 1))[1] == {}
    values, notes = fid.score(features(1), features(50))
    assert values["fid"] is values["kid"] is None
    assert "at least 2" in notes["fid"]


def test_kid_equals_torchmetrics_and_repeats():
    import torch
    from torchmetrics.image.kid import KernelInceptionDistance

    x, y = features(60), features(60, 1) + 0.3

    class Given(torch.nn.Module):
        def forward(self, values):
            return values

    with pytest.warns(UserWarning, match="save all extracted features"):
        theirs = KernelInceptionDistance(feature=Given(), subsets=1, subset_size=60)
    for side, is_real in ((x, True), (y, False)):
        theirs.update(torch.from_numpy(side).double(), real=is_real)
    assert fid.kernel(x, y) == pytest.approx((float(theirs.compute()[0]), 0), rel=1e-6)
    more = features(90, 2)
    state = torch.get_rng_state()
    assert fid.kernel(x, more, seed=0) == fid.kernel(x, more, seed=0) != fid.kernel(x, more, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    assert fid.kernel(x, more)[1] > 0
    assert fid.kernel(x, y)[0] > abs(fid.kernel(x, features(60, 3))[0])


def test_fid_gathers_features_of_source_and_result():
    frames = pictures(4)
    found = run(fid.Metric(fid.Params(), inception=Colours()), 255 - frames, frames)
    assert isinstance(found, fid.Result)
    np.testing.assert_array_equal(found.source, Colours().images(frames))
    np.testing.assert_array_equal(found.result, Colours().images(255 - frames))
    assert found.per_frame() == {}
    assert found.reasons() == dict.fromkeys(fid.DESCRIPTIONS, fid.OF_A_DATASET)
    assert all(math.isnan(found.summary()[name]) for name in fid.DESCRIPTIONS)
    kept = unpack(found.files()[fid.FEATURES])
    np.testing.assert_array_equal(kept["source"], found.source)
    np.testing.assert_array_equal(kept["result"], found.result)
