"""`retake verify` and its repair: from the clips that edits were made of, from a DVC remote, or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.command import CHECKOUT, Child, Shell, sprite_clip

from retake.store import Store

WORDS = ("--box", "20,20,80,80", "frames.last=3", "--until", "masks", "--json")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A store with a short edit, and its clip."""
    home = tmp_path_factory.mktemp("made")
    assert Shell(home)("edit", sprite_clip(home / "good.mp4", frames=4), *WORDS).code == 0
    return home


@pytest.fixture
def edited(made, tmp_path) -> tuple[Shell, Path]:
    """A copy of it, and the clip."""
    for name in ("store", "edits"):
        shutil.copytree(made / name, tmp_path / name)
    return Shell(tmp_path), made / "good.mp4"


def hurt(shell: Shell, stage: str, record: bool = False) -> None:
    """Flip a byte of a stage's record, or of its first file, and cut another one's last."""
    store = Store(shell.home / "store" / "retake")
    (found,) = store.records(stage)
    path = store.record_path(stage, found.key) if record else store.object_path(found.artifact.files[0].sha256)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 4
    os.chmod(path, 0o644)
    path.write_bytes(raw)


def test_a_store_that_is_well_says_so(edited):
    shell, _ = edited
    result = shell("verify")
    assert (result.code, result.err) == (0, "")
    assert "all as it was stored" in result.out
    found = shell("verify", "--repair", "--json").data
    assert found["affected"] == [] == found["damaged"] == found["repair"]["left"]


def test_damage_is_named_set_aside_and_made_again_from_the_clip(edited):
    shell, clip = edited
    hurt(shell, "optical_flow")
    hurt(shell, "masks", record=True)
    result = shell("verify")
    assert result.code == 6
    assert "concerns optical_flow" in result.out
    assert "the record of masks" in result.out
    assert "retake verify --repair" in result.out
    mended = shell("verify", "--repair", "--json")
    assert mended.data["repair"] == {"fetched": 0, "made": 2, "left": []}  # the record was set aside by the first call
    assert shell("verify").code == 0
    assert shell("edit", clip, *WORDS).ran() == []


def test_a_record_that_was_set_aside_before_is_told_until_it_is_made_again(edited):
    shell, clip = edited
    hurt(shell, "masks", record=True)
    assert shell("verify").code == 6
    again = shell("verify")
    assert again.code == 0  # the store holds no damage any more
    assert "gone     masks" in again.out
    assert "retake verify --repair" in again.out
    (recipe,) = (shell.home / "edits").glob("*/*/recipe.json")
    whole = recipe.read_text()
    recipe.write_text(whole.replace(clip.name, "gone.mp4"))
    assert shell("verify", "--repair").code == 0  # nobody can make it, and nothing is damaged
    recipe.write_text(whole)
    assert shell("edit", clip, *WORDS).ran() == ["masks"]
    assert "all as it was stored" in shell("verify").out


def test_repair_at_once_counts_objects_and_records(edited):
    shell, clip = edited
    for stage in ("frames", "optical_flow"):
        hurt(shell, stage)
    hurt(shell, "masks", record=True)
    result = shell("verify", "--repair")
    assert result.code == 0
    assert "0 results fetched, 3 made again" in result.out
    assert shell("edit", clip, *WORDS).ran() == []


def test_what_neither_a_clip_nor_a_remote_brings_back_is_left_with_exit_6(edited):
    shell, clip = edited
    hurt(shell, "frames")
    (recipe,) = (shell.home / "edits").glob("*/*/recipe.json")
    recipe.write_text(recipe.read_text().replace(clip.name, "gone.mp4"))
    result = shell("verify", "--repair")
    assert result.code == 6
    assert "left     frames" in result.out
    assert "E400" in result.err
    assert "Traceback" not in result.err


def test_repair_fetches_from_a_remote_where_the_clip_is_gone(tmp_path):
    """In a checkout of its own, since the remote stands in DVC's configuration."""
    checkout = tmp_path / "checkout"
    subprocess.run(["git", "clone", "-q", "--shared", str(CHECKOUT), str(checkout)], check=True)
    for name in ("flows", "retake", "tasks"):  # as they are, not as they were committed
        subprocess.run(["cp", "-r", f"{CHECKOUT}/{name}", str(checkout)], check=True)
    subprocess.run(
        ["dvc", "remote", "add", "-q", "-d", "there", str(tmp_path / "remote")], cwd=checkout, check=True, env=_path()
    )
    shell, clip = Child(tmp_path, checkout), sprite_clip(tmp_path / "good.mp4", frames=4)
    shell.environment["PYTHONPATH"] = str(checkout)
    assert shell("edit", clip, *WORDS).code == 0
    assert shell("push").code == 0
    hurt(shell, "frames")
    hurt(shell, "masks", record=True)
    clip.unlink()
    found = shell("verify", "--repair", "--json").data
    assert found["repair"] == {"fetched": 2, "made": 0, "left": []}
    assert shell("verify").code == 0
    assert shell("verify", "--repair", "--remote", "nowhere").code == 2


def _path() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
