"""The command line as a machine sees it: what it prints, what it runs, what it reuses."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from helpers.checkouts import copied
from helpers.command import CHECKOUT, Child, CommandResult, Shell, reference, sprite_clip

from flows.editing import demo
from flows.settings.compose import settings
from retake import methods
from retake.store import Store
from retake.video import read_image, write_png

STAGES = ["frames", "optical_flow", "masks", "region", "tracks", "edit", "decode", "metrics", "report"]
BOX = ("--box", "20,20,80,80")


@dataclass(frozen=True)
class Warm:
    """A store in which one edit was made."""

    shell: Shell
    clip: Path
    picture: Path
    planned: CommandResult  # before the edit
    first: CommandResult

    def words(self, *more: object) -> tuple[object, ...]:
        return (self.clip, *BOX, f"edit.reference={self.picture}", *more)

    def store(self) -> Store:
        return Store(self.shell.home / "store" / "retake")

    def damage(self, stage: str, name: str) -> Path:
        """Flip one bit in a stored file of the first edit."""
        key = next(s["key"] for s in self.first.data["stages"] if s["stage"] == stage)
        record = self.store().find(stage, key)
        assert record is not None
        path = self.store().object_path(record.artifact[name].sha256)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.chmod(0o644)
        path.write_bytes(data)
        return path


@pytest.fixture(scope="module")
def warm(tmp_path_factory) -> Warm:
    home = tmp_path_factory.mktemp("warm")
    shell = Shell(home)
    clip, picture = sprite_clip(home / "clip.mp4"), reference(home / "picture.png")
    words = (clip, *BOX, f"edit.reference={picture}", "--json")
    return Warm(shell, clip, picture, shell("plan", *words), shell("edit", *words))


def agree(planned: CommandResult, done: CommandResult) -> bool:
    """Whether a run did what its plan said: cached and will run exactly, may run either way."""
    allowed = {"cached": {"cached"}, "will run": {"ran"}, "may run": {"cached", "ran"}}
    said, did = planned.statuses(), done.statuses()
    return list(said) == list(did) and all(did[stage] in allowed[said[stage]] for stage in did)


def digest(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


# ---- the contract ------------------------------------------------------------------------------------------------


def test_an_edit_prints_one_object(warm):
    result = warm.first.data
    assert set(result) == {"edit", "stages", "outputs", "health"}
    assert set(result["health"]) == {"1"}
    assert re.fullmatch(r"[0-9a-f]{12}", result["edit"])
    assert [s["stage"] for s in result["stages"]] == STAGES
    for stage in result["stages"]:
        assert set(stage) == {"stage", "key", "status", "seconds", "bytes", "notes"}
        assert re.fullmatch(r"[0-9a-f]{64}", stage["key"])
        assert stage["status"] == "ran"
        assert stage["seconds"] > 0
        assert stage["bytes"] > 0
    assert set(result["outputs"]) == {"video", "report", "metrics"}
    assert all(Path(path).stat().st_size > 0 for path in result["outputs"].values())
    assert warm.first.err == ""


def test_a_second_run_is_all_cached_and_gives_the_same_files(warm):
    before = {name: digest(path) for name, path in warm.first.data["outputs"].items() if name != "report"}
    again = warm.shell("edit", *warm.words("--json"))
    assert set(again.statuses().values()) == {"cached"}
    assert again.data["edit"] == warm.first.data["edit"]
    assert {name: digest(path) for name, path in again.data["outputs"].items() if name != "report"} == before


def test_plan_says_what_the_run_then_does(warm):
    cold = warm.planned
    assert cold.data["edit"] == warm.first.data["edit"]
    assert cold.statuses() == {stage: "will run" if stage == "frames" else "may run" for stage in STAGES}
    assert all(stage["why"] for stage in cold.data["stages"])
    assert agree(cold, warm.first)
    again = warm.shell("plan", *warm.words("--json"))
    assert set(again.statuses().values()) == {"cached"}
    assert [s["key"] for s in again.data["stages"]] == [s["key"] for s in warm.first.data["stages"]]


def test_another_edit_parameter_runs_only_what_follows_the_edit(warm):
    words = warm.words("edit.strength=0.5")
    planned = warm.shell("plan", *words, "--json")
    assert planned.statuses() == {
        **dict.fromkeys(STAGES[:5], "cached"),
        "edit": "will run",
        **dict.fromkeys(STAGES[6:], "may run"),
    }
    why = {stage["stage"]: stage["why"] for stage in planned.data["stages"]}
    assert "strength: 0.5 -> 1.0" in why["edit"] or "strength: 1.0 -> 0.5" in why["edit"]
    assert "depends on edit" in why["decode"]
    assert "strength" in warm.shell("why", *words, "--stage", "edit").out
    done = warm.shell("edit", *words, "--json")
    assert done.ran() == ["edit", "decode", "metrics", "report"]
    assert agree(planned, done)


def test_another_metrics_parameter_runs_only_metrics(warm):
    words = warm.words("metrics.motion_fidelity.static=0.2", "--json")
    planned, done = warm.shell("plan", *words), warm.shell("edit", *words)
    assert done.ran() == ["metrics"]
    assert agree(planned, done)


def test_a_stage_that_gives_the_same_bytes_stops_the_run_there(warm):
    words = warm.words("tracks.max_points=1000", "--json")
    planned, done = warm.shell("plan", *words), warm.shell("edit", *words)
    assert planned.statuses()["edit"] == "may run"
    assert done.ran() == ["tracks"]
    assert agree(planned, done)


def test_names_and_times_of_files_are_no_ingredients(warm):
    clip, picture = warm.clip.with_name("renamed.mp4"), warm.picture.with_name("renamed.png")
    shutil.copy(warm.clip, clip)
    shutil.copy(warm.picture, picture)
    os.utime(clip, (1, 1))
    os.utime(warm.clip)
    renamed = warm.shell("edit", clip, *BOX, f"edit.reference={picture}", "--json")
    assert set(renamed.statuses().values()) == {"cached"}
    assert set(warm.shell("plan", *warm.words("--json")).statuses().values()) == {"cached"}


def test_until_stops_and_the_next_call_goes_on(warm):
    box = ("--box", "21,20,80,80")
    words = (warm.clip, *box, f"edit.reference={warm.picture}", "--json")
    looked = warm.shell("edit", *words, "--until", "masks")
    assert looked.ran() == ["masks", "report"]
    assert list(looked.statuses()) == ["frames", "optical_flow", "masks", "report"]
    assert set(looked.data["outputs"]) == {"report"}
    assert not (Path(looked.data["outputs"]["report"]).parent / "result.mp4").exists()
    went_on = warm.shell("edit", *words, "--until", "decode")
    assert went_on.statuses()["masks"] == "cached"
    assert {"edit", "decode"} <= set(went_on.statuses())
    assert Path(went_on.data["outputs"]["video"]).exists()
    assert went_on.data["edit"] == looked.data["edit"]


def test_two_clips_of_one_name_do_not_collide(warm, tmp_path):
    folders = []
    for name, scene in (("here", "drift"), ("there", "zoom")):
        (tmp_path / name).mkdir()
        clip = sprite_clip(tmp_path / name / "same.mp4", frames=4, scene=scene)
        result = warm.shell("edit", clip, "--until", "frames", "--json").data
        folders.append(warm.shell.home / "edits" / "same" / f"{result['edit']}-until-frames")
    assert folders[0] != folders[1]
    assert all((folder / "recipe.json").exists() for folder in folders)


# ---- what costs nothing --------------------------------------------------------------------------------------------


def imported(warm: Warm, *words: object) -> set[str]:
    """Top-level modules that a command imports."""
    command = [sys.executable, "-X", "importtime", "-m", "flows", *map(str, words)]
    done = subprocess.run(command, cwd=CHECKOUT, env=warm.shell.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines() if "|" in line}


def test_cached_edits_and_plans_load_nothing_heavy(warm):
    heavy = {"torch", "torchvision", "torchmetrics", "prefect", "dvc", "av", "decord", "diffusers", "transformers"}
    heavy |= {"sam2", "scipy", "huggingface_hub", "torch_fidelity"}
    assert not imported(warm, "edit", *warm.words()) & heavy
    assert not imported(warm, "plan", *warm.words("edit.strength=0.9", "metrics=all")) & heavy
    assert not imported(warm, "edit", "--help") & (heavy | {"hydra", "omegaconf", "numpy", "cv2"})


def test_messages_and_data_keep_to_their_streams(warm):
    result = warm.shell("edit", *warm.words())
    assert [line.split()[0] for line in result.out.splitlines()] == ["video", "metrics", "report"]
    assert all(Path(line.split()[1]).exists() for line in result.out.splitlines())
    assert all(stage in result.err for stage in STAGES)
    assert warm.shell("edit", *warm.words("--json")).err == ""


def test_the_version_is_printed_without_a_command(warm):
    from importlib.metadata import version

    shown = warm.shell("--version")
    assert (shown.code, shown.out.strip()) == (0, version("retake"))


def test_no_color_is_honoured(warm):
    child = Child(warm.shell.home)  # Typer looks at the environment when it is imported
    colour = re.compile(r"\x1b\[[0-9;]*(3[0-8]|9[0-7])[0-9;]*m")
    forced = {"FORCE_COLOR": "1", "TERM": "xterm-256color"}
    assert colour.search(child("edit", "--help", **forced, NO_COLOR="").out)
    assert not colour.search(child("edit", "--help", **forced).out)
    assert "\x1b" not in child("plan", *warm.words()).out


# ---- the smaller commands ------------------------------------------------------------------------------------------


def test_frame_writes_a_png_of_the_source_size(warm, tmp_path):
    from retake.video import decode, read_image

    out = tmp_path / "f.png"
    asked = (warm.clip, 3, "frames.short_side=48", "--out", out, "--json")
    assert warm.shell("frame", *asked).data == {"frame": str(out)}
    gridded = read_image(out)
    source = [rgb for _, rgb in decode(warm.clip)][3]
    assert source.shape == (96, 160, 3)
    zoom = gridded.shape[0] // 96  # a small frame is enlarged under its grid
    assert gridded.shape == (96 * zoom, 160 * zoom, 3)
    near = np.abs(gridded[zoom // 2 :: zoom, zoom // 2 :: zoom].astype(int) - source).max(-1) <= 1
    assert 0.5 < near.mean() < 1  # the picture, with lines on it
    warm.shell("frame", *asked, "--plain")
    assert np.array_equal(read_image(out), source)


def test_verify_finds_a_flipped_bit_and_the_next_edit_heals(warm):
    assert warm.shell("verify").code == 0
    video = warm.first.data["outputs"]["video"]
    before, flipped = digest(video), warm.damage("decode", "result.mp4")
    found = warm.shell("verify", "--json")
    assert found.code == 6
    assert f'"object": "{flipped.name}"' in found.out
    healed = warm.shell("edit", *warm.words("--json"))
    assert healed.ran() == ["decode"]
    assert healed.err.count("retake: ") == 1
    assert digest(video) == before
    assert digest(flipped) == flipped.name
    assert warm.shell("verify").code == 0


def test_damage_that_nobody_looked_for_is_healed_in_the_same_run(warm):
    flipped = warm.damage("optical_flow", "00000.safetensors")
    healed = warm.shell("edit", *warm.words("edit.strength=0.7", "--until", "edit", "--json"))
    assert healed.ran() == ["optical_flow", "edit"]
    assert healed.err.count("retake: ") == 1
    assert digest(flipped) == flipped.name


def test_a_run_that_heals_tells_of_every_stage_once_and_of_the_damaged_one_again(warm):
    warm.damage("optical_flow", "00000.safetensors")
    result = warm.shell("edit", *warm.words("edit.strength=0.8", "--until", "edit")).err
    stages = [line.split()[:2] for line in result.splitlines() if len(line.split()) > 3]
    assert stages.count(["frames", "cached"]) == 1
    assert stages.count(["optical_flow", "cached"]) == stages.count(["optical_flow", "ran"]) == 1


def test_report_lists_the_edits(warm):
    listed = warm.shell("report", "clip", "--json").data["edits"]
    ours = next(entry for entry in listed if entry["edit"] == warm.first.data["edit"])
    assert ours["method"] == "propagate"
    assert ours["report"] == warm.first.data["outputs"]["report"]
    assert ours["command"].startswith("retake edit ")
    assert ours["metrics"]
    assert sorted(listed, key=lambda entry: -entry["time"]) == listed


def test_the_list_and_the_page_of_edits_say_what_is_different(warm):
    warm.shell("edit", *warm.words("edit.strength=0.4"))
    listed = warm.shell("report", "clip", "--json").data
    (ours,) = [entry for entry in listed["edits"] if "edit.strength=0.4" in entry["settings"]]
    assert not any("edit.reference" in word for entry in listed["edits"] for word in entry["settings"])  # all have it
    text = warm.shell("report", "clip").out
    line = next(line for line in text.splitlines() if "edit.strength=0.4" in line)
    assert re.search(r"propagate +20\d\d-\d\d-\d\d \d\d:\d\d .*change_edited 0\.\d+", line)
    page = Path(listed["page"])
    assert f"page     {page}" in text
    assert page.name == "index.html"
    assert f'"report": "clip/{ours["edit"]}/report.html"' in page.read_text()
    assert (page.parent / "clip" / ours["edit"] / "result.mp4").exists()


def test_edits_side_by_side_are_one_page(warm):
    other = warm.shell("edit", *warm.words("edit.strength=0.4", "--json")).data["edit"]
    first = warm.first.data["edit"]
    folder = Path(warm.first.data["outputs"]["report"]).parent
    page = Path(warm.shell("compare", other, folder, "--json").data["report"])  # its id alone will do
    assert page.parent.parent == folder.parent
    text = page.read_text()
    told = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])
    assert told["layers"] == ["source", "edit.strength=0.4", "propagate"]
    assert {"change_edited_edit.strength=0.4", "change_edited_propagate"} <= told["curves"].keys()
    assert f"retake compare clip/{other} clip/{first}" in text
    for edit in (first, other):
        assert f'href="./../{edit}/report.html"' in text
        assert (page.parent / ".." / edit / "report.html").is_file()
    assert warm.shell("report", "clip", "--json").data["edits"][0]["edit"] == other  # the page is no edit


def test_what_cannot_stand_side_by_side_is_told(warm):
    first = f"clip/{warm.first.data['edit']}"
    fewer = warm.shell("edit", *warm.words("frames.last=3", "--json")).data["edit"]
    looked = warm.shell("edit", *warm.words("--until", "masks", "--json")).data
    until = Path(looked["outputs"]["report"]).parent.name
    for words, code, said in (
        ([first], "E264", "one edit alone"),
        ([first, first], "E264", "one edit alone"),
        ([first, "clip/nothing"], "E212", "no edit clip/nothing"),
        ([first, f"clip/{fewer}"], "E264", "different frames"),
        ([first, f"clip/{until}"], "E264", "stopped before its result"),
    ):
        done = warm.shell("compare", *words)
        assert (done.code, code in done.err, said in done.err) == (2, True, True), done.err


def test_every_method_has_an_example_that_can_be_made(warm, tmp_path, monkeypatch):
    known = [module.name for module in pkgutil.iter_modules(methods.__path__)]
    found = [name for name in known if hasattr(importlib.import_module(f"retake.methods.{name}"), "edit")]
    assert sorted(demo.EXAMPLES) == sorted(found)
    for name, (command, expect) in demo.EXAMPLES.items():
        clip, *words = shlex.split(command)
        planned = warm.shell("plan", clip, *words, "--json")
        assert planned.code == 0, planned.err
        assert list(planned.statuses())[-1] == "report"
        assert settings(words, clip).edit.name == name
        assert expect.endswith(".")


def test_an_example_runs_and_says_what_to_expect(warm):
    done = warm.shell("demo", "--method", "propagate")
    assert demo.EXAMPLES["propagate"].command in done.err
    assert demo.EXAMPLES["propagate"].expect in done.err
    assert Path(done.out.split()[1]).name == "result.mp4"
    wrong = warm.shell("demo", "--method", "propagat")
    assert (wrong.code, "E206" in wrong.err, "propagate" in wrong.err) == (2, True, True)


def test_open_opens_the_report_and_says_where_that_does_not_work(warm, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or len(opened) == 1)
    first, second = (warm.shell("edit", *warm.words("--open", "--json")) for _ in range(2))
    page = Path(first.data["outputs"]["report"]).absolute().as_uri()
    assert opened == [page, page]
    assert "no browser could be opened here" not in first.err
    assert "no browser could be opened here" in second.err


def test_params_check_knows_an_old_snapshot(warm):
    assert warm.shell("params", "--check", "--json").data["written"] is False
    other = warm.shell("params", "--check", "edit.strength=0.3")
    assert (other.code, "E202" in other.err, "retake params" in other.err) == (2, True, True)


def launched(warm: Warm, folder: Path, *words: str) -> CommandResult:
    """What the console command says in a folder."""
    command = [sys.executable, "-c", "from retake.launcher import main; main()", *words]
    environment = warm.shell.environment | {"PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return CommandResult(done.returncode, done.stdout, done.stderr)


def test_a_project_is_found_upwards_and_missed_only_where_it_is_needed(warm, tmp_path):
    inside = launched(warm, CHECKOUT / "params" / "edit", "params", "--check")
    assert (inside.code, inside.err) == (0, "")
    (tmp_path / "dvc.yaml").write_text("stages: {theirs: {cmd: python -m train}}\n")  # somebody else's
    outside = launched(warm, tmp_path, "params", "--check", "--json")
    assert (outside.code, outside.error["code"]) == (2, "E200")
    assert "retake init" in outside.error["hint"]
    assert launched(warm, tmp_path, "dataset", "--json").error["code"] == "E200"
    assert launched(warm, tmp_path, "stage", "frames", "--json").error["code"] == "E200"
    assert launched(warm, tmp_path, "report").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["dvc.yaml"]


def test_a_checkout_runs_its_own_code_whichever_is_installed(warm, tmp_path):
    other = copied(tmp_path / "checkout")
    (other / "flows" / "__main__.py").write_text("import retake\ndef main(): print(retake.__file__)\n")
    assert launched(warm, other / "params").out.strip() == str(other / "retake" / "__init__.py")


def test_a_folder_that_was_deleted_is_said(warm, tmp_path):
    gone = "import os; os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')"
    command = [sys.executable, "-c", f"{gone}; from retake.launcher import main; main()", "report"]
    environment = warm.shell.environment | {"PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr.split()[0]) == (5, "E513")


def test_two_processes_hand_out_one_edit_side_by_side(warm):
    """They write one folder in turn, and both find it whole."""
    children = [warm.shell.start("edit", *warm.words(), "--json") for _ in range(4)]
    ends = [child.communicate() for child in children]
    assert [child.returncode for child in children] == [0] * 4, ends
    folder = Path(json.loads(ends[0][0])["outputs"]["report"]).parent
    assert not [p.name for p in folder.iterdir() if "part" in p.name]


def test_a_painted_frame_is_not_written_over(warm, tmp_path):
    first = warm.shell("frame", warm.clip, 0, "--plain", "--json")
    painted = Path(first.data["frame"])
    try:
        write_png(painted, np.zeros_like(read_image(painted)))
        again = warm.shell("frame", warm.clip, 0, "--plain", "--json")
        assert (again.code, again.error["code"]) == (2, "E214")
        assert warm.shell("frame", warm.clip, 0, "--json").code == 0  # the grid has a name of its own
        assert not read_image(painted).any()
    finally:
        painted.unlink()


def test_help_lists_commands_in_groups_and_those_of_other_tools_last(warm):
    told = warm.shell("--help").out
    places = [told.index(f" {title} ") for title in ("One clip", "Many clips", "The store", "This machine", "For DVC")]
    assert places == sorted(places)
    assert told.index(" edit ") < told.index(" dataset ") < told.index(" verify ") < told.index(" doctor ")
    assert places[-1] < min(told.index(f"│ {name} ") for name in ("stage", "params", "prefect", "dvc"))
