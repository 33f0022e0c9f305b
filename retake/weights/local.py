"""Where weights lie on this machine. Nothing here downloads, and nothing imports torch.

A reference is what stands in the settings: a name of the catalogue (`raft_large`), a local file or folder
(`/models/sam2`), or a hub repository with an optional revision (`org/repo`, `org/repo@1a2b3c4`). Weights that other
tools fetched are found: files in torch's cache (TORCH_HOME), repositories in the hub's (HF_HOME, HF_HUB_CACHE).
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from retake.errors import ConfigError, MachineError, did_you_mean
from retake.store import Store
from retake.weights.catalogue import CATALOGUE, Hub, Url, Weights

REPO = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
ABSENT = "absent"


def describe(reference: str) -> Weights:
    """The catalogue's entry, or one made up for a hub repository that it does not list.

    Raises ConfigError E250 for a text that is neither a name, a path that exists, nor org/repo.
    """
    if reference in CATALOGUE:
        return CATALOGUE[reference]
    if (match := REPO.fullmatch(reference)) and ".." not in reference:
        return Weights(reference, Hub(match[1], match[2] or "main"), 0, "see its model card", "")
    raise ConfigError(
        "E250",
        f"there are no weights {reference!r}",
        f"{did_you_mean(reference, sorted(CATALOGUE))} A local file or folder, or org/repo, will do too.",
    )


def locate(reference: str) -> Path | None:
    """The file or folder of weights that are here, else None. Raises ConfigError E250 as `describe` does."""
    given = Path(reference).expanduser()
    if reference not in CATALOGUE and given.exists():
        return given
    source = describe(reference).source
    if isinstance(source, Url):
        path = torch_cache() / source.file
        return path if path.is_file() else None
    folder = snapshot(source)
    if folder is None:
        return None
    if source.file:
        return folder / source.file if (folder / source.file).is_file() else None
    return folder if whole(folder) else None


def whole(folder: Path) -> bool:
    """Whether a repository's folder holds weights, and every shard that its index names: an interrupted download of
    another tool leaves some of them."""
    for kind in ("safetensors", "bin"):
        if any(file.is_file() for file in folder.glob(f"*.{kind}")):
            return all((folder / shard).is_file() for shard in shards(folder, kind))
    return False


def shards(folder: Path, kind: str) -> set[str]:
    """Files that the index of a repository's weights names; its own name stands for an index that is none."""
    found: set[str] = set()
    for index in folder.glob(f"*.{kind}.index.json"):
        try:
            found |= set(json.loads(index.read_text())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError, OSError):
            found.add(f"{index.name} that can be read")
    return found


def require(reference: str) -> Path:
    """Like `locate`, but raises MachineError E302 with the command that gets what is missing."""
    if (path := locate(reference)) is not None:
        return path
    raise MachineError("E302", missing(reference), f"Get it: {command(reference)}")


def missing(reference: str) -> str:
    """`weights raft_large (21 MB, BSD-3-Clause) are not on this machine`."""
    return f"the weights {described(reference)} are not on this machine"


def described(reference: str) -> str:
    """`raft_large (21 MB, BSD-3-Clause)`."""
    entry = describe(reference)
    size = f"{entry.megabytes:.0f} MB, " if entry.megabytes else ""
    return f"{reference} ({size}{entry.licence})"


def command(reference: str) -> str:
    """What to type to get them."""
    return f"retake weights {reference}"


def identity(reference: str, store: Store) -> str:
    """What stands in a key: `org/repo@commit`, or the content digest of a file or folder. Raises MachineError E302."""
    path = require(reference)
    if reference in CATALOGUE or not Path(reference).expanduser().exists():
        source = describe(reference).source
        if isinstance(source, Hub):
            commit = path.parent.name if source.file else path.name
            return f"{source.repo}@{commit}" + (f"/{source.file}" if source.file else "")
    return f"sha256:{store.source_digest(path)}"


def identity_or_absent(reference: str, store: Store) -> str:
    """`identity`, or "absent": for results that say what they lack instead of failing."""
    return identity(reference, store) if locate(reference) is not None else ABSENT


def snapshot(source: Hub) -> Path | None:
    """Folder of the commit that a revision stands for in the hub's cache, if it is there."""
    repo = hub_cache() / f"models--{source.repo.replace('/', '--')}"
    ref = repo / "refs" / source.revision
    commit = ref.read_text().strip() if ref.is_file() else source.revision
    folder = repo / "snapshots" / commit
    return folder if folder.is_dir() else None


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
