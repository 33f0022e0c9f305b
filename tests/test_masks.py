"""Masks as a stage: several objects, corrections that re-run from their frame on only, regions made of steps."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from flows import graph
from flows.runners import Local
from flows.settings.compose import Settings, settings
from retake.clip import open_clip
from retake.errors import ConfigError
from retake.formats import CHUNK, chunk_name, open_series
from retake.priors import region
from retake.priors.masks import grabcut
from retake.stage import Silent
from retake.store import Store
from retake.synthetic import scenes
from retake.synthetic.world import World

CROSS = World(scenes.scene("cross"))


def box_around(mask: np.ndarray, margin: int = 6) -> list[int]:
    ys, xs = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    return [int(v) for v in (xs[0] - margin, ys[0] - margin, xs[-1] + 1 + margin, ys[-1] + 1 + margin)]


def middle_of(mask: np.ndarray) -> list[int]:
    ys, xs = np.nonzero(mask)
    return [int(np.median(xs)), int(np.median(ys)), 1]


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def made(root: Path, p: Settings, until: str = "masks", clip: str = "sprites:cross"):
    """(runner, its artifacts opened) of a pass over the graph."""
    runner = Local(Store(root, lambda line: None))
    found = graph.edit_graph(runner, open_clip(clip), p, until)
    return runner, found, open_series(runner.store, found[until])


def cross(*more: str) -> Settings:
    """The far disc of sprites:cross from frame 0: another sprite hides it midway, and flow loses it there."""
    return settings([f"masks.box={box_around(CROSS.mask(0, 0))}", *more])


def ran(runner: Local) -> list[str]:
    return [o.stage for o in runner.outcomes if o.status == "ran" and o.stage != "report"]


@pytest.fixture(scope="module")
def followed(tmp_path_factory) -> Path:
    """A store in which the far disc is followed, with no correction."""
    root = tmp_path_factory.mktemp("followed") / "store"
    made(root, cross())
    return root


def copied(store: Path, to: Path) -> Path:
    """A store with the same content; what is written later is its own."""
    return shutil.copytree(store, to, copy_function=os.link)


# ---- corrections -------------------------------------------------------------------------------------------------


def test_a_correction_finds_a_lost_object_and_leaves_earlier_frames_alone(tmp_path, followed):
    store = copied(followed, tmp_path / "store")
    truth = [CROSS.mask(t, 0) for t in range(CROSS.frames)]
    _, first, before = made(store, cross())
    lost = next(t for t in range(CROSS.frames) if truth[t].sum() > 900 and iou(before[t], truth[t]) < 0.5)
    late = next(t for t in range(lost, CROSS.frames) if truth[t].sum() > 0.95 * truth[0].sum())
    fix = f"masks.corrections=[{{frame:{late},box:{box_around(truth[late])}}}]"
    runner, second, after = made(store, cross(fix))

    assert ran(runner) == ["correction"]  # masks themselves are in the store
    assert all(np.array_equal(before[t], after[t]) for t in range(late))
    was = np.mean([iou(before[t], truth[t]) for t in range(late, CROSS.frames)])
    now = np.mean([iou(after[t], truth[t]) for t in range(late, CROSS.frames)])
    assert was < 0.5 < 0.9 < now
    kept = range(late // CHUNK)
    assert all(first["masks"][chunk_name(i)] == second["masks"][chunk_name(i)] for i in kept)  # the very same objects


def test_only_frames_from_the_corrections_chunk_on_are_stepped_through(tmp_path, followed, monkeypatch):
    store = copied(followed, tmp_path / "store")
    seen: list[int] = []
    step = grabcut.Tracker.step
    monkeypatch.setattr(grabcut.Tracker, "step", lambda self, moment: seen.append(moment.t) or step(self, moment))
    point = middle_of(CROSS.mask(34, 0))
    made(store, cross(f"masks.corrections=[{{frame:34,points:[{point}]}}]"))
    assert seen == list(range(32, CROSS.frames))
    seen.clear()
    made(store, cross(f"masks.corrections=[{{frame:34,points:[{point}]}}, {{frame:46,points:[{point}]}}]"))
    assert seen == [32 + k for k in range(CROSS.frames - 32)]  # frame 34's stage is in the store


def test_corrections_chain_however_they_are_ordered_and_in_both_directions(tmp_path, followed):
    base = [f"masks.box={box_around(CROSS.mask(24, 1))}", "masks.frame=24", "masks.support=0"]
    boxes = {t: box_around(CROSS.mask(t, 1)) for t in (5, 20, 30, 33, 40)}
    one = [{"frame": t, "box": boxes[t]} for t in (33, 5, 40, 20, 30)]

    def p(given: list[dict]) -> Settings:
        text = ",".join(f"{{frame:{c['frame']},box:{c['box']}}}" for c in given)
        return settings([*base, f"masks.corrections=[{text}]"])

    runner, _, forth = made(copied(followed, tmp_path / "a"), p(one))
    _, _, back = made(copied(followed, tmp_path / "b"), p(one[::-1]))
    assert [o.stage for o in runner.outcomes].count("correction") == 5
    assert all(np.array_equal(forth[t], back[t]) for t in range(len(forth)))
    # Corrections within one chunk (30, and 20 on the other side; 33 and 40 in the next) must all still hold.
    for t in boxes:
        assert iou(forth[t], CROSS.mask(t, 1)) > 0.9, t


def test_a_killed_correction_goes_on_and_gives_the_same(tmp_path, followed):
    fix = f"masks.corrections=[{{frame:18,points:[{middle_of(CROSS.mask(18, 0))}]}}]"
    _, _, whole = made(copied(followed, tmp_path / "a"), cross(fix))

    class Stopped(Exception):
        pass

    class StopsAfterAChunk(Silent):
        def progress(self, stage: str, done: int, total: int) -> None:
            if stage == "correction":
                raise Stopped

    store = Store(copied(followed, tmp_path / "b"), lambda line: None)
    with pytest.raises(Stopped):
        graph.edit_graph(Local(store, StopsAfterAChunk()), open_clip("sprites:cross"), cross(fix), "masks")
    _, _, again = made(tmp_path / "b", cross(fix))
    assert all(np.array_equal(whole[t], again[t]) for t in range(len(whole)))
    assert whole.artifact.digest == again.artifact.digest


# ---- several objects ---------------------------------------------------------------------------------------------


def test_objects_are_followed_each_for_itself(tmp_path):
    boxes = {i: box_around(CROSS.mask(0, i - 1)) for i in (1, 2)}
    both = settings([f"masks.objects={{1:{{box:{boxes[1]}}},2:{{box:{boxes[2]}}}}}", "frames.last=20"])
    _, _, series = made(tmp_path, both)
    assert series.ids == (1, 2)
    for i in (1, 2):
        alone = settings([f"masks.box={boxes[i]}", "frames.last=20"])
        _, _, single = made(tmp_path, alone)
        assert single.ids == (1,)
        assert all(np.array_equal(series.object(t, i), single[t]) for t in range(21))
    assert all(np.array_equal(series[t], series.object(t, 1) | series.object(t, 2)) for t in range(21))


def test_the_region_takes_objects_and_steps_without_following_anew(tmp_path):
    objects = {i: {"box": box_around(CROSS.mask(0, i - 1))} for i in (1, 2)}
    base = f"masks.objects={{1:{{box:{objects[1]['box']}}},2:{{box:{objects[2]['box']}}}}}"
    made(tmp_path, settings([base, "frames.last=10"]), "region")
    runner, found, one = made(tmp_path, settings([base, "frames.last=10", "region.objects=[2]"]), "region")
    assert ran(runner) == ["region"]
    masks = open_series(runner.store, found["masks"])
    assert all(np.array_equal(one[t], masks.object(t, 2)) for t in range(11))
    _, _, boxes = made(tmp_path, settings([base, "frames.last=10", "region.steps=[rectangle]"]), "region")
    _, _, box = made(tmp_path, settings([base, "frames.last=10", "region.steps=[union,rectangle]"]), "region")
    assert boxes[0].sum() < box[0].sum() == np.prod(np.ptp(np.argwhere(box[0]), axis=0) + 1)
    with pytest.raises(ConfigError) as caught:
        made(tmp_path, settings([base, "frames.last=10", "region.objects=[3]"]), "region")
    assert caught.value.code == "E228"


def test_steps_do_what_they_say():
    a, b = np.zeros((2, 8, 10), bool)
    a[1:4, 1:3] = a[6, 8] = True
    b[5:7, 2:5] = True

    def steps(*names: str) -> np.ndarray:
        return region.region({1: a, 2: b}, region.Params(steps=names))

    assert np.array_equal(steps(), a | b)
    assert np.array_equal(steps("largest"), (a | b) & (np.arange(10) < 8))  # a's speck is gone, b stays
    assert steps("union", "largest").sum() == 6
    assert np.array_equal(steps("largest", "rectangle"), steps("largest"))
    assert steps("rectangle").sum() == 6 * 8
    assert not region.region({1: a & False}, region.Params(steps=("union", "largest", "rectangle"))).any()


def test_points_near_the_edge_of_a_shrunk_clip_stay_inside(tmp_path):
    p = settings(["masks.points=[[0,0,0],[319,179,0],[105,95,1]]", "frames.short_side=48", "frames.last=3"])
    _, _, series = made(tmp_path, p)
    assert series[0].any()


def test_points_of_one_kind_only_add_or_only_take_away(tmp_path):
    world = CROSS
    box = box_around(world.mask(0, 0))
    short = [f"masks.box={box}", "frames.last=20"]
    _, _, before = made(tmp_path, settings(short))
    inside = middle_of(world.mask(18, 0))
    for point, grows in ((inside, True), ([*inside[:2], 0], False)):
        fix = f"masks.corrections=[{{frame:18,points:[{point}]}}]"
        _, _, after = made(tmp_path, settings([*short, fix]))
        assert (before[18] & ~after[18]).any() != grows
        assert not (after[18] & ~before[18]).any() or grows
        assert after[18][point[1], point[0]] == grows


def test_a_note_counts_empty_frames_chunk_by_chunk_and_object_by_object(tmp_path, followed):
    objects = f"masks.objects={{1:{{box:{box_around(CROSS.mask(0, 0))}}},2:{{box:{box_around(CROSS.mask(0, 1))}}}}}"
    _, found, series = made(copied(followed, tmp_path / "store"), settings([objects]))
    empty = {i: [t for t in range(len(series)) if not series.object(t, i).any()] for i in (1, 2)}
    assert empty[1]
    assert not empty[2]
    (note,) = found["masks"].meta["notes"]
    assert note.startswith("the mask of object 1 is empty")
    assert f"{empty[1][0]}" in note


def test_a_scene_is_followed_by_its_own_mask_where_nobody_says_what_to_follow(tmp_path):
    p = settings(["frames.first=3", "frames.last=20"], "sprites:cross")
    runner, _, series = made(tmp_path / "store", p)
    assert ran(runner) == ["frames", "masks"]
    assert series.ids == (1,)
    for t in range(18):
        np.testing.assert_array_equal(series.object(t, 1), CROSS.mask(3 + t, 0))
    both = made(tmp_path / "store", settings(["masks=given", "masks.own=true", "frames.last=0"]))[2]
    assert both.ids == (1, 2)
    assert cross().masks == settings([f"masks.box={box_around(CROSS.mask(0, 0))}"], "sprites:cross").masks
    assert settings([], "clip.mp4").masks.name == "grabcut"


def test_only_a_scene_knows_its_masks(tmp_path):
    (tmp_path / "clip").mkdir()
    cv2.imwrite(str(tmp_path / "clip" / "0.png"), np.zeros((48, 64, 3), np.uint8))
    own = settings(["masks=given", "masks.own=true"])
    with pytest.raises(ConfigError, match="E223"):
        made(tmp_path / "store", own, clip=str(tmp_path / "clip"))
    with pytest.raises(ConfigError, match="E223"):
        made(tmp_path / "store", settings(["masks=given", "masks.own=true", "masks.path=masks"]))


@pytest.mark.parametrize(
    ("overrides", "code", "says"),
    [
        (["masks.objects={300:{box:[1,1,30,30]}}"], "E224", "1 to 255"),
        (["masks.objects={1:{box:[1,1,30,30]}}", "masks.box=[1,1,30,30]"], "E224", "its own box"),
        (["masks.objects={1:{points:[[3,3,0]]}}"], "E222", "--box"),
        (["masks.box=[1,1,30,30]", "masks.corrections=[{frame:0,points:[[3,3,1]]}]"], "E224", "prompt itself"),
        (["masks.box=[1,1,30,30]", "masks.corrections=[{frame:9,object:2,points:[[3,3,1]]}]"], "E224", "Followed: 1"),
        (
            [
                "masks.objects={1:{box:[1,1,30,30]},2:{box:[40,1,70,30]}}",
                "masks.corrections=[{frame:9,points:[[3,3,1]]}]",
            ],
            "E224",
            "one of 1, 2",
        ),
        (["masks.box=[1,1,30,30]", "masks.corrections=[{frame:900,points:[[3,3,1]]}]"], "E231", "0 to 47"),
        (["masks.box=[1,1,30,30]", "masks.corrections=[{frame:9}]"], "E224", "points or a box"),
        (["masks.box=[1,1,30,30]", "masks.corrections=[{frame:9,points:[[3000,3,1]]}]"], "E221", "x,y,label"),
    ],
)
def test_prompts_that_cannot_work_are_refused_before_any_prior(tmp_path, overrides, code, says):
    runner = Local(Store(tmp_path, lambda line: None))
    with pytest.raises(ConfigError) as caught:
        graph.edit_graph(runner, open_clip("sprites:cross"), settings(overrides), "masks")
    assert caught.value.code == code
    assert says in caught.value.hint
    places = code in ("E221", "E231")  # what the clip has no place for is known once there are frames
    assert [o.stage for o in runner.outcomes] == (["frames"] if places else [])
