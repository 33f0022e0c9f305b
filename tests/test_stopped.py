"""Runs that cannot finish: a disk that is full, and Ctrl-C. What was done stays, and the same command goes on."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from helpers.command import Child, CommandResult, Shell, reference, sprite_clip
from helpers.small_disk import small_disk

from flows.terminal.exits import interrupted, interrupted_in_a_destructor
from retake.stage import Silent

BOX = ("--box", "20,20,80,80")


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("given")
    sprite_clip(home / "good.mp4")
    reference(home / "cat.png")
    return home


# ---- a disk that is full ---------------------------------------------------------------------------------------------


def is_full(result: CommandResult) -> bool:
    told_so = "B free" in result.error["message"] and "run the same command" in result.error["hint"]
    return (result.code, result.error["code"], result.out, told_so) == (5, "E503", "", True)


def test_a_full_disk_stops_the_run_and_room_lets_it_go_on(given, tmp_path):
    shell = Child(tmp_path)
    words = ("edit", given / "good.mp4", *BOX, f"edit.reference={given / 'cat.png'}", "--until", "metrics", "--json")
    with small_disk(tmp_path / "store", "2m"):
        full = shell(*words)
        assert is_full(full), full.err
        assert "RETAKE_STORE" in full.error["hint"]
        assert "MB needed now" in full.error["message"]
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
    shell = Child(tmp_path)
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
            if process.cmdline()[-3:] == ["-m", "retake.video.child", str(pid)]:
                found.append(process)
    return found


def wait_for(what: Callable[[], object], seconds: float = 60) -> object:
    end = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < end:
        time.sleep(0.005)
    return found


class Watch(Silent):
    """Remembers how far each stage said it was."""

    def __init__(self) -> None:
        self.heard: dict[str, list[int]] = {}

    def progress(self, stage: str, done: int, total: int) -> None:
        self.heard.setdefault(stage, []).append(done)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_goes_on_after_its_last_chunk(how, given, tmp_path):
    from flows import graph
    from flows.editing import edit
    from flows.runners import Local
    from flows.settings.compose import settings
    from retake.clip import open_clip
    from retake.formats import CHUNK
    from retake.store import Store

    shell, store = Child(tmp_path), Store(tmp_path / "store" / "retake")
    clip = sprite_clip(tmp_path / "long.mp4", frames=80, size=(320, 192))
    overrides = ["masks.box=[40,40,160,160]", f"edit.reference={given / 'cat.png'}"]
    # A shell that starts a job in the background has it ignore SIGINT; SIGTERM must work even so.
    ignored = signal.SIG_DFL if how == signal.SIGINT else signal.SIG_IGN
    child = shell.start(
        "edit", clip, *overrides, "--until", "edit", before=lambda: signal.signal(signal.SIGINT, ignored)
    )

    def masks_under_way() -> bool:
        flow = {path.name for path in (store.root / "records" / "optical_flow").glob("*")}
        return bool(flow and {path.name for path in (store.root / "partial").glob("*")} - flow)

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
    files = json.loads(partial.read_text().splitlines()[0])["files"]
    committed = [file["name"] for file in files if file["name"][:5].isdigit()]  # beside each stands its state
    assert 1 <= len(committed) < 5
    watch = Watch()
    resumed = edit.edit(str(clip), overrides, until="edit", runner=Local(store, watch), folder=tmp_path / "out")
    assert [o.status for o in resumed.outcomes] == ["cached", "cached", "ran", "ran", "ran", "ran"]
    assert watch.heard["masks"][0] == CHUNK * (len(committed) + 1)

    if how == signal.SIGINT:  # and nothing differs from a run that nobody stopped
        whole = graph.edit_graph(Local(Store(tmp_path / "other")), open_clip(str(clip)), settings(overrides), "edit")
        assert {k: v.digest for k, v in whole.items()} == {k: v.digest for k, v in resumed.made.items()}


def test_ctrl_c_with_json_is_an_object_too(given, tmp_path):
    shell = Child(tmp_path)
    words = ("edit", "sprites:drift", "--box", "50,44,142,136", "--until", "tracks", "--json")
    child = shell.start(*words, before=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    assert wait_for(lambda: list((tmp_path / "store" / "retake" / "records" / "frames").glob("*")))  # flow comes next
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=20)
    assert CommandResult(child.returncode, out, err).error["code"] == "E130"
    assert (child.returncode, out) == (130, "")


@pytest.mark.parametrize("hows", [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGTERM)])
@pytest.mark.parametrize("pause", [0, 0.02, 0.3])
def test_a_second_ctrl_c_ends_it_now_and_harms_nothing(hows, pause, given, tmp_path):
    """Wherever the second one meets it: in the stage, while it is told, while Python shuts down."""
    shell = Child(tmp_path)
    words = ("edit", "sprites:drift", "--box", "50,44,142,136", "--until", "masks")
    child = shell.start(*words, before=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    assert wait_for(lambda: list((tmp_path / "store" / "retake" / "records" / "frames").glob("*")))
    for how in hows:
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(how)
        time.sleep(pause)
    out, err = child.communicate(timeout=20)
    assert (child.returncode, out) == (130, "")
    assert err.count("E130") in (1, 2)  # the first may have told it already
    assert "Traceback" not in err
    assert wait_for(lambda: not children_of(child.pid), 5)
    assert Shell(tmp_path)("verify").code == 0


def test_an_interrupt_that_meets_a_destructor_is_not_lost(monkeypatch, capfd):
    """Python drops what a destructor raises: a Ctrl-C that came there once was printed as "Exception ignored in", and
    the run went on."""

    class Closes:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("the handler raises before this")

    def work() -> None:
        Closes()
        time.sleep(20)

    monkeypatch.setattr(sys, "unraisablehook", interrupted_in_a_destructor)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    signal.signal(signal.SIGINT, interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert "Traceback" not in capfd.readouterr().err


# ---- a store that may only be read, and a server that is gone --------------------------------------------------------


def test_a_store_that_is_read_only_gives_what_it_has_and_refuses_the_rest(given, tmp_path):
    shell = Child(tmp_path)
    words = ("edit", given / "good.mp4", *BOX, "--until", "frames", "--json")
    with small_disk(tmp_path / "store", "16m"):
        assert shell(*words).statuses() == {"frames": "ran"}
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "store")], check=True)
        assert shell(*words).statuses() == {"frames": "cached"}
        result = shell(*words, "frames.last=3")
        assert (result.code, result.error["code"]) == (5, "E502")
        assert "RETAKE_STORE" in result.error["hint"]


def test_without_the_prefect_server_that_is_named_the_edit_runs_here(given, tmp_path):
    shell = Child(tmp_path)
    result = shell("edit", given / "good.mp4", "--until", "frames", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert result.code == 0
    assert "no Prefect server answers" in result.err
