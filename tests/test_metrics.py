"""Metrics against closed forms, slow direct loops and torchmetrics."""

from __future__ import annotations

import csv
import json
import math
import pickle
import subprocess
import sys
from typing import Any

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from retake.errors import ConfigError, MediaError
from retake.metrics import flicker, motion_fidelity, motion_fidelity_published, region, ssim, summary, warp_error
from retake.metrics.common.sample import NO_REGION, Result, Sample, Tracks

H, W = 48, 64


def texture(seed: int = 0, height: int = H, width: int = W) -> np.ndarray:
    """Smooth float32 texture in 0.2..0.8."""
    noise = np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)
    smooth = cv2.GaussianBlur(noise, (5, 5), 1.0)
    return 0.2 + 0.6 * (smooth - smooth.min()) / (smooth.max() - smooth.min())


def levels(image: np.ndarray) -> np.ndarray:
    return np.rint(image * 255).astype(np.uint8)


def constant_flow(dx: float, dy: float) -> np.ndarray:
    return np.full((H, W, 2), (dx, dy), np.float32)


def shifted(dx: int, dy: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two windows onto one large texture; the second shows it moved by (dx, dy) whole pixels."""
    big = texture(seed, H + 32, W + 32)
    return big[16 : 16 + H, 16 : 16 + W], big[16 - dy : 16 - dy + H, 16 - dx : 16 - dx + W]


def box(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((H, W), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def metric_of(module: Any, **settings: Any) -> Any:
    return module.Metric(module.Params(**settings))


def feed_pair(metric: Any, *four: np.ndarray, t: int = 0, flows: tuple = (None, None), regions: tuple = (None, None)):
    """Frames t and t+1: source, source_next, result, result_next; flow there and back; regions of both frames."""
    source, source_next, result, result_next = four
    metric.update(Sample(t, source, result, regions[0]))
    metric.update(Sample(t + 1, source_next, result_next, regions[1], flows[0], backward=flows[1]))


# Warp error


def test_warp_error_of_a_static_clip_is_zero():
    frame, still = levels(texture()), constant_flow(0, 0)
    assert warp_error.pair(frame, frame, still, still, box(8, 8, 40, 40)) == (0.0, 0.0)


def test_warp_error_of_a_whole_pixel_translation_is_zero_in_bounds():
    first, second = shifted(5, -3)
    forward, backward = constant_flow(5, -3), constant_flow(-5, 3)
    full, edit = warp_error.pair(first, second, forward, backward, box(8, 8, 40, 40))
    assert full < 1e-10
    assert edit < 1e-10
    # As published, points that leave the frame are compared with the clamped border.
    anywhere = warp_error.Params(in_bounds=False)
    assert warp_error.pair(first, second, forward, backward, params=anywhere)[0] > 1e-4


def test_warp_error_of_noise_is_twice_its_variance():
    first, second = shifted(5, -3)
    rng, sigma = np.random.default_rng(1), 0.05
    first, second = (f + rng.normal(0, sigma, f.shape).astype(np.float32) for f in (first, second))
    full, _ = warp_error.pair(first, second, constant_flow(5, -3), constant_flow(-5, 3))
    assert full == pytest.approx(2 * sigma**2, rel=0.06)  # 7,600 samples: standard error 1.6 %


def test_warp_error_sees_a_wrong_flow_and_a_brightness_step():
    first, second = shifted(4, 2)
    right = warp_error.pair(first, second, constant_flow(4, 2), constant_flow(-4, -2))[0]
    wrong = warp_error.pair(first, second, constant_flow(-4, -2), constant_flow(4, 2))[0]
    assert wrong > 0.005 > right
    still = constant_flow(0, 0)
    assert warp_error.pair(first, first + 0.1, still, still)[0] == pytest.approx(0.01, rel=1e-5)


def test_a_frozen_result_fails_warp_error_where_the_source_moves():
    first, second = shifted(4, 2)
    metric, inside = metric_of(warp_error), box(8, 8, 40, 40)
    flows = constant_flow(4, 2), constant_flow(-4, -2)
    four = levels(first), levels(second), levels(first), levels(first)
    feed_pair(metric, *four, flows=flows, regions=(inside, inside))
    values = metric.result().summary()
    assert values["warp_error_source_full"] < 1e-10
    assert values["warp_error_source_edit"] < 1e-10
    assert min(values["warp_error_full"], values["warp_error_edit"]) > 0.005


def test_warp_error_inside_the_region_ignores_the_rest():
    frame, still, inside = texture(), constant_flow(0, 0), box(10, 10, 30, 40)
    changed = np.where(inside[..., None], frame, frame + 0.2).astype(np.float32)
    full, edit = warp_error.pair(frame, changed, still, still, inside)
    assert edit == 0
    assert full == pytest.approx(0.04 * (1 - inside.mean()), rel=1e-5)


def test_an_all_occluded_pair_is_finite_in_full_and_not_counted_inside():
    first, second = shifted(5, 0)
    lost = constant_flow(5, 0), constant_flow(5, 0)  # forward and backward disagree everywhere
    full, edit = warp_error.pair(first, second, *lost, box(8, 8, 40, 40))
    assert full == 0
    assert math.isnan(edit)
    still = constant_flow(0, 0)
    assert math.isnan(warp_error.pair(first, first, still, still, box(0, 0, 0, 0))[1])
    metric, inside = metric_of(warp_error), box(8, 8, 40, 40)
    for t, (frame, flows) in enumerate(((first, (None, None)), (second, lost), (second + 0.1, (still, still)))):
        metric.update(Sample(t, frame, frame, inside, flows[0], backward=flows[1]))
    assert math.isnan(metric.result().per_frame()["warp_error_edit"][0])
    assert metric.result().summary()["warp_error_edit"] == pytest.approx(0.01, rel=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("side", ["forward", "backward"])
def test_flow_vectors_that_are_not_finite_are_left_out(bad: float, side: str):
    frame, flows = texture(), {"forward": constant_flow(0, 0), "backward": constant_flow(0, 0)}
    flows[side][10:14, 20:24] = bad
    changed = frame.copy()
    changed[10:14, 20:24] += 0.2
    both = flows["forward"], flows["backward"]
    assert warp_error.pair(frame, changed, *both, box(8, 8, 60, 40)) == (0, 0)


def slow_sample(image: np.ndarray, x: float, y: float) -> np.ndarray:
    height, width = image.shape[:2]
    x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
    x0, y0 = int(x), int(y)
    x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
    top = image[y0, x0] * (1 - (x - x0)) + image[y0, x1] * (x - x0)
    low = image[y1, x0] * (1 - (x - x0)) + image[y1, x1] * (x - x0)
    return top * (1 - (y - y0)) + low * (y - y0)


def slow_warp_error(
    first: np.ndarray, second: np.ndarray, forward: np.ndarray, backward: np.ndarray, mask: np.ndarray
) -> tuple[float, float, float]:
    """Section 4.2 of Lai et al., pixel by pixel in float64: full, inside the mask, share of pixels used."""
    height, width = first.shape[:2]
    first, second, forward, backward = (a.astype(np.float64) for a in (first, second, forward, backward))
    total, used, total_in, used_in = 0.0, 0, 0.0, 0
    for y in range(height):
        for x in range(width):
            f = forward[y, x]
            at = x + f[0], y + f[1]
            b = slow_sample(backward, *at)
            right = forward[y, x + 1] - f if x + 1 < width else np.zeros(2)
            below = forward[y + 1, x] - f if y + 1 < height else np.zeros(2)
            lost = np.sum((f + b) ** 2) > 0.01 * (np.sum(f**2) + np.sum(b**2)) + 0.5
            edge = np.sum(right**2) + np.sum(below**2) > 0.01 * np.sum(f**2) + 0.002
            if lost or edge or not (0 <= at[0] <= width - 1 and 0 <= at[1] <= height - 1):
                continue
            error = np.mean((slow_sample(second, *at) - first[y, x]) ** 2)
            total, used = total + error, used + 1
            if mask[y, x]:
                total_in, used_in = total_in + error, used_in + 1
    return total / used, total_in / used_in, used / (height * width)


def test_warp_error_equals_a_slow_direct_loop():
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 40, (H, W, 2)).astype(np.float32)
    forward = cv2.GaussianBlur(noise, (0, 0), 9) + np.float32(1.5)
    backward = -forward + cv2.GaussianBlur(rng.normal(0, 8, (H, W, 2)).astype(np.float32), (0, 0), 4)
    first, second, mask = texture(1), texture(2), box(12, 8, 50, 36)
    full, edit, share = slow_warp_error(first, second, forward, backward, mask)
    assert 0.1 < share < 0.9  # the loop really left some pixels out
    assert warp_error.pair(first, second, forward, backward, mask) == pytest.approx((full, edit), rel=1e-5)


# Background preservation


@pytest.mark.parametrize(("height", "width"), [(48, 64), (37, 51), (12, 90)])
def test_ssim_map_equals_torchmetrics(height: int, width: int):
    import torch
    from torchmetrics.functional.image import structural_similarity_index_measure

    first = levels(texture(0, height, width))
    noise = np.random.default_rng(1).integers(-20, 20, first.shape)
    second = np.clip(first.astype(int) + noise, 0, 255).astype(np.uint8)
    second[: height // 2] = first[: height // 2]
    a, b = (torch.from_numpy(image).permute(2, 0, 1)[None].double() / 255 for image in (first, second))
    expected = structural_similarity_index_measure(a, b, data_range=1.0, return_full_image=True)[1]
    np.testing.assert_allclose(region.ssim_map(first, second), expected[0].mean(0).numpy(), atol=1e-5)


def test_ssim_of_constants_is_the_luminance_term():
    half, more = np.full((H, W, 3), 0.5, np.float32), np.full((H, W, 3), 0.6, np.float32)
    np.testing.assert_allclose(region.ssim_map(half, more), (0.6 + 1e-4) / (0.61 + 1e-4), atol=1e-5)


def test_an_edit_inside_the_mask_leaves_perfect_scores_outside():
    source, edited = levels(texture()), box(20, 15, 40, 35)
    result = np.where(edited[..., None], 255 - source, source)
    assert region.frame(source, result, ~edited) == region.Scores(region.CAP, 1.0, 0.0)
    # One changed pixel far outside: no shortcut is taken, and SSIM next to the edit is still that of equals.
    result[0, 0, 0] ^= 1
    scores = region.frame(source, result, ~edited)
    assert scores.ssim > 1 - 1e-5
    assert scores.psnr < region.CAP


def test_offset_and_noise_outside_have_their_closed_forms():
    source, edited = texture(), box(20, 15, 40, 35)
    result = np.where(edited[..., None], 0, source + 0.1).astype(np.float32)
    scores = region.frame(source, result, ~edited)
    assert scores.psnr == pytest.approx(20.0, abs=1e-4)
    assert scores.l1 == pytest.approx(0.1, abs=1e-6)
    sigma = 0.05
    noisy = source + np.random.default_rng(0).normal(0, sigma, source.shape).astype(np.float32)
    assert region.frame(source, noisy, ~edited).psnr == pytest.approx(-20 * math.log10(sigma), abs=0.2)


def test_pnp_product_inflates_psnr_by_the_closed_form():
    source, edited = texture(), box(10, 5, 50, 45)
    result = source + np.float32(0.1)
    right = region.frame(source, result, ~edited)
    wrong = region.frame(source, result, ~edited, mode="pnp_product")
    gain = 10 * math.log10(H * W / (~edited).sum())
    assert right.psnr == pytest.approx(20.0, abs=1e-4)
    assert wrong.psnr - right.psnr == pytest.approx(gain, abs=1e-4)
    assert wrong.l1 == pytest.approx(right.l1 * (~edited).mean(), rel=1e-5)
    assert wrong.ssim > right.ssim
    metric = metric_of(region, mode="pnp_product", margin=0)
    metric.update(Sample(0, source, result, edited))
    assert metric.result().summary()["psnr_pnp_product"] == wrong.psnr


def test_how_much_was_edited_is_the_mean_change_in_the_region():
    source, result = np.full((40, 40, 3), 100, np.uint8), np.full((40, 40, 3), 100, np.uint8)
    edited = np.zeros((40, 40), bool)
    edited[10:20, 10:30] = True
    result[10:20, 10:20], result[30:] = 151, 0  # half of the region by 51; what changed outside does not count
    metric = region.Metric(region.Params())
    metric.update(Sample(0, source, result, edited))
    metric.update(Sample(1, source, result, np.zeros_like(edited)))  # nothing is edited there
    found = metric.result()
    assert found.summary()["change_edited"] == pytest.approx(0.1)
    assert math.isnan(found.per_frame()["change_edited"][1])


def test_empty_regions_are_not_counted_and_psnr_is_a_mean_of_frames():
    source = texture()
    metric = metric_of(region, margin=0)
    changes = (
        (0.1, box(0, 0, W, H)),
        (0.01, box(0, 0, W, H)),
        (0.5, box(0, 0, 0, 0)),
        (0.1, box(4, 4, 12, 12)),  # too thin for an 11x11 window
    )
    for t, (change, unedited) in enumerate(changes):
        metric.update(Sample(t, source, source + np.float32(change), ~unedited))
    result = metric.result()
    psnr, structure = (result.per_frame()[name] for name in ("psnr_unedited", "ssim_unedited"))
    assert [math.isnan(psnr[t]) for t in range(4)] == [False, False, True, False]
    assert [math.isnan(structure[t]) for t in range(4)] == [False, False, True, True]
    assert result.summary()["psnr_unedited"] == pytest.approx((20 + 40 + 20) / 3, abs=1e-3)


def test_psnr_is_capped():
    assert region.psnr(0) == region.psnr(1e-12) == region.CAP
    assert region.psnr(1e-9) == pytest.approx(90)


def test_frozen_frame_is_seen_by_background_preservation():
    first, second = (levels(frame) for frame in shifted(4, 2))
    assert region.frame(second, first, box(0, 0, W, H)).psnr < 30


# SSIM of the whole frame


def structure(*frames: tuple[np.ndarray, np.ndarray, np.ndarray | None]) -> Result:
    """The metric over frames of (source, result, edited region)."""
    metric = ssim.Metric(ssim.Params())
    for t, (source, result, edited) in enumerate(frames):
        metric.update(Sample(t, source, result, edited))
    return metric.result()


@pytest.mark.parametrize(("height", "width"), [(48, 64), (37, 51), (11, 90)])
def test_ssim_equals_torchmetrics_where_the_window_fits(height: int, width: int):
    import torch
    from torchmetrics.functional.image import structural_similarity_index_measure

    first = levels(texture(0, height, width))
    noise = np.random.default_rng(1).integers(-20, 20, first.shape)
    second = np.clip(first.astype(int) + noise, 0, 255).astype(np.uint8)
    a, b = (torch.from_numpy(image).permute(2, 0, 1)[None].double() / 255 for image in (first, second))
    whole = structural_similarity_index_measure(a, b, data_range=1.0, return_full_image=True)[1]
    expected = float(whole[..., 5:-5, 5:-5].mean())  # its own mean counts the rim too, mirrored
    assert 0.3 < expected < 0.95
    assert structure((first, second, None)).summary()["ssim"] == pytest.approx(expected, abs=1e-5)


def slow_ssim(a: np.ndarray, b: np.ndarray, x: int, y: int) -> float:
    """One place: Wang et al., eq. 13, with weighted moments of the window around it, mean over channels."""
    taps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    w = np.outer(taps, taps)[..., None] / taps.sum() ** 2
    a, b = (image[y - 5 : y + 6, x - 5 : x + 6].astype(np.float64) / 255 for image in (a, b))
    means = [(w * image).sum((0, 1)) for image in (a, b)]
    va, vb, cov = ((w * p * q).sum((0, 1)) for p, q in ((a, a), (b, b), (a, b)))
    va, vb, cov = va - means[0] ** 2, vb - means[1] ** 2, cov - means[0] * means[1]
    upper = (2 * means[0] * means[1] + 0.01**2) * (2 * cov + 0.03**2)
    return float((upper / ((means[0] ** 2 + means[1] ** 2 + 0.01**2) * (va + vb + 0.03**2))).mean())


def test_ssim_edit_is_the_mean_of_a_slow_direct_map_over_the_region():
    first, second = levels(texture(1)), levels(texture(2))
    edited = box(0, 30, 9, 46)  # into the rim, where no window fits
    places = [(x, y) for x in range(5, 9) for y in range(30, H - 5)]
    expected = np.mean([slow_ssim(first, second, x, y) for x, y in places])
    assert structure((first, second, edited)).summary()["ssim_edit"] == pytest.approx(expected, abs=1e-5)


def test_ssim_of_a_copy_is_one_and_an_edit_costs_inside_what_it_does_not_cost_outside():
    source, edited = levels(texture()), box(20, 15, 40, 35)
    assert structure((source, source.copy(), edited)).summary() == {"ssim": 1.0, "ssim_edit": 1.0}
    small, large = (np.where(box(20, 15, x, 35)[..., None], 255 - source, source) for x in (30, 40))
    some, all_of_it = (structure((source, result, edited)).summary() for result in (small, large))
    assert all_of_it["ssim_edit"] < some["ssim_edit"] < some["ssim"] < 1
    assert all_of_it["ssim"] < some["ssim"]
    assert all_of_it["ssim_edit"] < 0
    outside = np.where(edited[..., None], source, 255 - source)
    assert structure((source, outside, box(25, 20, 35, 30))).summary()["ssim_edit"] == pytest.approx(1, abs=1e-6)


def test_ssim_has_a_reason_where_it_has_no_place():
    source, tiny = levels(texture()), levels(texture(0, 10, 60))
    rim = structure((source, source, box(0, 0, W, 5)), (source, source, None))
    assert rim.summary()["ssim"] == 1
    assert rim.reasons() == {"ssim_edit": NO_REGION}
    assert list(rim.per_frame()["ssim"]) == [0, 1]
    assert set(structure((tiny, tiny, None)).reasons().values()) == {ssim.TOO_SMALL}
    with pytest.raises(MediaError, match="E440"):
        structure((source, tiny, None))


# Flicker


def test_flicker_of_alternating_levels_is_exact():
    low, high = np.full((H, W, 3), 60, np.uint8), np.full((H, W, 3), 77, np.uint8)
    metric, inside = metric_of(flicker), box(5, 5, 20, 20)
    for t, level in enumerate((low, high, low, high)):
        metric.update(Sample(t, low, level, inside))
    values = metric.result().summary()
    for name in ("flicker", "flicker_edit"):
        assert values[name] == pytest.approx(1 - 17 / 255, abs=1e-12)
    assert values["flicker_source"] == values["flicker_source_edit"] == 1
    assert values["flicker_delta"] == pytest.approx(-17 / 255, abs=1e-12)
    assert values["flicker_edit_delta"] == pytest.approx(-17 / 255, abs=1e-12)


def test_flicker_falls_with_motion_and_noise_and_is_blind_to_a_frozen_picture():
    first, second = (levels(frame) for frame in shifted(4, 2))
    noise = np.random.default_rng(0).integers(-20, 20, first.shape)
    noisy = np.clip(second.astype(int) + noise, 0, 255).astype(np.uint8)
    assert flicker.pair(first, noisy)[0] < flicker.pair(first, second)[0] < 1
    assert flicker.pair(first, first)[0] == 1


def test_flicker_inside_counts_pixels_edited_in_both_frames():
    frame, before, after = levels(texture()), box(5, 5, 25, 25), box(15, 5, 35, 25)
    moved = frame.copy()
    moved[before & after] += 10
    moved[before ^ after] += 50
    for region_next, expected in ((after, 1 - 10 / 255), (box(40, 30, 50, 40), math.nan)):
        metric = metric_of(flicker)
        feed_pair(metric, frame, frame, frame, moved, regions=(before, region_next))
        found = metric.result()
        assert found.per_frame()["flicker_edit"][0] == pytest.approx(expected, abs=1e-12, nan_ok=True)
        assert found.summary()["flicker_edit"] == pytest.approx(expected, abs=1e-12, nan_ok=True)


# Motion fidelity


def tracks(*velocities: tuple[float, float], frames: int = 9) -> np.ndarray:
    """[N, P, 2]: points that start apart and move straight on, in pixels a frame."""
    starts = np.arange(2 * len(velocities), dtype=np.float32).reshape(-1, 2) * 7
    return starts + np.arange(frames, dtype=np.float32)[:, None, None] * np.array(velocities, np.float32)


FAN = ((2, 0), (0, 3), (-1.5, 1.5), (0, 0))


def everywhere(xy: np.ndarray) -> np.ndarray:
    return np.ones(xy.shape[:2], bool)


def score(source: np.ndarray, result: np.ndarray) -> float:
    return motion_fidelity.fidelity(source, everywhere(source), result, everywhere(result))


def test_identical_shifted_and_shuffled_tracks_score_one():
    xy = tracks(*FAN)
    assert score(xy, xy) == pytest.approx(1, abs=1e-6)
    assert score(xy, xy + 40) == pytest.approx(1, abs=1e-6)
    assert score(xy, xy[:, [2, 0, 3, 1]]) == pytest.approx(1, abs=1e-6)


def test_reversed_motion_scores_minus_one_and_a_right_angle_zero():
    xy = tracks((2, 1), (2, 1))
    assert score(xy, xy[::-1]) == pytest.approx(-1, abs=1e-6)
    assert score(xy, xy[..., ::-1] * (1, -1)) == pytest.approx(0, abs=1e-6)


def test_frozen_tracks_score_zero_and_rest_agrees_with_rest():
    moving, still = tracks((2, 1), (0, 3)), tracks((0, 0), (0, 0))
    assert score(moving, still) == 0
    assert score(still, still) == 1
    assert score(still, tracks((0.07, 0.0), (0.0, 0.09))) == 1  # below 0.1 px a step
    assert score(still, tracks((0.2, 0.0), (0.0, 0.2))) == 0


def test_both_directions_count():
    both, one = tracks((2, 0), (0, 2)), tracks((2, 0))
    # every result track has a match (1), half of the source's tracks have (1/2)
    assert score(both, one) == pytest.approx((1 + 0.5) / 2, abs=1e-6)
    assert score(one, both) == pytest.approx((1 + 0.5) / 2, abs=1e-6)


def test_hidden_steps_do_not_count():
    source, result = tracks((2, 0)), tracks((2, 0))
    result[5:] = result[4] - (result[5:] - result[4])  # turns back after frame 4
    seen = everywhere(source)
    assert motion_fidelity.fidelity(source, seen, result, seen) == pytest.approx(0, abs=1e-6)
    hidden = seen.copy()
    hidden[5:] = False
    result[5:] = np.nan
    assert motion_fidelity.fidelity(source, seen, result, hidden) == pytest.approx(1, abs=1e-6)
    assert math.isnan(motion_fidelity.fidelity(source, seen, result, np.zeros_like(seen)))
    assert math.isnan(motion_fidelity.fidelity(source, seen, result[:, :0], seen[:, :0]))


def slow_fidelity(a: np.ndarray, seen_a: np.ndarray, b: np.ndarray, seen_b: np.ndarray) -> float:
    table = np.full((a.shape[1], b.shape[1]), -np.inf)
    for i in range(a.shape[1]):
        for j in range(b.shape[1]):
            values = []
            for n in range(len(a) - 1):
                if not (seen_a[n, i] and seen_a[n + 1, i] and seen_b[n, j] and seen_b[n + 1, j]):
                    continue
                d, e = a[n + 1, i] - a[n, i], b[n + 1, j] - b[n, j]
                p, q = np.hypot(*d), np.hypot(*e)
                rest = (p < 0.1, q < 0.1)
                values.append(float(d @ e / (p * q)) if not any(rest) else float(all(rest)))
            if values:
                table[i, j] = np.mean(values)
    rows, columns = table.max(1), table.max(0)
    return (rows[np.isfinite(rows)].mean() + columns[np.isfinite(columns)].mean()) / 2


def test_fidelity_equals_a_slow_direct_loop():
    rng = np.random.default_rng(0)
    a, b = (np.cumsum(rng.normal(0, 0.15, (6, count, 2)), axis=0) for count in (12, 9))
    seen_a, seen_b = rng.random((6, 12)) < 0.7, rng.random((6, 9)) < 0.7
    seen_a[:, 3] = False
    expected = slow_fidelity(a, seen_a, b, seen_b)
    assert motion_fidelity.fidelity(a, seen_a, b, seen_b) == pytest.approx(expected, abs=1e-12)


def test_the_published_fidelity_equals_a_slow_direct_loop():
    rng = np.random.default_rng(0)
    a, b = (np.cumsum(rng.normal(0, 1, (6, count, 2)), axis=0) for count in (12, 9))
    a[3:, 2] = a[3, 2]  # it rests from then on
    best = []
    for j in range(b.shape[1]):
        found = []
        for i in range(a.shape[1]):
            pairs = zip(np.diff(a[:, i], axis=0), np.diff(b[:, j], axis=0), strict=True)
            cosines = [d @ e / (np.hypot(*d) * np.hypot(*e)) if d.any() and e.any() else 0.0 for d, e in pairs]
            found.append(np.mean(cosines) - (i == j))
        best.append(max(found))
    assert motion_fidelity_published.fidelity(a, b) == pytest.approx(np.mean(best), abs=1e-6)
    assert math.isnan(motion_fidelity_published.fidelity(a, b[:, :0]))


def test_the_published_fidelity_is_low_for_an_unchanged_clip_whose_points_go_different_ways():
    rng, size = np.random.default_rng(1), 2 * motion_fidelity.BLOCK + 7
    one_way = np.broadcast_to(np.arange(8.0)[:, None, None], (8, size, 2))
    assert motion_fidelity_published.fidelity(one_way, one_way) == pytest.approx(1, abs=1e-6)
    metric = metric_of(motion_fidelity_published)
    walks = np.cumsum(rng.normal(0, 1, (16, 40, 2)), axis=0)
    metric.add(motion_fidelity.Window(0, walks, everywhere(walks), walks, everywhere(walks)))
    assert metric.result().summary()["motion_fidelity_published"] < 0.6
    assert score(walks, walks) == pytest.approx(1)


def test_many_tracks_are_matched_across_blocks():
    angles = np.linspace(0, 2 * np.pi, 2 * motion_fidelity.BLOCK + 7, endpoint=False)
    xy = tracks(*zip(3 * np.cos(angles), 3 * np.sin(angles), strict=True), frames=4)
    assert score(xy, xy[:, ::-1]) == pytest.approx(1, abs=1e-6)


def test_noise_lowers_fidelity_and_raises_track_error():
    rng, xy = np.random.default_rng(0), tracks(*FAN[:3])
    found = []
    for sigma in (0.0, 0.5, 3.0):
        metric = metric_of(motion_fidelity)
        noisy = xy + rng.normal(0, sigma, xy.shape)
        metric.add(motion_fidelity.Window(0, xy, everywhere(xy), noisy, everywhere(xy)))
        found.append(metric.result().summary())
    fidelities, errors = ([row[name] for row in found] for name in ("motion_fidelity", "track_error"))
    assert fidelities == sorted(fidelities, reverse=True)
    assert errors == sorted(errors)
    assert errors[0] == 0


def test_windows_are_averaged_by_steps_and_distances_by_points():
    right, left = tracks((2, 0)), tracks((-2, 0))
    up = everywhere(right)
    metric = metric_of(motion_fidelity)
    metric.add(motion_fidelity.Window(0, right, up, right, up))  # 8 steps, score 1, distance 0
    metric.add(motion_fidelity.Window(8, right[:5], up[:5], left[:5], up[:5]))  # 4 steps, score -1
    result = metric.result()
    assert result.summary()["motion_fidelity"] == pytest.approx((8 - 4) / 12, abs=1e-6)
    # second window: 4, 8, 12, 16 px at its frames 1..4; its first frame belongs to the window before
    assert result.summary()["track_error"] == pytest.approx(40 / 12, abs=1e-6)
    curves = result.per_frame()
    assert [round(curves["motion_fidelity"][t], 6) for t in range(12)] == [1] * 8 + [-1] * 4
    assert curves["track_error"][12] == pytest.approx(16, abs=1e-6)
    assert list(curves["track_error"]) == list(range(1, 13))


def test_track_error_counts_only_points_visible_in_both():
    xy = tracks((1, 0), (1, 0))
    moved, seen = xy.copy(), everywhere(xy)
    moved[1:, 1] += (3, 4)
    hidden = seen.copy()
    hidden[1:, 1] = False
    for visible, expected in ((seen, 2.5), (hidden, 0.0)):
        metric = metric_of(motion_fidelity)
        metric.add(motion_fidelity.Window(0, xy, seen, moved, visible))
        assert metric.result().summary()["track_error"] == pytest.approx(expected, abs=1e-6)
        assert metric.result().summary()["tracks_followed"] == (1 if visible is seen else 0.5)
    metric = metric_of(motion_fidelity)
    metric.add(motion_fidelity.Window(0, xy, seen, moved[:, :1], seen[:, :1], paired=False))
    assert math.isnan(metric.result().summary()["track_error"])


def test_points_are_followed_in_the_result_from_where_the_source_has_them():
    """Two windows of tracks, one after the other; what follows the last window does not count."""
    frames = [levels(texture(0, H, W + 32)[:, 2 * t : 2 * t + W]) for t in range(7)]
    xy = tracks((-2, 0), (-2, 0), (-2, 0), frames=3) + np.array([20, 8], np.float32)
    seen = everywhere(xy)
    seen[0, 2] = False  # is not visible where the window begins: nothing to start from
    windows = {0: Tracks(xy, seen), 3: Tracks(xy, seen)}
    copied, frozen = metric_of(motion_fidelity), metric_of(motion_fidelity)
    for t, frame in enumerate(frames):
        copied.update(Sample(t, frame, frame, tracks=windows.get(t)))
        frozen.update(Sample(t, frame, frames[0], tracks=windows.get(t)))
    assert copied.result().summary() == pytest.approx(
        {"motion_fidelity": 1, "track_error": 0, "tracks_followed": 1}, abs=0.02
    )
    assert frozen.result().summary() == pytest.approx(
        {"motion_fidelity": 0, "track_error": 3, "tracks_followed": 1}, abs=0.02
    )
    curves = copied.result().per_frame()
    assert [list(curves[name]) for name in ("motion_fidelity", "track_error")] == [[0, 1, 3, 4], [1, 2, 4, 5]]
    nothing = metric_of(motion_fidelity)
    nothing.update(Sample(0, frames[0], frames[0]))
    assert all(math.isnan(value) for value in nothing.result().summary().values())


# Together


PIXELS = (warp_error, region, flicker, motion_fidelity)


def scored(frames: int = 4) -> list[summary.Result]:
    """All four metrics over a short moving clip whose middle was brightened."""
    clip = [levels(texture(0, H, W + 32)[:, t : t + W]) for t in range(frames)]
    inside = box(20, 15, 40, 35)
    result = [np.where(inside[..., None], np.minimum(f, 225) + 30, f).astype(np.uint8) for f in clip]
    warp, back, flick, move = map(metric_of, PIXELS)
    for t in range(frames):
        flows = (constant_flow(-1, 0), constant_flow(1, 0)) if t else (None, None)
        for metric in (warp, back, flick):
            metric.update(Sample(t, clip[t], result[t], inside, flows[0], backward=flows[1]))
    xy = tracks((-1, 0), (-1, 0), frames=frames)
    move.add(motion_fidelity.Window(0, xy, everywhere(xy), xy, everywhere(xy)))
    return [warp.result(), back.result(), flick.result(), move.result()]


def test_summary_is_flat_described_and_json_safe():
    values = summary.summarise(scored())
    pixels = {name for module in PIXELS for name in module.DESCRIPTIONS}
    assert set(values) == {name for name in pixels if "pnp_product" not in name}
    assert pixels <= set(summary.DESCRIPTIONS)
    assert {name for name, (_, way) in summary.DESCRIPTIONS.items() if way not in ("lower", "higher")} == {
        "change_edited",
        "steering_speed",
    }
    json.dumps(values, allow_nan=False)
    assert values["psnr_unedited"] == 100
    assert values["warp_error_source_full"] == pytest.approx(0, abs=1e-10)
    assert (values["warp_error_full"] or 0) > 0
    assert values["motion_fidelity"] == pytest.approx(1)
    none = [metric_of(module).result() for module in PIXELS]
    assert set(summary.summarise(none).values()) == {None}


def test_rows_and_tsv_say_the_same(tmp_path):
    rows = summary.frame_rows(scored(), count=4)
    assert [row["frame"] for row in rows] == [0, 1, 2, 3]
    assert rows[3]["warp_error_full"] is None  # the last frame starts no pair
    assert rows[0]["track_error"] is None
    assert rows[3]["psnr_unedited"] == 100
    json.dumps(rows, allow_nan=False)
    summary.write_tsv(tmp_path / "frames.tsv", rows)
    with open(tmp_path / "frames.tsv", newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file, delimiter="\t"))
    assert [list(row) for row in read] == [list(row) for row in rows]
    for row, back in zip(rows, read, strict=True):
        for name, value in row.items():
            assert back[name] == "" if value is None else float(back[name]) == pytest.approx(value, rel=1e-8)
    summary.write_tsv(tmp_path / "names.tsv", [{"clip": "a\tb\nc", "score": 0.5}, {"note": None}])
    assert (tmp_path / "names.tsv").read_bytes() == b"clip\tscore\tnote\na b c\t0.5\t\n\t\t\n"


def test_a_perfect_edit_of_a_known_world_scores_as_its_source():
    """The sprite gets another picture and keeps its motion: nothing may be lost but the floor itself."""
    from retake.synthetic import World, reference_image, scene

    source = World(scene("drift", width=160, height=90, frames=4))
    edited = source.with_sprite_texture(0, reference_image("ball", 64))
    warp, back, move = (metric_of(module) for module in (warp_error, region, motion_fidelity))
    frozen = metric_of(warp_error)
    for t in range(4):
        inside = source.mask(t, 0)
        there, back_again = (source.flow(t - 1, t), source.flow(t, t - 1)) if t else (None, None)
        old, new, first = source.frame(t), edited.frame(t), edited.frame(0)
        warp.update(Sample(t, old, new, inside, there, backward=back_again))
        frozen.update(Sample(t, old, first, inside, there, backward=back_again))
        around = cv2.dilate(inside.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0  # antialiased rim
        back.update(Sample(t, old, new, around))
    points = np.argwhere(source.mask(0, 0))[::15, ::-1].astype(np.float32)
    xy, visible = source.tracks(points, 0, range(4))
    move.add(motion_fidelity.Window(0, xy, visible, *edited.tracks(points, 0, range(4))))
    values = warp.result().summary() | back.result().summary() | move.result().summary()
    still = frozen.result().summary()
    assert values["warp_error_source_full"] < 1e-3
    assert values["warp_error_edit"] < 0.2 * still["warp_error_edit"]  # 0.0005 against 0.0057
    assert values["psnr_unedited"] == 100
    assert values["motion_fidelity"] == pytest.approx(1, abs=1e-6)
    assert values["track_error"] == pytest.approx(0, abs=1e-6)


def test_memory_does_not_grow_with_the_clip():
    frame, still, xy = levels(texture()), constant_flow(0, 0), tracks(*FAN, frames=5)
    metrics, sizes = [metric_of(module) for module in PIXELS], []
    for t in range(20):
        begun = Tracks(xy, everywhere(xy)) if t % 5 == 0 else None
        sample = Sample(t, frame.copy(), frame.copy(), box(4, 4, 20, 20), still, None, still, begun)
        for metric in metrics:
            metric.update(sample)
        sizes.append([len(pickle.dumps(metric)) for metric in metrics])
    growth = [last - early for last, early in zip(sizes[14], sizes[4], strict=True)]
    assert max(growth) < frame.nbytes / 4
    assert max(sizes[-1]) < 2 * len(pickle.dumps(sample))


def test_bad_input_is_refused_with_a_code():
    frame, small, still = levels(texture()), levels(texture(0, 24, 32)), constant_flow(0, 0)
    with pytest.raises(MediaError, match=r"E440 .*32x24"):
        region.frame(frame, small, box(0, 0, W, H))
    with pytest.raises(MediaError, match="E440"):
        warp_error.pair(frame, frame, still[:10], still)
    with pytest.raises(MediaError, match="E440"):
        metric_of(flicker).update(Sample(0, frame, small))
    xy = tracks(*FAN)
    with pytest.raises(ConfigError, match="E260"):
        metric_of(motion_fidelity).add(motion_fidelity.Window(0, xy, everywhere(xy), xy[:, :2], everywhere(xy)[:, :2]))
    with pytest.raises(ValidationError):
        region.Params.model_validate({"mode": "products"})


def test_modules_name_what_a_graph_must_know_and_import_nothing_heavy():
    known = {"optical_flow", "region", "tracks"}
    for module in (warp_error, region, flicker, motion_fidelity, ssim):
        assert isinstance(module.VERSION, int)
        assert set(module.NEEDS) <= known
        assert {direction for _, direction in module.DESCRIPTIONS.values()} <= {"lower", "higher", ""}
        assert module.Params().name == module.__name__.rpartition(".")[2]
    code = "import sys, retake.metrics.summary; print(*{'torch', 'torchmetrics', 'cv2', 'av'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
