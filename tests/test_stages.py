"""Stages: golden values tied to VERSION, chunks that resume bit for bit, early cut-off, refusals, odd clips."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import zoo
from helpers import golden
from helpers.fingerprints import fingerprints
from helpers.stages import CHUNKED, DRIFT, QUICK, STAGES, StopAfter, Then, digests, run, seen, small_clip

from flows import graph
from flows.places import CODE
from flows.runners import Chosen, Local
from flows.settings.compose import settings
from retake import video
from retake.artifact import Artifact
from retake.errors import IntegrityError
from retake.formats import open_series
from retake.imaging.distance import distance
from retake.stage import Work
from retake.store import Store
from retake.synthetic import scenes
from retake.synthetic.world import World

GOLDEN = golden.read("stages")


@pytest.fixture(scope="module")
def middle(tmp_path_factory):
    """41 frames, three chunks, with the prompt on frame 20, in the second."""
    p = settings(["frames.last=40", "frames.short_side=48", "masks.frame=20", "masks.box=[60,45,160,140]", *QUICK])
    return run(tmp_path_factory.mktemp("middle") / "retake", "sprites:drift", p)


# ---- golden values -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    return fingerprints(tmp_path_factory.mktemp("golden"))


MORE = ("depth", "correction", "masks given", "tracks grid", "metrics by flow", "latents", "inversion", "edit sdedit")
PAINTED = {"edit sdedit": 4e-4}  # a network's pixels: 2e-4 apart on an AMD EPYC and an Intel Xeon


@pytest.mark.parametrize("name", [*STAGES, *MORE])
def test_golden_values_move_only_with_a_version(fresh, name):
    """Equal inputs, equal numbers, within 1e-4 of their range (or that of PAINTED): on this machine and on others."""
    assert fresh[name]["versions"] == GOLDEN[name]["versions"], (
        f"{name}: a VERSION was raised; if it was meant, run `PYTHONPATH=.:tests python -m helpers.fingerprints`"
    )
    wanted, got = GOLDEN[name]["values"], fresh[name]["values"]
    moved = [
        what
        for what in sorted(wanted.keys() | got.keys())
        if not close(wanted.get(what), got.get(what), PAINTED.get(name, 1e-4))
    ]
    assert not moved, (
        f"{name} makes other values: {[(what, wanted.get(what), got.get(what)) for what in moved[:4]]}; "
        f"raise the VERSION of the stage, implementation or format ({GOLDEN[name]['versions']}) if this was meant"
    )


def close(wanted: str | None, got: str | None, share: float) -> bool:
    """Equal shapes, and numbers within a share of the array's range. Scores are within 0.5 %: they add up what every
    stage before them may lawfully differ by."""
    if wanted is None or got is None:
        return False
    if " " not in wanted + got:
        return bool(np.isclose(float(wanted), float(got), rtol=5e-3, atol=1e-5))
    (shape, *one), (other, *two) = wanted.split(), got.split()
    a, b = np.array(one, float), np.array(two, float)
    return shape == other and len(a) == len(b) and bool(np.allclose(a, b, rtol=1e-4, atol=share * a[0]))


def test_equal_frames_give_an_equal_mp4_whatever_memory_held_before(tmp_path, monkeypatch):
    """An MP4 is part of an artifact's digest. x264 has been seen to read memory that nobody wrote; MALLOC_PERTURB_
    makes such memory differ."""
    world = World(scenes.scene("drift", width=96, height=66, frames=20))
    frames, made = [world.frame(t) for t in range(20)], set()
    for perturbed in ("0", "1", "170"):
        monkeypatch.setenv("MALLOC_PERTURB_", perturbed)
        video.shutdown()  # the next child starts with it
        for preset in ("veryfast", "medium"):
            video.encode(tmp_path / "a.mp4", frames, 24, preset=preset)
            made.add((preset, (tmp_path / "a.mp4").read_bytes()))
    monkeypatch.delenv("MALLOC_PERTURB_")
    video.shutdown()
    assert len(made) == 2


def test_another_process_with_other_memory_makes_the_same(tmp_path):
    """Digests of every stage, here and where memory that nobody wrote holds something else and lies elsewhere."""
    clip, follow = small_clip(tmp_path / "clip.mp4")
    here = digests(run(tmp_path / "here", str(clip), settings(follow)))
    script = (
        "import json, sys, pathlib, helpers.stages as t\n"
        "from flows.settings.compose import settings\n"
        "root, clip, *follow = sys.argv[1:]\n"
        "print(json.dumps(t.digests(t.run(pathlib.Path(root), clip, settings(follow)))))"
    )
    environment = {**os.environ, "PYTHONPATH": f"{CODE}{os.pathsep}{CODE / 'tests'}", "MALLOC_PERTURB_": "85"}
    command = [sys.executable, "-c", script, str(tmp_path / "there"), str(clip), *follow]
    there = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert json.loads(there.stdout or "null") == here, there.stderr[-2000:]


def test_distances_are_exact():
    rng = np.random.default_rng(0)
    for height, width in ((48, 64), (37, 91), (180, 320)):
        region = cv2.GaussianBlur(rng.random((height, width)), (0, 0), 4) > 0.5
        y, x = np.nonzero(~region)
        for row, column in rng.integers(0, (height, width), (30, 2)):
            nearest = np.sqrt(np.float64(((y - row) ** 2 + (x - column) ** 2).min()))
            assert distance(region)[row, column] == np.float32(nearest)


# ---- resume ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [1, 2])
@pytest.mark.parametrize("name", CHUNKED)
def test_an_interrupted_stage_goes_on_and_ends_the_same(middle, tmp_path, monkeypatch, name, chunks):
    shutil.copytree(middle.store.root, tmp_path / "store")
    calls = replace(middle, store=Store(tmp_path / "store"))
    calls.record(name).unlink()
    for file in middle.made[name].files:
        calls.store.object_path(file.sha256).unlink()

    committed: list[int] = []
    commit = Work.commit
    monkeypatch.setattr(
        Work, "commit", lambda self, index, *rest: (commit(self, index, *rest), committed.append(index))[0]
    )
    with pytest.raises(KeyboardInterrupt):
        calls.again(name, StopAfter(chunks))
    assert len(committed) == chunks
    assert not calls.record(name).exists()
    assert calls.again(name).digest == middle.made[name].digest
    assert Counter(committed) == {0: 1, 1: 1, 2: 1}
    assert not list((tmp_path / "store" / "partial").iterdir())
    assert not list((tmp_path / "store" / "tmp").iterdir())


def test_given_masks_resume(middle, tmp_path):
    series, folder = open_series(middle.store, middle.made["masks"]), tmp_path / "masks"
    folder.mkdir()
    for t in range(len(series)):
        cv2.imwrite(str(folder / f"{t:05d}.png"), series[t].astype(np.uint8) * 255)
    p = settings(["frames.last=40", "frames.short_side=48", "masks=given", f"masks.path={folder}"])
    whole = run(tmp_path / "a", "sprites:drift", p, "masks")
    again = run(tmp_path / "b", "sprites:drift", p, "masks")
    again.record("masks").unlink()
    with pytest.raises(KeyboardInterrupt):
        again.again("masks", StopAfter(1))
    assert again.again("masks").digest == whole.made["masks"].digest
    carried = open_series(whole.store, whole.made["masks"])
    assert all(np.array_equal(carried[t], series[t]) for t in range(len(series)))


# ---- early cut-off -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STAGES)
def test_the_same_bytes_again_stop_there(middle, tmp_path, monkeypatch, name):
    """A stage whose VERSION was raised runs again; as it gives the same bytes, nothing after it does."""
    shutil.copytree(middle.store.root, tmp_path / "store")
    stage = graph.STAGES[name]
    monkeypatch.setitem(graph.STAGES, name, replace(stage, version=stage.version + 1000))
    p = settings(["frames.last=40", "frames.short_side=48", "masks.frame=20", "masks.box=[60,45,160,140]", *QUICK])
    again = run(tmp_path / "store", "sprites:drift", p)
    assert again.ran == [name]
    assert digests(again) == digests(middle)


def test_what_cannot_change_the_result_runs_nothing(tmp_path):
    clip, follow = small_clip(tmp_path / "clip.mp4")
    first = run(tmp_path / "s", str(clip), settings(follow))
    assert first.ran == list(STAGES)
    others = [["frames.max_frames=500"], ["decode.recipe_tag=false"]]
    for other in others:
        assert run(tmp_path / "s", str(clip), settings([*follow, *other])).ran == []
    moved = clip.rename(tmp_path / "another name.mp4")
    os.utime(moved, (1, 1))
    assert run(tmp_path / "s", str(moved), settings(follow)).ran == []


def test_another_file_with_the_same_frames_is_decoded_and_no_more(tmp_path):
    clip, follow = small_clip(tmp_path / "clip.mp4")
    first = run(tmp_path / "s", str(clip), settings(follow))
    video.set_comment(clip, "the same frames, other bytes")
    again = run(tmp_path / "s", str(clip), settings(follow))
    assert again.ran == ["frames", "decode"]  # these two read the clip
    assert digests(again) == digests(first)


def test_a_late_setting_runs_late_stages_only(middle, tmp_path):
    shutil.copytree(middle.store.root, tmp_path / "store")
    base = ["frames.last=40", "frames.short_side=48", "masks.frame=20", "masks.box=[60,45,160,140]", *QUICK]
    blend = run(tmp_path / "store", "sprites:drift", settings([*base, "edit.strength=0.5"]))
    assert blend.ran == ["edit", "decode", "metrics", "report"]
    crf = run(tmp_path / "store", "sprites:drift", settings([*base, "report.crf=30"]))
    assert crf.ran == ["report"]


# ---- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["frames", "decode", "edit"])
def test_a_source_edited_during_the_run_is_e601_and_nothing_is_published(tmp_path, name):
    """Neither then, nor when the old file is put back: chunks that may hold the other file's frames are not gone on
    from."""
    clip, follow = small_clip(tmp_path / "clip.mp4", frames=40, size=(96, 64))
    reference = tmp_path / "reference.png"
    shutil.copyfile(CODE / "params/dataset/ball.png", reference)
    p = settings([*follow, "frames.short_side=48", f"edit.reference={reference}"])
    calls = run(tmp_path / "s", str(clip), p)
    plain, source = calls.made[name].digest, reference if name == "edit" else clip
    calls.record(name).unlink()
    kept = source.read_bytes()
    other = zoo.make_clip(tmp_path / "other.mp4", frames=40, size=(96, 64)).read_bytes()

    with pytest.raises(IntegrityError) as caught:
        calls.again(name, Then(lambda: source.write_bytes(other)))
    assert caught.value.code == "E601"
    assert source.name in caught.value.message
    assert caught.value.hint
    assert not calls.record(name).exists()
    source.write_bytes(kept)
    assert calls.again(name).digest == plain


def test_chunks_of_another_file_are_not_gone_on_from(tmp_path):
    """Edited, interrupted, put back: the interrupted run never came to its own check, and one chunk that it committed
    shows what was there in between."""
    folder, kept = tmp_path / "frames", tmp_path / "kept"
    folder.mkdir()
    for t in range(40):
        video.write_png(folder / f"{t:02d}.png", zoo.picture(t, (64, 48)))
    shutil.copytree(folder, kept)
    calls = run(tmp_path / "s", str(folder), settings(["frames.short_side=null"]), "frames")
    plain = calls.made["frames"].digest
    calls.record("frames").unlink()

    class EditThenStop(StopAfter):
        def progress(self, stage: str, done: int, total: int) -> None:
            for t in range(40):
                video.write_png(folder / f"{t:02d}.png", zoo.picture(t + 100, (64, 48)))
            super().progress(stage, done, total)

    with pytest.raises(KeyboardInterrupt):
        calls.again("frames", EditThenStop(2))
    for image in kept.iterdir():
        shutil.copyfile(image, folder / image.name)
    assert calls.again("frames").digest == plain
    frames = open_series(calls.store, calls.made["frames"])
    assert [zoo.read_barcode(frames[t]) for t in (0, 15, 16, 31, 32, 39)] == [0, 15, 16, 31, 32, 39]


def test_nan_in_a_chunk_is_refused_and_what_came_before_is_kept(middle, tmp_path):
    shutil.copytree(middle.store.root, tmp_path / "store")
    stage, params, _, inputs = middle.calls["optical_flow"]
    plain = open_series(middle.store, middle.made["optical_flow"])

    def broken(work: Work, params: Any, frames: Any) -> Artifact:
        work.commit(0, plain.chunk(0))
        chunk = dict(plain.chunk(1))
        chunk["forward"] = chunk["forward"].copy()
        chunk["forward"][3, 2, 1, 0] = np.nan
        work.commit(1, chunk)
        return work.finish(count=32)

    runner = Local(Store(tmp_path / "store"))
    with pytest.raises(IntegrityError, match="optical_flow: forward of chunk 1") as caught:
        runner.outcome(replace(stage, function=broken), params, Chosen("broken@1"), inputs)
    assert caught.value.code == "E603"
    key = next((tmp_path / "store" / "partial").iterdir()).name
    partial = runner.store.load_partial(key)
    assert partial is not None
    assert [f["name"] for f in partial["files"]] == ["00000.safetensors"]
    assert runner.store.find("optical_flow", key) is None


# ---- clips at the edges of what there is -------------------------------------------------------------------------


def test_a_clip_of_one_frame_runs_through(tmp_path):
    calls = run(tmp_path / "s", "sprites:drift", settings(["frames.last=0", "frames.short_side=48", *DRIFT]))
    assert calls.ran == list(STAGES)
    assert calls.made["optical_flow"].meta["count"] == 0
    assert calls.made["optical_flow"].files == ()
    assert open_series(calls.store, calls.made["masks"])[0].any()
    scores = json.loads(calls.store.read(calls.made["metrics"]["metrics.json"]))
    assert all(value is None or np.isfinite(value) for value in scores.values() if not isinstance(value, str))


@pytest.mark.parametrize("size", [(97, 65), (66, 51), (35, 97)])
def test_odd_sizes_run_through(tmp_path, size):
    world = World(scenes.scene("drift", width=size[0], height=size[1], frames=3))
    folder = tmp_path / "frames"
    folder.mkdir()
    for t in range(3):
        video.write_png(folder / f"{t}.png", world.frame(t))
    found = world.box(0, 0)
    assert found is not None
    box = f"masks.box=[{found[0] - 2},{found[1] - 2},{found[2] + 2},{found[3] + 2}]"
    for short_side in ("null", "32"):
        calls = run(tmp_path / "s", str(folder), settings([f"frames.short_side={short_side}", box, *QUICK]))
        result = open_series(calls.store, calls.made["decode"])
        assert result[2].shape == (size[1], size[0], 3)
        shown = video.probe(calls.store.copy_out(calls.made["decode"]["result.mp4"], tmp_path / "view.mp4"))
        assert (shown.width, shown.height) == (size[0] + size[0] % 2, size[1] + size[1] % 2)


# ---- decode ------------------------------------------------------------------------------------------------------


def test_outside_the_edit_every_pixel_is_the_sources(middle):
    """320x180 put back from 86x48."""
    meta = middle.made["frames"].meta
    working, full = (meta["width"], meta["height"]), (meta["source_width"], meta["source_height"])
    assert (working, full) == ((86, 48), (320, 180))
    edits, result = (open_series(middle.store, middle.made[name]) for name in ("edit", "decode"))
    world = World(scenes.scene("drift"))
    for t in (0, 15, 16, 20, 40):
        box, rgb, alpha = edits[t]
        source, out = world.frame(t), result[t]
        touched, opaque = seen(alpha, box, working, full)
        assert 0.02 < touched.mean() < 0.3
        assert np.array_equal(out[~touched], source[~touched])
        assert (out[touched] != source[touched]).any(axis=1).mean() > 0.9
        assert opaque.sum() > 500
        colours = rgb.reshape(-1, 3)[alpha.ravel() == 255]
        reach = colours.max(axis=0).astype(int) + 40, colours.min(axis=0).astype(int) - 40  # cubic overshoots
        assert (out[opaque] <= reach[0]).all()
        assert (out[opaque] >= reach[1]).all()


def test_without_opacity_the_result_is_the_source(tmp_path):
    for short_side in ("48", "null"):
        p = settings(["frames.last=2", f"frames.short_side={short_side}", "edit.strength=0", *DRIFT])
        calls = run(tmp_path / "s", "sprites:drift", p, "decode")
        result, world = open_series(calls.store, calls.made["decode"]), World(scenes.scene("drift"))
        assert all(np.array_equal(result[t], world.frame(t)) for t in range(3))


def test_the_number_of_threads_changes_nothing(tmp_path):
    p = settings(["frames.last=3", "frames.short_side=null", *DRIFT])
    made, before = [], cv2.getNumThreads()
    try:
        for threads in (1, 4):
            cv2.setNumThreads(threads)
            made.append(digests(run(tmp_path / str(threads), "sprites:drift", p)))
    finally:
        cv2.setNumThreads(before)
    assert made[0] == made[1]
