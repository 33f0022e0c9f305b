"""Evaluations: manifests that are checked whole, arms that share what they can, tables that say what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import small_diffusion
from helpers.command import Shell

from flows import graph
from flows.experiments import evaluation, pair_scores
from flows.experiments.evaluation_jobs import prepared
from flows.experiments.pairs import read_pairs
from flows.places import CODE
from flows.runners import Local
from flows.terminal.console import Console
from retake.clip import SpriteClip, open_clip
from retake.errors import ConfigError, MachineError
from retake.report import evaluation_page
from retake.report.intervals import bootstrap, table
from retake.store import Store
from retake.synthetic import clips, mixes
from retake.synthetic.world import BACKGROUND
from retake.video import read_image, write_png

SPRITES = CODE / "params" / "evaluation" / "sprites"
HEAD = "id,category,clip,masks.box,edit.reference\n"


def manifest(folder: Path, text: str) -> Path:
    path = folder / "pairs.csv"
    path.write_text(text)
    return path


# ---- manifests -----------------------------------------------------------------------------------------------------


def test_the_manifest_that_ships_is_what_its_script_makes():
    found = list(mixes.mixes())
    assert (SPRITES / "pairs.csv").read_text() == mixes.written([mix.row() for mix in found])
    for mix in found[:: len(found) // 5]:
        np.testing.assert_array_equal(read_image(SPRITES / f"{mix.id}.png"), mix.picture())
    assert sorted({mix.category for mix in found}) == sorted(mixes.CATEGORIES)
    assert len(found) == len(read_pairs(SPRITES / "pairs.csv")) == 40


def test_the_box_of_a_mix_holds_the_sprite_and_its_words_are_true():
    for mix in mixes.mixes(8):
        clip = open_clip(f"sprites:captioned:{mix.seed}")
        rows, columns = np.nonzero(clip.world.mask(0, 0))
        x0, y0, x1, y1 = mix.box
        assert (x0, y0) <= (columns.min(), rows.min())
        assert (x1, y1) > (columns.max(), rows.max())
        assert mix.subject == clips.draw(mix.seed).subject
        same = [getattr(mix.subject, what) == getattr(mix.target, what) for what in ("hue", "shape", "texture")]
        assert same.count(False) == (3 if mix.category == "all" else 1)


def test_a_cutout_on_grey_is_the_portrait():
    scene = clips.draw(5).scene
    cut = clips.cutout(scene).astype(float)
    alpha = cut[..., 3:] / 255
    shown = cut[..., :3] * alpha + clips.GREY * (1 - alpha)
    assert np.abs(shown - clips.portrait(scene)).max() <= 2
    assert set(np.unique(alpha)) >= {0.0, 1.0}


def test_paths_beside_the_manifest_are_found_there(tmp_path, monkeypatch):
    write_png(tmp_path / "a b.png", np.zeros((4, 4, 3), np.uint8))
    monkeypatch.chdir("/")
    (pair,) = read_pairs(manifest(tmp_path, HEAD + 'one,,sprites:drift,"[1,2,30,40]",a b.png\n'))
    assert pair.settings == {"masks.box": [1, 2, 30, 40], "edit.reference": str(tmp_path / "a b.png")}


def test_all_problems_of_a_manifest_are_told_at_once(tmp_path):
    text = HEAD + "one,,sprites:drift,,\none,,sprites:drift,,\n../x,,sprites:drift,,\nlast,,missing.mp4,,\nb,,,,\n"
    with pytest.raises(ConfigError, match="E297") as raised:
        read_pairs(manifest(tmp_path, text))
    for line in ("line 3: the id 'one' stands on line 2", "line 4: an id", "line 5: ", "line 6: no clip"):
        assert line in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "id,clip\n",
        "name,clip\nx,sprites:drift\n",
        "id,clip,box\nx,sprites:drift,3\n",
        "id,clip\nx,sprites:drift,more\n",
        "id,clip,edit.iou,edit.iou\nx,sprites:drift,1,1\n",
        'id,clip\n"x,sprites:drift\n',
    ],
    ids=["empty", "no row", "no id", "no setting", "too many cells", "a column twice", "open quote"],
)
def test_what_is_no_manifest_is_refused(tmp_path, text):
    with pytest.raises(ConfigError, match="E297"):
        read_pairs(manifest(tmp_path, text))


def test_a_cell_is_what_it_reads_as_and_calls_nothing(tmp_path):
    (tmp_path / "bear").mkdir()
    cells = {
        "edit.object": "bear",
        "edit.prompt": "player #7 runs",
        "edit.unwanted": "yes",
        "edit.iou": "0.5",
        "masks.box": "!!python/object:os.system ls",
        "edit.source_prompt": "${oc.env:HOME}",
        "edit.reference_text": "[" * 5000 + "]" * 5000,
        "masks.path": "bear",
    }
    text = f"\ufeffid,clip,{','.join(cells)}\none,sprites:drift,{','.join(cells.values())}\n"
    (pair,) = read_pairs(manifest(tmp_path, text))
    assert pair.settings == cells | {"edit.iou": 0.5, "masks.path": str(tmp_path / "bear")}


@pytest.mark.parametrize("clip", ["x" * 5000, "~nobody/x.mp4", "sprites:nope nope", "\0"])
def test_a_clip_that_cannot_be_is_told_with_its_line(tmp_path, clip):
    with pytest.raises(ConfigError, match=r"E297.*line 2"):
        read_pairs(manifest(tmp_path, f"id,clip\none,{clip}\n"))


def test_a_reference_that_cannot_be_read_is_told_before_anything_runs(tmp_path):
    with pytest.raises(ConfigError, match=r"E297.*line 2"):
        read_pairs(manifest(tmp_path, HEAD + "one,,sprites:drift,,nowhere.png\n"))


# ---- jobs ----------------------------------------------------------------------------------------------------------


def test_every_arm_of_the_steering_evaluation_is_valid():
    found, pairs, jobs = prepared("moft", ["evaluation.first=4"])
    assert [pair.category for pair in pairs] == ["right", "left", "up", "down"]
    assert len(jobs) == 4 * len(found.arms)
    for job in jobs:
        assert job.settings.edit.targets[0].direction == job.pair.category
        assert graph.metric_settings(job.settings).steering.targets == job.settings.edit.targets


def test_every_arm_of_the_evaluation_of_moved_objects_is_valid():
    found, pairs, jobs = prepared("motionv2v", [])
    assert [pair.category for pair in pairs[:4]] == ["object", "camera", "timing", "late"]
    assert len(jobs) == len(pairs) * len(found.arms) == 24 * len(found.arms)
    for pair in pairs:
        clip = open_clip(pair.clip)
        assert isinstance(clip, SpriteClip)
        assert (BACKGROUND in clip.pair.edited) == (pair.category == "camera")
    for pair in (pairs[-1], pairs[-4]):  # a copy is known as one
        clip = open_clip(pair.clip)
        assert isinstance(clip, SpriteClip)
        world = clip.world
        found = pair_scores.scores(clip.pair, (world.frame(t) for t in range(world.frames)))
        assert found["copied"] == 1
        assert abs(found["follow_ratio"] or 0) < 0.25


def test_every_arm_of_the_evaluation_that_ships_is_valid():
    found, pairs, jobs = prepared("moca", ["evaluation.seeds=[0,1]", "evaluation.first=4"])
    assert len(pairs) == 4
    seeds = {arm: sorted({job.seed for job in jobs if job.arm == arm}) for arm in found.arms}
    assert seeds.pop("propagate") == [0]  # draws nothing
    assert set(map(tuple, seeds.values())) == {(0, 1)}
    paper = next(job for job in jobs if job.arm == "paper")
    assert paper.settings.edit.preset == "paper"
    assert paper.settings.edit.source_prompt == pairs[0].settings["edit.source_prompt"]


def test_metrics_compare_every_arm_with_the_same():
    _, (pair,), jobs = prepared("moca", ["evaluation.first=1"])
    compared = {(job.settings.metrics.cass.source_prompt, job.settings.metrics.clip_score.reference) for job in jobs}
    assert compared == {(pair.settings["edit.source_prompt"], pair.settings["edit.reference"])}


def test_no_column_changes_what_an_arm_sets(tmp_path):
    path = manifest(tmp_path, "id,clip,edit.masks,edit.iou\none,sprites:drift,region,0.25\n")
    _, _, jobs = prepared("moca", [f"evaluation.pairs={path}", "evaluation.only=[gate,no_gate]"])
    assert [(job.settings.edit.masks, job.settings.edit.iou) for job in jobs] == [
        ("segmenter", 0.25),
        ("segmenter", 0.0),
    ]


def test_what_is_typed_beside_goes_to_the_arms_that_have_it():
    _, _, jobs = prepared("moca", ["edit.steps=5", "evaluation.first=1", "evaluation.only=[propagate,sdedit]"])
    assert [getattr(job.settings.edit, "steps", None) for job in jobs] == [None, 5]


@pytest.mark.parametrize(
    ("overrides", "code"),
    [
        (["evaluation.only=[sdedits]"], "E296"),
        (["evaluation.values=[beauty]"], "E296"),
        (["evaluation.categories=[cats]"], "E296"),
        (["evaluation.against=none"], "E296"),
        (["evaluation.values=[lpips]"], "E296"),
        (["edit.seed=3"], "E296"),
        (["evaluation.frst=3"], "E205"),
        (["evaluation.first=0"], "E205"),
        (["edit.stps=5"], "E205"),
        (["evaluation.pairs=nowhere.csv"], "E297"),
    ],
)
def test_bad_evaluations_are_refused_before_anything_runs(overrides, code):
    with pytest.raises(ConfigError, match=code):
        prepared("moca", overrides)


# ---- runs ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Two pairs, a wide one and a broken one by three arms on a small model."""
    folder = tmp_path_factory.mktemp("evaluation")
    small_diffusion.save_embedded_like(folder / "model")
    rows = [mix.row() for mix in mixes.mixes(2)]
    columns = ["id", "category", "clip", "masks.box", "edit.reference"]
    lines = [",".join(columns)]
    for row in rows:
        row["edit.reference"] = str(SPRITES / row["edit.reference"])
        lines.append(",".join(f'"{row[c]}"' for c in columns))
    lines.append('wide,hue,sprites:drift,"[40,40,130,130]",' + str(SPRITES / "hue-00.png"))
    lines.append('broken,hue,sprites:drift,"[5000,1,5010,20]",' + str(SPRITES / "hue-00.png"))
    overrides = [
        f"evaluation.pairs={manifest(folder, chr(10).join(lines))}",
        "evaluation.only=[propagate,sdedit,recommended]",
        "evaluation.values=[ssim,psnr_unedited,mask_iou,clip_i]",
        "model=embedded",
        f"model.weights={folder / 'model'}",
        "model.height=32",
        "model.width=32",
        "model.frames=8",
        "edit.steps=4",
    ]
    runner = Local(Store(folder / "store", lambda line: None))
    patch = pytest.MonkeyPatch()
    patch.setattr(evaluation, "HOME", folder / "out")
    done = evaluation.evaluate(runner, Console(quiet=True), "moca", overrides)
    yield folder, done, runner, overrides
    patch.undo()


def test_a_bad_pair_is_told_and_the_others_go_on(ran):
    _, done, _, _ = ran
    assert {one["pair"] for one in done["failed"]} == {"broken"}
    assert len(done["failed"]) == 3
    rows = {row["arm"]: row["values"] for row in done["table"] if row["category"] == "all pairs"}
    assert {values["ssim"]["pairs"] for values in rows.values()} == {3}
    assert rows["propagate"]["psnr_unedited"]["mean"] == 100.0
    assert rows["sdedit"]["mask_iou"]["mean"] == rows["recommended"]["mask_iou"]["mean"]  # the same region
    assert rows["propagate"]["clip_i"]["mean"] > rows["sdedit"]["clip_i"]["mean"] + 5  # random weights paint noise


def test_arms_share_what_they_can_and_a_second_run_makes_nothing(ran):
    folder, done, _, overrides = ran
    again = Local(Store(folder / "store", lambda line: None))
    statuses: list[str] = []
    again.on_outcome = lambda outcome: statuses.append(outcome.status)
    repeated = evaluation.evaluate(again, Console(quiet=True), "moca", overrides)
    assert set(statuses) == {"cached"}
    assert repeated["table"] == done["table"]


def test_the_folder_holds_every_value_and_a_page(ran):
    _, done, _, _ = ran
    lines = Path(done["outputs"]["table"]).read_text().splitlines()
    assert len(lines) == 1 + 3 * 3
    assert lines[0].split("\t")[:4] == ["pair", "category", "arm", "seed"]
    assert json.loads(Path(done["outputs"]["summary"]).read_text())["table"] == done["table"]
    page = Path(done["outputs"]["report"]).read_text()
    assert "broken × sdedit" in page
    assert "http" not in page
    assert read_image(Path(done["outputs"]["sheet"])).shape[0] > 5 * 160


# ---- numbers -------------------------------------------------------------------------------------------------------


def test_the_interval_holds_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(300):
        found = bootstrap(list(rng.normal(3.0, 2.0, 30)), draws=400)
        inside += found["low"] <= 3.0 <= found["high"]
    assert 0.88 <= inside / 300 <= 0.98


def test_differences_are_taken_pair_by_pair_over_means_of_seeds():
    found = {}
    for n in range(4):
        for seed in (0, 1):
            found[str(n), "base", seed] = {"ssim": 10.0 * n + seed}
            found[str(n), "arm", seed] = {"ssim": 10.0 * n + seed + 2} if n < 3 else {"ssim": None}
    categories = {str(n): "near" if n < 2 else "far" for n in range(4)}
    rows = {
        (row["category"], row["arm"]): row["values"]["ssim"]
        for row in table(found, categories, ["base", "arm"], ["ssim"], "base")
    }
    assert rows["all pairs", "base"]["mean"] == 15.5
    assert rows["all pairs", "arm"]["mean"] == 12.5
    assert rows["all pairs", "arm"]["difference"] == {"mean": 2.0, "low": 2.0, "high": 2.0, "pairs": 3}
    assert (rows["far", "arm"]["pairs"], rows["near", "arm"]["mean"]) == (1, 7.5)
    assert "difference" not in rows["all pairs", "base"]


def test_one_pair_has_no_interval():
    cell = {"mean": 0.5, "low": 0.5, "high": 0.5, "pairs": 1}
    assert evaluation_page.format_cell(cell) == "0.5 of 1"
    assert evaluation_page.format_cell(cell | {"pairs": 2}) == "0.5 [0.5, 0.5] of 2"


def test_a_difference_that_rests_on_few_pairs_has_no_colour():
    about = {"ssim": (("structure", "higher"), "")}
    for count, coloured in ((1, False), (5, False), (6, True)):
        found = {
            (str(n), arm, 0): {"ssim": 1.0 + plus} for n in range(count) for arm, plus in (("a", 0.0), ("b", 0.004))
        }
        rows = table(found, {str(n): "" for n in range(count)}, ["a", "b"], ["ssim"], "a")
        page = evaluation_page.page("x", rows, about, [], "a", False)
        assert ("class='better'>+0.004" in page) == coloured
        assert (f" of {count}" in page) != coloured
        assert ("+0.004 [" in page) == (count > 1)
        assert "<dt>ssim<dd>structure" in page


def test_a_value_of_which_neither_direction_is_better_is_not_coloured():
    found = {
        (str(n), arm, 0): {"change_edited": 0.1 + plus} for n in range(6) for arm, plus in (("a", 0.0), ("b", 0.01))
    }
    rows = table(found, {str(n): "" for n in range(6)}, ["a", "b"], ["change_edited"], "a")
    page = evaluation_page.page("x", rows, {"change_edited": (("how much", ""), "")}, [], "a", False)
    assert "+0.01" in page
    assert "is better" not in page
    assert "class='better'" not in page
    assert "class='worse'" not in page


def test_missing_weights_stop_an_evaluation_before_anything_runs(tmp_path):
    runner = Local(Store(tmp_path / "store", lambda line: None))
    with pytest.raises(MachineError, match="E302"):
        evaluation.evaluate(runner, Console(quiet=True), "moca", ["model=cogvideox_2b", "evaluation.first=1"])
    assert not runner.outcomes


def test_the_page_escapes_what_it_is_told():
    failed = [{"pair": "<b>", "arm": "a", "seed": "0", "error": "<script>"}]
    page = evaluation_page.page("<i>", [], {}, failed, None, False)
    assert "<script>" not in page
    assert "<b>" not in page


def test_the_command_says_how_to_name_an_evaluation(tmp_path):
    shell = Shell(tmp_path)
    done = shell("dataset", "evaluation=mca")
    assert (done.code, "Did you mean moca" in done.err) == (2, True)
    assert "evaluation=moca" in shell("dataset", "evaluation.first=3").err
    assert "retake evaluate mca" in done.err  # the former spelling says what to type from now on
    done = shell("evaluate", "mca", "--json")
    assert (done.code, "Did you mean moca" in done.err, "retake evaluate" in done.err) == (2, True, False)


def test_the_command_takes_its_pairs_and_settings(tmp_path):
    bad = tmp_path / "mine.csv"
    bad.write_text("id,clip,edit.reference\na,nowhere.mp4,cat.png\n")
    shell = Shell(tmp_path)
    done = shell("evaluate", "moca", "--pairs", str(bad), "evaluation.first=1")
    assert (done.code, "no such file: nowhere.mp4" in done.err) == (2, True)
    assert shell("dataset", "evaluation=moca", f"evaluation.pairs={bad}").err.splitlines()[1:] == done.err.splitlines()
    assert "--pairs" in shell("evaluate", "--help").out
