"""The child processes seen from the parent: start, exchange messages, enforce time limits, kill, reuse."""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from retake.errors import ConfigError, MachineError, MediaError, RetakeError

from . import wire

_IDLE = 2  # children kept for the next clip
_PIPE_BYTES = 1 << 20
_KINDS = {"media": MediaError, "machine": MachineError, "config": ConfigError}


class Worker:
    """One child process. Between requests it is `idle` and may serve another clip."""

    def __init__(self) -> None:
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH", "")) if p)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the child
        # -P: without it `-m` would put the current folder, which may hold a stranger's files, on sys.path.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "retake.video.child", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            # Bind PyAV's libraries to one another when they load: decord brings older ones of the same names.
            env={**os.environ, "PYTHONPATH": path, "LD_BIND_NOW": "1"},
            start_new_session=True,
            bufsize=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        for pipe in (self._to, self._from):
            _enlarge(pipe)
            os.set_blocking(pipe, False)
        self.pid = self._process.pid
        self.idle, self._mid_message = True, False
        self.begin("", 30.0, 120.0)

    def begin(self, subject: str, stall: float, wall: float) -> None:
        """Start the clock of one request. `subject` names the file in errors; limits in seconds."""
        self.subject, self.stall, self.wall, self.waited = subject, stall, wall, 0.0

    def send(self, message: dict[str, Any], payload: memoryview | None = None) -> None:
        """Send one message. Raises MediaError E408 or E416 when the child does not take it."""
        self.idle, self._mid_message = False, True
        self._write(memoryview(wire.pack(message, payload.nbytes if payload else 0)))
        if payload:
            self._write(payload)
        self._mid_message = False

    def receive(self) -> tuple[dict[str, Any], np.ndarray]:
        """The next message and its payload (uint8 [bytes]); `tick` messages are swallowed.

        Raises the error that the child reports, else MediaError E408 (time) or E416 (crash).
        """
        while True:
            message, payload = self._receive_one()
            if message.get("event") != "tick":
                break
        if message.get("final"):
            self.idle = True
        if "error" in message:
            raise _as_error(message["error"])
        return message, payload

    def has_message(self) -> bool:
        """True if a message is waiting, or the child has died."""
        return bool(_poll(self._from, select.POLLIN, 0))

    def stop(self, timeout: float = 2.0) -> None:
        """Stop the running request and leave the child idle; kill it if it does not answer within `timeout` seconds."""
        if self.idle or not self.alive:
            return
        if self._mid_message:  # Ctrl-C inside a message: where the next one starts is not known any more
            self.kill()
            return
        try:
            self.begin(self.subject, timeout, timeout)
            self.send({"op": "stop"})
            while not self.idle:
                message, _ = self._receive_one()
                self.idle = bool(message.get("final"))
        except (RetakeError, ValueError, OSError):
            self.kill()

    def kill(self) -> int:
        """Kill the child and its group, wait for it, and return its exit status."""
        if self._process.returncode is None:  # once it is reaped, its number may be someone else's
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        status = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._log):
            if pipe:
                pipe.close()
        self.idle = False
        return status

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def _receive_one(self) -> tuple[dict[str, Any], np.ndarray]:
        self._mid_message = True
        try:
            body_bytes, payload_bytes = wire.lengths(self._read(wire.HEAD.size))
            message = wire.unpack(self._read(body_bytes))
        except ValueError as error:
            self.kill()
            raise MediaError("E416", f"garbled answer of the decoder process on {self.subject}: {error}") from None
        payload = np.frombuffer(self._read(payload_bytes), np.uint8)
        self._mid_message = False
        return message, payload

    def _read(self, count: int) -> bytearray:
        data = bytearray(count)
        view, done = memoryview(data), 0
        while done < count:
            try:
                got = os.readv(self._from, [view[done:]])
            except BlockingIOError:
                self._wait(self._from, select.POLLIN)
                continue
            if not got:
                self._crashed()
            done += got
        return data

    def _write(self, data: memoryview) -> None:
        data, done = data.cast("B"), 0
        while done < len(data):
            try:
                done += os.write(self._to, data[done:])
            except BlockingIOError:
                self._wait(self._to, select.POLLOUT)
            except BrokenPipeError:
                self._crashed()

    def _wait(self, pipe: int, what: int) -> None:
        # Only time spent waiting for the child counts; a slow consumer of frames costs it nothing.
        before = time.monotonic()
        ready = _poll(pipe, what, max(0.0, min(self.stall, self.wall - self.waited)))
        self.waited += time.monotonic() - before
        if ready:
            return
        limit = "showed no sign of life for" if self.waited < self.wall else "took longer than"
        seconds = self.stall if self.waited < self.wall else self.wall
        self.kill()
        raise MediaError(
            "E408",
            f"{self.subject}: the decoder process {limit} {seconds:g} s and was killed",
            "The file is probably damaged; re-encode it, or raise the limit if the machine is slow.",
        )

    def _crashed(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        stderr = _tail(self._log)
        status = self.kill()
        cause = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        raise MediaError(
            "E416",
            f"{self.subject}: the decoder process ended by {cause}" + (f" ({stderr})" if stderr else ""),
            "Re-encode the file with a current ffmpeg and try again.",
        )


_lock = threading.Lock()
_idle: list[Worker] = []
_spawner: ThreadPoolExecutor | None = None
_owner = 0


@contextlib.contextmanager
def borrow() -> Iterator[Worker]:
    """Yields an idle child, started if there is none; returned afterwards, or killed if it is still busy.

    Many threads may borrow at once; each gets its own.
    """
    worker = _take_worker()
    try:
        yield worker
    finally:
        worker.stop()
        _return_worker(worker)


def shutdown() -> None:
    """Kill the idle children. Called at exit; the next request starts a new one."""
    with _lock:
        workers, _idle[:] = list(_idle), []
    if _owner == os.getpid():
        for worker in workers:
            worker.kill()


def _take_worker() -> Worker:
    global _spawner, _owner
    with _lock:
        if _owner != os.getpid():  # first use, or we are a fork: the parent's children are not ours
            _idle.clear()
            _spawner, _owner = ThreadPoolExecutor(1, thread_name_prefix="retake-video"), os.getpid()
            atexit.register(shutdown)
        while _idle:
            worker = _idle.pop()
            if worker.alive:
                return worker
            worker.kill()
        spawner = _spawner
    assert spawner is not None
    # The kernel's "die with your parent" means the parent's thread: so one lasting thread starts them all.
    return spawner.submit(Worker).result()


def _return_worker(worker: Worker) -> None:
    with _lock:
        if worker.idle and worker.alive and len(_idle) < _IDLE and _owner == os.getpid():
            _idle.append(worker)
            return
    worker.kill()


def _as_error(error: dict[str, Any]) -> RetakeError:
    kind = _KINDS.get(str(error.get("kind")), MediaError)
    return kind(str(error.get("code")), str(error.get("message")), str(error.get("hint", "")))


def _poll(pipe: int, what: int, seconds: float) -> list[tuple[int, int]]:
    poll = select.poll()
    poll.register(pipe, what)
    return poll.poll(seconds * 1000)


def _enlarge(pipe: int) -> None:
    import fcntl

    with contextlib.suppress(OSError, AttributeError):  # Linux only; an unprivileged process may not be allowed to
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _tail(log: Any) -> str:
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - 2000))
    lines = log.read().decode("utf-8", "replace").strip().splitlines()
    return "".join(c for c in lines[-1] if c.isprintable())[:200] if lines else ""
