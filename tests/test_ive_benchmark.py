"""The IVE-Benchmark: its triplets on the sprite world and on a DAVIS tree, what edits show beside what they should, and
numbers of sets of frames."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.command import CHECKOUT, reference

from flows.experiments import looks
from flows.experiments.evaluation import Found, evaluate, of_sets
from flows.experiments.evaluation_jobs import prepared
from flows.experiments.pairs import read_pairs
from flows.experiments.triplets import triplets
from flows.runners import Local
from flows.terminal.console import Console
from retake.errors import ConfigError
from retake.metrics import fid
from retake.report import evaluation_page, intervals
from retake.store import Store
from retake.synthetic import clips, grammar, mixes
from retake.synthetic.world import World
from retake.video import write_png

TRIPLETS = CHECKOUT / "params" / "evaluation" / "sprites" / "triplets.csv"


def frames(scene) -> np.ndarray:
    world = World(scene)
    return np.stack([world.frame(t) for t in range(scene.frames)])


# ---- the sprite world's edition --------------------------------------------------------------------------------------


def test_the_triplets_that_ship_are_what_their_script_makes():
    found = mixes.triplets(list(mixes.mixes()))
    assert TRIPLETS.read_text() == mixes.written(found)
    rows = read_pairs(TRIPLETS)
    assert [row.category for row in rows].count("texture_transfer") == len(rows) / 2 == 20
    assert {row.category for row in rows[:4]} == {"texture_transfer", "object_modification"}
    assert all(row.settings["edit.application"] == row.category for row in rows)


@pytest.mark.parametrize("name", ["ive", "methods"])
def test_every_arm_is_valid(name):
    evaluation, pairs, jobs = prepared(name, ["evaluation.first=4"])
    assert len(jobs) == len(pairs) * len(evaluation.arms)
    ours = [job for job in jobs if job.arm == "ivediff"]
    assert [job.settings.edit.application for job in ours] == [pair.category for pair in pairs]
    assert all(job.settings.model.family == "ivediff" for job in ours)


def test_the_exact_render_of_an_edit_is_scored_as_one():
    mix = next(mix for mix in mixes.mixes() if mix.category == "all")
    told = str(mixes.Subject(mix.target.shape, mix.target.hue, mix.target.texture))
    for keeps in (True, False):
        _, exact = mixes.exact(mix.seed, grammar.parse(told), keeps)
        found = looks.scores(mix.seed, told, keeps, frames(exact))
        assert found["shows_hue"] == 1
        assert (found["keeps_shape"], found["shows_shape"]) == ((1, 0) if keeps else (0, 1))
        assert found["psnr_exact"] is not None
        assert found["psnr_exact"] >= 60
    source = looks.scores(mix.seed, told, True, frames(clips.draw(mix.seed).scene))
    assert (source["shows_hue"], source["shows_shape"], source["keeps_shape"]) == (0, 0, 1)
    assert source["psnr_exact"] is not None
    assert source["psnr_exact"] < 20


def test_the_exact_render_is_the_source_but_for_its_sprite():
    mix = next(mix for mix in mixes.mixes() if mix.category == "all")
    drawn, exact = mixes.exact(mix.seed, mix.target, keeps_shape=True)
    assert drawn.scene.camera == exact.camera
    assert drawn.scene.sprites[0].poses == exact.sprites[0].poses
    before, after = World(drawn.scene), World(exact)
    mask = before.mask(3, 0)
    assert np.array_equal(mask, after.mask(3, 0))
    far = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) == 0
    assert np.array_equal(before.frame(3)[far], after.frame(3)[far])
    shown = mix.picture()[32, 32, :3].astype(int)
    assert np.abs(np.median(after.frame(3)[mask], 0) - shown).max() < 120


def test_it_runs_and_its_page_tells_what_was_measured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = Local(Store(tmp_path / "store", lambda line: None))
    asked = ["evaluation.first=2", "evaluation.only=[frame_wise,ivediff]", "edit.steps=1", "edit.guidance=1"]
    done = evaluate(runner, Console(quiet=True), "ive", asked)
    assert done["failed"] == []
    rows = {(row["category"], row["arm"]): row["values"] for row in done["table"]}
    assert {category for category, _ in rows} == {"all pairs", "texture_transfer", "object_modification"}
    for value in ("warp_error_edit", "tc_edit", "clip_i", "shows_hue", "keeps_shape", "psnr_exact"):
        assert rows["all pairs", "ivediff"][value]["pairs"] == 2, value
    assert rows["all pairs", "ivediff"]["fid"]["mean"] is None  # its network was not asked for
    assert rows["texture_transfer", "ivediff"]["psnr_unedited"]["mean"] == 100
    page = Path(done["outputs"]["report"]).read_text()
    assert "object_modification" in page
    values = Path(done["outputs"]["table"]).read_text()
    assert "edit_seconds" in values.splitlines()[0]


# ---- a DAVIS tree ----------------------------------------------------------------------------------------------------


@pytest.fixture
def davis(tmp_path) -> tuple[Path, Path]:
    """A tree of two sequences with masks and one without, and pictures for them."""
    root, pictures = tmp_path / "DAVIS", tmp_path / "pictures"
    for sequence in ("bear", "boat", "bare"):
        for t in range(2):
            shown = root / "JPEGImages" / "480p" / sequence / f"{t:05d}.png"
            shown.parent.mkdir(parents=True, exist_ok=True)
            write_png(shown, np.full((20, 30, 3), 90, np.uint8))
            if sequence != "bare":
                mask = root / "Annotations" / "480p" / sequence / f"{t:05d}.png"
                mask.parent.mkdir(parents=True, exist_ok=True)
                write_png(mask, np.pad(np.full((8, 8), 255, np.uint8), ((5, 7), (9, 13))))
    for place in ("texture_transfer/bear/fur.png", "object_modification/boat/2/car.png"):
        (pictures / place).parent.mkdir(parents=True, exist_ok=True)
        reference(pictures / place)
    return root, pictures


def test_triplets_of_a_davis_tree_are_its_sequences_with_pictures(davis):
    root, pictures = davis
    rows = triplets(str(root), str(pictures))
    assert [(row.id, row.category) for row in rows] == [
        ("texture_transfer-bear-fur", "texture_transfer"),
        ("object_modification-boat-2-car", "object_modification"),
    ]
    assert rows[0].settings["masks.path"] == str(root / "Annotations" / "480p" / "bear")
    assert rows[1].settings["edit.object_id"] == 2
    words = [f"evaluation.davis={root}", f"evaluation.references={pictures}"]
    _, pairs, jobs = prepared("ive", words)
    assert len(pairs) == 2
    assert all(job.settings.masks.path and not job.settings.masks.own for job in jobs)
    assert {job.settings.depth.name for job in jobs} == {"parallax"}
    assert jobs[-1].settings.region.objects == (2,)  # what metrics, and methods that know no object, look at
    own = prepared("ive", ["evaluation.first=2"])[2]
    assert all(job.settings.masks.own and job.settings.depth.own for job in own)


def test_the_first_triplets_are_of_both_applications(davis):
    root, pictures = davis
    for name in ("a", "b", "c"):
        reference(pictures / "texture_transfer" / "bear" / f"{name}.png")
    first = prepared("ive", [f"evaluation.davis={root}", f"evaluation.references={pictures}", "evaluation.first=2"])[1]
    assert [pair.category for pair in first] == ["texture_transfer", "object_modification"]


def test_a_manifest_of_real_clips_says_its_own_masks(davis, tmp_path):
    root, pictures = davis
    manifest = tmp_path / "mine.csv"
    mask, picture = root / "Annotations" / "480p" / "bear", pictures / "texture_transfer" / "bear" / "fur.png"
    manifest.write_text(f"id,clip,masks.path,edit.reference\none,{root}:bear,{mask},{picture}\n")
    jobs = prepared("ive", [f"evaluation.pairs={manifest}"])[2]
    assert {(job.settings.masks.path, job.settings.masks.own) for job in jobs} == {(str(mask), False)}
    assert {job.settings.depth.name for job in jobs} == {"parallax"}


def test_other_frames_and_words_than_the_worlds_have_no_looks():
    mix = next(mix for mix in mixes.mixes() if mix.category == "all")
    shown = frames(clips.draw(mix.seed).scene)
    told = str(mixes.Subject(mix.target.shape, mix.target.hue, mix.target.texture))
    assert looks.scores(mix.seed, told, True, shown[:-1]) == {}
    assert looks.scores(mix.seed, told, True, [frame[:48] for frame in shown]) == {}
    assert looks.scores(mix.seed, "a furry teapot", True, shown) == {}
    assert looks.scores(mix.seed, told, True, shown)


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("texture_transfer/lion/a.png", "lion"),
        ("texture_transfer/bare/a.png", "bare"),
        ("texture_transfers/bear/a.png", "texture_transfer|object_modification"),
        ("texture_transfer/a.png", "texture_transfer|object_modification"),
        ("texture_transfer/bear/fur.jpg", "another picture has its name"),
    ],
)
def test_a_picture_for_no_sequence_is_told_with_its_place(davis, place, found):
    root, pictures = davis
    (pictures / place).parent.mkdir(parents=True, exist_ok=True)
    reference(pictures / place)
    with pytest.raises(ConfigError, match=found) as caught:
        triplets(str(root), str(pictures))
    assert caught.value.code == "E297"


def test_what_is_no_tree_and_one_of_two_folders_alone_are_refused(davis, tmp_path):
    root, pictures = davis
    with pytest.raises(ConfigError, match="E297"):
        triplets(str(pictures), str(pictures))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="E297"):
        triplets(str(root), str(tmp_path / "empty"))
    with pytest.raises(ConfigError, match="E296"):
        prepared("ive", [f"evaluation.davis={root}"])


# ---- numbers of sets -------------------------------------------------------------------------------------------------


def test_fid_of_a_variant_is_that_of_all_its_frames_together():
    rng, found = np.random.default_rng(0), Found()
    parts = [(rng.normal(size=(6, 4)), rng.normal(1, 1, (6, 4))) for _ in range(3)]
    for n, part in enumerate(parts):
        found.features.setdefault(("all pairs", "a"), []).append(part)
        found.values[str(n), "a", 0] = {"fid": None}
    table = intervals.table(found.values, {str(n): "" for n in range(3)}, ["a", "b"], ["fid"], None)
    of_sets(found, table)
    expected = fid.score(np.concatenate([a for a, _ in parts]), np.concatenate([b for _, b in parts]))[0]["fid"]
    assert table[0]["values"]["fid"]["mean"] == expected
    assert evaluation_page.format_cell(table[0]["values"]["fid"]) == f"{expected:.3g}"
    assert table[1]["values"]["fid"]["mean"] is None
    json.dumps(table)
