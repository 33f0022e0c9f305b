"""The method moft on tiny models: what it moves, what it leaves alone, kills, refusals, and what is shared."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from helpers import small_cogvideox
from helpers import small_diffusion as small
from helpers.stages import Calls, ProgressLog, StopAfter, run

from flows.settings.compose import settings
from retake import video
from retake.diffusion.motion_channels import Channels
from retake.diffusion.sampling.motion_guidance import Guide
from retake.errors import ConfigError, MediaError, RetakeError
from retake.formats import open_series
from retake.methods import moft as method
from retake.methods.moft import targets as moft
from retake.methods.moft.guidance_targets import GuidanceTargets, counted_from
from retake.methods.moft.reference import ReferenceClip
from retake.motion_targets import SMALLEST, MotionTarget, path_of
from retake.synthetic import scenes
from retake.synthetic.world import World

COUNT = 18
CLIP = [f"frames.last={COUNT - 1}", "masks=given", "masks.own=true", "inversion.steps=10", "motion_channels.scenes=1"]
RIGHT = {"object": 1, "direction": "right", "speed": 2}


def asked(aims: list) -> str:
    """As a person types it: keys without quotes."""
    return "edit.targets=" + re.sub(r'"(\w+)":', r"\1:", json.dumps(aims))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    scheduler = DDIMScheduler(**small.SCHEDULE, prediction_type="v_prediction")
    return small.save_embedded_like(tmp_path_factory.mktemp("model"), scheduler=scheduler)


@pytest.fixture(scope="module")
def steered(folder, tmp_path_factory):
    """Edit a clip with more settings; what earlier edits made is in the store."""
    root = tmp_path_factory.mktemp("moft") / "retake"
    model = [f"model.{name}={value}" for name, value in small.settings(folder).items()]

    def steer(*more: str, until: str = "edit", aims: list = [RIGHT], clip: str = "sprites:still") -> Calls:  # noqa: B006
        told = ["edit=moft", asked(aims), "decode.preset=veryfast"]
        return run(root, clip, settings([*CLIP, *told, *model, *more]), until)

    return steer


def edited(calls: Calls) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    series = open_series(calls.store, calls.made["edit"])
    return [series[t] for t in range(len(series))]


# ---- the edit ------------------------------------------------------------------------------------------------------


def test_what_no_target_touches_is_the_sources(steered):
    calls = steered(until="decode")
    made, world = open_series(calls.store, calls.made["decode"]), World(scenes.scene("still"))
    for t in (0, 9, 17):
        (x0, y0, x1, y1), _, alpha = edited(calls)[t]
        touched = np.zeros(world.frame(0).shape[:2], bool)
        touched[y0:y1, x0:x1] = alpha > 0
        assert np.array_equal(made[t][~touched], world.frame(t)[~touched])
        both = world.mask(t, 0) | np.roll(world.mask(0, 0), 2 * t, 1)
        assert touched[both].mean() > 0.98  # where it was and where it shall be
        assert touched.mean() < 0.6


def test_steering_changes_the_clip_and_no_weight_leaves_it(steered):
    first = edited(steered())
    without = edited(steered("edit.weight=0"))
    other = edited(steered(aims=[{**RIGHT, "direction": "left"}]))
    assert np.abs(first[9][1].astype(float) - without[9][1]).max() > 0
    assert not np.array_equal(other[9][0], first[9][0])
    assert steered("edit.weight=0", "edit.rate=3").made["edit"].digest == steered("edit.weight=0").made["edit"].digest


@pytest.mark.parametrize("source", ["inversion", "noise"])
def test_a_killed_edit_goes_on_to_the_bit(steered, source):
    more = {
        "inversion": ["inversion.steps=12"],
        "noise": ["edit.source=noise", "edit.steps=12", "edit.first=0", "edit.last=1"],  # killed while it is steered
    }[source]
    calls = steered(*more)
    whole = calls.made["edit"].digest
    calls.record("edit").unlink()
    with pytest.raises(KeyboardInterrupt):
        calls.again("edit", StopAfter(9))
    seen = ProgressLog()
    assert calls.again("edit", seen).digest == whole
    assert seen.steps[0] == (9, 12)


def test_what_is_not_told_is_as_each_distance_has_it(steered):
    def made(*words: str) -> str:
        return steered(*words).made["edit"].digest

    squared = made("edit.distance=squared")
    assert squared == made("edit.distance=squared", "edit.rate=0.5", "edit.weight=6", "edit.share=0.04")
    assert made() == made("edit.rate=0.05", "edit.weight=1", "edit.share=1") != squared


def test_channels_are_found_once_for_every_clip(steered):
    steered()
    calls = steered(clip="sprites:drift")
    assert "motion_channels" not in calls.ran
    assert "edit" in calls.ran
    found = open_series(calls.store, calls.made["motion_channels"])
    assert found.meta["site"] == "up_blocks.0"
    tensors = found.tensors()
    assert set(tensors["ranked"]) == {"horizontal", "vertical"}
    assert set(tensors["slope"]) == {"left", "right", "up", "down"}
    assert len(tensors["slope"]["left"]) == found.meta["channels"]
    assert sorted(tensors["ranked"]["vertical"].tolist()) == list(range(found.meta["channels"]))


def test_two_objects_the_camera_and_zoom_have_targets_of_their_own(steered):
    aims = [{"object": 1, "direction": "up"}, {"object": 2, "direction": "grow"}, {"object": 0, "direction": "rest"}]
    calls = steered(aims=aims, clip="sprites:cross")
    for box, _, alpha in edited(calls)[::6]:  # together they are the whole frame
        assert box.tolist() == [0, 0, 320, 180]
        assert alpha.mean() > 200
    assert calls.made["edit"].digest != steered(aims=aims[:2], clip="sprites:cross").made["edit"].digest


def test_a_drag_is_more_than_its_motion(steered):
    aims = [{"object": 1, "drag": [[160, 90], [200, 90]]}]
    dragged, moved = (steered(f"edit.drag_weight={weight}", aims=aims).made["edit"].digest for weight in (5, 0))
    assert dragged != moved


def test_it_runs_on_the_video_transformer(tmp_path):
    model = {
        "weights": small_cogvideox.save(tmp_path / "m"),
        "height": 32,
        "width": 48,
        "frames": 9,
        "device": "cpu",
        "batch": 8,
        "family": "cogvideox",
    }
    words = [f"model.{name}={value}" for name, value in model.items()]
    reference = tmp_path / "drift.mp4"
    world = World(scenes.scene("drift", width=48, height=32, frames=12))
    video.encode(reference, (world.frame(t) for t in range(12)), 24, crf=12)
    for aim in (RIGHT, {"object": 1, "reference": str(reference)}):
        told = ["edit=moft", asked([aim]), "edit.source=noise", "edit.steps=6", "edit.overlap=1"]
        calls = run(tmp_path / "retake", "sprites:still", settings([*CLIP, *told, *words]), "edit")
        assert len(edited(calls)) == COUNT
        assert open_series(calls.store, calls.made["motion_channels"]).meta["site"].startswith("transformer_blocks.")


# ---- references ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dance(tmp_path_factory) -> dict[str, str]:
    """A clip of a disc that drifts, and its masks."""
    folder = tmp_path_factory.mktemp("dance")
    world = World(scenes.scene("drift", width=96, height=64, frames=12))
    video.encode(folder / "drift.mp4", (world.frame(t) for t in range(12)), 24, crf=12)
    (folder / "masks").mkdir()
    for t in range(12):
        video.write_png(folder / "masks" / f"{t:03d}.png", np.uint8(255) * world.mask(t, 0)[..., None].repeat(3, -1))
    return {"object": 1, "reference": str(folder / "drift.mp4"), "reference_mask": str(folder / "masks")}  # type: ignore[dict-item]


def test_an_object_takes_the_motion_of_a_reference(steered, dance):
    with_mask, whole = steered(aims=[dance]), steered(aims=[{k: v for k, v in dance.items() if "mask" not in k}])
    assert with_mask.made["edit"].digest != whole.made["edit"].digest
    boxes = np.array([box for box, _, _ in edited(with_mask)])
    world = World(scenes.scene("still"))
    own = np.nonzero(world.mask(0, 0).any(0))[0]
    assert boxes[:, 2].max() > own.max() + 10  # the area reaches as far as the reference's object goes


def test_a_reference_counts_by_its_content(steered, dance, tmp_path):
    calls = steered(aims=[dance])
    moved = tmp_path / "renamed.mp4"
    moved.write_bytes(Path(dance["reference"]).read_bytes())
    again = steered(aims=[{**dance, "reference": str(moved)}])
    assert again.made["edit"].digest == calls.made["edit"].digest
    assert "edit" not in again.ran
    moved.write_bytes((Path(dance["reference_mask"]) / "000.png").read_bytes())
    with pytest.raises(RetakeError) as caught:
        steered(aims=[{**dance, "reference": str(moved)}])
    assert caught.value.code.startswith("E4")


# ---- targets -------------------------------------------------------------------------------------------------------


def aim_of(**told: Any) -> MotionTarget:
    return MotionTarget.model_validate(told)


def test_a_direction_goes_so_many_pixels_a_frame():
    aim = aim_of(direction="down left", speed=4)
    path = path_of(aim, 5, (0.5, 0.5), 10)
    assert np.allclose(np.hypot(*path[-1, :2]), 4 * 4 * 0.5)
    assert path[-1, 0] < 0 < path[-1, 1]
    assert np.allclose(path[:, 2], 1)
    grown = path_of(aim_of(direction="grow", speed=1), 5, (1, 1), 10)
    assert np.allclose(grown[:, 2], [1, 1.1, 1.2, 1.3, 1.4])
    shrunk = path_of(aim_of(direction="shrink", speed=1), 50, (1, 1), 10)
    assert shrunk[:, 2].min() == SMALLEST
    drag = path_of(aim_of(drag=((10, 10), (30, 10), (30, 20))), 5, (2, 2), 10)
    assert np.allclose(drag[:, :2], [[0, 0], [20, 0], [40, 0], [40, 10], [40, 20]])


def test_a_curve_follows_the_path_along_each_axis():
    width = 12
    slope = {way: torch.zeros(width) for way in ("left", "right", "up", "down")}
    slope["right"][2], slope["left"][2], slope["down"][5], slope["up"][5] = 1.0, -1.0, 2.0, -2.0
    ranked = {"horizontal": torch.arange(width).roll(-2), "vertical": torch.arange(width).roll(-5)}
    channels = Channels(ranked, {}, slope)
    path = np.stack([np.arange(4.0), np.zeros(4), np.ones(4)], 1)
    some, curve, pace = moft.curves(channels, path, 0.1, 5.0, step=0.5)[""]
    assert some.tolist() == [2]
    assert pace == pytest.approx(2)  # a pixel a frame, against half a one
    assert torch.allclose(curve[:, 0], torch.tensor([-1.5, -0.5, 0.5, 1.5]))
    path[:, 1] = path[:, 0]
    some, curve, pace = moft.curves(channels, path, 0.1, 5.0, step=0.5)[""]
    assert some.tolist() == [2, 5]
    assert pace == pytest.approx(2 * 2**0.5)
    assert torch.allclose(curve[:, 1], 2 * curve[:, 0])
    still, rest, pace = moft.curves(channels, np.array([[0, 0, 1.0]] * 4), 0.1, 5.0, step=0.5)[""]
    assert pace == 0
    assert still.tolist() == [2, 5]
    assert rest.abs().max() == 0
    path[:, :2], path[:, 2] = 0, [1, 1.2, 1.4, 1.6]
    parts = moft.curves(channels, path, 0.1, 5.0, step=0.5)
    assert parts["left"][0].tolist() == parts["right"][0].tolist() == [2]
    assert torch.allclose(parts["right"][1], -parts["left"][1])
    assert float(parts["right"][1][-1, 0]) == pytest.approx(1.5)  # 5 pixels of radius, 0.3 beyond the mean
    assert parts["down"][0].tolist() == [5]


def test_halves_part_a_mask_at_its_middle():
    mask = np.zeros((6, 8), np.float32)
    mask[1:5, 2:6] = 1
    parts = moft.halves(mask)
    assert parts["left"][:, 4:].max() == 0 < parts["left"][:, 2:4].min(initial=1, where=mask[:, 2:4] > 0)
    assert np.array_equal(np.maximum(parts["left"], parts["right"]), mask)
    assert np.array_equal(np.maximum(parts["up"], parts["down"]), mask)


@pytest.mark.parametrize(
    ("time", "span", "frames", "last"),
    [
        (1, range(3, 6), range(3, 6), [3, 4, 5]),
        (4, range(1, 3), range(1, 9), [4, 8]),
        (4, range(0, 2), range(0, 5), [0, 4]),
        (4, range(4, 6), range(13, 18), [16, 17]),
    ],
)
def test_latent_frames_hold_their_own_frames(time, span, frames, last):
    of: Any = object.__new__(GuidanceTargets)
    of.count, of.latents = 18, SimpleNamespace(meta={"time": time})
    assert of.frames_of(span) == frames
    assert of.last_of(span) == last


def test_an_object_that_comes_late_starts_from_where_it_comes():
    path = path_of(aim_of(direction="right", speed=2), 10, (1, 1), 5)
    late = counted_from(path, 6)
    assert late[:7, 0].tolist() == [0] * 7
    assert late[9, 0] == 6
    grown = counted_from(path_of(aim_of(direction="grow", speed=1), 10, (1, 1), 10), 5)
    assert grown[5, 2] == 1
    assert grown[9, 2] == pytest.approx(1.9 / 1.5)


def test_a_reference_is_stretched_over_the_clip(tmp_path, dance):
    latents: Any = SimpleNamespace(meta={"pixels": (32, 48), "time": 1})
    found = ReferenceClip(aim_of(**dance), latents, 23, tmp_path, "0")
    assert found.frames.shape == (23, 32, 48, 3)
    assert found.shown_at(0)[0] == 0
    assert found.shown_at(11)[-1] == 22
    world = World(scenes.scene("drift", width=96, height=64, frames=12))
    rows, columns = np.nonzero(world.mask(11, 0))
    first = np.nonzero(world.mask(0, 0))
    path = found.path((96, 64))
    assert path[-1, :2] == pytest.approx([columns.mean() - first[1].mean(), rows.mean() - first[0].mean()], abs=1.0)
    whole = ReferenceClip(aim_of(object=1, reference=dance["reference"]), latents, 23, tmp_path, "1")
    assert whole.masks is None
    assert np.ptp(whole.path((96, 64)), axis=0).max() == 0


def test_a_plan_counts_the_steps_that_are_steered():
    for drag in (0.0, 1.0):
        for strength in (0.3, 1.0):
            told = {"drag_weight": drag, "strength": strength, "targets": [{"object": 1, "drag": [[0, 0], [9, 9]]}]}
            params, steps = method.Params.model_validate(told), 30
            guide = Guide("", params.first, params.last, drag=drag, dragged=method.DRAGGED)
            begun = range(steps - round(strength * steps), steps)
            steered = {step for step in begun if guide.steers(step, steps) or guide.drags(step, steps)}
            assert method.steered_steps(params, steps) == steered


# ---- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("aims", "code", "said"),
    [
        ([], "E230", "nothing to move"),
        ([{"object": 1}], "E249", "does not say how"),
        ([{**RIGHT, "drag": [[0, 0], [5, 5]]}], "E249", "by direction and drag"),
        ([{"object": 1, "drag": [[0, 0]]}], "E249", "one place"),
        ([{"object": 1, "direction": "sideways"}], "E205", "edit.targets.0.direction"),
        ([{"object": 1, "reference_mask": "x.png", "direction": "up"}], "E249", "reference_mask"),
        ([{**RIGHT, "object": 7}], "E248", "no object 7"),
        ([{"object": 1, "drag": [[-5, 3], [5, 5]]}], "E221", "drag: -5,3 lies beside"),
        ([{"object": 1, "drag": [[5, 3], [500, 5]]}], "E221", "edit.targets.0.drag: 500,5 lies beside"),
        ([{"object": 1, "reference": "nowhere.mp4"}], "E400", "edit.targets.0.reference: no such file"),
    ],
)
def test_what_cannot_be_moved_is_refused(steered, aims, code, said):
    with pytest.raises(RetakeError) as caught:
        steered(aims=aims)
    assert caught.value.code == code
    assert said in caught.value.message


def test_a_reference_of_one_frame_shows_no_motion(steered, dance, tmp_path):
    world = World(scenes.scene("drift", width=96, height=64, frames=1))
    video.encode(tmp_path / "one.mp4", iter([world.frame(0)]), 24, crf=12)
    with pytest.raises(ConfigError) as caught:
        steered(aims=[{"object": 1, "reference": str(tmp_path / "one.mp4")}])
    assert caught.value.code == "E249"
    assert "edit.targets.0.reference: " in caught.value.message


def test_masks_of_a_reference_are_its_own_and_the_setting_is_named(steered, dance, tmp_path):
    video.encode(tmp_path / "dance.mp4", (np.zeros((64, 96, 3), np.uint8) for _ in range(5)), 24, crf=12)
    empty = tmp_path / "masks"
    empty.mkdir()
    video.write_png(empty / "00000.png", np.zeros((64, 96), np.uint8))
    with pytest.raises(MediaError) as caught:
        steered(aims=[{"object": 1, "reference": str(tmp_path / "dance.mp4"), "reference_mask": str(empty)}])
    assert caught.value.code == "E430"
    assert "edit.targets.0.reference_mask, for the 5 frames" in caught.value.message


def test_features_as_they_are_need_a_reference(steered):
    with pytest.raises(ConfigError) as caught:
        steered("edit.remove_content=false")
    assert caught.value.code == "E249"


def test_a_drag_of_one_frame_leaves_it(steered):
    aims = [{"object": 1, "drag": [[160, 90], [200, 90]]}]
    assert len(edited(steered("frames.last=0", "edit.weight=0", aims=aims))) == 1


def test_settings_that_an_inversion_has_are_refused_beside_it(steered):
    with pytest.raises(ConfigError) as caught:
        steered("edit.steps=5")
    assert caught.value.code == "E292"
    with pytest.raises(ConfigError) as caught:
        steered("edit.strength=0.01")
    assert caught.value.code == "E291"


def test_a_site_that_the_model_has_not_is_named(steered):
    with pytest.raises(ConfigError) as caught:
        steered("motion_channels.site=up_blocks.9")
    assert caught.value.code == "E274"
    assert "up_blocks.1" in f"{caught.value.message} {caught.value.hint}"
