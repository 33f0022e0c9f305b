"""Every metric against every kind of clip: what a static clip, a known motion, noise and a frozen cheat must score.

The networks here are known ones: a coarse grid of colours, a difference of levels, a mean of two frames. What the
metrics do with a network's answer is the same whoever answers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
import pytest
from helpers.known_networks import Colours, Grid, Levels, Mean

from retake.metrics import (
    cass,
    clip_score,
    consistency,
    dynamics,
    fid,
    flicker,
    lpips,
    motion_fidelity,
    region,
    smoothness,
    ssim,
    summary,
    temporal_consistency,
    warp_error,
)
from retake.metrics.common import guard
from retake.metrics.common.crop import square
from retake.metrics.common.sample import Sample
from retake.video import write_png

H, W, FRAMES, STEP = 48, 64, 9, 3
SIGMA, MORE = 0.04, 0.12


@cache
def texture() -> np.ndarray:
    """Smooth uint8 texture, wider than a frame."""
    noise = np.random.default_rng(0).random((H, W + STEP * FRAMES, 3), dtype=np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.0)
    low, high = smooth.min(), smooth.max()
    return np.rint(255 * (0.2 + 0.6 * (smooth - low) / (high - low))).astype(np.uint8)


def still() -> list[np.ndarray]:
    return [texture()[:, :W]] * FRAMES


def moving() -> list[np.ndarray]:
    """The picture's content moves left by STEP pixels a frame."""
    return [texture()[:, STEP * t : STEP * t + W] for t in range(FRAMES)]


def noisy(frames: list[np.ndarray], sigma: float) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [np.clip(np.rint(f + rng.normal(0, 255 * sigma, f.shape)), 0, 255).astype(np.uint8) for f in frames]


def tracks(velocity: float, jitter: float = 0.0) -> np.ndarray:
    """[FRAMES, P, 2]: points that move sideways, all by `velocity` pixels a frame."""
    starts = np.array([[10, 10], [40, 12], [22, 30], [50, 40]], np.float32)
    straight = starts + np.arange(FRAMES, dtype=np.float32)[:, None, None] * np.array([velocity, 0], np.float32)
    return straight + np.random.default_rng(2).normal(0, jitter, straight.shape).astype(np.float32)


# column: source, result, the source's velocity, tracks of the result
COLUMNS: dict[str, Callable[[], tuple]] = {
    "static": lambda: (still(), still(), 0, tracks(0)),
    "motion": lambda: (moving(), moving(), -STEP, tracks(-STEP)),
    "noise": lambda: (still(), noisy(still(), SIGMA), 0, tracks(0, 1.0)),
    "more noise": lambda: (still(), noisy(still(), MORE), 0, tracks(0, 4.0)),
    "frozen": lambda: (moving(), [moving()[0]] * FRAMES, -STEP, tracks(0)),
}
INSIDE = np.zeros((H, W), bool)
INSIDE[12:36, 20:44] = True
INSIDE[12:20, 20:28] = False  # no rectangle: what is blanked and what is not makes a difference


@cache
def scored(column: str, folder: str) -> dict[str, float | None]:
    """All values of a column of the matrix, through the metrics themselves."""
    source, result, velocity, points = COLUMNS[column]()
    forward, backward = (np.full((H, W, 2), (v, 0), np.float32) for v in (velocity, -velocity))
    crop = square(still()[0], INSIDE, blank=False)
    assert crop is not None
    reference = f"{folder}/{column}.png"
    write_png(reference, crop)
    inception = fid.Metric(fid.Params(), inception=Colours())
    metrics = [
        temporal_consistency.Metric(temporal_consistency.Params(), clip=Grid()),
        consistency.Metric(consistency.Params(), subject=Grid(), background=Grid()),
        smoothness.Metric(smoothness.Params(), interpolator=Mean()),
        lpips.Metric(lpips.Params(), lpips=Levels()),
        clip_score.Metric(clip_score.Params(reference=reference), clip=Grid()),
        cass.Metric(cass.Params(reference=reference, source_prompt="green", where="edit"), clip=Grid()),
        ssim.Metric(ssim.Params()),
        dynamics.Metric(dynamics.Params()),
        warp_error.Metric(warp_error.Params()),
        flicker.Metric(flicker.Params()),
        region.Metric(region.Params()),
        inception,
    ]
    for t in range(FRAMES):
        there, back = (forward, backward) if t else (None, None)
        sample = Sample(t, source[t], result[t], INSIDE, there, fps=8, backward=back)
        for metric in metrics:
            metric.update(sample)
    move, seen = motion_fidelity.Metric(motion_fidelity.Params()), np.ones(points.shape[:2], bool)
    move.add(motion_fidelity.Window(0, tracks(velocity), seen, points, seen))
    values = summary.summarise(metric.result() for metric in [*metrics, move])
    features = inception.result()
    return values | fid.score(features.source, features.result)[0]


ONE = ("tc_full", "tc_edit", "subject_consistency", "background_consistency", "smoothness", "flicker", "flicker_edit")


def is_one(at) -> bool:
    return all(at(name) == pytest.approx(1, abs=1e-6) for name in ONE)


def background(at) -> tuple[float, float, float]:
    return at("psnr_unedited"), at("ssim_unedited"), at("l1_unedited")


# (row, column) -> what must hold; `at(name)` is that column's value, `at(name, column)` another's
MATRIX: dict[tuple[str, str], Callable] = {
    ("warp error", "static"): lambda at: at("warp_error_full") == 0 == at("warp_error_edit"),
    ("warp error", "motion"): lambda at: at("warp_error_full") < 1e-10 > at("warp_error_edit"),
    # quantised and cut at 0 and 1: 4 % beside the sampling error of 50,000 values
    ("warp error", "noise"): lambda at: at("warp_error_full") == pytest.approx(2 * SIGMA**2, rel=0.04),
    ("warp error", "frozen"): lambda at: at("warp_error_full") > 0.001 < at("warp_error_edit"),
    ("consistency", "static"): is_one,
    ("consistency", "motion"): lambda at: all(at(name) < 0.999 for name in ONE),
    ("consistency", "noise"): lambda at: all(at(n, "more noise") < at(n) < at(n, "static") for n in ONE),
    ("consistency", "frozen"): is_one,  # blind: hence the guard
    ("lpips-t", "static"): lambda at: at("lpips_t") == 0 == at("lpips_t_delta"),
    ("lpips-t", "motion"): lambda at: (
        at("lpips_t") > 0.01 and at("lpips_t_delta") == 0 and at("lpips_t_warped") < 0.5 * at("lpips_t")
    ),
    ("lpips-t", "noise"): lambda at: at("lpips_t", "more noise") > at("lpips_t") > at("lpips_t", "static"),
    ("lpips-t", "frozen"): lambda at: at("lpips_t") == 0 and at("lpips_t_delta") > 0.01 < at("lpips_t_warped"),
    ("background", "static"): lambda at: background(at) == (region.CAP, 1, 0),
    # the mean distance of a normal variable is sqrt(2 / pi) of its deviation
    ("background", "noise"): lambda at: (
        at("psnr_unedited") == pytest.approx(-20 * np.log10(SIGMA), abs=0.1)
        and at("l1_unedited") == pytest.approx(SIGMA * np.sqrt(2 / np.pi), rel=0.02)
        and at("ssim_unedited", "more noise") < at("ssim_unedited") < 1
    ),
    ("background", "frozen"): lambda at: (
        at("psnr_unedited") < 30 and at("ssim_unedited") < 0.5 and at("l1_unedited") > 0.05
    ),
    ("ssim", "static"): lambda at: at("ssim") == at("ssim_edit") == 1,
    ("ssim", "motion"): lambda at: at("ssim") == at("ssim_edit") == 1,
    ("ssim", "noise"): lambda at: (
        at("ssim", "more noise") < at("ssim") < 1 and at("ssim_edit", "more noise") < at("ssim_edit") < 1
    ),
    ("ssim", "frozen"): lambda at: at("ssim") < 0.5 > at("ssim_edit"),
    ("cass", "static"): lambda at: at("cass") == pytest.approx(0, abs=1e-4) == at("relcass"),
    ("cass", "motion"): lambda at: at("cass") == pytest.approx(0, abs=1e-4) == at("relcass"),
    # the reference is the clean crop of the first frame: noise leads away from it, the frozen cheat back to it
    ("cass", "noise"): lambda at: at("cass_image", "more noise") < at("cass_image") < 0,
    ("cass", "frozen"): lambda at: at("cass_image") > 1,  # fooled: it asks for the reference, not for motion
    ("motion fidelity", "static"): lambda at: at("motion_fidelity") == 1 and at("track_error") == 0,
    ("motion fidelity", "motion"): lambda at: (
        at("motion_fidelity") == pytest.approx(1, abs=1e-6) and at("track_error") == pytest.approx(0, abs=1e-5)
    ),
    ("motion fidelity", "noise"): lambda at: (
        at("motion_fidelity") < at("motion_fidelity", "static")
        and at("track_error", "more noise") > at("track_error") > 0.5
    ),
    ("motion fidelity", "frozen"): lambda at: at("motion_fidelity") == 0 and at("track_error") > STEP,
    ("fid, clip-i", "static"): lambda at: at("fid") < 1e-9 and at("clip_i") == pytest.approx(100, abs=1e-4),
    ("fid, clip-i", "noise"): lambda at: (
        at("fid", "more noise") > at("fid") > at("fid", "static")
        and at("clip_i", "more noise") < at("clip_i") < at("clip_i", "static")
    ),
    # barely reacts: less than to noise that nobody would overlook, and CLIP-I not at all
    ("fid, clip-i", "frozen"): lambda at: (
        at("fid") < 0.5 * at("fid", "more noise") and at("clip_i") == pytest.approx(100, abs=1e-4)
    ),
}


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("matrix"))
    return lambda name, column: scored(column, folder)[name]


@pytest.mark.parametrize(("row", "column"), MATRIX, ids=lambda part: part.replace(" ", "-"))
def test_matrix(row: str, column: str, values):
    assert MATRIX[row, column](lambda name, other=column: values(name, other))


def test_the_guard_withholds_every_number_that_is_blind_to_a_frozen_clip(values, tmp_path):
    kept, reasons = guard.guarded(scored("frozen", str(tmp_path)))
    blind = {*ONE, "lpips_t", "tc_full_delta", "flicker_edit_delta", "smoothness_delta"}
    assert blind <= set(reasons)
    assert all(kept[name] is None and "stands still" in reasons[name] for name in reasons)
    assert all(kept[name] is not None for name in ("lpips_t_delta", "lpips_t_warped", "warp_error_full", "motion"))
    for column in ("static", "motion", "noise"):
        values_there = scored(column, str(tmp_path))
        assert guard.guarded(values_there) == (values_there, {})


def test_the_source_is_scored_as_the_result_is(tmp_path):
    """Where both are the same clip every value equals its source's, and every difference is 0."""
    there = scored("motion", str(tmp_path))
    for name, value in there.items():
        if name.endswith("_delta"):
            assert value == pytest.approx(0, abs=1e-6), name
        elif name + "_source" in there and "motion" not in name:
            assert value == there[name + "_source"], name
    assert there["motion"] == pytest.approx(there["motion_source"], rel=0.1)  # DIS against the exact flow
