"""A stage: a plain function from typed artifacts and a params model to an artifact, with a name and a VERSION.

`compute` is the one way in which any runner gets a result: look in the store, take the key's lock, look again, run
the function, publish. The function receives a `Work`, through which it commits its chunks; a run that is killed goes
on after its last committed chunk.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydantic import BaseModel

from retake.artifact import KINDS, Artifact, File
from retake.errors import IntegrityError, MachineError
from retake.formats import VERSION, Tensors, chunk_name, open_series, pack, unpack
from retake.machine import memory
from retake.params import keyed_params
from retake.recipe import Recipe, digest, installed
from retake.store import Record, Store

# Libraries whose versions a record remembers; those that are in a key stand in the stage's `backends`.
RECORDED = ("retake", "numpy", "torch", "torchvision", "torchmetrics", "transformers", "diffusers", "sam2")
RECORDED += ("opencv-python-headless", "av", "decord")


@dataclass(frozen=True)
class Stage:
    """What `@stage` makes of a function. `makes` names the kind of its artifact, `backends` the libraries whose
    versions shape its bytes, `group` the package that holds its interchangeable implementations. With
    `optional_weights` it says what it lacks where weights are not here, and is made again once they are."""

    name: str
    version: int
    makes: str
    function: Callable[..., Artifact]
    backends: tuple[str, ...] = ()
    group: str = ""
    optional_weights: bool = False

    def recipe(
        self,
        params: BaseModel,
        inputs: Mapping[str, str],
        file_digest: Callable[[str], str],
        implementation: str = "",
        weights: Mapping[str, str] | None = None,
    ) -> Recipe:
        """The ingredients of this stage's result. `inputs` are content digests by name, `weights` identities by role
        (weights/local.py)."""
        return Recipe(
            stage=self.name,
            version=self.version,
            format=VERSION[self.makes],
            implementation=implementation,
            params=keyed_params(params, file_digest),
            inputs=inputs,
            weights=weights or {},
            backends=installed(*self.backends),
        )


def stage(
    name: str,
    *,
    version: int,
    makes: str,
    backends: tuple[str, ...] = (),
    group: str = "",
    optional_weights: bool = False,
) -> Callable[[Callable[..., Artifact]], Stage]:
    """Mark a function `(work, params, **inputs) -> Artifact` as a stage.

    Raise `version` by hand when the function's output changes for equal inputs; old results then stay in the store
    under their old keys.
    """
    assert makes in KINDS, f"unknown kind {makes}"
    return lambda function: Stage(name, version, makes, function, backends, group, optional_weights)


class Observer(Protocol):
    """Receives the progress of a stage: that it began in this process, how much is done, and that it ended, also
    where it failed; or that another process is at it."""

    def started(self, stage: str) -> None: ...
    def stopped(self, stage: str) -> None: ...
    def progress(self, stage: str, done: int, total: int) -> None: ...
    def waiting(self, stage: str) -> None: ...


class Silent:
    """An observer that says nothing."""

    def started(self, stage: str) -> None: ...
    def stopped(self, stage: str) -> None: ...
    def progress(self, stage: str, done: int, total: int) -> None: ...
    def waiting(self, stage: str) -> None: ...


@dataclass
class Work:
    """What a stage function may touch: the store, its chunk writer, a scratch folder, progress."""

    store: Store
    stage: Stage
    key: str
    scratch: Path
    observer: Observer = field(default_factory=Silent)
    mark: str = ""
    """Stands for the very files that are read: chunks of a run that read others are not gone on from."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """Identities of weights by role, as they stand in the key."""

    def __post_init__(self) -> None:
        self._files: list[File] = []
        self._states: list[File] = []
        if partial := self.store.load_partial(self.key, self.mark):
            self._files = [File(**f) for f in partial["files"]]
            self._states = [File(**f) for f in partial["states"]]

    def open(self, artifact: Artifact) -> Any:
        """Reader of an upstream artifact (see formats.py)."""
        return open_series(self.store, artifact)

    @property
    def done(self) -> set[int]:
        """Chunks that an earlier, interrupted run of this very key has committed."""
        return {int(f.name[:5]) for f in self._files if f.name[:5].isdigit()}

    def state(self) -> Tensors | None:
        """State committed with a chunk, the last there was, or None at the start."""
        return next(self.kept(), None)

    def kept(self) -> Iterator[Tensors]:
        """What `keep` was given last, part by part."""
        return (unpack(self.store.read(file)) for file in self._states)

    def keep(self, parts: Iterable[Mapping[str, np.ndarray]]) -> None:
        """Make the state to go on from durable between chunks, or before the first. All parts replace all earlier ones
        at once; only one at a time is in memory."""
        self._states = [self.store.put("state", pack(part)) for part in parts]
        self.store.save_partial(self.key, self._files, self._states, self.mark)

    def commit(
        self, index: int, tensors: Mapping[str, np.ndarray], state: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Make a chunk durable, and the state to go on from, without one the state that was there stays. Raises
        IntegrityError E603 on NaN or infinity."""
        for name, array in tensors.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise IntegrityError(
                    "E603",
                    f"{self.stage.name}: {name} of chunk {index} holds NaN or infinity",
                    "Nothing was stored. Please report the clip and the settings.",
                )
        if state is not None:
            self._states = [self.store.put("state", pack(state))]
        self._files.append(self.store.put(chunk_name(index), pack(tensors)))
        self.store.save_partial(self.key, self._files, self._states, self.mark)

    def read(self, index: int) -> Tensors:
        """Tensors of a chunk that is committed already, as stored."""
        return unpack(self.store.read(self.file(chunk_name(index))))

    def file(self, name: str) -> File:
        """A file that is committed or added already."""
        return next(f for f in self._files if f.name == name)

    def take_over(self, *files: File) -> None:
        """Stored files of an upstream artifact become files of this one; nothing is copied."""
        names = {f.name for f in self._files}
        self._files += [f for f in files if f.name not in names]
        self.store.save_partial(self.key, self._files, self._states, self.mark)

    def add(self, name: str, content: bytes | Path) -> None:
        """Add a file that is not a chunk: bytes, or a path inside `scratch` (it is moved away)."""
        put = self.store.put_file if isinstance(content, Path) else self.store.put
        self._files.append(put(name, content))  # type: ignore[arg-type]

    def progress(self, done: int, total: int) -> None:
        self.observer.progress(self.stage.name, done, total)

    def finish(self, **meta: Any) -> Artifact:
        """The artifact of everything committed and added."""
        kind = KINDS[self.stage.makes]
        files = tuple(sorted(self._files, key=lambda f: f.name))
        return kind(files, {"format": VERSION[kind.kind], **meta})


@dataclass(frozen=True)
class Outcome:
    """What a runner learns about one stage of one edit."""

    stage: str
    key: str
    status: str  # "ran" or "cached"
    seconds: float  # spent now; a hit costs the look-up
    artifact: Artifact
    recorded_seconds: float = 0.0  # what making it cost, when it was made

    def as_json(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "key": self.key,
            "status": self.status,
            "seconds": round(self.seconds, 3),
            "bytes": self.artifact.bytes,
            "notes": list(self.artifact.meta.get("notes", ())),
        }


def compute(
    store: Store,
    stage: Stage,
    recipe: Recipe,
    params: BaseModel,
    inputs: Mapping[str, Any],
    observer: Observer | None = None,
    sources: Sources | None = None,
) -> Outcome:
    """Find or make the result of a recipe. N processes with one key compute it once.

    `sources` are the files that the stage reads by name: when one was edited meanwhile, nothing is published and
    IntegrityError E601 is raised. Raises what the stage raises; chunks it had committed stay, and the next call
    goes on after them, provided that it reads the very same files.
    """
    start, observer = time.perf_counter(), observer or Silent()
    key = recipe.key
    if record := store.find(stage.name, key):
        return Outcome(stage.name, key, "cached", time.perf_counter() - start, record.artifact, record.seconds)
    with store.lock(key, on_wait=lambda: observer.waiting(stage.name)):
        if record := store.find(stage.name, key):
            return Outcome(stage.name, key, "cached", time.perf_counter() - start, record.artifact, record.seconds)
        begun = time.perf_counter()
        with store.scratch() as scratch, memory.peak_memory() as peak:
            mark = sources.mark if sources else ""
            work = partial(Work, store, stage, key, scratch, observer, mark, recipe.weights)
            observer.started(stage.name)
            try:
                artifact = within_memory(work, params, inputs)
            except Exception:
                if sources:  # a file that is written while it is read looks damaged: say what it is
                    sources()
                raise
            finally:
                observer.stopped(stage.name)
        if sources:
            sources()
        seconds = time.perf_counter() - begun
        store.publish(Record(key, recipe.ingredients(), artifact, round(seconds, 3), cost(peak(), params)))
    return Outcome(stage.name, key, "ran", time.perf_counter() - start, artifact, seconds)


def within_memory(work: Callable[[], Work], params: BaseModel, inputs: Mapping[str, Any]) -> Artifact:
    """Run a stage; where memory ends, go on once from the last committed chunk with half the batch. Raises MachineError
    E506 where that is not enough, or where there is no batch to halve."""
    smaller = memory.with_half_batch(params)
    for given in (params, smaller) if smaller is not None else (params,):
        now = work()
        if given is smaller:
            now.store.warn(f"{now.stage.name}: out of memory; once more with half the batch")
        try:
            return now.stage.function(now, params=given, **inputs)
        except Exception as error:
            if not memory.is_out_of_memory(error):
                raise
            name, said = now.stage.name, str(error).partition("\n")[0][:200]
        memory.free_memory()
    raise MachineError(
        "E506",
        f"{name}: out of memory ({said})",
        "Chunks that were finished are kept. Fewer pixels (frames.short_side), a smaller model.batch or model.dtype, "
        "model.offload=sequential on a GPU, or a machine with more memory.",
    )


class Sources:
    """Files that a stage reads by their names. Calling it checks that they still hold what they held when it was
    made, and raises IntegrityError E601 where they do not."""

    def __init__(self, store: Store, paths: list[str]) -> None:
        self.store = store
        # The marks first: a file that changes between the two lines is then found to have changed.
        self.mark = digest([file_identity(path) for path in paths]) if paths else ""
        self.before = {path: store.source_digest(path) for path in paths}

    def __call__(self) -> None:
        for path, known in self.before.items():
            if self.store.source_digest(path) != known:
                raise IntegrityError(
                    "E601",
                    f"{path} was changed while it was being read",
                    "Nothing was stored under the old name. Run the command again.",
                )


def file_identity(path: str) -> list[Any]:
    """What changes whenever a file is written, replaced or put back; of a folder, of every file in it."""
    at = Path(path)
    if at.is_dir():
        return [file_identity(str(p)) for p in sorted(at.rglob("*")) if p.is_file()]
    try:
        status = at.stat()
    except OSError:
        return [path]
    return [status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size]


def cost(peak_bytes: int, params: BaseModel) -> dict[str, Any]:
    """What a record remembers about where and at what price a result was made. None of it is in the key."""
    return {
        "peak_memory": peak_bytes,
        "device": device_used(params),
        "host": platform.node(),
        "time": round(time.time(), 3),
        "versions": installed(*RECORDED),
    }


def device_used(params: BaseModel) -> str:
    """Where the networks of a stage ran, "cuda" or "cpu". Asks torch only where the stage has loaded it."""
    nested = (getattr(params, name) for name in type(params).model_fields)
    asked = {getattr(model, "device", "cpu") for model in (params, *nested)}
    torch = sys.modules.get("torch")
    return "cuda" if asked - {"cpu"} and torch is not None and torch.cuda.is_available() else "cpu"
