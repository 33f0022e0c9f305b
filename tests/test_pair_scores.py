"""Pairs of the sprite world as clips: their own tracks, and results scored against the exact render of what they should
be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.stages import run

from flows.editing import export
from flows.experiments import evaluation
from flows.experiments.pair_scores import scores
from flows.runners import Local
from flows.settings.compose import settings
from flows.terminal.console import Console
from retake.clip import open_clip
from retake.errors import ConfigError
from retake.formats import open_series
from retake.networks.clip import load as load_clip
from retake.report import intervals
from retake.store import Store
from retake.synthetic import pairs
from retake.synthetic.world import World

OWN = ["masks=given", "masks.own=true", "tracks=given", "tracks.own=true"]
EDITED = [*OWN, "edited_tracks=given", "edited_tracks.own=true", "edit=move"]


def rendered(scene) -> np.ndarray:
    world = World(scene)
    return np.stack([world.frame(t) for t in range(scene.frames)])


@pytest.fixture(scope="module", params=["path", "camera", "time", "late"])
def pair(request) -> pairs.Pair:
    return pairs.pair(2001 if request.param == "late" else 2000, request.param, frames=17, points=64)


def test_the_target_scores_as_told_and_the_source_as_copied(pair):
    right = scores(pair, rendered(pair.target))
    assert right["edit_epe"] == 0
    assert right["follow_ratio"] == right["ssim_target"] == 1
    assert right["psnr_target"] == 100
    assert right["copied"] == 0
    left = scores(pair, rendered(pair.source))
    assert left["edit_length"] == right["edit_length"]
    assert left["copied"] == 1
    assert abs(left["follow_ratio"]) < 0.25
    assert left["psnr_target"] < 30


def test_likeness_is_to_the_target_and_asked_of_clip_alone():
    one, judge = pairs.pair(2000, "path", frames=17, points=8), load_clip("judge", "cpu")
    right, left = (scores(one, rendered(scene), judge)["likeness_target"] for scene in (one.target, one.source))
    assert right == pytest.approx(100, abs=1e-3)
    assert left < right
    assert scores(one, rendered(one.source))["likeness_target"] is None


def test_a_result_that_lies_beside_its_target_is_as_far_off_as_it_lies(pair):
    shown = np.roll(rendered(pair.target), (2, -3), (1, 2))
    found = scores(pair, shown)
    assert found["edit_epe"] == pytest.approx(np.hypot(2, 3), abs=1.0)


def test_the_rest_of_a_frame_is_measured_apart_from_what_moves():
    one = pairs.pair(2000, "path", frames=17, points=64)
    target = World(one.target)
    shown = rendered(one.target)
    for t, frame in enumerate(shown):
        frame[target.surfaces(t) == one.edited[0]] = 0  # spoilt where the edited sprite is
    found = scores(one, shown)
    assert found["psnr_rest"] == 100
    assert found["psnr_moved"] < 25
    assert found["bystander_epe"] < 0.5


def test_a_clip_of_a_pair_knows_its_tracks_and_where_they_shall_be(tmp_path):
    calls = run(tmp_path / "retake", "sprites:path_source:2000", settings(EDITED), "edited_tracks")
    tracks = open_series(calls.store, calls.made["tracks"])
    edited = open_series(calls.store, calls.made["edited_tracks"])
    (to, _), (at, seen) = pairs.pair(2000, "path", frames=17, points=64).tracks()
    for t in (0, 8, 16):
        ids, xy, visible = tracks[t]
        np.testing.assert_array_equal(xy, at[t, ids])
        np.testing.assert_array_equal(visible, seen[t, ids])
        now = edited[t]
        np.testing.assert_allclose(now["xy"], to[t, now["ids"]], atol=1e-5)
    # A point whose middle stands beside the mask on some frame belongs to what it lies on, on most of them.
    surfaces = pairs.pair(2000, "path", frames=17, points=64).surfaces
    now = edited[8]
    away = np.abs(to - at).max((0, 2))[now["ids"]] > 1
    assert away.any()
    assert set(now["objects"][away]) == {1 + surfaces[np.abs(to - at).max((0, 2)) > 1][0]}


@pytest.mark.parametrize(
    ("clip", "words"),
    [
        ("sprites:path_target:2000", OWN),
        ("sprites:drift", OWN),
        ("sprites:path_source:2000", ["masks=given", "masks.own=true", *EDITED[4:]]),
        ("sprites:path_source:2000", [*OWN, "tracks.path=tracks.npz"]),
    ],
)
def test_where_no_tracks_are_known_it_is_told(clip, words, tmp_path):
    with pytest.raises(ConfigError) as refused:
        run(tmp_path / "retake", clip, settings(words), "edited_tracks" if "edit=move" in words else "tracks")
    assert refused.value.code == "E251"


def test_an_export_takes_no_edited_tracks_of_its_own_beside_tracks_of_others(tmp_path):
    runner = Local(Store(tmp_path / "store", lambda line: None))
    with pytest.raises(ConfigError) as refused:
        export.export("sprites:path_source:2000", ["edited_tracks"], tmp_path / "out", EDITED[4:], runner=runner)
    assert refused.value.code == "E251"


def test_a_clip_of_a_pair_is_known_by_its_name():
    source, target = (open_clip(f"sprites:late_{side}:7") for side in ("source", "target"))
    one = pairs.pair(7, "late", frames=17, points=64)
    np.testing.assert_array_equal(target.world.frame(9), World(one.target).frame(9))
    assert source.world.scene.sprites[0].poses != target.world.scene.sprites[0].poses
    with pytest.raises(ConfigError, match="E240"):
        open_clip("sprites:sideways_source:7").info(24.0)


def test_an_evaluation_of_pairs_says_who_follows_and_who_copies(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "HOME", tmp_path / "evaluations")
    asked = ["evaluation.first=1", "evaluation.only=[copy,move]", "evaluation.against=copy"]
    runner = Local(Store(tmp_path / "store", lambda line: None))
    done = evaluation.evaluate(runner, Console(quiet=True), "motionv2v", asked)
    assert not done["failed"]
    rows = {row["arm"]: row["values"] for row in done["table"] if row["category"] == intervals.ALL}
    found = {arm: {name: values[name]["mean"] for name in values} for arm, values in rows.items()}
    assert found["copy"]["copied"] == 1
    assert found["move"]["copied"] == 0
    assert found["move"]["follow_ratio"] > 0.8 > 0.2 > found["copy"]["follow_ratio"]
    assert found["move"]["likeness_target"] > found["copy"]["likeness_target"]
    assert "judge" in json.loads(Path(done["outputs"]["summary"]).read_text())["networks"]["likeness_target"]
    assert Path(done["outputs"]["sheet"]).is_file()
