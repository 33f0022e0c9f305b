"""Runs attacks in this process while an audit hook looks on: `python -m attacks.watch TARGET`.

Watched is only what happens inside `Case.act`. Forbidden there is

    writing       a file opened for writing anywhere but /dev/null; any rename, removal, link, folder, mode or time
    reaching out  every event of sockets
    starting      processes, by whatever call, and loading of native libraries (ctypes)
    running       names that a pickle finds, source that is compiled, code handed to exec or eval, a question on the
                  terminal, and modules that benign work of the same kind did not import

Before each family, benign work of its kind is done unwatched: that imports what belongs to it and starts the child
process in which pictures are parsed, whose death is made good between cases. A case's files are listed before and
after: that child may not change them either.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .case import AIDED, BAIT, BAIT_NAME, HARMLESS, OTHERS, Case

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CALLS = ("rename", "remove", "rmdir", "mkdir", "link", "symlink", "chmod", "chown", "truncate", "utime", "setxattr")
CHANGES = {f"os.{name}" for name in CALLS}
STARTS = {
    "os.system",
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "pty.spawn",
    "subprocess.Popen",
}
RUNS = {"exec", "compile", "pickle.find_class", "builtins.input", "webbrowser.open", "urllib.Request"}
FAMILIES = ("socket.", "ctypes.", "shutil.", "tempfile.", "ftplib.", "http.", "smtplib.", "telnetlib.")
LIMIT = 8 << 30  # bytes of data: what goes wrong takes this process along, not the machine


class Watch:
    """The hook, and what it has seen since it was last asked."""

    def __init__(self) -> None:
        self.on, self.known, self.seen = False, set(sys.modules), []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "import" and not self.on:
            self.known.add(str(args[0]))
        if not self.on or OTHERS:
            return
        if event == "open":
            path, _, flags = args
            if isinstance(flags, int) and flags & WRITES and path != os.devnull:
                self.seen.append(f"open {path!r}")
        elif event == "import":
            if args[0] not in self.known:
                self.seen.append(f"import {args[0]}")
        elif event in CHANGES or event in STARTS or event in RUNS or event.startswith(FAMILIES):
            self.seen.append(f"{event} {args!r}"[:300])

    @contextlib.contextmanager
    def __call__(self) -> Iterator[list[str]]:
        before = set(sys.modules)
        self.seen, self.on = [], True
        try:
            yield self.seen
        finally:
            self.on = False
            # What importlib is asked for raises no event of its own.
            self.seen += [f"import {name}" for name in sorted(set(sys.modules) - before - self.known)]


def main(target: str) -> None:
    """Run the whole corpus, a JSON object a case, one a line."""
    from . import corpus

    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
    os.environ[BAIT_NAME] = BAIT
    watch, warm = Watch(), None
    with open(target, "w", encoding="utf-8") as out, tempfile.TemporaryDirectory(prefix="attacks-") as home:
        os.chdir(home)  # where something that writes a bare name would leave it
        for case in corpus():
            if case.family != warm:
                warm_up(case.family)
                warm = case.family
            out.write(json.dumps(tried(case, watch, Path(home))) + "\n")


def tried(case: Case, watch: Watch, home: Path) -> dict[str, Any]:
    """One case: what came of it, what it did beside that, what it cost."""
    from retake.errors import RetakeError

    folder = Path(tempfile.mkdtemp(dir=home))
    given = case.make(folder)
    if case.family in ("pictures", "names"):
        benign_picture()  # a child that the last case killed starts again here
    before, got, shown, hint, failure = listing(home), HARMLESS, "", True, None
    children = workers()
    resting = [reset(pid) for pid in children]
    with watch() as seen:
        begun, spent = time.perf_counter(), time.process_time()
        try:
            case.act(given)
        except RetakeError as error:
            got, hint, failure = error.code, bool(error.hint.strip()), error
        except BaseException as error:  # whatever gets through is what is looked for
            got, failure = f"{type(error).__name__}: {error}"[:300], error
        seconds, cpu = time.perf_counter() - begun, time.process_time() - spent
    growth = sum(peak(pid) - was for pid, was in zip(children, resting, strict=True))
    if failure is not None:
        shown = (
            error_text(failure) if isinstance(failure, RetakeError) else "".join(traceback.format_exception(failure))
        )
    changed = [] if AIDED else [f"left {name}" for name in sorted(listing(home) ^ before)]
    AIDED.clear()
    shutil.rmtree(folder, ignore_errors=True)
    return {
        "family": case.family,
        "name": case.name,
        "got": got,
        "expected": sorted(case.expected),
        "hint": hint,
        "shown": shown,
        "events": seen + changed,
        "seconds": seconds,
        "cpu": cpu,
        "growth": growth,
    }


def error_text(error: Any) -> str:
    """What the command line says of an error."""
    from flows.terminal.exits import fail

    with contextlib.redirect_stderr(io.StringIO()) as sink:
        fail(error)
    return sink.getvalue()


def listing(home: Path) -> set[str]:
    return {f"{path} {path.lstat().st_size} {path.lstat().st_mtime_ns}" for path in home.rglob("*")}


# ---- memory ------------------------------------------------------------------------------------------------------


def workers() -> list[int]:
    """This process and its children."""
    tasks = Path("/proc/self/task").glob("*/children")
    return [os.getpid(), *(int(pid) for task in tasks for pid in task.read_text().split())]


def reset(pid: int) -> int:
    """Forget the peak of a process; what it holds now, in bytes."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    return status(pid, "VmRSS:")


def peak(pid: int) -> int:
    return status(pid, "VmHWM:")


def status(pid: int, name: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) << 10
    return 0


# ---- benign work -------------------------------------------------------------------------------------------------


def warm_up(family: str) -> None:
    """What is imported and started for good work of a family's kind."""
    WARM[family]()
    gc.collect()
    gc.freeze()  # a collection goes through all modules, 0.3 s with torch; of a refusal it says nothing


def benign_settings() -> None:
    from flows.experiments.sweep import points_of
    from flows.settings.compose import settings, validate
    from flows.settings.files import choices

    from .overrides import GROUPS
    from .yamls import settings_given

    for group in GROUPS:
        for name in choices(group):
            settings([f"{group}={name}"])
    points_of(["edit.strength=0.5,1", "edit.feather=range(1,3)"])
    settings([])
    for text in ("edit.strenght=1", "edti=1", "edit.strength=x", "edit=x", "edit.name=x", "edit.x='", "masks.name=x"):
        with contextlib.suppress(Exception):
            settings([text])
    validate(settings_given())
    error_text(_some_error())


def _some_error() -> Exception:
    from retake.errors import ConfigError

    return ConfigError("E205", "x", "y")


def benign_picture() -> None:
    from retake.video import read_image

    read_image(Path(__file__).resolve().parents[2] / "params" / "dataset" / "ball.png")


def benign_names() -> None:
    from .names import opened

    benign_picture()
    for spec in ("sprites:drift", "sprites:captioned:7", "sprites:drifd", "nowhere.mp4", "~root/x", __file__):
        with contextlib.suppress(Exception):
            opened(spec)


def benign_manifest() -> None:
    import retake.exchange.manifest  # noqa: F401

    from .manifests import csv, lines, worked

    with tempfile.TemporaryDirectory() as folder:
        for write in (csv(["a", "sprites:drift"]), lines({"id": "a", "clip": "sprites:drift"}), csv(["a", "x"])):
            with contextlib.suppress(Exception):
                worked(write(Path(folder)))


def benign_weights() -> None:
    from . import folders, weights

    with tempfile.TemporaryDirectory() as folder:
        work: list[tuple[Callable[[Path], object], Callable[[Path], Path]]] = [
            (folders.of_transformers, folders.clip_with(lambda folder: None)),
            (folders.of_tokenizer, folders.clip_with(lambda folder: None)),
            (folders.of_pipeline, folders.pipeline_with(lambda folder: None)),
            (folders.of_text, folders.pipeline_with(lambda folder: None)),
            (weights.of_network, weights.file_of("w.pt", b"x")),
            (weights.of_diffusion, weights.file_of("w.safetensors", b"x")),
        ]
        for n, (act, write) in enumerate(work):
            place = Path(folder) / str(n)
            place.mkdir()
            with contextlib.suppress(Exception):
                act(write(place))


WARM = {
    "overrides": benign_settings,
    "yaml": lambda: None,
    "names": benign_names,
    "manifests": benign_manifest,
    "pictures": benign_picture,
    "weights": benign_weights,
}

if __name__ == "__main__":
    main(sys.argv[1])
