"""DVC and Retake on one cache, both ways, in a fresh copy of the checkout with the real `dvc` commands."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
SMALL = ["frames.last=3", "frames.short_side=96", "report.tile=64"]
BEFORE = [
    "frames",
    "optical_flow",
    "depth",
    "masks",
    "region",
    "tracks",
    "edited_tracks",
    "latents",
    "inversion",
    "motion_channels",
]
STAGES = [*BEFORE, "edit", "decode", "metrics", "report"]


class Copy:
    """A checkout of its own, with its own cache: what git tracks here, committed anew, or a clone of another."""

    def __init__(self, folder: Path, of: Copy | None = None) -> None:
        self.folder = folder
        if of is not None:
            self.environment = of.environment | {"PYTHONPATH": str(folder), "HOME": str(folder / ".home")}
            self.run("git", "clone", "-q", str(of.folder), ".")
            self.copy(".py")
            return
        self.copy("")
        kept = {k: v for k, v in os.environ.items() if k not in ("RETAKE_STORE", "PREFECT_API_URL")}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        home = {"HOME": str(folder / ".home"), "DVC_NO_ANALYTICS": "true"}
        self.environment = {**kept, **home, "PATH": path, "PYTHONPATH": str(folder)}
        self.run("git", "init", "-q")
        self.run("git", "config", "user.email", "test@example.org")
        self.run("git", "config", "user.name", "test")
        self.commit("start")

    def copy(self, ending: str) -> None:
        """The files of the checkout that end so, and what Python has compiled of them: it counts while the source's
        size and time are the same, and without it every copy would compile the whole program anew."""
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, check=True)
        for name in listed.stdout.decode().split("\0"):
            if name and name.endswith(ending):
                compiled = [importlib.util.cache_from_source(name)] if name.endswith(".py") else []
                for part in filter(lambda part: (CHECKOUT / part).is_file(), [name, *compiled]):
                    (self.folder / part).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(CHECKOUT / part, self.folder / part)

    def run(self, *command: str, code: int = 0, within: str = ".") -> str:
        done = subprocess.run(
            command, cwd=self.folder / within, env=self.environment, capture_output=True, text=True, timeout=280
        )
        assert done.returncode == code, (
            f"{command} gave {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )
        return done.stdout + done.stderr

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "-m", message)

    def compose(self, *overrides: str) -> None:
        self.run(sys.executable, "-m", "flows", "params", *overrides)

    def dataset(self, *overrides: str, runner: str = "prefect") -> dict:
        """The dataset, by default as a flow on a temporary Prefect server; called from a subfolder, as people do."""
        words = ("dataset", "--json", f"runner={runner}", *overrides)
        text = self.run(sys.executable, "-m", "flows", *words, within="docs")
        line = next(row for row in text.splitlines() if row.startswith('{"dataset"'))
        return json.loads(line)


@pytest.fixture(scope="module")
def fresh(prefect_database, tmp_path_factory):
    home = tmp_path_factory.mktemp("prefect")
    shutil.copy(prefect_database, home)

    def make(name: str, of: Copy | None = None) -> Copy:
        copy = Copy(tmp_path_factory.mktemp(name), of)
        copy.environment["PREFECT_HOME"] = str(home)
        return copy

    return make


def digests_of_outs(copy: Copy) -> dict[str, str]:
    found = (copy.folder / "artifacts").glob("*/**/artifact.json")
    return {str(p.parent.relative_to(copy.folder / "artifacts")): json.loads(p.read_text())["digest"] for p in found}


@pytest.fixture(scope="module")
def begun(fresh) -> tuple[Copy, dict]:
    """A checkout whose dataset a Prefect flow has made, and what it said."""
    copy = fresh("prefect-first")
    return copy, copy.dataset(*SMALL)


def test_after_a_prefect_run_dvc_repro_finds_nothing_to_do_and_the_other_way_round(fresh, begun):
    prefect_first, done = begun
    assert done["stages"].keys() == {"ran", "cached"}  # two edits of a clip share its priors
    text = prefect_first.run("dvc", "repro")
    assert text.count("didn't change, skipping") == len(STAGES)
    assert "Running stage" not in text
    ours = {f"{stage}/{place}": d for stage, places in done["artifacts"].items() for place, d in places.items()}
    assert ours == digests_of_outs(prefect_first)

    dvc_first = fresh("dvc-first")
    dvc_first.compose(*SMALL)
    text = dvc_first.run("dvc", "repro")
    assert text.count("Running stage") == len(STAGES)
    again = dvc_first.dataset(*SMALL, runner="local")  # as a Prefect flow behind DVC: test_installed.py
    assert again["stages"].keys() == {"cached"}
    text = dvc_first.run("dvc", "repro")
    assert "Running stage" not in text

    # Same digests through both fronts, made in two separate stores.
    assert again["artifacts"] == done["artifacts"]
    assert digests_of_outs(dvc_first) == digests_of_outs(prefect_first)

    # DVC's cache holds our objects by hard link: one inode, no second copy.
    store = dvc_first.folder / ".dvc" / "cache" / "retake" / "objects"
    tensors = list((dvc_first.folder / "artifacts" / "frames").rglob("*.safetensors"))
    inodes = {p.stat().st_ino for p in store.rglob("*") if p.is_file()}
    assert tensors
    assert all(p.stat().st_ino in inodes for p in tensors)

    # A changed parameter through DVC's experiments re-runs what depends on it; metrics and plots show it.
    dvc_first.commit("done")
    text = dvc_first.run("dvc", "exp", "run", *[a for o in [*SMALL, "edit.strength=0.5"] for a in ("-S", o)])
    skipped = [name for name in STAGES if f"'{name}' didn't change, skipping" in text]
    assert skipped == BEFORE
    scores = json.loads(dvc_first.run("dvc", "metrics", "diff", "--json"))["artifacts/metrics/scores.json"]
    assert scores["drift.ball.warp_error_edit"]["old"] != scores["drift.ball.warp_error_edit"]["new"]
    dvc_first.run("dvc", "plots", "show", "-o", "plots")
    assert "warp_error_edit" in (dvc_first.folder / "plots" / "index.html").read_text()
    assert "edit.strength" in dvc_first.run("dvc", "params", "diff")


def test_a_clone_computes_nothing_after_a_pull(fresh, begun):
    """Neither for Retake nor for DVC, from one remote."""
    prefect_first, done = begun
    prefect_first.run("dvc", "remote", "add", "-d", "shared", str(prefect_first.folder.parent / "shared"))
    prefect_first.commit("made")
    prefect_first.run(sys.executable, "-m", "flows", "push")
    prefect_first.run("dvc", "push")
    second = fresh("second", prefect_first)
    second.run(sys.executable, "-m", "flows", "pull")
    pulled = second.dataset(*SMALL, runner="local")
    assert pulled["stages"].keys() == {"cached"}
    assert pulled["artifacts"] == done["artifacts"]
    third = fresh("third", prefect_first)
    third.run("dvc", "pull")
    assert "Running stage" not in third.run("dvc", "repro")
    assert digests_of_outs(third) == digests_of_outs(second) == digests_of_outs(prefect_first)


def test_the_cache_folder_is_dvcs_own(tmp_path, monkeypatch):
    """`cache_dir` reads DVC's settings itself; it must find what DVC finds."""
    from dvc.repo import Repo

    from retake import dvc

    monkeypatch.delenv("RETAKE_STORE")
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "global"))
    monkeypatch.setenv("DVC_SYSTEM_CONFIG_DIR", str(tmp_path / "system"))
    project = tmp_path / "project"
    project.mkdir()
    Repo.init(str(project), no_scm=True)
    for name, text in [
        ("none", None),
        ("config", "[core]\n    no_scm = true\n[cache]\n    dir = ../elsewhere\n"),
        ("config.local", f"[cache]\n    dir = {tmp_path / 'absolute'}\n"),
    ]:
        if text is not None:
            (project / ".dvc" / name).write_text(text)
        with Repo(str(project)) as repo:
            theirs = Path(repo.cache.local_cache_dir)
        assert dvc.cache_dir(project) == theirs, name
        other = tmp_path / "other"  # counts where DVC's settings say nothing
        assert dvc.cache_dir(project, other) == (other if text is None else theirs), name


def test_params_yaml_is_what_params_composes_to():
    from flows.settings.compose import compose, read_params

    assert read_params() == compose([]), "write it: retake params"


def test_dvc_yaml_names_every_stage_and_the_files_of_its_versions():
    import yaml

    from flows import graph
    from flows.settings.choice import CHOICES

    stages = yaml.safe_load((CHECKOUT / "dvc.yaml").read_text())["stages"]
    assert list(stages) == list(graph.STAGES)
    for name, stage in stages.items():
        assert stage["cmd"] == f"python -m flows stage {name}"
        assert stage["outs"] == [f"artifacts/{name}"]
        files = ["retake/" + CHOICES[name].replace(".", "/")] if name in CHOICES else []
        if name == "metrics":
            files = ["retake/metrics"]  # the folder: a new metric is among them
        for file in [f"tasks/{name}.py", *files]:
            assert file in stage["deps"], f"{name} does not depend on {file}"
