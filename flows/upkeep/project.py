"""A project of one's own: what `retake init` writes into a folder, and whether that fits the installed version.

    dvc.yaml        the stages of the shipped one, which depend on versions.yaml in place of Retake's code
    versions.yaml   versions of the stages and of what they call
    params.yaml     the composed settings; params/ holds what is laid over the shipped ones, and a sample dataset
    prefect.yaml    the shipped deployments
    .dvc/           DVC's settings; with .git and .gitignore where they are wanted

What is there stays as it is, but for versions.yaml, which is no person's.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from flows import graph
from flows.places import CODE, is_project
from flows.settings.choice import label
from flows.settings.plain_yaml import read_yaml
from retake.checkout import find_checkout
from retake.errors import ConfigError, MachineError
from retake.formats import VERSION
from retake.lookup import lookup, names
from retake.machine.disk import explain_write_errors, write_atomic
from tasks import masks

# A project cannot do with those of another program. The first is written first: from then on the folder is a project,
# which the same command completes.
ESSENTIAL = ("dvc.yaml", "dvc.lock", "params.yaml", "versions.yaml", "prefect.yaml", "params/config.yaml")
SAMPLE = ("params/dataset/sprites.yaml", "params/dataset/ball.png")
OF_DVC = (".dvc/config", ".dvc/.gitignore")
IGNORED = "/artifacts/\n/dvc_plots/\n/.venv/\n"
STAGES = "# Every stage of Retake over the whole dataset of params.yaml, for `dvc repro`. Written by `retake init`.\n"
VERSIONS = "# What makes results, by stage: DVC runs a stage again when this changes. After an upgrade: retake init\n"
CONFIG = """\
# The settings of this project. A file params/GROUP/NAME.yaml here counts before the shipped one of that name; `retake
# doctor` says where those are. `retake params` writes the composed snapshot, params.yaml, that DVC reads.
{defaults}
hydra:
  searchpath:
    - pkg://retake.installed.params  # the shipped settings, wherever Retake is installed
"""

GIT = {
    "initialised": "initialised; `dvc exp run` wants a first commit: git add . && git commit -m start",
    "found": "this folder is in a repository already",
    "off": "left out",
    "not installed": "not installed, and `dvc exp run` needs it",
}
DVC = {
    "initialised": "initialised",
    "found": "set up already",
    "found without hydra": "set up already; `dvc exp run -S` wants: dvc config hydra.enabled true; "
    "dvc config hydra.config_dir params",
    "off": "left out, and `dvc repro` needs it: retake init",
}


def make(folder: Path, git: bool = True, dvc: bool = True) -> dict[str, Any]:
    """Make a project of a folder, or complete one: all that is missing is written or, on any error, nothing.

    git, dvc: set them up where the folder is in no git repository, or not one of DVC. Returns what `retake init --json`
    prints. Raises ConfigError E236 for a folder with files of another program under the names of a project's,
    MachineError E514 where git fails, and E502, E503 or E505 where nothing can be written.
    """
    folder = Path(os.path.abspath(folder))
    done: dict[str, Any] = {"project": str(folder), "new": not is_project(folder)}
    if find_checkout(folder) == folder:
        return done | {
            "written": [],
            "refreshed": [],
            "left": ["all of it: a checkout of Retake"],
            "git": "",
            "dvc": "",
        }
    refuse_foreign(folder, done["new"])
    repository = any((above / ".git").exists() for above in (folder, *folder.parents))
    installed, kept_by_dvc = shutil.which("git") is not None, (folder / ".dvc").exists()
    done["git"] = "found" if repository else "off" if not git else "initialised" if installed else "not installed"
    done["dvc"] = has_dvc(folder) if kept_by_dvc else "initialised" if dvc else "off"
    files = contents(scm=done["git"] in ("found", "initialised"))
    unwanted = OF_DVC if done["dvc"] != "initialised" else ()
    unwanted += SAMPLE if (folder / "params" / "dataset").exists() else ()
    missing = {n: text for n, text in files.items() if n not in unwanted and not os.path.lexists(folder / n)}
    place(folder, missing, done["git"] == "initialised")
    old = [name for name in ("versions.yaml",) if (folder / name).read_bytes() != files[name]]
    with explain_write_errors(folder):
        for name in old:
            write_atomic(folder / name, files[name].decode())
    left = [name for name in files if name not in (*missing, *old) and (folder / name).exists()]
    done |= {"written": list(missing), "refreshed": old, "left": left}
    if ".gitignore" in left:
        theirs = (folder / ".gitignore").read_text(encoding="utf-8", errors="replace").splitlines()
        ignored = {line.strip("/ ") for line in theirs}
        done["to_ignore"] = [line for line in IGNORED.split() if line.strip("/") not in ignored]
    return done


def has_dvc(folder: Path) -> str:
    """Whether the DVC that a folder has composes settings for `dvc exp run -S`."""
    stated = configparser.ConfigParser(strict=False, interpolation=None)
    with contextlib.suppress(OSError, ValueError, configparser.Error):
        stated.read([folder / ".dvc" / "config", folder / ".dvc" / "config.local"], encoding="utf-8")
        if stated.getboolean("hydra", "enabled", fallback=False):
            return "found"
    return "found without hydra"


def refuse_foreign(folder: Path, new: bool) -> None:
    """Raises ConfigError E236."""
    hint = "Choose another folder: retake init FOLDER"
    for path in (*(above for above in (folder, *folder.parents)), *(folder / name for name in ("params", ".dvc"))):
        if os.path.lexists(path) and not path.is_dir():
            raise ConfigError("E236", f"{path} is no folder", hint)
    if new and (theirs := [name for name in ESSENTIAL if os.path.lexists(folder / name)]):
        what = f"{folder} holds {', '.join(theirs)} of another program, and nothing was written"
        raise ConfigError("E236", what, hint)


def contents(scm: bool) -> dict[str, bytes]:
    """The files of a project by name; scm: whether git keeps it."""
    shipped = {name: (CODE / name).read_bytes() for name in ("params.yaml", "prefect.yaml", *SAMPLE, *OF_DVC)}
    config = (CODE / "params" / "config.yaml").read_text()
    if not scm:
        shipped[".dvc/config"] = shipped[".dvc/config"].replace(b"[core]\n", b"[core]\n    no_scm = true\n")
    return {
        "dvc.yaml": stages().encode(),
        "versions.yaml": versions().encode(),
        "params/config.yaml": CONFIG.format(defaults=config[config.index("defaults:") :]).encode(),
        **shipped,
        **({".gitignore": IGNORED.encode()} if scm else {}),
    }


def stages() -> str:
    """The dvc.yaml of a project: the shipped one, in which versions.yaml stands for the code."""
    pipeline = yaml.safe_load((CODE / "dvc.yaml").read_text())
    for name, stage in pipeline["stages"].items():
        stage["cmd"] = f"retake stage {name}"
        stage["deps"] = [path for path in stage["deps"] if not path.startswith(("tasks/", "retake/"))]
        stage["params"].append({"versions.yaml": [f"stages.{name}"]})
    return STAGES + yaml.safe_dump(pipeline, sort_keys=False)


def versions() -> str:
    """The versions.yaml of a project: those of each stage, of its format, and of all that its settings can choose."""
    found = {}
    for name, stage in graph.STAGES.items():
        parts = [stage, masks.stage_correction] if name == "masks" else [stage]
        package = "metrics" if name == "metrics" else stage.group
        choices = [label(lookup(package, choice)) for choice in names(package)] if package else []
        own = [f"{part.name}@{part.version}" for part in parts]
        found[name] = ", ".join([*own, f"format@{VERSION[stage.makes]}", *choices])
    return VERSIONS + yaml.safe_dump({"stages": found}, sort_keys=False, width=200)


def place(folder: Path, files: Mapping[str, bytes], begin_git: bool) -> None:
    """Put files, none of which is there, into a folder, all of them or none; then start a git repository in it."""
    made: list[Path] = []
    try:
        with explain_write_errors(folder):
            make_folder(folder, made)
            with tempfile.TemporaryDirectory(prefix=".retake-init-", dir=folder) as temporary:
                staged = {Path(temporary) / str(n): folder / name for n, name in enumerate(files)}
                for path, text in zip(staged, files.values(), strict=True):
                    path.write_bytes(text)
                if begin_git:
                    start_git(Path(temporary))
                for path, target in staged.items():
                    make_folder(target.parent, made)
                    made.append(path.rename(target))
                if begin_git:
                    (Path(temporary) / ".git").rename(folder / ".git")
    except BaseException:
        for path in reversed(made):
            with contextlib.suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()
        raise


def make_folder(folder: Path, made: list[Path]) -> None:
    """Make a folder and those above it; `made` takes down which were not there."""
    if not folder.is_dir():
        make_folder(folder.parent, made)
        folder.mkdir()
        made.append(folder)


def start_git(folder: Path) -> None:
    """Raises MachineError E514."""
    done = subprocess.run(["git", "init", "--quiet", "."], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        why = " ".join(done.stderr.split())[:200]
        raise MachineError("E514", f"git init failed: {why}", "Leave git out: retake init --no-git")


def outdated(folder: Path) -> tuple[str, str] | None:
    """What of a project does not fit the installed version, and what to type."""
    lacking = [name for name in graph.STAGES if name not in (read_yaml(folder / "dvc.yaml").get("stages") or {})]
    if lacking:
        return f"dvc.yaml has no stage {', '.join(lacking)}", "Move it elsewhere, then: retake init"
    path = folder / "versions.yaml"
    if not path.is_file() or path.read_text() != versions():
        return "versions.yaml is of another version of Retake", "Write it: retake init"
    return None


def lines(done: Mapping[str, Any]) -> list[str]:
    """What was done, for a person."""
    folder = done["project"]
    said = [f"project    {folder}" if done["new"] else f"project    {folder} was one already"]
    for what in ("written", "refreshed", "left"):
        said += [f"{what:11}{', '.join(done[what])}" + " (as they are)" * (what == "left")] if done[what] else []
    if done.get("to_ignore"):
        said.append(f"to do      add to .gitignore, or git takes results for yours: {' '.join(done['to_ignore'])}")
    said += [f"git        {GIT[done['git']]}", f"DVC        {DVC[done['dvc']]}"] if done["git"] else []
    if done["new"]:
        said.append(
            "next       retake edit CLIP --box x0,y0,x1,y1 edit.reference=PICTURE, or the sample dataset: dvc repro"
        )
    return said
