"""The child's end of the two pipes."""

from __future__ import annotations

import os
import select
import time
from typing import Any

import numpy as np

from .. import wire


class Stopped(Exception):
    """The parent asked for the running request to end."""


class Channel:
    """Messages to and from the parent. Takes over stdin and stdout."""

    def __init__(self) -> None:
        self._from = 0
        self._to = os.dup(1)
        os.dup2(2, 1)  # a library that prints must not print into the protocol
        self._last_sent = time.monotonic()

    def send(self, message: dict[str, Any], pixels: np.ndarray | None = None) -> None:
        """Send one message; `pixels` is sent as its bytes."""
        self._last_sent = time.monotonic()
        view = np.ascontiguousarray(pixels).data.cast("B") if pixels is not None else memoryview(b"")
        for data in (memoryview(wire.pack(message, view.nbytes)), view):
            done = 0
            while done < len(data):
                done += os.write(self._to, data[done:])

    def receive(self) -> tuple[dict[str, Any], np.ndarray]:
        """The next message and its payload, uint8 [bytes]. Ends the process when the parent is gone."""
        body, payload = wire.lengths(self._read(wire.HEAD.size))
        message = wire.unpack(self._read(body))
        return message, np.frombuffer(self._read(payload), np.uint8)

    def tick(self) -> None:
        """Send a sign of life, at most once a second."""
        if time.monotonic() - self._last_sent > 1.0:
            self.send({"event": "tick"})

    def keep_alive(self) -> None:
        """Tick, and raise Stopped if the parent asked to stop. Long loops that receive no frames call it often."""
        self.tick()
        poll = select.poll()
        poll.register(self._from, select.POLLIN)
        if poll.poll(0):
            self.receive()  # only `stop` can come while a request that takes no frames is running
            raise Stopped

    def _read(self, count: int) -> bytearray:
        data = bytearray(count)
        view, done = memoryview(data), 0
        while done < count:
            got = os.readv(self._from, [view[done:]])
            if not got:
                os._exit(0)
            done += got
        return data
