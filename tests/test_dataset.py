"""Datasets: manifests that are checked whole, bad clips set aside, runs that go on, results that are not made twice."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from helpers.command import Shell, reference, sprite_clip

from flows import graph
from flows.datasets import batch, plan
from flows.datasets import run as dataset
from flows.datasets.jobs import work_of
from flows.datasets.sources import list_clips
from flows.datasets.states import State, States
from flows.runners import Local
from flows.terminal.console import Console
from retake.errors import ConfigError, MachineError
from retake.stage import Silent
from retake.store import Store

CHECKOUT = Path(__file__).resolve().parent.parent
SMALL = ["frames.last=4", "report.tile=64", "masks.box=[20,20,80,80]"]


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Path:
    """Three good clips and a picture."""
    home = tmp_path_factory.mktemp("given")
    (home / "clips").mkdir()
    for n, name in enumerate("abc"):
        sprite_clip(home / "clips" / f"{name}.mp4", frames=6 + n, size=(160 + 8 * n, 96))
    reference(home / "cat.png")
    return home


def inbox(given: Path, tmp_path: Path) -> Path:
    """The good clips in a folder of their own, written long ago."""
    folder = tmp_path / "inbox"
    shutil.copytree(given / "clips", folder)
    for path in folder.iterdir():
        old(path)
    return folder


def old(path: Path, seconds: float = 60) -> Path:
    os.utime(path, (time.time() - seconds,) * 2)
    return path


def run(manifest: Path, given: Path, *overrides: str, again: tuple[str, ...] = (), observer=None) -> dict:
    words = ["dataset=manifest", f"dataset.manifest={manifest}", f"edit.reference={given / 'cat.png'}", *SMALL]
    store = Store(Path(os.environ["RETAKE_STORE"]) / "retake", lambda message: None)
    runner = Local(store, observer or Silent())
    return dataset.process(runner, Console(quiet=True), [*words, *overrides], False, again)


def states(done: dict) -> dict[str, str]:
    return {job["job"].removesuffix("/edit"): job["state"] for job in done["jobs"]}


def log_of(done: dict) -> list[dict]:
    path = Path(done["gallery"]).parent / "states.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


# ---- manifests -------------------------------------------------------------------------------------------------------


def test_a_folder_an_inbox_gives_what_has_arrived(tmp_path):
    sprite_clip(tmp_path / "done.mp4", frames=2)
    old(tmp_path / "done.mp4")
    old(shutil.copy(tmp_path / "done.mp4", tmp_path / ".arriving.mp4"))
    (tmp_path / "note.txt").write_text("not a clip")
    shutil.copy(tmp_path / "done.mp4", tmp_path / "growing.mov")
    rows, waiting = list_clips(str(tmp_path), settle=5)
    assert ([row.id for row in rows], waiting) == (["done"], ["growing.mov"])
    os.rename(old(shutil.copy(tmp_path / "done.mp4", tmp_path / ".x"), 60), tmp_path / "moved.mp4")
    old(tmp_path / "growing.mov")
    rows, waiting = list_clips(str(tmp_path), settle=5)
    assert ([row.id for row in rows], waiting) == (["done", "growing", "moved"], [])
    old(shutil.copy(tmp_path / "done.mp4", tmp_path / "done.mkv"))
    with pytest.raises(ConfigError, match="would have one name"):
        list_clips(str(tmp_path), settle=5)


def test_what_holds_no_clip_is_said(tmp_path):
    with pytest.raises(ConfigError, match="E298"):
        list_clips(str(tmp_path), settle=5)
    with pytest.raises(ConfigError, match="there is no manifest"):
        list_clips(str(tmp_path / "nowhere.csv"), settle=5)


def test_a_davis_tree_gives_its_sequences_and_their_masks(tmp_path):
    from retake.video import write_png

    for name in ("bear", "camel"):
        sprite_clip(tmp_path / "x.mp4", frames=2)
        write_png(made(tmp_path / "JPEGImages" / "480p" / name) / "00000.png", picture())
    write_png(made(tmp_path / "Annotations" / "480p" / "bear") / "00000.png", picture())
    rows, _ = list_clips(str(tmp_path), settle=0)
    assert [(row.id, row.clip) for row in rows] == [(n, f"{tmp_path}:{n}") for n in ("bear", "camel")]
    common = settings(tmp_path, "masks=given", "edit.reference=params/dataset/ball.png")
    by_clip = {job.clip: job.settings.masks.path for job in work_of(common).jobs}
    assert by_clip == {"bear": str(tmp_path / "Annotations" / "480p" / "bear"), "camel": None}
    boxed = settings(tmp_path, "edit.reference=params/dataset/ball.png", "masks.box=[1,2,30,40]")
    assert len(work_of(boxed).jobs) == 2  # grabcut has no such setting as masks.path


def made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def picture():
    from retake.synthetic.pictures import reference_image

    return reference_image("patchwork", 64)[..., :3]


def settings(manifest: Path, *overrides: str) -> dict:
    from flows.settings.compose import compose

    return compose(["dataset=manifest", f"dataset.manifest={manifest}", *overrides])


def test_lines_and_tables_say_the_same(given, tmp_path):
    for name in ("cat.png", "clips"):
        (tmp_path / name).symlink_to(given / name)
    (tmp_path / "a.csv").write_text('id,clip,masks.box,edit.reference\none,clips/a.mp4,"[1,2,30,40]",cat.png\n')
    line = {"id": "one", "clip": "clips/a.mp4", "masks": {"box": [1, 2, 30, 40]}, "edit.reference": "cat.png"}
    (tmp_path / "a.jsonl").write_text(json.dumps(line) + "\n\n")
    table, lines = (work_of(settings(tmp_path / name)).jobs for name in ("a.csv", "a.jsonl"))
    assert [(job.name, job.spec) for job in table] == [("one/edit", str(tmp_path / "clips/a.mp4"))]
    assert table[0].settings.edit == lines[0].settings.edit
    assert table[0].settings.masks.box == lines[0].settings.masks.box == (1, 2, 30, 40)


def test_all_problems_of_a_dataset_are_told_before_anything_runs(given, tmp_path):
    good = str(given / "clips" / "a.mp4")
    rows = [
        {"id": "one", "clip": good, "masks.box": [20, 20, 80, 80]},
        {"id": "ONE", "clip": good, "edit.feather": "soft"},
        {"id": "../x", "clip": "nowhere.mp4"},
        {"id": "three", "clip": good, "masks.boxx": [1, 2, 3, 4]},
        {"id": "four", "clip": good, "edit.strength": 2, "report": {"tile": 1.5}},
        {"id": "five", "clip": good, "mask.box": ""},
        {"clip": good, "masks.path": "x"},
    ]
    path = tmp_path / "all.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n{not json\n")
    shell = Shell(tmp_path)
    words = ("dataset", path, "edit.reference=params/dataset/ball.png")
    result = shell(*words, "--json")
    assert (result.code, result.error["code"]) == (2, "E297")
    expected = [
        "line 2: the id 'ONE' stands on line 1, too",
        "line 2: edit.feather takes a number, not 'soft'",
        "line 3: an id is letters, digits, '.', '_' and '-', at most 128: '../x'",
        "line 3: no such file: nowhere.mp4",
        "line 4: unknown key masks.boxx (Did you mean masks.box?)",
        "line 5: edit.strength takes 1.0 or less, not 2",
        "line 5: report.tile takes a whole number, not 1.5",
        "line 6: unknown group 'mask' (Did you mean masks?)",
        "line 7: no id",
        "line 7: unknown key masks.path",
        "line 8: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
    ]
    assert result.error["problems"] == expected
    assert not (tmp_path / "store").exists()
    plain = shell(*words).err
    assert all(problem in plain for problem in expected)


def test_a_column_that_no_setting_has_is_told_though_its_cells_are_empty(given, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f"id,clip,masks.boxx,catgory,edit.seed\none,{given}/clips/a.mp4,,,\ntwo,{given}/clips/x.mp4,,,\n")
    with pytest.raises(ConfigError) as raised:
        work_of(settings(path, "edit.reference=params/dataset/ball.png", "masks.box=[1,2,30,40]"))
    assert raised.value.problems == (
        "line 1: unknown key masks.boxx (Did you mean masks.box?)",
        "line 1: 'catgory' is neither id, category, clip nor a setting (Did you mean category?)",
        f"line 3: no such file: {given}/clips/x.mp4",
    )


def test_without_its_id_column_a_manifest_is_looked_through_all_the_same(given, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f"clip,edit.feather\n{given}/clips/a.mp4,soft\nnowhere.mp4,\n")
    with pytest.raises(ConfigError) as raised:
        work_of(settings(path, "edit.reference=params/dataset/ball.png", "masks.box=[1,2,30,40]"))
    assert raised.value.problems == (
        "line 1: no column id",
        "line 2: edit.feather takes a number, not 'soft'",
        "line 3: no such file: nowhere.mp4",
    )


def test_of_a_manifest_that_is_all_wrong_the_first_thousand_problems_are_told(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,clip\n" + "../x,sprites:drift\n" * 3000)
    with pytest.raises(ConfigError) as raised:
        work_of(settings(path, "edit.reference=params/dataset/ball.png", "masks.box=[1,2,30,40]"))
    assert raised.value.problems[-1] == "line 1003: what comes from here on was not looked at"
    assert len(raised.value.problems) == 1002
    for name, text in {"b.csv": "id,clip\n" + "a,b,c\n" * 3000, "b.jsonl": "{\n" * 3000}.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(ConfigError) as raised:
            work_of(settings(tmp_path / name, "edit.reference=params/dataset/ball.png", "masks.box=[1,2,30,40]"))
        assert raised.value.problems[-1].endswith("what comes from here on was not looked at")
        assert len(raised.value.problems) == 1002


def test_what_is_wrong_for_every_clip_is_told_once(given, tmp_path):
    with pytest.raises(ConfigError, match="E297") as raised:
        run(inbox(given, tmp_path), given, "edit.anchors={0: /nowhere.png}")
    assert raised.value.problems == ("every clip: no such file: /nowhere.png",)
    box, reference = "masks.box=[20,20,80,80]", "edit.reference=params/dataset/ball.png"
    small = [word for word in SMALL if "masks" not in word]
    for words, what in (
        (["masks.box=null", reference], "masks=grabcut needs to know what to follow. Give --box"),
        (["masks=given", reference], "masks=given needs masks.path"),
        ([box], "no picture to insert. Give edit.reference=IMAGE"),
        ([box, "edit=sdedit", "edit.prompt=a", "edit.source=inversion", "edit.steps=3"], "Set inversion.steps=3"),
        ([box, reference, "tracks.queries=points"], "tracks.queries=points has no tracks.points"),
    ):
        with pytest.raises(ConfigError, match=r"every clip: ") as raised:
            work_of(settings(tmp_path / "inbox", *small, *words))
        assert [what in problem for problem in raised.value.problems] == [True]
    two = "dataset.edits=[{id: a, settings: {edit: {reference: params/dataset/ball.png}}}, {id: b}]"
    with pytest.raises(ConfigError) as raised:
        work_of(settings(tmp_path / "inbox", *small, box, two))
    assert [problem[:29] for problem in raised.value.problems] == ["every clip: edit b: no pictur"]
    assert not (tmp_path / "datasets").exists()


def test_a_picture_is_found_from_the_folder_where_it_is_typed(given, tmp_path, monkeypatch):
    (tmp_path / "clips.csv").write_text(f"id,category,clip\na,sprites,{given / 'clips' / 'a.mp4'}\n")
    shutil.copy(given / "cat.png", tmp_path / "picture.png")
    monkeypatch.chdir(tmp_path)
    store = Store(tmp_path / "store", lambda message: None)
    words = ["dataset=manifest", f"dataset.manifest={tmp_path / 'clips.csv'}", "edit.reference=picture.png", *SMALL]
    assert dataset.plan(store, Console(quiet=True), words).as_json()
    with pytest.raises(ConfigError, match=r"no such file: pictures\.png"):
        dataset.plan(store, Console(quiet=True), [*words, "edit.reference=pictures.png"])


def test_what_only_some_clips_lack_sets_these_aside(given, tmp_path):
    path = tmp_path / "some.csv"
    rows = [f'{name},{given}/clips/{name}.mp4,"{box}"' for name, box in (("a", "[20,20,80,80]"), ("b", ""))]
    path.write_text("\n".join(["id,clip,masks.box", *rows]) + "\n")
    words = [
        "dataset=manifest",
        f"dataset.manifest={path}",
        *SMALL,
        f"edit.reference={given}/cat.png",
        "masks.box=null",
    ]
    found = dataset.plan(Store(tmp_path / "store" / "retake"), Console(quiet=True), words)
    assert found.unreadable == {"b/edit": "E222 masks=grabcut needs to know what to follow"}
    done = run(path, given, "masks.box=null")
    assert states(done) == {"a": "ok", "b": "quarantined"}
    assert done["jobs"][1]["code"] == "E222"
    hint, log = done["jobs"][1]["hint"], tmp_path / "datasets" / "some" / "logs" / "b" / "edit.log"
    assert "masks.box" in hint
    assert log.read_text() == f"E222 masks=grabcut needs to know what to follow\n{hint}\n"


def test_a_clip_that_is_not_the_file_of_its_checksum_is_set_aside_though_its_frames_are_stored(given, tmp_path):
    path, sums = tmp_path / "sums.csv", dict.fromkeys("ab")
    folder = given / "clips"

    def manifest() -> None:
        rows = [f"{name},{folder}/{name}.mp4,{known or ''}" for name, known in sums.items()]
        path.write_text("\n".join(["id,clip,frames.sha256", *rows]) + "\n")

    manifest()
    assert states(run(path, given)) == {"a": "ok", "b": "ok"}
    sums |= {"a": hashlib.sha256((folder / "a.mp4").read_bytes()).hexdigest(), "b": "ab" * 32}
    manifest()
    words = ["dataset=manifest", f"dataset.manifest={path}", f"edit.reference={given}/cat.png", *SMALL]
    found = dataset.plan(Store(tmp_path / "store" / "retake"), Console(quiet=True), words)
    assert {job: reason[:4] for job, reason in found.unreadable.items()} == {"b/edit": "E417"}
    done = run(path, given)
    assert states(done) == {"a": "cached", "b": "quarantined"}
    assert done["jobs"][1]["code"] == "E417"
    assert done["stages"].keys() == {"cached"}


# ---- runs ------------------------------------------------------------------------------------------------------------


def test_bad_clips_are_set_aside_with_their_reasons_and_nothing_is_made_twice(given, tmp_path):
    folder = inbox(given, tmp_path)
    whole = (folder / "a.mp4").read_bytes()
    poison = {"empty": b"", "text": b"hello there", "cut": whole[: len(whole) // 3], "noise": os.urandom(4000)}
    for name, content in poison.items():
        (folder / f"{name}.mp4").write_bytes(content)
        old(folder / f"{name}.mp4")
    (folder / "frames").mkdir()
    (folder / "frames" / "0.png").write_bytes(b"no picture")
    old(folder / "frames")
    first = run(folder, given)
    expected = dict.fromkeys("abc", "ok") | dict.fromkeys([*poison, "frames"], "quarantined")
    assert states(first) == dict(sorted(expected.items()))
    reasons = {job["job"]: job["code"] for job in first["jobs"] if job["state"] == "quarantined"}
    assert reasons["empty/edit"] == "E401"
    assert reasons["text/edit"] == reasons["noise/edit"] == "E402"
    assert all(code.startswith("E4") for code in reasons.values())
    home = Path(first["gallery"]).parent
    assert {path.parent.name for path in (home / "logs").glob("*/edit.log")} == {*poison, "frames"}
    for name in "abc":
        assert (home / "report" / name / "edit" / "report.html").exists()
        assert (home / "thumbnails" / name / "edit.jpg").read_bytes()[:2] == b"\xff\xd8"
        video = home / "results" / name / "edit.mp4"
        assert video.samefile(home / "decode" / name / "edit" / "result.mp4")
        page = (home / "report" / name / "edit" / "report.html").read_text()
        for link in ("../../../index.html", f"../../../decode/{name}/edit/result.mp4"):
            assert f'href="./{link}"' in page
            assert (home / "report" / name / "edit" / link).is_file()
    assert {job["health"] for job in first["jobs"] if job["state"] == "ok"} <= {"good", "look", "wrong"}
    assert '"state": "quarantined"' in (home / "index.html").read_text()

    before = len(log_of(first))
    again = run(folder, given)
    assert states(again) == {name: "cached" if state == "ok" else state for name, state in states(first).items()}
    assert (again["stages"], len(log_of(again))) == ({}, before)  # not even looked up
    assert again["artifacts"] == first["artifacts"]

    # A file that was mended is another file; asked for, the others are tried anew.
    (folder / "cut.mp4").write_bytes((folder / "b.mp4").read_bytes())
    old(folder / "cut.mp4")
    mended = run(folder, given)
    assert states(mended) == states(again) | {"cut": "cached"}  # b's own bytes: all of it is in the store
    before = len(log_of(mended))
    assert states(run(folder, given, again=("quarantined",))) == states(mended)
    assert len(log_of(mended)) == before + 2 * 4

    # What somebody wrote into a folder is not believed when the clip's turn comes again.
    report = home / "frames" / "a" / "artifact.json"
    table = next(path for path in (home / "metrics" / "a" / "edit").iterdir() if path.name == "metrics.tsv")
    table.write_bytes(bytes(reversed(table.read_bytes())))
    report.unlink()
    run(folder, given)
    assert table.read_text().startswith("frame")

    # A result that was taken away is handed out anew; a clip that went takes its results along.
    shutil.rmtree(home / "report" / "a")
    (folder / "c.mp4").unlink()
    third = run(folder, given)
    assert third["stages"] == {"cached": 9}
    assert (home / "report" / "a" / "edit" / "report.html").exists()
    assert not (home / "report" / "c").exists()
    assert [path.name for path in sorted((home / "results").iterdir())] == ["a", "b", "cut"]


def test_a_changed_setting_runs_only_what_depends_on_it(given, tmp_path):
    folder = inbox(given, tmp_path)
    run(folder, given)
    done = run(folder, given, "edit.strength=0.5")
    assert states(done) == dict.fromkeys("abc", "ok")
    assert done["stages"] == {"cached": 5 * 3, "ran": 4 * 3}


def test_a_plan_of_a_dataset_is_what_the_run_then_does(given, tmp_path):
    folder = inbox(given, tmp_path)
    for name, content in {"empty": "", "text": "Dear editor"}.items():
        (folder / f"{name}.mp4").write_text(content)
        old(folder / f"{name}.mp4")

    def planned(*overrides: str, retry: str = ""):
        words = ["dataset=manifest", f"dataset.manifest={folder}", f"edit.reference={given / 'cat.png'}", *SMALL]
        store = Store(Path(os.environ["RETAKE_STORE"]) / "retake")
        return dataset.plan(store, Console(quiet=True), [*words, *overrides], [retry])

    first = planned()
    assert first.stages["frames"] == {"cached": 0, "will run": 3, "may run": 0}
    assert first.stages["report"] == {"cached": 0, "will run": 0, "may run": 3}
    assert (first.seconds, first.unknown, list(first.unreadable)) == (0, 9 * 3, ["empty/edit", "text/edit"])
    assert "E402" in next(line for line in plan.lines(first) if "would fail: text" in line)
    assert not (tmp_path / "datasets").exists()
    run(folder, given)
    again = planned()
    assert list(planned(retry="quarantined").unreadable) == ["empty/edit", "text/edit"]
    assert (again.settled, again.stages) == ({"done": 3, "quarantined": 2}, {})
    assert planned("dataset.skip.shorter_than=7").settled == {"skipped": 1}
    changed = planned("edit.strength=0.5")
    assert changed.stages["tracks"] == {"cached": 3, "will run": 0, "may run": 0}
    assert changed.stages["edit"] == {"cached": 0, "will run": 3, "may run": 0}
    assert changed.stages["decode"] == {"cached": 0, "will run": 0, "may run": 3}
    assert changed.why == {"edit": {"edit.strength: 1.0 -> 0.5": 3}}
    assert "why edit: edit.strength: 1.0 -> 0.5 (3 of the first 3 edits)" in list(plan.lines(changed))
    assert changed.seconds > 0
    assert changed.unknown == 0
    done = run(folder, given, "edit.strength=0.5")
    assert done["stages"] == {"cached": 5 * 3, "ran": 4 * 3}


def test_a_plan_says_what_is_still_being_written(given, tmp_path):
    folder = inbox(given, tmp_path)
    (folder / "b.mp4").touch()
    words = (folder, f"edit.reference={given / 'cat.png'}", *SMALL)
    result = Shell(tmp_path)("dataset", *words, "--plan")
    assert result.code == 0, result.err
    assert result.out.startswith("2 edits\nb.mp4 is still being written: left for a later run (dataset.settle=5)")
    assert Shell(tmp_path)("dataset", *words, "dataset.settle=3600", "--plan", "--json").data["waiting"] == [
        "a.mp4",
        "b.mp4",
        "c.mp4",
    ]


def test_manifests_of_one_name_have_folders_of_their_own(given, tmp_path):
    lists = [made(tmp_path / place) / "list.csv" for place in "xy"]
    for n, path in enumerate(lists):
        path.write_text(f"id,clip\none,{given}/clips/{'ab'[n]}.mp4\n")
    first, second = (run(path, given) for path in lists)
    homes = [Path(done["gallery"]).parent for done in (first, second)]
    assert homes[0] == tmp_path / "datasets" / "list"
    assert homes[1].name.startswith("list-")
    assert (states(first), states(second)) == ({"one": "ok"}, {"one": "ok"})
    for path, done in zip(lists, (first, second), strict=True):  # each finds its own again
        again = run(path, given)
        assert (states(again), again["gallery"], again["stages"]) == ({"one": "cached"}, done["gallery"], {})
        assert again["artifacts"] == done["artifacts"]
    assert first["artifacts"]["frames"] != second["artifacts"]["frames"]


def test_forgetting_says_what_still_shows_the_clip_and_that_a_pin_does_not_keep_it(given, tmp_path):
    shell, clip = Shell(tmp_path), given / "clips" / "a.mp4"
    words = (f"edit.reference={given / 'cat.png'}", *SMALL)
    result = shell("report")
    assert (result.code, result.out) == (0, "")
    assert "retake edit" in result.err
    run(inbox(given, tmp_path), given)
    swept = shell("sweep", clip, *words, "edit.strength=0.5,1", "--json").data["outputs"]["gallery"]
    edit = f"a/{shell('edit', clip, *words, '--json').data['edit']}"
    assert edit in shell("report").out
    shell("pin", edit)
    tried = shell("forget", clip, "--dry-run")
    assert f"{edit} is pinned" in tried.out
    done = shell("forget", clip, "--json").data
    assert done["pins"] == [edit]
    assert done["left"] == [str(tmp_path / "datasets" / "inbox" / "*" / "a"), str(Path(swept).parent)]
    assert all(folder in tried.out for folder in done["left"])
    assert (tmp_path / "datasets" / "inbox" / "report" / "a").exists()
    assert len(done["folders"]) == 2
    assert all(f"would be removed  {folder}\n" in tried.out for folder in done["folders"])


def test_what_a_dataset_made_is_made_again_by_its_next_run_once_verify_has_seen_damage(given, tmp_path):
    folder = inbox(given, tmp_path)
    run(folder, given)
    linked = tmp_path / "datasets" / "inbox" / "decode" / "a" / "edit" / "00000.safetensors"
    whole = linked.read_bytes()
    linked.chmod(0o644)
    linked.write_bytes(whole[:-1] + b"?")  # through the hard link, into the store
    shell = Shell(tmp_path)
    result = shell("verify")
    assert result.code == 6
    assert "inbox: its next run makes 1 edits again" in result.out
    assert shell("verify", "--repair").code == 6  # it was no edit's of this folder
    done = run(folder, given)
    assert (states(done), done["stages"]["ran"]) == ({"a": "ok", "b": "cached", "c": "cached"}, 1)
    assert linked.read_bytes() == whole
    assert shell("verify").code == 0


def test_a_file_that_a_sweep_lacks_is_told_before_anything_runs(given, tmp_path):
    shell = Shell(tmp_path)
    words = ("sweep", given / "clips" / "a.mp4", *SMALL, "edit.strength=0.5,1")
    result = shell(*words, f"edit.reference={given / 'cta.png'}", "--json")
    assert (result.code, result.error["code"], result.error["hint"]) == (4, "E400", "Did you mean cat.png?")
    result = shell(*words, "--json")
    assert (result.code, result.error["code"]) == (2, "E230")
    assert not (tmp_path / "store").exists()
    assert not (tmp_path / "edits").exists()


def test_clips_are_left_out_by_rule(given, tmp_path):
    done = run(inbox(given, tmp_path), given, "dataset.skip.shorter_than=7", "dataset.skip.longer_than=7")
    assert states(done) == {"a": "skipped", "b": "ok", "c": "skipped"}
    reasons = [job["reason"] for job in done["jobs"] if job["state"] == "skipped"]
    assert "6 frames, fewer than" in reasons[0]
    assert "8 frames, more than" in reasons[1]


class Trouble(Silent):
    """An observer that raises once a stage reports progress on a clip, as often as it is told."""

    def __init__(self, error: BaseException, times: int, stage: str = "decode") -> None:
        self.error, self.left, self.stage = error, times, stage

    def progress(self, stage: str, done: int, total: int) -> None:
        if stage == self.stage and self.left:
            self.left -= 1
            raise self.error


def test_what_may_pass_is_tried_again(given, tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "BACK_OFF", 0.01)
    left = [2]
    whole = graph.edit_graph

    def troubled(*words, **more):
        if left[0]:
            left[0] -= 1
            raise OSError(5, "Input/output error")
        return whole(*words, **more)

    monkeypatch.setattr(graph, "edit_graph", troubled)
    folder = inbox(given, tmp_path)
    done = run(folder, given)
    assert states(done) == dict.fromkeys("abc", "ok")
    assert [job["attempts"] for job in done["jobs"]] == [3, 1, 1]
    left[0] = 3
    failed = run(folder, given, "edit.strength=0.5")
    assert states(failed) == {"a": "failed", "b": "ok", "c": "ok"}
    assert "Input/output error" in failed["jobs"][0]["reason"]
    assert states(run(folder, given, "edit.strength=0.5")) == {"a": "ok", "b": "cached", "c": "cached"}


def test_a_fault_of_ours_fails_one_edit_and_is_written_down(given, tmp_path):
    done = run(inbox(given, tmp_path), given, observer=Trouble(ZeroDivisionError("oh"), 1))
    assert states(done) == {"a": "failed", "b": "ok", "c": "ok"}
    log = Path(done["gallery"]).parent / "logs" / "a" / "edit.log"
    assert "ZeroDivisionError: oh" in log.read_text()
    assert "Traceback" in log.read_text()


def test_what_the_machine_lacks_stops_the_run_and_sets_nothing_aside(given, tmp_path):
    folder = inbox(given, tmp_path)
    with pytest.raises(MachineError):
        run(folder, given, observer=Trouble(MachineError("E503", "full"), 1))
    assert states(run(folder, given)) == dict.fromkeys("abc", "ok")


def test_ctrl_c_is_nobodys_fault(given, tmp_path):
    folder = inbox(given, tmp_path)
    for _ in range(batch.DEATHS + 1):
        with pytest.raises(KeyboardInterrupt):
            run(folder, given, observer=Trouble(KeyboardInterrupt(), 1))
    assert states(run(folder, given)) == dict.fromkeys("abc", "ok")


def test_a_clip_that_kills_the_process_is_set_aside(given, tmp_path):
    folder = inbox(given, tmp_path)
    done = run(folder, given)
    log = States(Path(done["gallery"]).parent / "states.jsonl")
    mark = next(line["mark"] for line in log_of(done) if line["job"] == "b/edit")
    for n in range(batch.DEATHS):
        log.add(State("b/edit", "begun", mark, attempts=n + 1))
    with log.path.open("a") as file:
        file.write('{"job": "c/edit", "state": "beg')  # killed while it wrote
    assert states(run(folder, given)) == {"a": "cached", "b": "quarantined", "c": "cached"}
    assert states(run(folder, given, again=("quarantined",))) == dict.fromkeys("abc", "cached")


def test_two_processes_share_the_work_and_a_killed_one_is_gone_on_from(given, tmp_path):
    folder, shell = inbox(given, tmp_path), Shell(tmp_path)
    words = ("dataset", folder, f"edit.reference={given / 'cat.png'}", *SMALL, "--json")
    first = shell.start(*words)
    deadline = time.monotonic() + 60
    log = tmp_path / "datasets" / "inbox" / "states.jsonl"
    while not (log.exists() and log.read_text().count('"ok"') >= 1):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    both = [shell.start(*words), shell.start(*words)]
    results = [json.loads(child.communicate(timeout=120)[0]) for child in both]
    for one in results:
        assert set(states(one)) == set("abc")
        assert set(states(one).values()) <= {"ok", "cached"}
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    ends = [line["job"] for line in lines if line["state"] == "ok"]
    assert sorted(ends) == sorted(set(ends))  # nobody made what another had made
    assert results[0]["artifacts"] == results[1]["artifacts"]
    assert not list((tmp_path / "store").rglob("*.part"))


def test_the_command_ends_with_three_where_clips_were_set_aside(given, tmp_path):
    folder, shell = inbox(given, tmp_path), Shell(tmp_path)
    (folder / "empty.mp4").touch()
    old(folder / "empty.mp4")
    words = ("dataset", folder, f"edit.reference={given / 'cat.png'}", *SMALL)
    result = shell(*words)
    assert result.code == 3
    assert "3 ok, 1 quarantined" in result.err, result.err
    assert "E401" in result.err
    assert "--retry quarantined" in result.err
    assert "Traceback" not in result.err
    assert shell(*words, "--retry", "everything").code == 2
    assert shell("dataset", folder, folder, "--json").error["code"] == "E215"
    assert not (CHECKOUT / "artifacts" / "datasets" / "inbox").exists()
