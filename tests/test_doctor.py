"""`retake doctor` on broken installs and poor disks: what is wrong is found, and the fix can be typed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.command import CHECKOUT, Shell
from helpers.small_disk import small_disk


def checks(shell: Shell, *first: Path) -> dict[str, Any]:
    """Checks by name, with folders before everything else on Python's path, as a broken install has them."""
    script = (
        "import json; from pathlib import Path\nfrom flows.upkeep import doctor; from retake.checkout import enter\n"
        f"enter(Path({str(CHECKOUT)!r})); print(json.dumps({{check['name']: check for check in doctor.run()}}))"
    )
    path = ":".join(map(str, (*first, CHECKOUT)))
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=CHECKOUT,
        env=shell.environment | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def module(folder: Path, name: str, text: str) -> Path:
    """A module, with metadata of a version of its own, that stands before the installed one."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(text)
    info = folder / f"{name}-0.0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.0.1\n")
    return folder


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> dict[str, Any]:
    """torchvision of another index than torch, a decord that does not load, a diffusers that nobody tested."""
    home = tmp_path_factory.mktemp("doctor")
    mixed = (
        "__version__ = '0.0.1'\n"
        "class ops:\n"
        "    @staticmethod\n"
        "    def nms(*_):\n"
        "        raise RuntimeError('operator torchvision::nms does not exist')\n"
    )
    module(home / "first", "torchvision", mixed)
    module(home / "first", "decord", "raise ImportError('libavcodec.so.58: cannot open shared object file')\n")
    module(home / "first", "diffusers", "")
    return checks(Shell(home), home / "first")


def test_torch_and_torchvision_that_do_not_fit_are_found_with_the_install_line(broken):
    check = broken["torch"]
    assert check["state"] == "fail"
    assert "nms does not exist" in check["text"]
    assert "0.0.1" in check["text"]
    assert check["fix"].startswith("Install both from one index: pip install --force-reinstall")


def test_a_decoder_that_does_not_load_is_found(broken):
    assert broken["codecs"]["state"] == "warn"
    assert "only PyAV decodes" in broken["codecs"]["text"]
    assert broken["codecs"]["fix"] == "Run: make install"


def test_versions_that_were_not_tested_are_named(broken):
    assert broken["libraries"]["state"] == "warn"
    assert "diffusers 0.0.1, tested with" in broken["libraries"]["text"]


def test_a_small_disk_and_one_that_links_do_not_reach_are_found(tmp_path):
    with small_disk(tmp_path / "store", "4m"):
        found = checks(Shell(tmp_path))
    assert found["disk"]["state"] == "warn"
    assert "RETAKE_STORE" in found["disk"]["fix"]
    assert found["links"]["state"] == "warn"
    assert "copied" in found["links"]["text"]
    assert str(tmp_path / "datasets") in found["links"]["fix"]
    assert {found[name]["state"] for name in ("python", "torch", "codecs", "params")} == {"ok"}
