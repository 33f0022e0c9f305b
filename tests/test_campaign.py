"""The promise of the store, under fire: fifty kill -9, five hundred damaged files, eight processes on one key.

Nothing damaged is ever served, no lock stays, one key is computed once, and what is made again is what was there.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock
import psutil
import pytest

from flows import graph
from flows.config import CHECKOUT, Settings, settings
from flows.ledger import verify_store
from flows.runners import Chosen, Local
from retake.artifact import Artifact, File
from retake.clip import open_clip
from retake.errors import DamagedError
from retake.formats import READERS, open_series
from retake.stage import Silent, Stage, Work
from retake.store import Store
from retake.synthetic import scenes
from retake.synthetic.world import World
from retake.video import encode

STAGES = tuple(name for name in graph.STAGES if name not in ("depth", "latents", "inversion"))  # not needed here
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


# ---- what is run -------------------------------------------------------------------------------------------------


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
    fixed = [f"masks.box={box}", f"masks.frame={frame}", f"edit.reference={CHECKOUT}/params/dataset/ball.png"]
    quick = ["report.tile=64", "report.columns=2", "decode.preset=veryfast"]
    return settings([*fixed, *quick, *changes])


@dataclass
class Told(Local):
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
def commits_told(tell: Callable[[str], None]) -> Iterator[None]:
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


def complete(store: Store, spec: str, p: Settings, log: Path | None = None) -> Told:
    """One undisturbed pass over the graph."""
    tell = appender(log) if log else (lambda line: None)
    run = Told(store, tell=tell)
    with commits_told(tell):
        graph.edit_graph(run, open_clip(spec), p)
    return run


@pytest.fixture(scope="module")
def forks():
    """Processes that start with everything imported: forked from a server that has done nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(HEAVY)
    return context


# ---- fifty times kill -9 -----------------------------------------------------------------------------------------


def edit_in_child(root: Path, spec: str, p: Settings, log: Path, commits: Path) -> None:
    """What is killed: a whole edit, in a process group of its own."""
    os.setpgid(0, 0)
    with commits_told(appender(commits)):
        graph.edit_graph(Told(quiet(root), tell=appender(log)), open_clip(spec), p)


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
            told = json.loads(partial.read_text().splitlines()[0])
            assert store.load_partial(partial.name, told["mark"]) == told
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
    """Live processes `python -m retake.video PARENT`."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        told = process.info["cmdline"] or []
        if told[-2:] == ["retake.video", str(parent)] and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found


def test_fifty_kills_leave_a_store_that_goes_on_where_it_was(tmp_path, monkeypatch, forks):
    """Four stores, each killed twelve times in the order of the stages of one edit, and once in an edit that differs
    in one setting. Chunks that were committed are never made again."""
    rng = random.Random(7)
    spec, first = render(tmp_path, (64, 48), 41)
    world = World(scenes.scene("drift", width=64, height=48, frames=41))
    variants = [first, tiny(world, 20, "optical_flow.preset=fast")]
    kills: Counter[str] = Counter()
    for number in range(4):
        home = tmp_path / f"store{number}"
        monkeypatch.setenv("RETAKE_STORE", str(home))
        p = variants[number % 2]
        changed = Settings(**{**vars(p), "edit": p.edit.model_copy(update={"strength": 0.5})})
        targets = sorted([*STAGES, *rng.choices(STAGES, k=4)], key=STAGES.index)
        log = tmp_path / f"commits{number}"
        for asked, moments in [(p, targets), (changed, [rng.choice(STAGES[4:])])]:
            plain = complete(quiet(tmp_path / f"plain{number % 2}"), spec, asked)
            seconds = {o.stage: o.recorded_seconds for o in plain.outcomes}
            front = Front(home / "retake", spec, asked, log, seconds)
            for target in moments:
                died = front.kill_once(forks, target, rng)
                front.check()
                if died is not None:
                    kills[died] += 1
            resumed = complete(quiet(front.root), spec, asked, log)
            assert digests(resumed.made) == digests(plain.made)
            front.check()
        committed = Counter(line for line in lines(log) if line.startswith("commit"))
        assert set(committed.values()) == {1}, "a committed chunk was made again"
        assert len(committed) >= len(CHUNKED) * 3 + 2 * 3 - 13  # a kill may fall between a commit and its line here
    while kills.total() < 50:  # an edit that was done before its killer came does not count
        home = tmp_path / f"more{kills.total()}"
        monkeypatch.setenv("RETAKE_STORE", str(home))
        front = Front(home / "retake", spec, first, tmp_path / "more", dict.fromkeys(STAGES, 0.02))
        if died := front.kill_once(forks, rng.choice(STAGES[:7]), rng):
            kills[died] += 1
        front.check()
    assert set(kills) >= set(CHUNKED), kills


# ---- five hundred damaged files ----------------------------------------------------------------------------------


@dataclass
class Ward:
    """A store with one complete edit, what it holds when it is well, and ways to hurt it."""

    root: Path
    spec: str
    p: Settings
    well: Told
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


@pytest.fixture(scope="module")
def ward(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ward")
    spec, p = render(folder, (64, 48), 18)
    heard: list[str] = []
    store = quiet(folder / "store" / "retake", heard)
    well = complete(store, spec, p)
    pristine = {file.sha256: store.read(file) for o in well.outcomes for file in o.artifact.files}
    return Ward(store.root, spec, p, well, pristine, heard, random.Random(11))


def test_damaged_objects_are_seen_by_whoever_reads_them_and_made_again(ward, tmp_path):
    """432 flips and cuts, 48 for every kind of artifact."""
    expected, seen = digests(ward.made), Counter[str]()
    for name, trial in itertools.product(STAGES, range(48)):
        artifact = ward.made[name]
        file = ward.rng.choice(artifact.files)
        store = ward.store()
        ward.hurt(store.object_path(file.sha256), cut=trial % 2 == 1)
        with pytest.raises(DamagedError):
            take(store, artifact, file, tmp_path, ward.rng)
        assert not (tmp_path / "copy").exists()
        assert not (tmp_path / "link").exists()
        assert not store.object_path(file.sha256).exists(), "damage was left where it was"
        assert len(ward.heard) == 1
        if name == "report" and trial % 4:
            store.put(file.name, ward.pristine[file.sha256])  # as the stage would, which takes a while
        assert ward.compute(store, name).digest == expected[name]
        assert store.read(file) == ward.pristine[file.sha256]
        seen[artifact.kind] += 1
    kinds = {*READERS, "metrics", "report"} - {"depth", "latents", "inversion"}  # which this edit does not need
    assert seen == dict.fromkeys(kinds, 48)
    assert list((ward.root / "quarantine").glob("*.reason"))


def test_a_whole_edit_over_damage_gives_what_it_gave_before(ward, tmp_path):
    """32 whole edits: every kind, flipped and cut. In half of them what comes after the damaged artifact must run
    again, so that the damaged bytes are read by a stage; in the others only handing out meets them."""
    expected = digests(ward.made)
    for name, cut, rerun in itertools.product(STAGES, (False, True), (False, True)):
        file = ward.rng.choice(ward.made[name].files)
        ward.hurt(ward.store().object_path(file.sha256), cut)
        if rerun:
            for later in STAGES[STAGES.index(name) + 1 :]:
                ward.record(later).unlink()
        assert ward.heal(tmp_path) == expected
        assert ward.heard, f"nobody noticed: {name}"
        assert ward.store().read(file) == ward.pristine[file.sha256]


def test_verify_names_what_a_cached_run_does_not_read(ward, tmp_path, monkeypatch, capsys):
    """8 flips of one bit, one in each kind: a cached edit is right not to read them; `retake verify` does."""
    monkeypatch.setenv("RETAKE_STORE", str(ward.root.parent))
    hurt = [ward.rng.choice(artifact.files).sha256 for artifact in ward.made.values()]
    for sha in hurt:
        ward.hurt(ward.store().object_path(sha), cut=False)
    assert {o.status for o in complete(ward.store(), ward.spec, ward.p).outcomes} == {"cached"}
    assert sorted(entry["object"] for entry in verify_store()["damaged"]) == sorted(hurt)
    assert capsys.readouterr().err.count("set aside") == len(hurt)
    assert ward.heal(tmp_path) == digests(ward.made)


def test_damaged_records_are_no_records(ward, tmp_path):
    """40 flips and cuts of records: the stage runs again, and everything after it is still there."""
    expected = digests(ward.made)
    for trial in range(40):
        name = STAGES[trial % len(STAGES)]
        store = ward.store()
        ward.hurt(ward.record(name), cut=trial % 3 == 0)
        run = complete(store, ward.spec, ward.p)
        assert digests(run.made) == expected
        assert [o.stage for o in run.outcomes if o.status == "ran"] == [name]
        assert len(ward.heard) == 1


class Interrupt(Silent):
    """Ctrl-C after the first committed chunk."""

    def progress(self, stage: str, done: int, total: int) -> None:
        raise KeyboardInterrupt


def test_damage_to_the_chunks_of_an_interrupted_stage_does_no_harm(ward, tmp_path):
    """36 flips and cuts: of the list of chunks, of a chunk, of the state to go on from."""
    expected = digests(ward.made)
    for trial in range(36):
        name = CHUNKED[trial % len(CHUNKED)]
        store = ward.store()
        ward.record(name).unlink()
        with pytest.raises(KeyboardInterrupt):
            ward.compute(store, name, Interrupt())
        key = ward.record(name).name
        partial = json.loads(store.partial_path(key).read_text().splitlines()[0])
        assert sum(file["name"][:5].isdigit() for file in partial["files"]) == 1  # beside masks stands their state
        wounds = [store.partial_path(key), *(store.object_path(file["sha256"]) for file in partial["files"])]
        wounds += [store.object_path(state["sha256"]) for state in partial["states"]]
        ward.hurt(wounds[trial // len(CHUNKED) % len(wounds)], cut=ward.rng.random() < 0.5)
        assert ward.heal(tmp_path) == expected
        assert ward.heard, f"nobody noticed: {name}"


# ---- eight processes on one key ----------------------------------------------------------------------------------


class Slowly(Silent):
    """Tells who computes, and takes its time."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.tell = tell

    def progress(self, stage: str, done: int, total: int) -> None:
        self.tell(f"computing {os.getpid()} {done}")
        time.sleep(0.15)

    def waiting(self, stage: str) -> None:
        self.tell(f"waiting {os.getpid()}")


def one_of_eight(root: Path, p: Settings, log: Path) -> None:
    tell = appender(log)
    tell("ready")
    assert wait_for(lambda: lines(log).count("ready") == 8, 30)
    run = Local(quiet(root), Slowly(tell))
    with commits_told(tell):
        outcome = run.outcome(graph.STAGES["frames"], p.frames, Chosen(), {"clip": open_clip("sprites:drift")})
    tell("outcome " + json.dumps([outcome.status, outcome.artifact.digest]))


def start_eight(forks: Any, root: Path, log: Path) -> list[Any]:
    p = settings(["frames.last=40", "frames.short_side=48"])
    children = [forks.Process(target=one_of_eight, args=(root, p, log)) for _ in range(8)]
    for child in children:
        child.start()
    return children


def finished(children: list[Any], log: Path) -> list[list[str]]:
    for child in children:
        child.join(30)
    assert {child.exitcode for child in children} == {0}
    return [json.loads(line.removeprefix("outcome ")) for line in lines(log) if line.startswith("outcome")]


def test_eight_processes_on_one_key_compute_it_once(own_store, tmp_path, forks):
    log = tmp_path / "log"
    outcomes = finished(start_eight(forks, own_store, log), log)
    assert Counter(status for status, _ in outcomes) == {"ran": 1, "cached": 7}
    assert len({digest for _, digest in outcomes}) == 1
    assert len({line.split()[1] for line in lines(log) if line.startswith("computing")}) == 1
    assert sum(line.startswith("waiting") for line in lines(log)) == 7


def test_when_the_one_that_computes_is_killed_a_waiter_goes_on(own_store, tmp_path, forks):
    log = tmp_path / "log"
    children = start_eight(forks, own_store, log)
    computing = lambda: [line for line in lines(log) if line.startswith("computing")]  # noqa: E731
    assert wait_for(lambda: bool(computing()), 30)
    victim = int(computing()[0].split()[1])
    os.kill(victim, signal.SIGKILL)
    dead = next(child for child in children if child.pid == victim)
    dead.join(10)
    assert dead.exitcode == -signal.SIGKILL
    outcomes = finished([child for child in children if child is not dead], log)
    assert Counter(status for status, _ in outcomes) == {"ran": 1, "cached": 6}
    assert len({digest for _, digest in outcomes}) == 1
    commits = Counter(line for line in lines(log) if line.startswith("commit"))
    assert len(commits) == 3
    assert set(commits.values()) == {1}, "the killed one's chunk was made again"
    shutil.rmtree(own_store)
    alone = complete_frames(own_store)
    assert {digest for _, digest in outcomes} == {alone}


def complete_frames(root: Path) -> str:
    p = settings(["frames.last=40", "frames.short_side=48"])
    clip = open_clip("sprites:drift")
    return Local(quiet(root)).outcome(graph.STAGES["frames"], p.frames, Chosen(), {"clip": clip}).artifact.digest
