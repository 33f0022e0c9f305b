"""Metrics with networks: formulas on known networks, and what all of them promise."""

from __future__ import annotations

import importlib.util
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
from helpers.known_networks import Grid, Levels, Mean
from helpers.scored import H, Known, W, box, grey, pictures, run

from retake.errors import ConfigError, MediaError
from retake.metrics import (
    cass,
    clip_score,
    consistency,
    dynamics,
    fid,
    lpips,
    smoothness,
    ssim,
    summary,
    temporal_consistency,
)
from retake.metrics.common import guard
from retake.metrics.common.sample import NO_REGION, Sample, cosine
from retake.networks import clip, dino, inception, interpolation
from retake.networks import lpips as lpips_network
from retake.video import write_png

MODULES = (temporal_consistency, consistency, smoothness, ssim, lpips, clip_score, cass, dynamics, fid)


# Temporal consistency and consistency


def test_temporal_consistency_of_known_vectors():
    network = Known({10: (1, 0), 20: (0, 2), 30: (-1, 0), 123: (1, 1)})
    found = run(
        temporal_consistency.Metric(temporal_consistency.Params(), clip=network),
        [grey(10), grey(20), grey(20), grey(30)],
        [grey(10)] * 4,
    )
    values = found.summary()
    assert found.per_frame()["tc_full"] == pytest.approx({0: 0, 1: 1, 2: 0})
    assert (values["tc_full"], values["tc_full_source"]) == pytest.approx((1 / 3, 1))
    assert values["tc_full_delta"] == pytest.approx(-2 / 3)


def test_temporal_consistency_ignores_direction_and_falls_when_frames_are_shuffled():
    wide = pictures(1, H, 160)[0]
    frames = [wide[:, 8 * t : 8 * t + W] for t in range(12)]

    def tc(order):
        metric = temporal_consistency.Metric(temporal_consistency.Params(), clip=Grid())
        return run(metric, [frames[i] for i in order]).summary()["tc_full"]

    order = np.random.default_rng(0).permutation(12)
    assert tc(range(12)) == pytest.approx(tc(range(11, -1, -1)), abs=1e-12)
    assert tc(order) < tc(range(12)) - 0.05


def test_tc_edit_sees_only_the_region():
    frames, inside = pictures(3), box(10, 8, 30, 28) & (np.arange(W) < np.arange(H)[:, None] + 5)  # a slanted edge
    steady = [np.where(inside[..., None], frames[0], frame) for frame in frames]
    metric = temporal_consistency.Metric(temporal_consistency.Params(), clip=Grid())
    values = run(metric, steady, list(frames), inside).summary()
    assert values["tc_edit"] == pytest.approx(1, abs=1e-6)
    assert values["tc_full"] < 0.99
    assert values["tc_edit_source"] < 0.99


def test_vbench_consistency_compares_with_the_frame_before_and_with_the_first():
    network = Known({1: (1, 0, 0), 2: (0, 3, 0), 3: (-1, 0, 0)})
    metric = consistency.Metric(consistency.Params(), subject=network, background=network)
    found = run(metric, [grey(1), grey(2), grey(1)], [grey(1)] * 3)
    # t = 1: orthogonal to both, 0; t = 2: orthogonal to the one before, the first itself: (0 + 1) / 2
    assert found.per_frame()["subject_consistency"] == {1: 0, 2: 0.5}
    for name in ("subject", "background"):
        values = found.summary()
        assert values[f"{name}_consistency"] == 0.25
        assert values[f"{name}_consistency_delta"] == -0.75
    opposite = consistency.Metric(consistency.Params(), subject=network)
    assert run(opposite, [grey(1), grey(3)]).summary() == {
        "subject_consistency": 0.0,  # cos = -1 counts as 0
        "subject_consistency_source": 0.0,
        "subject_consistency_delta": 0.0,
    }


# Smoothness


@pytest.mark.parametrize("interpolator", [Mean(), interpolation.Flow()])
def test_a_repeated_frame_is_smooth(interpolator):
    metric = smoothness.Metric(smoothness.Params(), interpolator=interpolator)
    assert run(metric, [pictures(1)[0]] * 5).summary()["smoothness"] == 1


def test_smoothness_of_fades_and_of_alternating_frames():
    def score(levels):
        metric = smoothness.Metric(smoothness.Params(), interpolator=Mean())
        return run(metric, [grey(level) for level in levels])

    fade = score([10, 20, 30, 40, 50, 200])
    assert fade.summary()["smoothness"] == 1  # the last frame of an even number is never guessed
    assert list(fade.per_frame()["smoothness"]) == [1, 3]
    assert score([60, 77, 60, 77, 60]).summary()["smoothness"] == pytest.approx(1 - 17 / 255, abs=1e-12)
    assert score([60, 77]).reasons()["smoothness"] == "the clip is too short"


def test_midpoints_along_the_flow_follow_a_motion_that_a_mean_blurs():
    wide = pictures(1, 64, 120)[0]
    first, between, second = (wide[:, shift : shift + 96] for shift in (0, 3, 6))
    inner = np.s_[8:-8, 12:-12]

    def error(interpolator):
        found = interpolator.midpoint(first, second).astype(int)
        return np.abs(found - between)[inner].mean()

    assert error(interpolation.Flow()) < 2 < 0.3 * error(Mean())


def test_flow_midpoints_are_named_as_what_they_are():
    params = smoothness.Params(interpolator="flow")
    metric = smoothness.Metric(params, **smoothness.networks(params))
    assert set(metric.networks().values()) == {"DIS midpoints, not VBench's AMT-S"}


@pytest.mark.skipif(importlib.util.find_spec("vbench") is not None, reason="the package vbench is here")
def test_amt_s_without_its_package_says_what_to_install(tmp_path):
    (tmp_path / "amt-s.pth").touch()
    with pytest.raises(ConfigError, match="E261") as caught:
        smoothness.networks(smoothness.Params(weights=str(tmp_path / "amt-s.pth"), device="cpu"))
    assert "pip install --no-deps vbench" in caught.value.hint
    assert "interpolator=flow" in caught.value.hint


# LPIPS-T


def test_lpips_t_grows_with_noise_and_its_warped_form_forgives_motion(trunks):
    network = lpips_network.load(str(trunks["squeeze"]), "cpu")
    wide = pictures(1, 64, 120)[0]
    frames = [wide[:, 4 * t : 4 * t + 64] for t in range(3)]
    flow, rng = np.full((64, 64, 2), (-4, 0), np.float32), np.random.default_rng(0)
    found = []
    for sigma in (0, 10, 40):
        noisy = [np.clip(f + rng.normal(0, sigma, f.shape), 0, 255).astype(np.uint8) for f in frames]
        metric = lpips.Metric(lpips.Params(), lpips=network)
        found.append(run(metric, noisy, frames, flow=flow).summary())
    for name in ("lpips", "lpips_t", "lpips_t_delta", "lpips_t_warped"):
        values = [row[name] for row in found]
        assert values == sorted(values)
        assert values[0] < values[2]
    clean = found[0]
    assert clean["lpips"] == clean["lpips_t_delta"] == 0
    assert clean["lpips_t_warped"] == clean["lpips_t_warped_source"] < 0.1 * clean["lpips_t"]


def test_bringing_back_leaves_out_what_leaves_the_frame():
    before, after = pictures(2)
    flow = np.full((H, W, 2), (10.0, 0), np.float32)
    flow[3, 4] = np.nan
    back = lpips.brought_back(before, after, flow)
    assert (back[:, W - 10 :] == before[:, W - 10 :]).all()
    assert (back[3, 4] == before[3, 4]).all()
    assert (back[5, : W - 10] == after[5, 10:]).all()


def test_lpips_edit_looks_into_the_box_of_the_region():
    source, inside = pictures(1)[0], box(10, 5, 30, 25)
    outside = np.where(inside[..., None], source, 255 - source)
    metric = lpips.Metric(lpips.Params(), lpips=Levels())
    values = run(metric, [outside], [source], inside).summary()
    assert values["lpips"] > 0.1
    assert values["lpips_edit"] == 0


# CLIP scores


def test_clip_i_is_100_for_the_reference_itself_and_clip_t_follows_the_words(tmp_path):
    red, blue = (np.full((H, W, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    inside = box(10, 5, 30, 25)
    result = np.where(inside[..., None], red, blue)
    write_png(tmp_path / "red.png", np.full((9, 9, 3), (255, 0, 0), np.uint8))
    params = clip_score.Params(reference=str(tmp_path / "red.png"), prompt="red")
    values = run(clip_score.Metric(params, clip=Grid()), [result] * 2, [blue] * 2, inside).summary()
    assert values["clip_i"] == pytest.approx(100, abs=1e-4)
    assert values["clip_t_edit"] == pytest.approx(100, abs=1e-4)
    # centred colours (1, -1, -1) and (-1, -1, 1): cosine -1/3. It is not cut at 0.
    assert values["clip_i_source"] == values["clip_t_source"] == pytest.approx(-100 / 3, abs=1e-4)
    assert values["clip_t_source"] < values["clip_t"] < values["clip_t_edit"]


def test_clip_scores_do_not_depend_on_the_length_of_vectors():
    class Longer(Grid):
        def images(self, frames):
            return super().images(frames) * np.float32(7)

    params = clip_score.Params(prompt="green")
    first, second = (
        run(clip_score.Metric(params, clip=network), pictures(2)).summary() for network in (Grid(), Longer())
    )
    assert first["clip_t"] == pytest.approx(second["clip_t"], abs=1e-5)


def test_what_was_not_given_is_named_and_never_made_up():
    nothing = clip_score.Metric(clip_score.Params())
    found = run(nothing, pictures(2), inside=box(1, 1, 9, 9))
    assert set(found.reasons()) == set(clip_score.DESCRIPTIONS)
    assert "metrics.clip_score.reference=" in found.reasons()["clip_i"]
    assert "metrics.clip_score.prompt=" in found.reasons()["clip_t"]
    assert set(summary.summarise([found]).values()) == {None}
    only_words = run(clip_score.Metric(clip_score.Params(prompt="red"), clip=Grid()), pictures(2))
    assert set(only_words.reasons()) == {"clip_i", "clip_i_source", "clip_t_edit", "clip_t_edit_source"}
    assert only_words.reasons()["clip_t_edit"] == NO_REGION


def test_an_unreadable_reference_is_refused_before_any_frame(tmp_path):
    (tmp_path / "x.png").write_text("no picture")
    with pytest.raises(MediaError, match="E420"):
        clip_score.Metric(clip_score.Params(reference=str(tmp_path / "x.png")), clip=Grid())


# All of them


def known():
    """Every metric with a known network."""
    return {
        temporal_consistency: temporal_consistency.Metric(temporal_consistency.Params(), clip=Grid()),
        consistency: consistency.Metric(consistency.Params(), subject=Grid(), background=Grid()),
        smoothness: smoothness.Metric(smoothness.Params(), interpolator=Mean()),
        lpips: lpips.Metric(lpips.Params(), lpips=Levels()),
        clip_score: clip_score.Metric(clip_score.Params(prompt="red"), clip=Grid()),
        cass: cass.Metric(cass.Params(source_prompt="red"), clip=Grid()),
        ssim: ssim.Metric(ssim.Params()),
        dynamics: dynamics.Metric(dynamics.Params()),
    }


def test_without_a_region_the_whole_frame_is_still_scored():
    flow = np.zeros((H, W, 2), np.float32)
    for module, metric in known().items():
        found = run(metric, pictures(3), flow=flow)
        values = found.summary()
        assert set(values) == set(module.DESCRIPTIONS)
        for name, value in values.items():
            inside = "_edit" in name or name.startswith("clip_i") or name in ("cass", "relcass", "cass_image")
            assert math.isnan(value) == inside, name
            assert (name in found.reasons()) == inside
        assert all(direction in ("lower", "higher") for _, direction in module.DESCRIPTIONS.values())


def test_without_flow_only_what_needs_it_is_missing():
    inside = box(5, 5, 30, 30)
    assert set(run(known()[lpips], pictures(3), inside=inside).reasons()) == {
        "lpips_t_warped",
        "lpips_t_warped_source",
    }
    missing = run(known()[dynamics], pictures(3), inside=inside).reasons()
    assert set(missing) == {"dynamic_degree_source", "motion_source", "motion_edit_source"}
    assert all("flow" in text for text in missing.values())


def test_regions_may_come_and_go():
    inside, nothing = box(5, 5, 30, 30), np.zeros((H, W), bool)
    for metric in known().values():
        for t, frame in enumerate(pictures(5)):
            metric.update(Sample(t, frame, frame, nothing if t == 2 else inside, np.zeros((H, W, 2), np.float32)))
        assert "tc_edit" not in metric.result().reasons()
    frames = temporal_consistency.Metric(temporal_consistency.Params(), clip=Grid())
    for t, frame in enumerate(pictures(5)):
        frames.update(Sample(t, frame, frame, nothing if t == 2 else inside))
    series = frames.result().per_frame()["tc_edit"]
    assert [math.isnan(series[t]) for t in range(4)] == [False, True, True, False]


def test_rows_of_the_table_stand_at_the_first_frame_of_a_pair():
    rows = summary.frame_rows([run(known()[lpips], pictures(3))], 3)
    assert rows[0]["lpips_t"] is not None
    assert rows[2]["lpips_t"] is None
    assert rows[2]["lpips"] is not None


def test_memory_does_not_grow_with_the_clip():
    flow, inside = np.zeros((H, W, 2), np.float32), box(5, 5, 30, 30)

    def size(count: int) -> dict[str, int]:
        metrics, frames = known(), pictures(4)
        for metric in metrics.values():
            run(metric, [frames[t % 4] for t in range(count)], inside=inside, flow=flow)
        return {module.__name__: len(pickle.dumps(metric.__dict__)) for module, metric in metrics.items()}

    short, long = size(9), size(49)
    for name, held in long.items():
        assert held - short[name] < 40 * 200, name  # numbers of 40 frames; one frame has 6,720 bytes


def test_sizes_that_differ_are_refused():
    frame, small = pictures(1)[0], pictures(1, 20, 20)[0]
    for metric in known().values():
        with pytest.raises(MediaError, match="E440"):
            metric.update(Sample(0, frame, small, None, None))


def test_every_metric_says_what_a_graph_must_know_and_imports_nothing_heavy():
    for module in MODULES:
        assert isinstance(module.VERSION, int)
        assert set(module.NEEDS) <= {"optical_flow", "region"}
        assert module.Params().name == module.__name__.rpartition(".")[2]
        assert all(field.description for field in module.Params.model_fields.values())
    names = ", ".join(module.__name__ for module in (*MODULES, guard, clip, dino, inception, interpolation))
    code = f"import sys, {names}, retake.networks.lpips; print(*{{'torch', 'transformers', 'cv2'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_cosine_of_nothing_is_no_number():
    assert math.isnan(cosine(np.zeros(3), np.ones(3)))
    assert cosine(np.array([1e-3, 0], np.float32), np.array([5, 0], np.float32)) == 1
