"""The store under fire: whole edits in processes that are killed, files that are damaged, many processes on one key.

Tests and benchmarks aim; this is what they aim with, and how they look at what is left.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock
import psutil

from flows import graph
from flows.places import CODE
from flows.runners import Chosen, Local
from flows.settings.compose import Settings, settings
from flows.upkeep.verify import verify_store
from retake.artifact import Artifact, File
from retake.clip import open_clip
from retake.formats import READERS, open_series
from retake.stage import Silent, Stage, Work
from retake.store import Store
from retake.synthetic import scenes
from retake.synthetic.world import World
from retake.video import encode

NOT_NEEDED = ("depth", "edited_tracks", "latents", "inversion", "motion_channels")
STAGES = tuple(name for name in graph.STAGES if name not in NOT_NEEDED)


CHUNKED = ("frames", "optical_flow", "masks", "region", "tracks", "edit", "decode")


HEAVY = [
    "cv2",
    "torchvision",
    "safetensors.numpy",
    "filelock",
    "psutil",
    "flows.graph",
    "retake.synthetic.scenes",
]


def render(folder: Path, size: tuple[int, int], frames: int, *changes: str) -> tuple[str, Settings]:
    """A small clip of a disc that drifts, and settings that put a ball on it."""
    world = World(scenes.scene("drift", width=size[0], height=size[1], frames=frames))
    folder.mkdir(parents=True, exist_ok=True)
    clip = folder / "clip.mp4"
    encode(clip, (world.frame(t) for t in range(frames)), 24, crf=12)
    return str(clip), tiny(world, 0, *changes)


def tiny(world: World, frame: int, *changes: str) -> Settings:
    """Settings that make every stage quick; the box is drawn around the disc on `frame`."""
    found = world.box(frame, 0)
    assert found is not None
    box = [found[0] - 3, found[1] - 3, found[2] + 3, found[3] + 3]
    fixed = [f"masks.box={box}", f"masks.frame={frame}", f"edit.reference={CODE}/params/dataset/ball.png"]
    quick = ["report.tile=64", "report.columns=2", "decode.preset=veryfast"]
    return settings([*fixed, *quick, *changes])


@dataclass
class RecordedRun(Local):
    """Local, telling when a stage begins and remembering how it was called."""

    tell: Callable[[str], None] = lambda line: None
    calls: dict[str, tuple[Stage, Any, Chosen, dict[str, Any]]] = field(default_factory=dict)

    @property
    def made(self) -> dict[str, Artifact]:
        return {o.stage: o.artifact for o in self.outcomes}

    def __call__(
        self, stage: Stage, params: Any, *, implementation: str = "", weights: Mapping[str, str] = {}, **inputs: Any
    ) -> Artifact:
        self.tell(f"begin {stage.name}")
        self.calls[stage.name] = stage, params, Chosen(implementation, weights), inputs
        return super().__call__(stage, params, implementation=implementation, weights=weights, **inputs)


def quiet(root: Path, heard: list[str] | None = None) -> Store:
    return Store(root, (heard if heard is not None else []).append)


def digests(made: dict[str, Artifact]) -> dict[str, str]:
    return {name: artifact.digest for name, artifact in made.items()}


@contextmanager
def commits_reported(tell: Callable[[str], None]) -> Iterator[None]:
    """Within, every chunk that was committed durably is told, after the fact."""
    plain = Work.commit

    def commit(work: Work, index: int, *rest: Any) -> None:
        plain(work, index, *rest)
        tell(f"commit {work.key} {index}")

    Work.commit = commit  # type: ignore[method-assign]
    try:
        yield
    finally:
        Work.commit = plain  # type: ignore[method-assign]


def appender(path: Path) -> Callable[[str], None]:
    """Lines to a file that several processes append to; a line is there whole or not at all."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    return lambda line: (os.write(handle, f"{line}\n".encode()), None)[1]


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def complete(store: Store, spec: str, p: Settings, log: Path | None = None) -> RecordedRun:
    """One undisturbed pass over the graph."""
    tell = appender(log) if log else (lambda line: None)
    run = RecordedRun(store, tell=tell)
    with commits_reported(tell):
        graph.edit_graph(run, open_clip(spec), p)
    return run


def prefork() -> Any:
    """Processes that start with everything imported: forked from a server that has done nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(HEAVY)
    return context


def edit_in_child(root: Path, spec: str, p: Settings, log: Path, commits: Path) -> None:
    """What is killed: a whole edit, in a process group of its own."""
    os.setpgid(0, 0)
    with commits_reported(appender(commits)):
        graph.edit_graph(RecordedRun(quiet(root), tell=appender(log)), open_clip(spec), p)


@dataclass
class Front:
    """One store under fire, and the settings that are run on it."""

    root: Path
    spec: str
    p: Settings
    log: Path
    seconds: dict[str, float]  # of each stage, undisturbed

    def kill_once(self, forks: Any, target: str, rng: random.Random) -> str | None:
        """Start an edit, kill its group at a random moment of stage `target`; the stage in which it died, or None
        when it was done first."""
        trace = self.log.with_name(f"trace-{rng.getrandbits(64):x}")
        child = forks.Process(target=edit_in_child, args=(self.root, self.spec, self.p, trace, self.log))
        child.start()
        wait_for(lambda: f"begin {target}" in lines(trace) or not child.is_alive(), 30)
        time.sleep(rng.random() * max(0.01, self.seconds[target]))
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.join(10)
        assert child.exitcode in (0, -signal.SIGKILL), f"ended by itself with {child.exitcode}"
        assert wait_for(lambda: not video_children(child.pid), 5), "a decoder process outlived its parent"
        return lines(trace)[-1].removeprefix("begin ") if child.exitcode else None

    def check(self) -> None:
        """Whatever was cut short: no damaged object, no record without its objects, no chunk lost, no lock held."""
        found = verify_store()
        assert found["damaged"] == [] == found["missing"]
        store = quiet(self.root)
        for partial in (self.root / "partial").glob("*"):
            body = json.loads(partial.read_text().splitlines()[0])
            assert store.load_partial(partial.name, body["mark"]) == body
        for lock in (self.root / "locks").glob("*.lock"):
            # A child that was just being forked holds it until the kernel has buried it, too.
            with filelock.FileLock(lock, timeout=5):
                pass


def wait_for(done: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def video_children(parent: int) -> list[int]:
    """Live processes `python -m retake.video.child PARENT`."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = process.info["cmdline"] or []
        if command[-2:] == ["retake.video.child", str(parent)] and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found


@dataclass
class Ward:
    """A store with one complete edit, what it holds when it is well, and ways to hurt it."""

    root: Path
    spec: str
    p: Settings
    well: RecordedRun
    pristine: dict[str, bytes]  # by sha256
    heard: list[str]
    rng: random.Random

    @property
    def made(self) -> dict[str, Artifact]:
        return self.well.made

    def store(self) -> Store:
        self.heard.clear()
        return quiet(self.root, self.heard)

    def hurt(self, path: Path, cut: bool) -> None:
        """Flip one bit of a file, or cut it, through whatever permissions it has."""
        raw = bytearray(path.read_bytes())
        if cut:
            del raw[self.rng.randrange(len(raw)) :]
        else:
            raw[self.rng.randrange(len(raw))] ^= 1 << self.rng.randrange(8)
        os.chmod(path, 0o644)
        path.write_bytes(raw)

    def compute(self, store: Store, name: str, observer: Any = None) -> Artifact:
        """Find or make one stage's result."""
        stage, params, chosen, inputs = self.well.calls[name]
        return Local(store, observer or Silent()).outcome(stage, params, chosen, inputs).artifact

    def record(self, name: str) -> Path:
        key = next(o.key for o in self.well.outcomes if o.stage == name)
        return Store(self.root).record_path(name, key)

    def heal(self, out: Path) -> dict[str, str]:
        """A run of the whole graph that hands everything out; digests of what it says it made. What is handed out is
        compared with what was there when the store was well."""
        store = quiet(self.root, self.heard)
        run = Local(store)

        def build() -> dict[str, Artifact]:
            made = graph.edit_graph(run, open_clip(self.spec), self.p)
            for artifact, file in every_file(made):
                assert take(store, artifact, file, out, self.rng) in (None, self.pristine[file.sha256]), "served"
            return made

        return digests(run.healed(build))


def ward_of(folder: Path) -> Ward:
    """A store with one complete edit, in a folder."""
    spec, p = render(folder, (64, 48), 18)
    heard: list[str] = []
    store = quiet(folder / "store" / "retake", heard)
    well = complete(store, spec, p)
    pristine = {file.sha256: store.read(file) for o in well.outcomes for file in o.artifact.files}
    return Ward(store.root, spec, p, well, pristine, heard, random.Random(11))


def every_file(made: dict[str, Artifact]) -> Iterator[tuple[Artifact, File]]:
    return ((artifact, file) for artifact in made.values() for file in artifact.files)


def take(store: Store, artifact: Artifact, file: File, out: Path, rng: random.Random) -> bytes | None:
    """Get at a stored file in one of the ways there are. Raises DamagedError."""
    ways = ["read", "copy", "link", "verify"]
    if artifact.kind in READERS and file.name[:5].isdigit():
        ways += ["reader"] * 4
    match rng.choice(ways):
        case "read":
            return store.read(file)
        case "copy":
            return store.copy_out(file, out / "copy").read_bytes()
        case "link":
            return store.link_out(file, out / "link").read_bytes()
        case "reader":
            open_series(store, artifact).chunk(int(file.name[:5]))
        case "verify":
            store.verify(file)
    return None


class Slowly(Silent):
    """Tells who computes, and takes its time."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.tell = tell

    def progress(self, stage: str, done: int, total: int) -> None:
        self.tell(f"computing {os.getpid()} {done}")
        time.sleep(0.15)

    def waiting(self, stage: str) -> None:
        self.tell(f"waiting {os.getpid()}")


def one_of_many(root: Path, p: Settings, log: Path, many: int) -> None:
    tell = appender(log)
    tell("ready")
    assert wait_for(lambda: lines(log).count("ready") == many, 60)
    run = Local(quiet(root), Slowly(tell))
    with commits_reported(tell):
        outcome = run.outcome(graph.STAGES["frames"], p.frames, Chosen(), {"clip": open_clip("sprites:drift")})
    tell("outcome " + json.dumps([outcome.status, outcome.artifact.digest]))


def crowd(forks: Any, root: Path, log: Path, many: int) -> list[Any]:
    """So many processes that start on one key at the same moment."""
    p = settings(["frames.last=40", "frames.short_side=48"])
    children = [forks.Process(target=one_of_many, args=(root, p, log, many)) for _ in range(many)]
    for child in children:
        child.start()
    return children


def finished(children: list[Any], log: Path) -> list[list[str]]:
    for child in children:
        child.join(30)
    assert {child.exitcode for child in children} == {0}
    return [json.loads(line.removeprefix("outcome ")) for line in lines(log) if line.startswith("outcome")]


def complete_frames(root: Path) -> str:
    p = settings(["frames.last=40", "frames.short_side=48"])
    clip = open_clip("sprites:drift")
    return Local(quiet(root)).outcome(graph.STAGES["frames"], p.frames, Chosen(), {"clip": clip}).artifact.digest
