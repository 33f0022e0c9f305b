"""`retake init`: a project of one's own, and settings of one's own over the shipped ones."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from helpers.checkouts import copied
from helpers.command import CHECKOUT, Child, Shell, sprite_clip

from flows import graph
from flows.upkeep import project
from retake.errors import RetakeError

FILES = {"dvc.yaml", "params.yaml", "versions.yaml", "prefect.yaml", "params/config.yaml", ".gitignore"}


def tree(folder: Path) -> dict[str, bytes]:
    """Content of every file but git's, by its path in the folder."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".git" not in path.relative_to(folder).parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def made(tmp_path) -> Path:
    project.make(tmp_path / "mine", git=False)
    return tmp_path / "mine"


def test_a_project_is_made_once_and_completed_afterwards(tmp_path):
    shell, folder = Shell(tmp_path), tmp_path / "deep" / "mine"
    first = shell("init", folder, "--json").data
    assert (first["new"], first["git"], first["dvc"], first["left"]) == (True, "initialised", "initialised", [])
    assert FILES <= set(first["written"]) == set(tree(folder))
    assert (folder / ".git" / "HEAD").exists()
    before = tree(folder)
    again = shell("init", folder)
    assert "was one already" in again.out
    assert tree(folder) == before
    (folder / "prefect.yaml").unlink()
    (folder / "versions.yaml").write_text("stages: {frames: frames@1}\n")
    (folder / "params.yaml").write_text("mine: true\n")
    third = shell("init", folder, "--json").data
    assert (third["new"], third["written"], third["refreshed"]) == (False, ["prefect.yaml"], ["versions.yaml"])
    assert tree(folder) == before | {"params.yaml": b"mine: true\n"}


def test_what_a_folder_holds_stays(tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    own = {".gitignore": "*.mp4\n", "notes.txt": "", "params/dataset/mine.yaml": "", ".dvc/config": "[core]\n"}
    for name, text in own.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    done = project.make(tmp_path)
    assert (done["git"], done["dvc"]) == ("found", "found without hydra")
    assert any("dvc config hydra.enabled true" in line for line in project.lines(done))
    assert set(done["left"]) == {".gitignore", ".dvc/config"}
    assert any(line.endswith("/artifacts/ /dvc_plots/ /.venv/") for line in project.lines(done))
    (tmp_path / ".gitignore").write_text(f"{own['.gitignore']}artifacts\n/dvc_plots/\n.venv/\n")
    assert not project.make(tmp_path)["to_ignore"]
    (tmp_path / ".gitignore").write_text(own[".gitignore"])
    held = tree(tmp_path)
    assert {name: held[name].decode() for name in own} == own
    assert set(held) - set(own) == FILES - {".gitignore"}


@pytest.mark.parametrize("name", project.ESSENTIAL)
def test_a_folder_of_another_program_is_refused(tmp_path, name):
    (tmp_path / "theirs" / name).parent.mkdir(parents=True)
    (tmp_path / "theirs" / name).write_text("stages: {train: {cmd: python -m train}}\n")
    before = tree(tmp_path)
    refused = Shell(tmp_path)("init", tmp_path / "theirs", "--json")
    assert (refused.code, refused.error["code"]) == (2, "E236")
    assert name in refused.error["message"]
    assert tree(tmp_path) == before


@pytest.mark.parametrize("words", [["file"], ["file/below"], ["holds"]])
def test_a_file_in_place_of_a_folder_is_refused(tmp_path, words):
    (tmp_path / "file").touch()
    (tmp_path / "holds").mkdir()
    (tmp_path / "holds" / "params").touch()
    before = sorted(tmp_path.rglob("*"))
    assert Shell(tmp_path)("init", tmp_path / words[0], "--json").error["code"] == "E236"
    assert sorted(tmp_path.rglob("*")) == before


def test_without_git_dvc_keeps_the_project_alone(tmp_path, monkeypatch):
    from dvc.repo import Repo

    for how in ("without", "--no-git"):
        with monkeypatch.context() as patch:
            if how == "without":
                patch.setenv("PATH", str(tmp_path / "nothing"))
            done = project.make(tmp_path / how, git=how == "without")
        assert done["git"] == ("not installed" if how == "without" else "off")
        assert not (tmp_path / how / ".gitignore").exists()
        with Repo(str(tmp_path / how)) as repo:
            assert [stage.name for stage in repo.index.stages if hasattr(stage, "name")] == list(graph.STAGES)
    bare = project.make(tmp_path / "bare", git=False, dvc=False)
    assert (bare["dvc"], (tmp_path / "bare" / ".dvc").exists()) == ("off", False)
    assert project.make(tmp_path / "bare", git=False)["dvc"] == "initialised"


def test_an_error_leaves_nothing_behind(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").write_text("#!/bin/sh\necho no >&2\nexit 1\n")
    (tmp_path / "bin" / "git").chmod(0o755)
    (tmp_path / "holds").mkdir()
    (tmp_path / "holds" / ".gitignore").touch()
    before, rename = sorted(tmp_path.rglob("*")), Path.rename
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path / "bin"))
        with pytest.raises(RetakeError, match="E514"):
            project.make(tmp_path / "new" / "project")
    assert sorted(tmp_path.rglob("*")) == before
    for error, code in ((OSError(28, "No space left on device"), "E503"), (KeyboardInterrupt(), None)):

        def full(path: Path, target: Path, error: BaseException = error) -> Path:
            if target.name == "ball.png":
                raise error
            return rename(path, target)

        for name in ("new/project", "holds"):
            with monkeypatch.context() as patch:
                patch.setattr(Path, "rename", full)
                with pytest.raises(RetakeError if code else KeyboardInterrupt, match=code):
                    project.make(tmp_path / name)
            assert sorted(tmp_path.rglob("*")) == before


def test_a_checkout_is_a_project_as_it_is(tmp_path):
    checkout = copied(tmp_path / "checkout")
    (checkout / "dvc.yaml").write_text((CHECKOUT / "dvc.yaml").read_text())
    before = sorted(checkout.rglob("*"))
    done = project.make(checkout)
    assert (done["new"], done["written"]) == (False, [])
    assert sorted(checkout.rglob("*")) == before


def test_its_stages_are_the_shipped_ones_with_versions_in_place_of_code(made, monkeypatch):
    ours = yaml.safe_load((made / "dvc.yaml").read_text())
    shipped = yaml.safe_load((CHECKOUT / "dvc.yaml").read_text())
    stated = yaml.safe_load((made / "versions.yaml").read_text())["stages"]
    assert list(ours["stages"]) == list(stated) == list(graph.STAGES)
    for name, stage in ours["stages"].items():
        assert stage["cmd"] == f"retake stage {name}"
        assert stage["params"][-1] == {"versions.yaml": [f"stages.{name}"]}
        assert all(path.startswith(("artifacts/", "params/")) for path in stage["deps"])
        assert set(stage["deps"]) <= set(shipped["stages"][name]["deps"])
        assert f"{name}@{graph.STAGES[name].version}" in stated[name]
    assert "grabcut@" in stated["masks"]
    assert "warp_error@" in stated["metrics"]
    assert {name: ours[name] for name in ("metrics", "plots")} == {n: shipped[n] for n in ("metrics", "plots")}

    assert project.outdated(made) is None
    monkeypatch.setattr("retake.methods.propagate.VERSION", 99)
    assert project.outdated(made) == ("versions.yaml is of another version of Retake", "Write it: retake init")
    assert project.make(made)["refreshed"] == ["versions.yaml"]
    assert project.outdated(made) is None
    (made / "dvc.yaml").write_text((made / "dvc.yaml").read_text().replace("  depth:\n", "  deep:\n"))
    assert "no stage depth" in (project.outdated(made) or ("",))[0]


def test_settings_of_a_project_are_laid_over_the_shipped_ones(tmp_path, made):
    """In what we compose and in what DVC does, which writes params.yaml."""
    (made / "params" / "edit").mkdir()
    stated = yaml.safe_load((CHECKOUT / "params/edit/propagate.yaml").read_text())
    for name, feather in (("soft", 9.0), ("propagate", 5.0)):
        (made / f"params/edit/{name}.yaml").write_text(yaml.safe_dump(stated | {"feather": feather}))
    shell = Child(tmp_path, made)
    shell.environment["PYTHONPATH"] = str(CHECKOUT)
    written = shell("params", "edit=soft", "frames.last=3")
    assert (written.code, written.err) == (0, "")
    composed = yaml.safe_load((made / "params.yaml").read_text())
    assert (composed["edit"]["feather"], composed["frames"]["last"], "hydra" in composed) == (9.0, 3, False)
    assert shell("params", "--check", "edit=soft", "frames.last=3").code == 0
    assert "E202" in shell("params", "--check").err
    (made / "below").mkdir()
    below = Child(tmp_path, made / "below")
    below.environment["PYTHONPATH"] = str(CHECKOUT)
    assert below("params").code == 0
    assert yaml.safe_load((made / "params.yaml").read_text())["edit"]["feather"] == 5.0
    assert "Did you mean soft?" in below("params", "edit=sofd").err
    assert "Did you mean sdedit?" in below("params", "edit=sdedi").err
    assert below("init", "--json").data["project"] == str(made)
    assert not list((made / "below").iterdir())


def test_a_project_without_dvc_makes_its_dataset(tmp_path):
    project.make(tmp_path / "mine", git=False, dvc=False)
    sprite_clip(tmp_path / "mine" / "clip.mp4", frames=3)
    clip = {"id": "one", "clip": "clip.mp4", "settings": {"masks": {"box": [20, 20, 80, 80]}}}
    edits = [{"id": "ball", "settings": {"edit": {"reference": "params/dataset/ball.png"}}}]
    (tmp_path / "mine" / "params" / "dataset" / "one.yaml").write_text(
        yaml.safe_dump({"clips": [clip], "edits": edits})
    )
    shell = Child(tmp_path, tmp_path / "mine")
    shell.environment["PYTHONPATH"] = str(CHECKOUT)
    done = shell("dataset", "dataset=one", "report.tile=64")
    assert done.code == 0, done.err
    assert "DVC is not set up here" in done.err
    assert (tmp_path / "mine" / "artifacts" / "report").is_dir()
    assert not (tmp_path / "mine" / ".dvc").exists()
    assert shell("push", "--json").error["code"] == "E217"
    assert "retake init" in shell("push").err
