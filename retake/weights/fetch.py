"""Downloading weights: from the Hugging Face hub into its cache, single files into torch's. The only module that
downloads, and only for `retake weights NAME`.

What `local.locate` finds is complete. A repository's weights come after everything else, the ref of its revision is
written last, and a single file is renamed into place once its hash matches its name. Code of a repository
is never fetched. HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE, HF_TOKEN and the proxy variables are honoured.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import shlex
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from retake.errors import ConfigError, MachineError
from retake.machine.disk import atomic_path, explain_write_errors, format_bytes, write_atomic
from retake.weights import local
from retake.weights.catalogue import Hub, Shipped, Url

Progress = Callable[[int, int], None]
"""(bytes downloaded, bytes in total or 0 if the server does not say)"""
Say = Callable[[str], None]

CONFIG_FILES = ("*.json", "*.txt", "*.model")  # settings, vocabularies and merges
SAFETENSORS = ("*.safetensors",)
PICKLED = ("pytorch_model.bin", "pytorch_model-*.bin")
TIMEOUT = 30.0  # seconds without a byte
BLOCK = 1 << 20


def fetch(reference: str, progress: Progress = lambda done, total: None, say: Say = lambda text: None) -> Path:
    """Download the weights of `reference` unless they are here, and return their path, as `local.locate` does.

    `say` is called with what is fetched and its size, before the first byte.
    Raises ConfigError E250 for an unknown reference; MachineError E306 when the server cannot be reached, E307 when
    it refuses them, E308 when the download broke off, E309 when the hash does not match, E502 or
    E503 when they cannot be written.
    """
    if (here := local.locate(reference)) is not None:
        return here
    source = local.catalogue_entry(reference).source
    if isinstance(source, Shipped):
        return local.require(reference)  # nothing to fetch: it says what to do
    if isinstance(source, Url):
        return from_url(source, local.torch_cache(), progress, say)
    from_hub(source, local.hub_cache(), progress, say)
    return local.require(reference)


# ---- one file ----------------------------------------------------------------------------------------------------


def from_url(source: Url, folder: Path, progress: Progress, say: Say) -> Path:
    """Download one file into `folder`, under its own name. Raises as `fetch`."""
    target = folder / source.file
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as part:
            sha256 = download(source.url, part, progress, say)
            if not sha256.startswith(source.sha256_prefix):
                raise wrong_bytes(source.file, source.url, source.sha256_prefix, sha256)
    return target


def download(url: str, path: Path, progress: Progress, say: Say) -> str:
    """Download `url` to `path` block by block and return its sha256. Raises MachineError E306, E307, E308."""
    request = urllib.request.Request(url, headers={"User-Agent": "retake"})  # noqa: S310  addresses of the catalogue
    digest, done = hashlib.sha256(), 0
    with explain_http_errors(url):
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)  # noqa: S310
    with answer:
        length = str(answer.headers.get("Content-Length"))
        total = int(length) if length.isascii() and length.isdecimal() else 0
        say(f"{url.rpartition('/')[2]}: {format_bytes(total)} from {url}")
        with path.open("wb") as out:
            for block in read_blocks(answer, url, total):
                out.write(block)
                digest.update(block)
                done += len(block)
                progress(done, total)
            out.flush()
            os.fsync(out.fileno())
    return digest.hexdigest()


def read_blocks(answer: Any, url: str, total: int) -> Iterator[bytes]:
    """The blocks of a response. Raises MachineError E308 when reading fails or ends early."""
    done = 0
    try:
        while block := answer.read(BLOCK):
            done += len(block)
            yield block
    except (http.client.HTTPException, OSError) as error:
        raise interrupted(url, done, total, error) from error
    if done < total:
        raise interrupted(url, done, total)


@contextlib.contextmanager
def explain_http_errors(url: str) -> Iterator[None]:
    """Turn urllib's errors before the first byte into MachineError E306 or E307."""
    try:
        yield
    except urllib.error.HTTPError as error:
        if error.code >= 500 or error.code == 429:
            raise unreachable(url, f"it answers {error.code} {error.reason}") from error
        raise refused(url, f"the server answers {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, FileNotFoundError):
            raise refused(url, "there is no such file") from error
        raise unreachable(url, str(error.reason)) from error
    except (http.client.HTTPException, OSError) as error:
        raise unreachable(url, f"{type(error).__name__} {error}".strip()) from error


# ---- a repository --------------------------------------------------------------------------------------------------


def from_hub(source: Hub, cache: Path, progress: Progress, say: Say) -> None:
    """Download a repository's settings and weights, or one file of it, into the hub's cache, in its standard layout
    (https://huggingface.co/docs/hub/local-cache)."""
    from huggingface_hub import HfApi, constants, hf_hub_download

    server, repo = constants.ENDPOINT, local.repository_folder(source, cache)
    with explain_hub_errors(source, server):
        # What is here of the repository fixes the commit: two entries of one repository then stay together.
        revision = local.resolve_revision(repo, source.revision)
        about = HfApi().model_info(source.repo, revision=revision, files_metadata=True, timeout=TIMEOUT)
    commit, wanted = str(about.sha), select_files(source, list(about.siblings or []), server)
    if not local.NAME.fullmatch(commit):
        raise refused(f"{server}/{source.repo}", "the server names a commit that is none")
    total = sum(file.size or 0 for file in wanted)
    say(f"{source.repo}: {len(wanted)} files, {format_bytes(total)}, {stated_licence(about)}, commit {commit[:10]}")
    if any(matches(file.rfilename, PICKLED) for file in wanted):
        say(f"{source.repo} has no safetensors: its weights are a pickle, which is only ever read with weights_only")
    counted = byte_counter(lambda done: progress(min(done, total), total))
    new: list[Path] = []
    try:
        for file in wanted:
            pointer = repo / "snapshots" / commit / file.rfilename
            if not pointer.exists():
                new.append(pointer)
            with explain_hub_errors(source, server), explain_write_errors(cache):
                hf_hub_download(source.repo, file.rfilename, revision=commit, cache_dir=cache, tqdm_class=counted)
            verify_sha256(pointer, file, server)
        with explain_write_errors(cache):
            write_ref(repo, source.revision, commit)
    except BaseException:
        # What came whole stays in blobs/ under its hash, where the next try finds it; without its name in the
        # snapshot no reader takes the half for the whole.
        for pointer in new:
            pointer.unlink(missing_ok=True)
        raise


def select_files(source: Hub, files: list[Any], server: str) -> list[Any]:
    """Which of a repository's files to fetch, the weights last. Raises MachineError E307 when there are none."""
    where = f"{server}/{source.repo}"
    if source.file:
        one = [file for file in files if file.rfilename == source.file]
        if not one:
            raise refused(where, f"the repository has no file {source.file}")
        return one
    if any(file.rfilename == "model_index.json" for file in files):
        return pipeline_files(where, files)
    kinds = (SAFETENSORS, PICKLED)
    weights = next((w for kind in kinds if (w := [f for f in files if matches(f.rfilename, kind)])), [])
    if not weights:
        raise refused(where, "the repository holds no weights, neither safetensors nor pytorch_model.bin")
    return [file for file in files if matches(file.rfilename, CONFIG_FILES)] + weights


def pipeline_files(where: str, files: list[Any]) -> list[Any]:
    """Files of a pipeline in diffusers' folder format, the weights last: its components, each once and in safetensors.

    Such repositories also hold single-file copies, half-precision and other variants, and networks that are not used
    here. Raises MachineError E307 where a component comes as a pickle alone.
    """
    described, weights = [], []
    for role in (*local.ROLES, "tokenizer", "scheduler", "feature_extractor"):
        here = [file for file in files if file.rfilename.rpartition("/")[0] == role]
        described += [file for file in here if matches(file.rfilename, CONFIG_FILES)]
        found = [file for file in here if matches(file.rfilename, SAFETENSORS)]
        # diffusion_pytorch_model.fp16.safetensors: a variant has one part more in its name.
        plain = [file for file in found if file.rfilename.count(".") == 1]
        plain = plain or [file for file in found if ".fp16." in file.rfilename]
        if not plain and any(file.rfilename.endswith((".bin", ".ckpt", ".pt")) for file in here):
            raise refused(where, f"its {role} is a pickle, and Retake takes diffusion models as safetensors alone")
        weights += plain
    index = [file for file in files if file.rfilename == "model_index.json"]
    return index + described + weights


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def verify_sha256(pointer: Path, file: Any, server: str) -> None:
    """Check a large file against the hub's sha256 and remove it if it differs. Raises MachineError E309."""
    if file.lfs is None:
        return
    with pointer.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != file.lfs.sha256:
        pointer.resolve().unlink()
        raise wrong_bytes(file.rfilename, server, file.lfs.sha256, found)


def write_ref(repo: Path, revision: str, commit: str) -> None:
    """Write the ref of a branch or tag, by which readers find the commit. Raises ConfigError E250 for a bad name."""
    if not local.REVISION.fullmatch(revision) or ".." in revision:
        raise ConfigError("E250", f"{revision!r} is not a revision", "Write a branch, tag or commit: org/repo@main.")
    if revision == commit:
        return
    ref = repo / "refs" / revision
    ref.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(ref, commit)


def stated_licence(about: Any) -> str:
    """The licence on the model card."""
    stated = getattr(about.card_data, "license", None) if about.card_data else None
    return f"licence {stated}" if stated else "no licence stated"


def byte_counter(report: Callable[[int], None]) -> Any:
    """A tqdm class for huggingface_hub that draws nothing and reports the bytes of all files together."""
    from tqdm.auto import tqdm

    done = 0

    class Counter(tqdm):
        def __init__(self, *words: Any, **options: Any) -> None:
            super().__init__(*words, **(options | {"disable": True}))

        def update(self, n: float | None = 1) -> None:
            nonlocal done
            done += int(n or 0)
            report(done)

    return Counter


@contextlib.contextmanager
def explain_hub_errors(source: Hub, server: str) -> Iterator[None]:
    """Turn errors of huggingface_hub into MachineError E306 to E308 or ConfigError E250."""
    from huggingface_hub import errors

    where = f"{server}/{source.repo}"
    try:
        yield
    except errors.HFValidationError as error:
        raise ConfigError("E250", f"{source.repo!r} is not a repository's name", "Write org/repo.") from error
    except errors.OfflineModeIsEnabled as error:
        raise unreachable(where, "HF_HUB_OFFLINE is set") from error
    except errors.GatedRepoError as error:
        hint = f"Accept its terms at {where}, then set HF_TOKEN to a token of yours."
        raise MachineError("E307", f"{where} asks for consent before it gives out weights", hint) from error
    except errors.RepositoryNotFoundError as error:
        raise refused(where, "there is no such repository, or it is private and HF_TOKEN is not set") from error
    except errors.RevisionNotFoundError as error:
        raise refused(where, f"the repository has no revision {source.revision}") from error
    except errors.LocalEntryNotFoundError as error:
        raise unreachable(where, first_line(error.__cause__ or error)) from error
    except errors.EntryNotFoundError as error:
        raise refused(where, first_line(error)) from error
    except errors.HfHubHTTPError as error:
        code = error.response.status_code
        if code in (401, 403, 404):
            raise refused(where, f"the server answers {code}") from error
        raise unreachable(where, f"the server answers {code}") from error
    except errors.FileMetadataError as error:
        raise unreachable(where, first_line(error)) from error
    except Exception as error:
        # Below huggingface_hub stands its HTTP library, whose name changes from version to version.
        kind = type(error).__name__
        if kind in ("ConnectError", "ConnectTimeout", "ProxyError", "UnsupportedProtocol", "PoolTimeout"):
            raise unreachable(where, first_line(error)) from error
        if kind in ("ReadTimeout", "ReadError", "RemoteProtocolError") or "Consistency check failed" in str(error):
            raise MachineError("E308", f"the download from {where} broke off: {first_line(error)}", RETRY) from error
        raise


# ---- what went wrong -----------------------------------------------------------------------------------------------

RETRY = "Run the same command again: nothing that is incomplete was kept."


def unreachable(where: str, why: str) -> MachineError:
    hint = "Check the network, HTTPS_PROXY, HF_ENDPOINT and HF_HUB_OFFLINE; or fetch elsewhere and copy the cache."
    return MachineError("E306", f"{where} cannot be reached: {why}", hint)


def refused(where: str, why: str) -> MachineError:
    return MachineError("E307", f"no weights from {where}: {why}", "See what exists: retake weights")


def interrupted(url: str, done: int, total: int, why: BaseException | None = None) -> MachineError:
    of = f" of {format_bytes(total)}" if total else ""
    said = f": {first_line(why)}" if why else ""
    return MachineError("E308", f"the download of {url} broke off after {format_bytes(done)}{of}{said}", RETRY)


def wrong_bytes(name: str, where: str, wanted: str, found: str) -> MachineError:
    return MachineError(
        "E309",
        f"{shlex.quote(name)} from {where} does not match its checksum: sha256 {found[:16]}..., expected {wanted[:16]}",
        "It was deleted. Try again; if it stays so, a proxy or a mirror changes what it passes on.",
    )


def first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
