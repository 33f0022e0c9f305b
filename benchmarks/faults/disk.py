"""A disk that fails where it is told to: every change that this process makes below a folder is a step, and one step
can be the last, or go wrong.

    with Disk(root) as disk: work()         counts the steps and names them
    with Disk(root, at=7, how="EIO"): ...   the seventh step raises
    with Disk(root, at=7, how="power"): ... before the seventh step the power fails

A step is a file opened for writing, a write, an fsync, a rename, a link, an unlink, a folder made or removed, a mode or
a time set. What no layer of Python sees (files that libraries write by themselves) is no step.

The loss of power keeps what the file systems of Linux promise to keep, and no more. Bytes of a file are there once the
file was synced; a name that was made, moved or removed is so once its folder was synced. Of the rest each piece is
there or not, by the throw of `seed`: a file that was not synced is empty, short, or whole; a name not synced is as
before or as after, but never a later one of a folder without the earlier ones.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import random
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

HOWS = ("kill", "EIO", "ENOSPC", "short", "power")
POWER = 99  # the exit status of a process whose power failed
CALLS = ("fsync", "replace", "rename", "link", "unlink", "mkdir", "rmdir", "chmod", "utime")


class Disk:
    """Within, the process's changes below `root` are steps, counted from 1 and named in `steps`.

    at, how: the step that goes wrong and in which way: "kill" (SIGKILL before it), "EIO", "ENOSPC" (it raises), "short"
    (half of a write, then ENOSPC), "power" (what was not synced may be lost, then the process ends). aside: a folder of
    the same file system for what power must bring back.
    """

    def __init__(self, root: Path, at: int = 0, how: str = "", seed: int = 0, aside: Path | None = None) -> None:
        self.root, self.at, self.how = str(root.absolute()) + os.sep, at, how
        self.steps: list[str] = []
        self.luck = random.Random(seed)
        self.aside = aside
        self.dark = False
        self.turn = threading.RLock()  # one step at a time: where the power fails, it fails for all threads
        self.plain: dict[str, Any] = {}
        self.unsynced: set[int] = set()  # inodes of files with bytes that may be lost
        self.names: list[tuple[str, Callable[[], None]]] = []  # (folder, how its change is undone), oldest first

    # ---- on and off --------------------------------------------------------------------------------------------

    def __enter__(self) -> Disk:
        self.plain = {name: getattr(os, name) for name in CALLS} | {"open": builtins.open}
        for name in CALLS:
            setattr(os, name, self._wrapped(name))
        builtins.open = io.open = self._open  # type: ignore[assignment]
        self.sendfile, shutil._USE_CP_SENDFILE = shutil._USE_CP_SENDFILE, False  # type: ignore[attr-defined]
        return self

    def __exit__(self, *_: object) -> None:
        for name in CALLS:
            setattr(os, name, self.plain[name])
        builtins.open = io.open = self.plain["open"]
        shutil._USE_CP_SENDFILE = self.sendfile  # type: ignore[attr-defined]

    # ---- steps -------------------------------------------------------------------------------------------------

    def step(self, what: str, path: str, half: Callable[[], object] = lambda: None) -> None:
        """One step is about to be made. half: makes half of it."""
        if self.dark:
            return
        self.steps.append(f"{what} {path.removeprefix(self.root)}")
        if len(self.steps) != self.at:
            return
        if self.how == "kill":
            if self.luck.random() < 0.5:
                half()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "power":
            self._power_fails()
        if self.how == "short":
            half()
        number = errno.EIO if self.how == "EIO" else errno.ENOSPC
        raise OSError(number, os.strerror(number), path)

    def _wrapped(self, name: str) -> Callable[..., Any]:
        plain = self.plain[name]

        def call(*args: Any, **kwargs: Any) -> Any:
            target = args[-1] if name in ("replace", "rename", "link") and len(args) > 1 else args[0]
            path = self._path(target, kwargs.get("dir_fd"))
            if path is None:
                return plain(*args, **kwargs)
            with self.turn:
                self.step(name, path)
                undo = self._undo(name, args, path)
                result = plain(*args, **kwargs)
                self._made(name, path, undo)
            return result

        return call

    def _open(self, file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        path = self._path(file) if isinstance(file, str | os.PathLike) else None
        if path is None or not set(mode) & set("wax+"):
            return self.plain["open"](file, mode, *args, **kwargs)
        with self.turn:
            self.step("open", path)
            new = not os.path.lexists(path)
            opened = self.plain["open"](file, mode, *args, **kwargs)
            if new:
                self.names.append((os.path.dirname(path), lambda: self._gone(path)))
            if set(mode) & set("wx"):
                self.unsynced.add(os.fstat(opened.fileno()).st_ino)
        return Written(self, path, opened)

    def _path(self, target: Any, folder: int | None = None) -> str | None:
        """The absolute path of a name or an open file, None outside of the root."""
        if isinstance(target, int):
            path = os.readlink(f"/proc/self/fd/{target}")
        elif folder is not None:
            path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(target))
        else:
            path = os.path.abspath(os.fsdecode(target))
        return path if (path + os.sep).startswith(self.root) else None

    # ---- what power takes away -----------------------------------------------------------------------------------

    def _undo(self, name: str, args: tuple[Any, ...], path: str) -> list[tuple[str, Callable[[], None]]]:
        """How to undo a change of names that is about to be made, by folder."""
        if self.aside is None or self.dark or name not in ("replace", "rename", "link", "unlink", "mkdir"):
            return []
        if name == "mkdir":
            return [(os.path.dirname(path), lambda: self._gone(path))]
        before = self._kept(path)
        put_back = self._put_back(before, path)
        if name in ("replace", "rename") and (source := self._path(args[0])) is not None:
            moved = self._kept(source)
            return [(os.path.dirname(path), put_back), (os.path.dirname(source), self._put_back(moved, source))]
        return [(os.path.dirname(path), put_back)]

    def _kept(self, path: str) -> str | None:
        """A second name, out of the way, for the file of a path; None where there is none."""
        if self.aside is None or not os.path.isfile(path):
            return None
        kept = str(self.aside / f"{len(self.steps)}-{self.luck.getrandbits(64):x}")
        self.plain["link"](path, kept)
        return kept

    def _put_back(self, kept: str | None, path: str) -> Callable[[], None]:
        def undo() -> None:
            self._gone(path)
            if kept is not None and os.path.isdir(os.path.dirname(path)):
                self.plain["link"](kept, path)

        return undo

    def _gone(self, path: str) -> None:
        if os.path.isdir(path):
            shutil.rmtree(path, ignore_errors=True)
        elif os.path.lexists(path):
            self.plain["unlink"](path)

    def _made(self, name: str, path: str, undo: list[tuple[str, Callable[[], None]]]) -> None:
        self.names += undo
        if name == "fsync":
            self.unsynced.discard(os.stat(path).st_ino)
            self.names = [entry for entry in self.names if entry[0] != path]

    def _power_fails(self) -> None:
        self.dark = True  # and no other thread has its turn any more
        for path in Path(self.root).rglob("*"):  # bytes first: a name may come back to a file that lost them
            if path.is_file() and path.stat().st_ino in self.unsynced:
                self._lose(path)
        for kept in self.aside.glob("*") if self.aside else ():
            if kept.stat().st_ino in self.unsynced:
                self._lose(kept)
        lost: set[str] = set()
        for folder in {folder for folder, _ in self.names}:
            changes = [undo for of, undo in self.names if of == folder]
            keep = self.luck.randrange(len(changes) + 1)
            lost |= {folder} if keep < len(changes) else set()
            for undo in reversed(changes[keep:]):
                undo()
        os._exit(POWER)

    def _lose(self, path: Path) -> None:
        size = path.stat().st_size
        os.chmod(path, 0o644)
        os.truncate(path, self.luck.choice([0, size // 2, size]))


class Written:
    """A file that was opened for writing: each write is a step, at once and whole."""

    def __init__(self, disk: Disk, path: str, file: Any) -> None:
        self._disk, self._path, self._file = disk, path, file

    def write(self, data: Any) -> int:
        def half() -> None:
            self._file.write(data[: len(data) // 2])
            self._file.flush()

        with self._disk.turn:
            self._disk.step("write", self._path, half)
            self._disk.unsynced.add(os.fstat(self._file.fileno()).st_ino)
            count = self._file.write(data)
            self._file.flush()
        return count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Written:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Any:
        return iter(self._file)
