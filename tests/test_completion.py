"""Completion of settings: what a shell is offered, and that a real one takes it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.command import CHECKOUT

from flows.terminal import completion

BIN = Path(sys.executable).parent


def in_bash(*words: str) -> list[str]:
    """What bash offers for the last word, by the script that `retake --install-completion` installs."""
    script = (
        f'eval "$(_RETAKE_COMPLETE=source_bash retake)"; COMP_WORDS=({" ".join(words)}); '
        f'COMP_CWORD={len(words) - 1}; _retake_completion retake; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None or not (BIN / "retake").exists(), reason="no bash, or not installed")
def test_bash_is_offered_what_stands_behind_the_sign():
    assert {"moca", "moft", "move"} <= set(in_bash("retake", "edit", "dog.mp4", "edit", "=", "mo"))
    assert in_bash("retake", "edit", "dog.mp4", "edit.str") == ["edit.strength=1.0"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("retake edit dog.mp4 edit=", {"edit=moca", "edit=propagate"}),
        ("retake edit dog.mp4 edit=sdedit edit.source=", {"edit.source=inversion", "edit.source=noise"}),
        ("retake edit dog.mp4 edit=sdedit edit.mask=t", {"edit.mask=true"}),
        ("retake plan dog.mp4 metrics.lpips.w", {"metrics.lpips.weights="}),
        ("retake edit dog.mp4 mask", {"masks=sam2", "masks=grabcut"}),
    ],
)
def test_zsh_and_fish_are_offered_whole_words(monkeypatch, line, expected):
    monkeypatch.delenv("COMP_WORDS", raising=False)
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
    found = completion.settings(line.rpartition(" ")[2])
    assert all(any(word.startswith(one) for word in found) for one in expected), found
    assert all(word.startswith(line.rpartition(" ")[2]) for word in found)
    assert not any(" " in word for word in found)


def test_settings_are_those_of_the_choice_on_the_line(monkeypatch):
    monkeypatch.delenv("COMP_WORDS", raising=False)
    for choice, known in (("edit=sdedit ", "edit.guidance=7.5"), ("edit=propagate ", None), ("", None)):
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", f"retake edit dog.mp4 {choice}edit.guid")
        assert completion.settings("edit.guid") == ([known] if known else [])
