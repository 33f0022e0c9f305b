"""What everybody gets wrong in the first hour. Each case: an exit status, a code, and what to type next."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest
from command import Shell, Told, reference, sprite_clip
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
def retake(monkeypatch, capfd, given, tmp_path) -> Iterator[Callable[..., Told]]:
    """Calls the command line in this process, in the folder of the given files."""
    from flows.__main__ import main

    monkeypatch.chdir(given)
    monkeypatch.setenv("RETAKE_EDITS", str(tmp_path / "edits"))
    handler = signal.getsignal(signal.SIGTERM)

    def call(*words: str) -> Told:
        monkeypatch.setattr(sys, "argv", ["retake", *words])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capfd.readouterr()
        return Told(int(left.value.code or 0), out, err)

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


def edit(clip: str, *more: str) -> tuple[str, ...]:
    return ("edit", clip, *BOX, "edit.reference=cat.png", *more)


CASES = {
    # the clip
    "missing": Case(edit("goood.mp4"), 4, "E400", "Did you mean good.mp4", "goood.mp4"),
    "missing folder": Case(edit("nowhere/clip.mp4"), 4, "E400", "Check the path", "nowhere"),
    "no name": Case(edit(""), 4, "E400", "clip.mp4"),
    "empty": Case(edit("empty.mp4"), 4, "E401", "Copy it again", "0 bytes"),
    "cut short": Case(edit("half.mp4"), 4, "E406", "Copy it again"),
    "cut before its index": Case(edit("copying.mov"), 4, "E405", "copy it again"),
    "not a video": Case(edit("letter.mp4"), 4, "E402", "MP4", "Dear editor"),
    "a picture": Case(edit("cat.png"), 4, "E402", "MP4"),
    "a playlist": Case(edit("list.m3u8"), 4, "E403", "media file itself"),
    "audio only": Case(edit("song.m4a"), 4, "E409", "moving pictures", "audio"),
    "a web address": Case(edit("https://example.org/a.mp4"), 4, "E404", "Download it"),
    "a folder without images": Case(edit("folder"), 4, "E410", r"\.png"),
    "a scene that is not": Case(edit("sprites:drifd"), 2, "E240", "Did you mean drift"),
    "no scene": Case(edit("sprites:"), 2, "E240", "sprites:drift"),
    "frames outside the clip": Case(edit("good.mp4", "frames.first=900"), 2, "E211", "frames.start"),
    "frames outside the scene": Case(edit("sprites:drift", "frames.first=900"), 2, "E211", "frames.start"),
    "frames that end before they start": Case(edit("good.mp4", "frames.first=9", "frames.last=3"), 2, "E210", "first <= last"),
    # the box and the mask
    "no box": Case(("edit", "good.mp4", "edit.reference=cat.png"), 2, "E222", "--box x0,y0,x1,y1"),
    "half a box": Case(("edit", "good.mp4", "--box", "20,20"), 2, "E221", "--box x0,y0,x1,y1"),
    "words for a box": Case(("edit", "good.mp4", "--box", "the,dog,over,there"), 2, "E221", "--box x0,y0,x1,y1"),
    "not numbers": Case(("edit", "good.mp4", "--box", "nan,0,inf,9"), 2, "E221", "--box x0,y0,x1,y1"),
    "not numbers, in full": Case(edit("good.mp4", "masks.points=[[nan,1,1]]"), 2, "E205", "params/masks/"),
    "a box outside": Case(("edit", "good.mp4", "--box", "900,900,950,950", "edit.reference=cat.png"), 2, "E221", "retake frame", "160x96"),
    "a box turned round": Case(("edit", "good.mp4", "--box", "80,80,20,20", "edit.reference=cat.png"), 2, "E221", "retake frame", "empty"),
    "a point outside": Case(edit("good.mp4", "masks.points=[[500,1,1]]"), 2, "E221", "label 1 on the object"),
    "nothing in the box": Case(edit("flat"), 2, "E220", "retake frame"),
    "an empty mask": Case(
        ("edit", "good.mp4", "masks=given", "masks.path=black", "edit.reference=cat.png"), 2, "E233", "edit.frame=N"
    ),
    "no masks given": Case(("edit", "good.mp4", "masks=given", "edit.reference=cat.png"), 2, "E223", "folder of PNG"),
    "masks of another clip": Case(
        ("edit", "sprites:drift", "masks=given", "masks.path=black", "edit.reference=cat.png"), 4, "E430", "one mask a frame"
    ),
    # settings
    "unknown key": Case(edit("good.mp4", "edit.strenght=0.5"), 2, "E205", "Did you mean edit.strength"),
    "unknown group": Case(edit("good.mp4", "edti.strength=0.5"), 2, "E205", "Did you mean edit"),
    "unknown choice": Case(edit("good.mp4", "edit=propagat"), 2, "E206", "Did you mean propagate"),
    "a key of another choice": Case(edit("good.mp4", "optical_flow.iterations=3"), 2, "E205", "Known: name, preset"),
    "out of range": Case(edit("good.mp4", "edit.strength=5"), 2, "E205", "params/edit/", "less than or equal to 1"),
    "not a number": Case(edit("good.mp4", "edit.feather=wide"), 2, "E205", "params/edit/", "wide"),
    "no value": Case(edit("good.mp4", "edit.strength"), 2, "E208", "key=value"),
    "no key": Case(edit("good.mp4", "=0.5"), 2, "E208", "key=value"),
    "half a mapping": Case(edit("good.mp4", "edit.anchors={0:"), 2, "E205", "params/edit/"),
    "an interpolation": Case(edit("good.mp4", "edit.reference=${oc.env:HOME}"), 2, "E204", "key=value"),
    "a target": Case(edit("good.mp4", "+edit._target_=os.system"), 2, "E204", "key=value"),
    "unknown runner": Case(edit("good.mp4", "runner=cluster"), 2, "E205", "local or prefect"),
    # the reference
    "no reference": Case(("edit", "good.mp4", *BOX), 2, "E230", "edit.reference=IMAGE"),
    "reference missing": Case(edit("good.mp4", "edit.reference=dog.png"), 4, "E400", "ls ", "dog.png"),
    "reference unreadable": Case(edit("good.mp4", "edit.reference=letter.png"), 4, "E420", "PNG, JPEG", "not a picture"),
    "reference is a folder": Case(edit("good.mp4", "edit.reference=folder"), 4, "E400", "one clip or image"),
    "an anchor that is no frame": Case(edit("good.mp4", "edit.anchors={99:cat.png}"), 2, "E231", "0 to 19"),
    "an anchor of another size": Case(edit("good.mp4", "edit.anchors={0:small.png}"), 4, "E431", "retake frame CLIP 0"),
    # the command
    "unknown command": Case(("edti", "good.mp4"), 2, "E201", "retake --help", "Did you mean 'edit'"),
    "unknown option": Case(("edit", "good.mp4", "--bxo", "1"), 2, "E201", "retake edit --help", "--box"),
    "no clip": Case(("edit",), 2, "E201", "retake edit --help", "clip"),
    "unknown stage": Case(edit("good.mp4", "--until", "mask"), 2, "E209", "Did you mean masks"),
    "no such frame": Case(("frame", "good.mp4", "99"), 2, "E231", "0 to 19"),
    "not a frame": Case(("frame", "good.mp4", "first"), 2, "E201", "retake frame --help"),
    "no such report": Case(("report", "goood"), 2, "E212", "Known"),
    # the machine
    "store is a file": Case(edit("good.mp4"), 5, "E502", "RETAKE_STORE", where={"RETAKE_STORE": "/dev/null"}),
    "results refused": Case(edit("good.mp4", "--until", "frames"), 5, "E502", "RETAKE_EDITS", where={"RETAKE_EDITS": "/dev/null/x"}),
    "picture refused": Case(("frame", "good.mp4", "0", "--out", "/dev/null/x.png"), 5, "E502", "folder"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_told_with_a_code_and_a_next_step(name, retake, monkeypatch):
    case = CASES[name]
    for variable, value in case.where.items():
        monkeypatch.setenv(variable, value)
    told = retake(*case.words)
    assert told.code == case.exit, told.err
    assert told.out == ""
    shown = re.search(rf"^{case.code} (?P<message>.*\n(?:.*\n)*?)(?P<hint>     .*)\n\Z", told.err, re.MULTILINE)
    assert shown, told.err
    assert re.search(case.hint, shown["hint"]), shown["hint"]
    assert case.message in shown["message"]
    assert len(shown[0].splitlines()) <= 6
    assert "Traceback" not in told.err

    machine = retake(*case.words, "--json")
    assert (machine.code, machine.out) == (case.exit, "")
    assert set(machine.error) == {"code", "message", "hint"}
    assert machine.error["code"] == case.code
    assert re.search(case.hint, machine.error["hint"])


def test_a_plan_refuses_what_it_can_know(retake):
    assert retake("plan", "empty.mp4", *BOX, "--json").error["code"] == "E401"
    assert retake("plan", "good.mp4", *BOX, "edit.strenght=1", "--json").error["code"] == "E205"
    assert retake("plan", "good.mp4", *BOX, "edit.reference=dog.png", "--json").error["code"] == "E400"
    assert retake(*edit("good.mp4", "--until", "frames")).code == 0  # from now on the size is known
    assert retake("plan", "good.mp4", "--box", "900,900,950,950", "edit.reference=cat.png", "--json").error["code"] == "E221"


def test_settings_files_are_read_with_suspicion(given):
    from flows.config import parse_yaml
    from retake.errors import ConfigError

    for text in ("a: &x 1\nb: *x", "a: !!python/object:os.system {}", "a: 1\na: 2", "[1, 2]", "a: [", "a: " + "x" * (1 << 20)):
        with pytest.raises(ConfigError) as caught:
            parse_yaml(text, "params.yaml")
        assert caught.value.code == "E203"


# ---- a disk that is full ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of its own at `folder`. Skips the test where none can be mounted."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def is_full(told: Told) -> bool:
    return (told.code, told.error["code"], told.out) == (5, "E503", "") and "run the same command" in told.error["hint"]


def test_a_full_disk_stops_the_run_and_room_lets_it_go_on(given, tmp_path):
    shell = Shell(tmp_path)
    words = ("edit", given / "good.mp4", *BOX, f"edit.reference={given / 'cat.png'}", "--until", "metrics", "--json")
    with small_disk(tmp_path / "store", "2m"):
        full = shell(*words)
        assert is_full(full), full.err
        assert "RETAKE_STORE" in full.error["hint"]
        assert not [p for p in (tmp_path / "store").rglob("*") if p.parent.name == "tmp" or p.suffix == ".part"]
        assert shell("verify").code == 0
        subprocess.run(["mount", "-o", "remount,size=64m", str(tmp_path / "store")], check=True)
        done = shell(*words)
        assert done.statuses()["frames"] == "cached"
        assert done.statuses()["metrics"] == "ran"
        with small_disk(tmp_path / "tiny", "16k"):
            assert is_full(shell(*words, RETAKE_EDITS=str(tmp_path / "tiny")))
        assert set(shell(*words).statuses().values()) == {"cached"}


def test_a_file_that_may_not_grow_is_a_full_disk_too(given, tmp_path):
    shell = Shell(tmp_path)
    limit = (500_000, 500_000)
    words = ("edit", given / "good.mp4", "--until", "frames", "--json")
    assert is_full(shell(*words, before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)))
    assert shell(*words).statuses() == {"frames": "ran"}


# ---- Ctrl-C ----------------------------------------------------------------------------------------------------------


def children_of(pid: int) -> list[psutil.Process]:
    """Decoder processes that were started by `pid`, wherever they hang now."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[-3:] == ["-m", "retake.video", str(pid)]:
                found.append(process)
    return found


def wait_for(what: Callable[[], object], seconds: float = 60) -> object:
    end = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < end:
        time.sleep(0.005)
    return found


class Watch:
    """Remembers how far each stage said it was."""

    def __init__(self) -> None:
        self.heard: dict[str, list[int]] = {}

    def progress(self, stage: str, done: int, total: int) -> None:
        self.heard.setdefault(stage, []).append(done)

    def waiting(self, stage: str) -> None: ...


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_goes_on_after_its_last_chunk(how, given, tmp_path, monkeypatch):
    from flows import graph, job
    from flows.config import settings
    from flows.runners import Local
    from retake.clip import open_clip
    from retake.store import Store

    shell, store = Shell(tmp_path), Store(tmp_path / "store" / "retake")
    clip = sprite_clip(tmp_path / "long.mp4", frames=80, size=(320, 192))
    overrides = ["masks.box=[40,40,160,160]", f"edit.reference={given / 'cat.png'}"]
    # A shell that starts a job in the background has it ignore SIGINT; SIGTERM must work even so.
    ignored = signal.SIG_DFL if how == signal.SIGINT else signal.SIG_IGN
    child = shell.start("edit", clip, *overrides, "--until", "edit", before=lambda: signal.signal(signal.SIGINT, ignored))

    def masks_under_way() -> bool:
        partial = list((store.root / "partial").glob("*"))
        return bool(partial) and (store.root / "records" / "optical_flow").is_dir()

    assert wait_for(masks_under_way)
    assert children_of(child.pid)
    os.kill(child.pid, how)
    out, err = child.communicate(timeout=20)
    assert (child.returncode, out) == (130, "")
    assert "E130" in err
    assert "the same command goes on" in err
    assert "Traceback" not in err
    assert wait_for(lambda: not children_of(child.pid), 10)
    assert not list((store.root / "tmp").glob("*"))

    (partial,) = (store.root / "partial").glob("*")
    committed = json.loads(partial.read_text().splitlines()[0])["files"]
    assert 1 <= len(committed) < 5
    watch = Watch()
    resumed = job.edit(str(clip), overrides, until="edit", runner=Local(store, watch), folder=tmp_path / "out")
    assert [o.status for o in resumed.outcomes] == ["cached", "cached", "ran", "ran", "ran"]
    assert watch.heard["masks"][0] == len(committed) + 1

    if how == signal.SIGINT:  # and nothing differs from a run that nobody stopped
        whole = graph.edit_graph(Local(Store(tmp_path / "other")), open_clip(str(clip)), settings(overrides), "edit")
        assert {k: v.digest for k, v in whole.items()} == {k: v.digest for k, v in resumed.made.items()}


def test_ctrl_c_with_json_is_an_object_too(given, tmp_path):
    shell = Shell(tmp_path)
    words = ("edit", "sprites:drift", "--until", "frames", "--json")
    child = shell.start(*words, before=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    assert wait_for(lambda: list((tmp_path / "store").rglob("*.lock")))
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=20)
    assert Told(child.returncode, out, err).error["code"] == "E130"
    assert (child.returncode, out) == (130, "")
