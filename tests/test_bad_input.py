"""What everybody gets wrong in the first hour. Each case: an exit status, a code, and what to type next."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from helpers.command import CommandResult, reference, sprite_clip
from zoo import make_clip, make_sound

from retake.video import write_png

BOX = ("--box", "20,20,80,80")


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Path:
    """Good and bad files, by name."""
    home = tmp_path_factory.mktemp("given")
    good = sprite_clip(home / "good.mp4").read_bytes()
    reference(home / "cat.png")
    (home / "empty.mp4").write_bytes(b"")
    (home / "half.mp4").write_bytes(good[: len(good) // 2])
    index_last = make_clip(home / "last.mov", frames=8, size=(64, 48)).read_bytes()
    (home / "copying.mov").write_bytes(index_last[: len(index_last) // 2])
    (home / "letter.mp4").write_text("Dear editor, this is not a film.\n" * 20)
    (home / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    make_sound(home / "song.m4a")
    (home / "letter.png").write_text("not a picture")
    (home / "folder").mkdir()
    write_png(home / "small.png", np.zeros((20, 20, 3), np.uint8))
    write_png(home / "flat" / "0.png", np.full((96, 160, 3), 90, np.uint8))
    write_png(home / "flat" / "1.png", np.full((96, 160, 3), 90, np.uint8))
    for t in range(20):
        write_png(home / "black" / f"{t:05d}.png", np.zeros((96, 160), np.uint8))
    return home


@pytest.fixture
def retake(monkeypatch, capfd, given) -> Iterator[Callable[..., CommandResult]]:
    """Calls the command line in this process, in the folder of the given files."""
    from flows.__main__ import main

    monkeypatch.chdir(given)
    handler = signal.getsignal(signal.SIGTERM)

    def call(*words: str) -> CommandResult:
        monkeypatch.setattr(sys, "argv", ["retake", *words])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capfd.readouterr()
        return CommandResult(int(left.value.code or 0), out, err)

    yield call
    signal.signal(signal.SIGTERM, handler)


@dataclass(frozen=True)
class Case:
    words: tuple[str, ...]
    exit: int
    code: str
    hint: str  # a pattern: the next thing to type, or to do
    message: str = ""
    where: dict[str, str] = field(default_factory=dict)  # environment


PROPAGATE = "edit.reference=cat.png"
GIVEN = ("masks=given", "masks.path=black")


def edit(clip: str, *more: str) -> tuple[str, ...]:
    return ("edit", clip, *BOX, PROPAGATE, *more)


CASES = {
    # the clip
    "missing": Case(edit("goood.mp4"), 4, "E400", "Did you mean good.mp4", "goood.mp4"),
    "missing folder": Case(edit("nowhere/clip.mp4"), 4, "E400", "Check the path", "nowhere"),
    "no name": Case(edit(""), 4, "E400", "clip.mp4"),
    "empty": Case(edit("empty.mp4"), 4, "E401", "Copy it again", "0 bytes"),
    "cut short": Case(edit("half.mp4"), 4, "E406", "Copy it again"),
    "cut before its index": Case(edit("copying.mov"), 4, "E405", "copy it again"),
    "not a video": Case(edit("letter.mp4"), 4, "E402", "MP4", "Dear editor"),
    "a picture": Case(edit("cat.png"), 4, "E402", "folder", "PNG"),
    "a playlist": Case(edit("list.m3u8"), 4, "E403", "media file itself"),
    "audio only": Case(edit("song.m4a"), 4, "E409", "moving pictures", "audio"),
    "a web address": Case(edit("https://example.org/a.mp4"), 4, "E404", "Download it"),
    "a folder without images": Case(edit("folder"), 4, "E410", r"\.png"),
    "a scene that is not": Case(edit("sprites:drifd"), 2, "E240", "Did you mean drift"),
    "no scene": Case(edit("sprites:"), 2, "E240", "sprites:drift"),
    "frames outside the clip": Case(edit("good.mp4", "frames.first=900"), 2, "E211", "frames.start"),
    "frames outside the scene": Case(edit("sprites:drift", "frames.first=900"), 2, "E211", "frames.start"),
    "frames that end before they start": Case(
        edit("good.mp4", "frames.first=9", "frames.last=3"), 2, "E210", "first <= last"
    ),
    # the box and the mask
    "no box": Case(("edit", "good.mp4", PROPAGATE), 2, "E222", "--box x0,y0,x1,y1.*`retake pick CLIP`"),
    "half a box": Case(("edit", "good.mp4", "--box", "20,20"), 2, "E221", "--box x0,y0,x1,y1"),
    "words for a box": Case(("edit", "good.mp4", "--box", "the,dog,over,there"), 2, "E221", "--box x0,y0,x1,y1"),
    "not numbers": Case(("edit", "good.mp4", "--box", "nan,0,inf,9"), 2, "E221", "--box x0,y0,x1,y1"),
    "not numbers, in full": Case(edit("good.mp4", "masks.points=[[nan,1,1]]"), 2, "E205", "params/masks/"),
    "a box outside": Case(
        ("edit", "good.mp4", "--box", "900,900,950,950", PROPAGATE), 2, "E221", "retake pick", "160x96"
    ),
    "a box turned round": Case(
        ("edit", "good.mp4", "--box", "80,80,20,20", PROPAGATE), 2, "E221", "retake pick", "empty"
    ),
    "a point outside": Case(edit("good.mp4", "masks.points=[[500,1,1]]"), 2, "E221", "label 1 on the object"),
    "nothing in the box": Case(edit("flat"), 2, "E220", "retake frame"),
    "an empty mask": Case(
        ("edit", "good.mp4", "masks=given", "masks.path=black", PROPAGATE), 2, "E233", "edit.frame=N"
    ),
    "no masks given": Case(("edit", "good.mp4", "masks=given", PROPAGATE), 2, "E223", "folder of PNG"),
    "masks of another clip": Case(("edit", "sprites:drift", *GIVEN, PROPAGATE), 4, "E430", "one mask a frame"),
    # settings
    "unknown key": Case(edit("good.mp4", "edit.strenght=0.5"), 2, "E205", "Did you mean edit.strength"),
    "unknown group": Case(edit("good.mp4", "edti.strength=0.5"), 2, "E205", "Did you mean edit"),
    "unknown choice": Case(edit("good.mp4", "edit=propagat"), 2, "E206", "Did you mean propagate"),
    "a key of another choice": Case(edit("good.mp4", "optical_flow.iterations=3"), 2, "E205", "Known: name, preset"),
    "two boxes": Case(edit("good.mp4", "masks.box=[1,2,30,40]"), 2, "E221", "Leave one"),
    "out of range": Case(edit("good.mp4", "edit.strength=5"), 2, "E205", "opacity .*at most 1", "not 5"),
    "not a number": Case(edit("good.mp4", "edit.feather=wide"), 2, "E205", "at least 0.5", "wide"),
    "no value": Case(edit("good.mp4", "edit.strength"), 2, "E208", "key=value"),
    "no key": Case(edit("good.mp4", "=0.5"), 2, "E208", "key=value"),
    "half a mapping": Case(edit("good.mp4", "edit.anchors={0:"), 2, "E205", "frame number -> image"),
    "an interpolation": Case(edit("good.mp4", "edit.reference=${oc.env:HOME}"), 2, "E204", "key=value"),
    "a target": Case(edit("good.mp4", "+edit._target_=os.system"), 2, "E204", "key=value"),
    "unknown runner": Case(edit("good.mp4", "runner=cluster"), 2, "E205", "local or prefect"),
    # the reference
    "no reference": Case(("edit", "good.mp4", *BOX), 2, "E230", "edit.reference=IMAGE"),
    "reference missing": Case(edit("good.mp4", "edit.reference=dog.png"), 4, "E400", "check the path", "dog.png"),
    "reference unreadable": Case(
        edit("good.mp4", "edit.reference=letter.png"), 4, "E420", "PNG, JPEG", "not a picture"
    ),
    "reference is a folder": Case(edit("good.mp4", "edit.reference=folder"), 4, "E400", "one clip or image"),
    "an anchor that is no frame": Case(edit("good.mp4", "edit.anchors={99:cat.png}"), 2, "E231", "0 to 19"),
    "an anchor of another size": Case(edit("good.mp4", "edit.anchors={0:small.png}"), 4, "E431", "retake frame CLIP 0"),
    # the command
    "unknown command": Case(("edti", "good.mp4"), 2, "E201", "retake --help", "Did you mean 'edit'"),
    "unknown option": Case(("edit", "good.mp4", "--bxo", "1"), 2, "E201", "retake edit --help", "--box"),
    "no clip": Case(("edit",), 2, "E201", "retake edit --help", "clip"),
    "a list without brackets": Case(
        edit("good.mp4", "masks.corrections={frame: 3}"), 2, "E205", r"masks.corrections=\[\{frame: 3\}\]"
    ),
    "one where several may stand": Case(edit("good.mp4", "region.objects=2"), 2, "E205", r"region.objects=\[2\]"),
    "a point without a label": Case(edit("good.mp4", "masks.points=[[1,2]]"), 2, "E205", r"\[x, y, label\]"),
    "a slip in a list of names": Case(edit("good.mp4", "metrics.names=[regoin]"), 2, "E205", "Did you mean region"),
    "a slip within an object": Case(
        edit("good.mp4", "masks.objects={1:{boks:[1,2,3,4]}}"), 2, "E205", "Known: box, points"
    ),
    "a setting of another choice": Case(edit("good.mp4", "masks.text=cat"), 2, "E205", "masks=sam2"),
    "weights of a metric that are not": Case(
        edit("good.mp4", "metrics.names=[lpips]", "metrics.lpips.weights=lpips_alx"), 2, "E250", "lpips_alex"
    ),
    "weights that are not here": Case(
        edit("good.mp4", "optical_flow=raft"), 5, "E302", "retake weights raft_large", where={"TORCH_HOME": "/nowhere"}
    ),
    "weights of several networks": Case(
        ("edit", "good.mp4", *BOX, "optical_flow=raft", "edit=sdedit", "edit.prompt=a", "model=animatediff"),
        5,
        "E302",
        "retake weights raft_large stable_diffusion_v1_5 animatediff_v1_5_2",
        "4265 MB",
        where=dict.fromkeys(("TORCH_HOME", "HF_HOME", "HF_HUB_CACHE"), "/nowhere"),
    ),
    "a mask said twice": Case(("metrics", "good.mp4", "good.mp4", "--mask", "black", *BOX), 2, "E229", "one of them"),
    "a setting without a say": Case(("metrics", "good.mp4", "good.mp4", "edit.strength=1"), 2, "E205", "Drop it"),
    "a region of nothing": Case(("metrics", "good.mp4", "good.mp4", "region.steps=[largest]"), 2, "E229", "--mask"),
    "unknown stage": Case(edit("good.mp4", "--until", "mask"), 2, "E209", "Did you mean masks"),
    "another clip": Case(("frame", "good.mp4", "0", f"frames.sha256={'ab' * 32}"), 4, "E417", "Copy it again"),
    "a checksum of no file": Case(edit("sprites:drift", f"frames.sha256={'ab' * 32}"), 2, "E235", "Leave it out"),
    "no such frame": Case(("frame", "good.mp4", "99"), 2, "E231", "0 to 19"),
    "not a frame": Case(("frame", "good.mp4", "first"), 2, "E201", "retake frame --help"),
    "no such report": Case(("report", "goood"), 2, "E212", "There is none"),
    # the machine
    "store is a file": Case(edit("good.mp4"), 5, "E502", "RETAKE_STORE", where={"RETAKE_STORE": "/dev/null"}),
    "results refused": Case(
        edit("good.mp4", "--until", "frames"), 5, "E502", "RETAKE_EDITS", where={"RETAKE_EDITS": "/dev/null"}
    ),
    "picture refused": Case(("frame", "good.mp4", "0", "--out", "/dev/null/x.png"), 5, "E502", "folder"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_told_with_a_code_and_a_next_step(name, retake, monkeypatch):
    case = CASES[name]
    for variable, value in case.where.items():
        monkeypatch.setenv(variable, value)
    result = retake(*case.words)
    assert result.code == case.exit, result.err
    assert result.out == ""
    shown = re.search(rf"^{case.code} (?P<message>.*\n(?:.*\n)*?)(?P<hint>     .*)\n\Z", result.err, re.MULTILINE)
    assert shown, result.err
    assert re.search(case.hint, shown["hint"]), shown["hint"]
    assert case.message in shown["message"]
    assert len(shown[0].splitlines()) <= 6
    assert "Traceback" not in result.err

    machine = retake(*case.words, "--json")
    assert (machine.code, machine.out) == (case.exit, "")
    assert set(machine.error) == {"code", "message", "hint"}
    assert machine.error["code"] == case.code
    assert re.search(case.hint, machine.error["hint"])


REFUSED = {
    "edit": edit("good.mp4"),
    "sweep": ("sweep", "good.mp4", *BOX, PROPAGATE, "edit.strength=0.5,1"),
    "metrics": ("metrics", "good.mp4", "good.mp4"),
    "export": ("export", "good.mp4", "--what", "frames"),
    "export elsewhere": ("export", "good.mp4", "--what", "frames", "--out", "/dev/null/out"),
    "dataset": ("dataset", "clips.csv", PROPAGATE),
    "evaluate": ("evaluate", "moca", "evaluation.first=1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_results_folder_that_cannot_be_written_is_refused_before_a_stage_runs(
    name, retake, given, monkeypatch, tmp_path
):
    from flows.experiments import evaluation

    (given / "clips.csv").write_text('id,clip,masks.box\na,good.mp4,"20,20,80,80"\n')
    for variable in ("RETAKE_EDITS", "RETAKE_DATASETS"):
        monkeypatch.setenv(variable, "/dev/null")
    monkeypatch.setenv("RETAKE_STORE", str(tmp_path))
    monkeypatch.setattr(evaluation, "HOME", Path("/dev/null/evaluations"))
    refused = retake(*REFUSED[name])
    assert (refused.code, "E502 cannot write to /dev/null" in refused.err) == (5, True), refused.err
    assert not list(tmp_path.rglob("*.json"))  # no result was made


def test_a_plan_refuses_what_it_can_know(retake):
    assert retake("plan", "empty.mp4", *BOX, "--json").error["code"] == "E401"
    for word, code in (("frames.first=900", "E211"), (f"frames.sha256={'ab' * 32}", "E417"), ("masks=given", "E223")):
        box = () if "masks" in word else BOX
        assert retake("plan", "good.mp4", *box, PROPAGATE, word, "--json").error["code"] == code
    assert retake("plan", "sprites:drifd", *BOX, PROPAGATE, "--json").error["code"] == "E240"
    assert retake("plan", "good.mp4", *BOX, "edit.strenght=1", "--json").error["code"] == "E205"
    assert retake("plan", "good.mp4", *BOX, "edit.reference=dog.png", "--json").error["code"] == "E400"
    assert retake(*edit("good.mp4", "--until", "frames")).code == 0  # from now on the size is known
    assert (
        retake("plan", "good.mp4", "--box", "900,900,950,950", "edit.reference=cat.png", "--json").error["code"]
        == "E221"
    )


def test_debug_is_taken_by_every_command_and_shows_the_traceback(retake):
    from retake.errors import MediaError

    for words in (edit("empty.mp4"), ("plan", "empty.mp4"), ("frame", "empty.mp4", "0")):
        with pytest.raises(MediaError, match="E401"):
            retake(*words, "--debug")


def test_settings_files_are_read_with_suspicion(given):
    from flows.settings.plain_yaml import parse_yaml
    from retake.errors import ConfigError

    for text in (
        "a: &x 1\nb: *x",
        "a: !!python/object:os.system {}",
        "a: 1\na: 2",
        "[1, 2]",
        "a: [",
        "a: " + "x" * (1 << 20),
    ):
        with pytest.raises(ConfigError) as caught:
            parse_yaml(text, "params.yaml")
        assert caught.value.code == "E203"
