"""Finding weights on this machine. Nothing here downloads, and nothing imports torch.

A reference is the value in the settings: a name of the catalogue (`raft_large`), a local file or folder
(`/models/sam2`), or a hub repository with an optional revision (`org/repo`, `org/repo@1a2b3c4`). Weights that other
tools fetched are found: files in torch's cache (TORCH_HOME), repositories in the hub's (HF_HOME, HF_HUB_CACHE). Small
models that ship with Retake are next to this file.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from retake.errors import ConfigError, MachineError, did_you_mean
from retake.installed import IN_WHEEL
from retake.weights.catalogue import CATALOGUE, Hub, Shipped, Url, Weights

NAME = re.compile(r"\w[\w.-]*", re.ASCII)  # one component of a path: an organisation, a repository, a commit
REVISION = re.compile(rf"{NAME.pattern}(?:/{NAME.pattern})*", re.ASCII)  # a branch may hold slashes
ROLES = ("unet", "transformer", "vae", "text_encoder", "image_encoder", "motion_adapter", "reference_unet")
ROLES += ("image_projection", "depth_guider", "motion_reference")  # that have weights
REPO = re.compile(rf"({NAME.pattern}/{NAME.pattern})(?:@({REVISION.pattern}))?", re.ASCII)
LONGEST = 200  # characters of a hub reference: its parts name folders of the cache
ABSENT = "absent"


def catalogue_entry(reference: str) -> Weights:
    """The catalogue's entry, or a made-up one for a hub repository that it does not list.

    Raises ConfigError E250 for anything but a name of the catalogue or org/repo.
    """
    if reference in CATALOGUE:
        return CATALOGUE[reference]
    if len(reference) <= LONGEST and ".." not in reference and (match := REPO.fullmatch(reference)):
        return Weights(reference, Hub(match[1], match[2] or "main"), 0, "see its model card", "")
    raise ConfigError(
        "E250",
        f"there are no weights {reference!r}",
        f"{did_you_mean(reference, sorted(CATALOGUE))} A local file or folder, or org/repo, will do too.",
    )


def ships(reference: str) -> bool:
    """Whether a reference names weights that ship with Retake."""
    return reference in CATALOGUE and isinstance(CATALOGUE[reference].source, Shipped)


def local_path(reference: str) -> Path | None:
    """The path of a reference that is a local file or folder, else None. Names of the catalogue are never paths, even
    if the working directory has such a file; devices and pipes are excluded."""
    path = os.path.expanduser(reference)
    there = path and (os.path.isfile(path) or os.path.isdir(path))
    return Path(path) if reference not in CATALOGUE and there else None


def locate(reference: str) -> Path | None:
    """The file or folder of complete weights on this machine, else None. Raises as `catalogue_entry`."""
    if (path := local_path(reference)) is not None:
        return path
    source = catalogue_entry(reference).source
    if isinstance(source, Shipped):
        return source.path if is_complete(source.path) else None
    if isinstance(source, Url):
        path = torch_cache() / source.file
        return path if path.is_file() else None
    folder = snapshot(source)
    if folder is None:
        return None
    if source.file:
        return folder / source.file if (folder / source.file).is_file() else None
    return folder if is_complete(folder) else None


def is_complete(folder: Path) -> bool:
    """Whether a folder holds weights and every shard of their index (an interrupted download lacks some); in a
    diffusers pipeline (model_index.json), whether every component does."""
    if (folder / "model_index.json").is_file():
        return all(is_complete(folder / role) for role in components(folder))
    for kind in ("safetensors", "bin"):
        if any(file.is_file() for file in folder.glob(f"*.{kind}")):
            return all((folder / shard).is_file() for shard in shards(folder, kind))
    return False


def components(folder: Path) -> list[str]:
    """Folder names of a pipeline's networks; for an unreadable index, its own file name."""
    try:
        index = json.loads((folder / "model_index.json").read_text())
        return [role for role in ROLES if any(index.get(role) or ())]
    except (ValueError, TypeError, AttributeError, OSError, RecursionError):
        return ["model_index.json"]


def shards(folder: Path, kind: str) -> set[str]:
    """Shard files named by the index of a repository's weights; for an unreadable index, a name that does not exist."""
    found: set[str] = set()
    for index in folder.glob(f"*.{kind}.index.json"):
        try:
            found |= set(json.loads(index.read_text())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError):
            found.add(f"{index.name} that can be read")
    return found


def require(reference: str) -> Path:
    """Like `locate`, but raises MachineError E302, with the command that downloads the weights, if they are missing."""
    if (path := locate(reference)) is not None:
        return path
    raise missing_error([reference])


def require_all(references: Sequence[str]) -> None:
    """Raises one MachineError E302 for all weights that are missing, and what `catalogue_entry` raises."""
    if missing := [reference for reference in references if locate(reference) is None]:
        raise missing_error(missing)


def missing_error(references: Sequence[str]) -> MachineError:
    """`the weights raft_large (21 MB, BSD-3-Clause) are not on this machine`, with the command that downloads them."""
    named = ", ".join(map(size_and_licence, references))
    it = "it" if len(references) == 1 else "them"
    return MachineError(
        "E302", f"the weights {named} are not on this machine", f"Get {it}: {fetch_command(references)}"
    )


def size_and_licence(reference: str) -> str:
    """`raft_large (21 MB, BSD-3-Clause)`."""
    entry = catalogue_entry(reference)
    size = f"{entry.megabytes:.0f} MB, " if entry.megabytes else ""
    return f"{reference} ({size}{entry.licence})"


def fetch_command(references: Sequence[str]) -> str:
    """The command that gets some weights."""
    shipped = [one for one in references if ships(one)]
    again = "pip install --force-reinstall --no-deps retake" if IN_WHEEL else "git checkout -- retake/weights"
    fetched = [one for one in references if one not in shipped]
    return " && ".join([again] * bool(shipped) + [" ".join(["retake weights", *fetched])] * bool(fetched))


def identity(reference: str, digest_of: Callable[[Path], str]) -> str:
    """The part of a cache key: `org/repo@commit`, or the content digest of a file or folder by `digest_of` (as
    Store.source_digest does). Raises MachineError E302."""
    path = require(reference)
    if local_path(reference) is None:
        source = catalogue_entry(reference).source
        if isinstance(source, Hub):
            return f"{source.repo}@{commit_of(source, path)}" + (f"/{source.file}" if source.file else "")
    return f"sha256:{digest_of(path)}"


def identity_or_absent(reference: str, digest_of: Callable[[Path], str]) -> str:
    """`identity`, or "absent" for weights that are not here, for stages that report this instead of failing."""
    return identity(reference, digest_of) if locate(reference) is not None else ABSENT


def snapshot(source: Hub) -> Path | None:
    """The snapshot folder of a revision in the hub's cache, or None."""
    repo = repository_folder(source, hub_cache())
    commit = resolve_revision(repo, source.revision)
    folder = repo / "snapshots" / commit
    return folder if NAME.fullmatch(commit) and folder.is_dir() else None


def repository_folder(source: Hub, cache: Path) -> Path:
    """Folder of a repository in the hub's cache."""
    return cache / f"models--{source.repo.replace('/', '--')}"


def resolve_revision(repo: Path, revision: str) -> str:
    """The commit that a branch or tag points to in the cache, else the revision itself."""
    ref = repo / "refs" / revision
    commit = ref.read_text(encoding="utf-8", errors="replace").strip() if ref.is_file() else ""
    return commit if NAME.fullmatch(commit) and len(commit) <= LONGEST else revision


def commit_of(source: Hub, path: Path) -> str:
    """The commit to which a path, as `locate` found it, belongs: the name of the folder that holds the repository."""
    within = len(Path(source.file or "").parts)
    return (path, *path.parents)[within].name


def hub_cache() -> Path:
    """Where huggingface_hub keeps repositories: HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME/hub or
    ~/.cache/huggingface/hub."""
    if chosen := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(chosen).expanduser()
    home = os.environ.get("HF_HOME") or Path(_cache_home()) / "huggingface"
    return Path(home).expanduser() / "hub"


def torch_cache() -> Path:
    """Where torch.hub keeps checkpoints: TORCH_HOME/hub/checkpoints or ~/.cache/torch/hub/checkpoints."""
    home = os.environ.get("TORCH_HOME") or Path(_cache_home()) / "torch"
    return Path(home).expanduser() / "hub" / "checkpoints"


def _cache_home() -> str:
    return os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
