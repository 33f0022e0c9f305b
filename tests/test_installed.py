"""The wheel alone, in an environment without the checkout: every front from an empty folder, with one store."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
import yaml
from helpers.command import CHECKOUT, reference

from flows.graph import STAGES

CARRIED = ("retake", "flows", "tasks", "params", ".dvc")
SMALL = ("frames.last=2", "frames.short_side=96", "report.tile=64")
BOX = [50, 44, 142, 136]  # of the object of sprites:drift


class Environment:
    """A virtual environment with the wheel, a home, and a folder in which commands are typed. The libraries are those
    of this environment, whose folder is put on the path as it stands: its own link to the checkout is not followed."""

    def __init__(self, home: Path, wheel: Path) -> None:
        self.home, self.folder, self.bin = home / "home", home / "anywhere", home / "venv" / "bin"
        for folder in (self.home, self.folder):
            folder.mkdir()
        venv.create(home / "venv", symlinks=True)
        python, own = str(self.bin / "python"), "import sysconfig; print(sysconfig.get_path('purelib'))"
        found = subprocess.run([python, "-c", own], capture_output=True, text=True, check=True).stdout.strip()
        Path(found, "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
        pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-index", "--no-deps"]
        subprocess.run([*pip, "--no-compile", "--ignore-installed", str(wheel)], check=True)
        (self.bin / "dvc").write_text(f"#!{python}\nfrom dvc.cli import main\nraise SystemExit(main())\n")
        (self.bin / "dvc").chmod(0o755)
        self.environment = {
            "PATH": os.pathsep.join([str(self.bin), "/usr/bin", "/bin"]),
            "HOME": str(self.home),
            "OMP_NUM_THREADS": "1",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        }

    def __call__(self, *words: str) -> str:
        """What a command prints; what it says besides, too, unless that is to be read by a program."""
        done = subprocess.run(words, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=250)
        assert done.returncode == 0, f"{words}:\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        return done.stdout + ("" if "--json" in words else done.stderr)

    def edit(self) -> set[tuple[str, str]]:
        """Edit the clip: status and key of every stage."""
        box = ",".join(map(str, BOX))
        command = ("retake", "edit", "sprites:drift", "--box", box, "edit.reference=cat.png", *SMALL, "--json")
        done = json.loads(self(*command))
        assert done["outputs"]["report"].startswith(str(self.folder / "artifacts" / "edits"))
        return {(stage["status"], stage["key"]) for stage in done["stages"]}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built in a copy, since a build leaves traces."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in CARRIED:
        unwanted = shutil.ignore_patterns("__pycache__", "cache", "tmp", "config.local")
        shutil.copytree(CHECKOUT / name, source / name, ignore=unwanted)
    for path in CHECKOUT.glob("*"):
        if path.is_file():
            shutil.copy(path, source)
    build = "from setuptools import build_meta; import sys; build_meta.build_wheel(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", build, str(built)], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return next(built.glob("retake-*.whl"))


def test_every_front_works_from_the_wheel_alone_with_one_store(tmp_path, wheel, prefect_database):
    run = Environment(tmp_path, wheel)
    (run.home / ".prefect").mkdir()
    shutil.copy(prefect_database, run.home / ".prefect")  # for the server that the flow below starts
    reference(run.folder / "cat.png")
    where = run("python", "-c", "import retake.installed as it; print(it.CODE)").strip()
    assert where.startswith(str(tmp_path / "venv"))

    # In an empty folder, which is no project: results stand there, what is stored in the home.
    first = run.edit()
    assert {status for status, _ in first} == {"ran"}
    assert [path.name for path in run.home.rglob("records")] == ["records"]
    assert (run.home / ".cache" / "retake" / "retake" / "records").is_dir()
    assert {path.name for path in run.folder.iterdir()} == {"artifacts", "cat.png"}

    # A project of it, with a dataset of its own.
    made = json.loads(run("retake", "init", "--json"))
    assert (made["new"], made["git"], made["dvc"]) == (True, "initialised", "initialised")
    for name in made["written"]:
        text = (run.folder / name).read_bytes().decode(errors="replace")
        assert not any(place in text for place in (str(tmp_path), str(CHECKOUT), sys.prefix)), name
    clips = [{"id": "drift", "clip": "sprites:drift", "settings": {"masks": {"box": BOX}}}]
    edits = [{"id": "cat", "settings": {"edit": {"reference": "cat.png"}}}]
    sample = yaml.safe_load((run.folder / "params/dataset/sprites.yaml").read_text())
    mine = yaml.safe_dump(sample | {"clips": clips, "edits": edits})
    (run.folder / "params/dataset/mine.yaml").write_text(mine)
    run("retake", "params", "dataset=mine", *SMALL)

    # The command line, DVC and the dataset as a Prefect flow find what the first edit made; then DVC has nothing to do.
    assert run.edit() == {("cached", key) for _, key in first}
    repro = run("dvc", "repro")
    assert repro.count("Running stage") == len(STAGES)
    ran = {line.split()[0] for line in repro.splitlines() if line.split()[1:2] == ["ran"]}
    assert ran <= {"report"}  # of what there is after a prior
    told = run("retake", "dataset", "runner=prefect", "--json")
    done = json.loads(next(line for line in told.splitlines() if line.startswith('{"dataset"')))
    assert (done["counts"], done["stages"]) == ({"cached": 1}, {"cached": len(first)})
    again = run("dvc", "repro")
    assert again.count("didn't change, skipping") == len(STAGES)
    assert "Running stage" not in again
