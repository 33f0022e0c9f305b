"""The one room that knows DVC. Everything here is undocumented on DVC's side and held by contract tests.

`cache_dir` reads DVC's settings files itself, because importing DVC costs more than a cached edit.
"""

from __future__ import annotations

import configparser
import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from retake.artifact import File
from retake.errors import ConfigError, MachineError
from retake.store import Store
from retake.store.remote import Remote


def cache_dir(project: Path, default: Path | None = None) -> Path:
    """The folder that holds `retake/`: RETAKE_STORE, else DVC's `cache.dir` of this project; where that is not set, the
    default, which is DVC's own unless another is given."""
    if chosen := os.environ.get("RETAKE_STORE"):
        return Path(chosen).expanduser().absolute()
    found = default or project / ".dvc" / "cache"
    for path in _settings_files(project):
        parser = configparser.ConfigParser(strict=False, interpolation=None)
        with contextlib.suppress(OSError, configparser.Error):
            parser.read(path)
            if value := parser.get("cache", "dir", fallback=None):
                # DVC resolves a relative path against the folder of the file that states it.
                found = Path(os.path.normpath(path.parent / Path(value).expanduser()))
    return found.absolute()


def _settings_files(project: Path) -> list[Path]:
    """DVC's levels, weakest first: system, global, repository, local."""
    config_home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    global_dir = Path(os.environ.get("DVC_GLOBAL_CONFIG_DIR") or config_home / "dvc")
    system_dir = Path(os.environ.get("DVC_SYSTEM_CONFIG_DIR") or "/etc/xdg/dvc")
    own = project / ".dvc"
    return [system_dir / "config", global_dir / "config", own / "config", own / "config.local"]


def is_set_up(project: Path) -> bool:
    """Whether DVC keeps this project."""
    return (project / ".dvc").is_dir()


def compose(project: Path, overrides: list[str], output: str = "params.yaml") -> None:
    """Write the composed settings as DVC itself does for `dvc exp run -S`. Raises ConfigError E207."""
    if not (project / "params" / "config.yaml").is_file():
        raise ConfigError("E207", "there is no params/config.yaml for DVC to compose", "Write it again: retake init")
    from dvc.exceptions import DvcException
    from dvc.utils.hydra import compose_and_dump

    try:
        compose_and_dump(project / output, str(project / "params"), None, "config", str(project / "params"), overrides)
    except DvcException as error:
        raise ConfigError("E207", f"DVC cannot compose the settings: {error}", "See `retake params --help`.") from error


def remote(project: Path, name: str | None = None) -> Remote:
    """A remote that DVC knows, or its default one. Raises ConfigError E217 where there is none of that name."""
    if not is_set_up(project):
        raise ConfigError("E217", f"DVC is not set up in {project}, so there is no remote", "Set it up: retake init")
    from dvc.config import NoRemoteError, RemoteConfigError, RemoteNotFoundError
    from dvc.repo import Repo
    from dvc.scm import SCMError

    try:
        with Repo(str(project)) as repo:
            found = repo.cloud.get_remote(name)
            return Remote(found.fs, found.fs.join(found.path, "retake"))
    except (NoRemoteError, RemoteNotFoundError, RemoteConfigError, SCMError) as error:
        hint = "Add one: dvc remote add -d NAME PATH_OR_URL   (dvc remote list shows those that there are)"
        raise ConfigError("E217", f"DVC has no such remote: {str(error).partition('. ')[0]}", hint) from error


def seed(project: Path, store: Store, files: Iterable[File]) -> int:
    """Hard-link stored objects to their place in DVC's cache, so that committing them copies nothing. They have just
    been handed out, and so verified.

    Returns how many links were made. Where links cannot reach (another file system), DVC copies when it commits.
    """
    made, home = 0, cache_dir_of_dvc(project) / "files" / "md5"
    for file in files if is_set_up(project) else ():
        target = home / file.md5[:2] / file.md5[2:]
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):
            os.link(store.object_path(file.sha256), target)
            made += 1
    return made


def held(project: Path, lock: Mapping[str, Any]) -> set[str]:
    """md5 of every file in the outs that a dvc.lock records, as far as DVC's cache says what their folders hold."""
    found: set[str] = set()
    home = cache_dir_of_dvc(project) / "files" / "md5"
    for stage in (lock.get("stages") or {}).values():
        for out in stage.get("outs", ()):
            md5 = str(out.get("md5", ""))
            if not md5.endswith(".dir"):
                found.add(md5)
                continue
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                found |= {entry["md5"] for entry in json.loads((home / md5[:2] / md5[2:]).read_text())}
    return found


def cache_dir_of_dvc(project: Path) -> Path:
    """DVC's own cache folder, whatever RETAKE_STORE says."""
    saved = os.environ.pop("RETAKE_STORE", None)
    try:
        return cache_dir(project)
    finally:
        if saved is not None:
            os.environ["RETAKE_STORE"] = saved


def commit_stages(project: Path, names: list[str]) -> None:
    """Record stages whose outs were made elsewhere, as if `dvc repro` had run them: dvc.lock and the cache.

    Raises MachineError E510 when DVC refuses (it is locked, or dvc.yaml has no such stage).
    """
    if not names:
        return
    with _repo(project) as repo, repo.lock:
        path = str(project / "dvc.yaml")  # not one of the caller's folder
        stages = [repo.stage.load_one(path=path, name=name) for name in names]
        for stage in stages:
            stage.save()
            stage.commit()
        # At once: reading and writing dvc.lock, comments and all, takes longer than what it records.
        stages[0].dvcfile.dump_stages(stages, update_pipeline=False)


@contextlib.contextmanager
def _repo(project: Path) -> Any:
    import logging

    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    logger = logging.getLogger("dvc")
    level = logger.level
    logger.setLevel(logging.WARNING)  # one line a stage about its own lock file helps nobody here
    try:
        with Repo(str(project)) as repo:
            yield repo
    except DvcException as error:
        raise MachineError(
            "E510", f"DVC: {error}", "Is another `dvc` running in this project? Try again, or run `dvc doctor`."
        ) from error
    finally:
        logger.setLevel(level)
